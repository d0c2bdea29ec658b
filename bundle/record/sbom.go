package record

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// SBOM is a list of packages that the bundle carries, and what it says of their
// licences.
type SBOM struct {
	Of       string        `json:"of,omitempty"` // reference; empty for the bundle's own
	Digest   bundle.Digest `json:"digest"`       // of the document
	Size     int64         `json:"size"`         // bytes
	Format   string        `json:"format,omitempty"`
	Packages int           `json:"packages"`
	Licenses []License     `json:"licenses,omitempty"` // the most frequent first
	// Unknown is the number of packages of which no licence is said.
	Unknown int    `json:"unknown"`
	Problem string `json:"problem,omitempty"` // why it could not be counted
}

// License is one licence expression, as the SBOM words it.
type License struct {
	Name     string `json:"name"`
	Packages int    `json:"packages"`
}

const (
	// maxSBOM bounds an SBOM that is counted, in bytes; it is not held in memory.
	maxSBOM = 64 << 20
	// maxEnvelope bounds one inside of a signed envelope, which is, in bytes.
	maxEnvelope = 8 << 20
	// maxSBOMs bounds how many are looked into: each is up to maxSBOM to read.
	maxSBOMs = 200
	// maxLooked bounds what is looked into for SBOMs, in bytes, also if it is none.
	maxLooked = 1 << 30
	// maxLicenses bounds the different licences of one that are told apart.
	maxLicenses = 200
)

// sboms counts what the SBOMs of the bundle list: its own, and upstream's, which
// are referrers, attestations, or stand under a tag of cosign's.
func (d *describer) sboms() []SBOM {
	list := []SBOM{}
	if layer, ok := d.ownLayer(); ok {
		if s, ok := d.count(layer); ok {
			list = append(list, s)
		}
	}
	of := map[string]string{} // hex of what is carried → reference
	for _, i := range d.deployment.Images {
		of[i.Digest.Hex()] = i.Reference
		for _, m := range i.Manifests {
			of[m.Hex()] = i.Reference
		}
	}
	met, budget := map[bundle.Digest]bool{}, int64(maxLooked)
	look := func(ref string, digest bundle.Digest) {
		m := d.Manifests[digest]
		if m == nil || met[digest] {
			return
		}
		met[digest] = true
		for _, l := range m.Layers {
			if len(list) == maxSBOMs || !mayBeSBOM(l) || met[l.Digest] || budget < l.Size {
				continue
			}
			met[l.Digest] = true
			budget -= l.Size
			if s, ok := d.count(l); ok {
				s.Of = ref
				list = append(list, s)
			}
		}
	}
	for _, i := range d.deployment.Images {
		if tag := cosignTag.FindStringSubmatch(i.Tag); tag != nil {
			for _, m := range i.Manifests {
				look(cmp.Or(of[tag[1]], i.Reference), m)
			}
			continue
		}
		for _, m := range i.Manifests { // an index has BuildKit's attestations among its manifests
			if index := d.Manifests[m]; index != nil {
				for _, c := range index.Manifests {
					look(i.Reference, c.Digest)
				}
			}
		}
		for _, digest := range slices.Concat(i.Attestations, i.Referrers) {
			look(i.Reference, digest)
		}
	}
	return list
}

func (d *describer) ownLayer() (bundle.Descriptor, bool) {
	for _, m := range d.Index.Manifests {
		if x := d.Manifests[m.Digest]; m.ArtifactType == bundle.TypeSBOM && x != nil && len(x.Layers) == 1 {
			return x.Layers[0], true
		}
	}
	return bundle.Descriptor{}, false
}

// mayBeSBOM goes by the media type and what BuildKit and cosign annotate.
func mayBeSBOM(l bundle.Descriptor) bool {
	said := l.MediaType
	for _, key := range []string{"in-toto.io/predicate-type", "predicateType"} {
		said += " " + l.Annotations[key]
	}
	said = strings.ToLower(said)
	for _, word := range []string{"spdx", "cyclonedx", "in-toto", "dsse", "sigstore.bundle"} {
		if strings.Contains(said, word) {
			return !strings.Contains(said, "provenance")
		}
	}
	return false
}

// count reads a document, or says that it is no SBOM.
func (d *describer) count(l bundle.Descriptor) (SBOM, bool) {
	out := SBOM{Digest: l.Digest, Size: l.Size}
	m, ok := d.Place(l.Digest)
	if !ok {
		return out, false
	}
	named := strings.Contains(l.MediaType, "spdx") || strings.Contains(l.MediaType, "cyclonedx")
	if m.Size > maxSBOM {
		out.Problem = "too large to be counted"
		return out, named
	}
	hash := sha256.New()
	content := io.TeeReader(d.Content(m), hash)
	c := counter{SBOM: &out, licenses: map[string]int{}, size: m.Size}
	err := c.document(newDecoder(content), 0)
	d.note(err)
	_, drained := io.Copy(io.Discard, content)
	d.note(drained)
	if drained != nil || bundle.DigestFrom(hash.Sum(nil)) != l.Digest {
		out.Packages, out.Unknown, out.Format = 0, 0, ""
		out.Problem = "damaged: it does not match its digest"
		return out, named
	}
	switch {
	case err != nil:
		out.Packages, out.Unknown = 0, 0
		out.Problem = "it cannot be read"
		if errors.Is(err, bundle.ErrLimit) {
			out.Problem = "too large to be counted"
		}
		return out, named || c.isSBOM()
	case !c.isSBOM():
		out.Problem = "in a format that is not counted"
		return out, named
	}
	out.Format = c.format()
	for _, name := range slices.SortedFunc(maps.Keys(c.licenses), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.licenses[b], c.licenses[a]), cmp.Compare(a, b))
	}) {
		out.Licenses = append(out.Licenses, License{name, c.licenses[name]})
	}
	return out, true
}

// ownSBOM is what the bundle's own list of its content says of each thing.
type ownSBOM map[ownKey]said

type ownKey struct {
	digest bundle.Digest
	name   string
}

type said struct {
	source string
	checks []string // what it passed where the bundle was made
}

func (o ownSBOM) of(d bundle.Digest, name string) said { return o[ownKey{d, name}] }

// readOwn reads it, or nothing where it is missing or unreadable.
func (d *describer) readOwn() ownSBOM {
	data, err := d.Document(bundle.TypeSBOM, maxEnvelope)
	d.note(err)
	if data == nil {
		return nil
	}
	own := ownSBOM{}
	if components(newDecoder(bytes.NewReader(data)), own) != nil {
		return nil
	}
	return own
}

// components reads one after the other: the document may have millions, of which a bundle
// has no use for more than it may have blobs.
func components(in *decoder, own ownSBOM) error {
	if t, err := in.Token(); err != nil || t != json.Delim('{') {
		return cmp.Or(err, bundle.ErrFormat)
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return err
		}
		if key != "components" {
			if t, err := in.Token(); err != nil {
				return err
			} else if err := skipRest(in, t); err != nil {
				return err
			}
			continue
		}
		if err := each(in, func() error { return own.add(in) }); err != nil {
			return err
		}
	}
	_, err := in.Token()
	return err
}

// add reads a component (CycloneDX 1.6).
func (o ownSBOM) add(in *decoder) error {
	var c struct {
		Name   string `json:"name"`
		Hashes []struct {
			Content string `json:"content"`
		} `json:"hashes"`
		Properties []struct {
			Name  string `json:"name"`
			Value string `json:"value"`
		} `json:"properties"`
	}
	if err := in.Decode(&c); err != nil || len(c.Hashes) != 1 {
		return err
	}
	if len(o) == bundle.MaxDescriptors {
		return bundle.ErrLimit
	}
	var s said
	for _, p := range c.Properties {
		switch p.Name {
		case "oobbundle:source":
			s.source = p.Value
		case "oobbundle:check":
			s.checks = append(s.checks, p.Value)
		}
	}
	o[ownKey{bundle.Digest("sha256:" + c.Hashes[0].Content), c.Name}] = s
	return nil
}

// configPlatform reads the platform out of an image's config (image-spec,
// config.md).
func configPlatform(config []byte) (bundle.Platform, error) {
	var p bundle.Platform
	if err := json.Unmarshal(config, &p); err != nil {
		return p, err
	}
	return bundle.ParsePlatform(p.String())
}
