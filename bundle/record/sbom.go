package record

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// SBOM describes an SBOM document that the bundle contains. The document is not read.
type SBOM struct {
	Of     string        `json:"of,omitempty"` // reference of the image; empty for the SBOM of the bundle itself
	Digest bundle.Digest `json:"digest"`       // of the document
	Size   int64         `json:"size"`         // of the document, bytes
	Format string        `json:"format"`       // such as "SPDX JSON"; the media type of any other format
}

// sboms lists the bundle's own SBOM and the SBOMs from upstream: referrers, attestations
// in an index, and manifests under cosign's tags. The error wraps bundle.ErrLimit.
func (d *describer) sboms() ([]SBOM, error) {
	list := []SBOM{}
	if layer, ok := d.ownLayer(); ok {
		list = append(list, SBOM{Digest: layer.Digest, Size: layer.Size, Format: "CycloneDX JSON"})
	}
	met := map[SBOM]bool{}
	for _, source := range d.sbomSources() {
		m := d.Manifests[source.manifest]
		if m == nil {
			continue
		}
		for _, layer := range m.Layers {
			format := sbomFormat(m, layer, source.tag)
			sbom := SBOM{source.of, layer.Digest, layer.Size, format}
			if format == "" || met[sbom] {
				continue
			}
			if met[sbom] = true; len(met) > bundle.MaxMembers {
				return nil, fmt.Errorf("%w: the images have more than %d SBOMs", bundle.ErrLimit, bundle.MaxMembers)
			}
			list = append(list, sbom)
		}
	}
	return list, nil
}

func (d *describer) ownLayer() (bundle.Descriptor, bool) {
	for _, m := range d.Index.Manifests {
		if x := d.Manifests[m.Digest]; m.ArtifactType == bundle.TypeSBOM && x != nil && len(x.Layers) == 1 {
			return x.Layers[0], true
		}
	}
	return bundle.Descriptor{}, false
}

// sbomSource is a manifest whose layers may be SBOMs.
type sbomSource struct {
	of       string // reference of the image
	manifest bundle.Digest
	tag      string // cosign's, or empty
}

func (d *describer) sbomSources() []sbomSource {
	references := map[string]string{} // by hex digest of an image or of its manifests
	for _, i := range d.deployment.Images {
		references[i.Digest.Hex()] = i.Reference
		for _, m := range i.Manifests {
			references[m.Hex()] = i.Reference
		}
	}
	var list []sbomSource
	for _, i := range d.deployment.Images {
		if tag := cosignTag.FindStringSubmatch(i.Tag); tag != nil {
			of := cmp.Or(references[tag[1]], i.Reference)
			for _, m := range i.Manifests {
				list = append(list, sbomSource{of, m, i.Tag})
			}
			continue
		}
		digests := slices.Concat(i.Attestations, i.Referrers)
		for _, m := range i.Manifests { // BuildKit puts attestations into the index
			if index := d.Manifests[m]; index != nil {
				for _, child := range index.Manifests {
					digests = append(digests, child.Digest)
				}
			}
		}
		for _, digest := range digests {
			list = append(list, sbomSource{of: i.Reference, manifest: digest})
		}
	}
	return list
}

// sbomFormat returns the format that an SBOM claims, or "" for a layer that is no SBOM.
// An attestation names the format in its predicate type, which BuildKit and cosign
// annotate on the layer, and sigstore bundles on the manifest.
func sbomFormat(m *bundle.Manifest, layer bundle.Descriptor, tag string) string {
	claims := []string{
		layer.MediaType, layer.Annotations["in-toto.io/predicate-type"], layer.Annotations["predicateType"],
		m.Annotations["dev.sigstore.bundle.predicateType"], m.ArtifactType,
	}
	for _, claim := range claims {
		claim = strings.ToLower(claim)
		for _, name := range []string{"SPDX", "CycloneDX", "Syft"} {
			if strings.Contains(claim, strings.ToLower(name)) {
				return strings.TrimSpace(name + " " + encoding(claim, strings.ToLower(layer.MediaType)))
			}
		}
	}
	if strings.HasSuffix(tag, ".sbom") {
		return layer.MediaType
	}
	return ""
}

// encoding returns the encoding of a document, from the first claim that names one.
func encoding(claims ...string) string {
	for _, claim := range claims {
		switch {
		case strings.Contains(claim, "json"):
			return "JSON"
		case strings.Contains(claim, "xml"):
			return "XML"
		case strings.HasPrefix(claim, "text/spdx"):
			return "tag-value"
		}
	}
	return ""
}
