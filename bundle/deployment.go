package bundle

import (
	"fmt"
	"slices"
)

// Deployment is the deployment document: what of the bundle goes where on the
// site. It names content by digest; the content stands in the root.
type Deployment struct {
	APIVersion string      `json:"apiVersion"` // APIVersion
	Kind       string      `json:"kind"`       // "Deployment"
	Name       string      `json:"name"`
	Version    string      `json:"version"`
	Components []Component `json:"components"`
	Images     []Image     `json:"images"` // every reference once, in the order of the root
}

// APIVersion is that of every document of ours, JSON or YAML.
const APIVersion = "oobbundle.dev/v1"

// Component groups what belongs together.
type Component struct {
	Name   string   `json:"name"`
	Images []string `json:"images"` // references, as in Deployment.Images
}

// Image says which name a reference has on the site and what it means there.
type Image struct {
	Reference  string `json:"reference"`  // upstream, in full
	Repository string `json:"repository"` // on the site's registry, below its prefix
	Tag        string `json:"tag,omitempty"`
	// Digest is what upstream's reference resolved to: an index, or a manifest.
	Digest Digest `json:"digest"`
	// Partial says that Digest is an index of which only the Manifests are
	// carried; its own bytes travel as a layer.
	Partial bool `json:"partial,omitempty"`
	// Manifests are the carried platforms' manifests of a partial index, the
	// first one being the first platform's; otherwise only Digest itself.
	Manifests []Digest `json:"manifests"`
	// Attestations are further manifests of a partial index that are carried
	// because they speak of the Manifests; in the root they have no reference.
	Attestations []Digest `json:"attestations,omitempty"`
}

// NewDeployment returns a document with its constant fields set.
func NewDeployment(name, version string) Deployment {
	return Deployment{APIVersion: APIVersion, Kind: "Deployment", Name: name, Version: version, Components: []Component{}, Images: []Image{}}
}

// emptyConfig is the content of OCI's empty descriptor (image-spec, manifest.md).
const emptyConfig = "{}"

// NewArtifact returns the descriptor of an artifact with one layer, which may
// refer to a subject, and the blobs it consists of besides that layer: its
// manifest and the empty config.
func NewArtifact(artifactType string, layer Descriptor, subject *Descriptor) (d Descriptor, blobs map[Digest][]byte) {
	config := []byte(emptyConfig)
	doc := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		ArtifactType  string       `json:"artifactType"`
		Config        Descriptor   `json:"config"`
		Layers        []Descriptor `json:"layers"`
		Subject       *Descriptor  `json:"subject,omitempty"`
	}{
		2, TypeOCIManifest, artifactType,
		Descriptor{MediaType: TypeEmpty, Digest: DigestOf(config), Size: int64(len(config))},
		[]Descriptor{layer},
		subject,
	}
	manifest, err := Encode(doc)
	if err != nil {
		panic("bundle: " + err.Error()) // strings and numbers only
	}
	d = Descriptor{MediaType: TypeOCIManifest, Digest: DigestOf(manifest), Size: int64(len(manifest)), ArtifactType: artifactType}
	return d, map[Digest][]byte{DigestOf(config): config, d.Digest: manifest}
}

// onlyLayer returns the layer of an artifact with exactly one of that type.
func (g *Geometry) onlyLayer(d Descriptor, mediaType string) (Descriptor, error) {
	m := g.Manifests[d.Digest]
	if m == nil || m.ArtifactType != d.ArtifactType || len(m.Layers) != 1 || m.Layers[0].MediaType != mediaType {
		return Descriptor{}, fmt.Errorf("%w: manifest %s is not a %q with one layer of type %q", ErrFormat, d.Digest, d.ArtifactType, mediaType)
	}
	return m.Layers[0], nil
}

// Deployment reads the deployment document and compares it with the root: both
// list the same references with the same digests. Errors wrap ErrFormat,
// ErrDigest, ErrLimit or ErrNewer.
func (r *Reader) Deployment() (*Deployment, error) {
	layer, err := r.onlyLayer(r.Index.Manifests[0], TypeDeployment+"+json")
	if err != nil {
		return nil, err
	}
	data, err := r.ReadBlob(layer, MaxDeployment)
	if err != nil {
		return nil, err
	}
	var d Deployment
	if err := DecodeStrict(data, &d); err != nil {
		return nil, fmt.Errorf("the deployment document: %w", err)
	}
	if err := d.check(r.Geometry); err != nil {
		return nil, fmt.Errorf("the deployment document: %w", err)
	}
	return &d, nil
}

func (d *Deployment) check(g *Geometry) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if d.APIVersion != APIVersion || d.Kind != "Deployment" {
		return bad("it is a %q of %q", d.Kind, d.APIVersion)
	}
	if d.Name != g.Info.Name || d.Version != g.Info.Version {
		return bad("it is of %q %q, the root of %q %q", d.Name, d.Version, g.Info.Name, g.Info.Version)
	}
	inRoot := map[string][]Digest{} // reference, or "" for none → manifests
	for _, m := range g.Index.Manifests {
		ref := m.Annotations[AnnotationRef]
		inRoot[ref] = append(inRoot[ref], m.Digest)
	}
	indexes, err := g.partialIndexes()
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	onSite := map[string]Digest{} // REPOSITORY:TAG → what it means
	for _, i := range d.Images {
		ref, err := ParseReference(i.Reference)
		if err != nil || listed[i.Reference] {
			return bad("it lists the reference %q twice, or it is none", i.Reference)
		}
		listed[i.Reference] = true
		if i.Repository != ref.SiteRepository() || i.Tag != ref.Tag {
			return bad("%q would be %q:%q on the site", i.Reference, i.Repository, i.Tag)
		}
		if !slices.Equal(i.Manifests, inRoot[i.Reference]) || len(i.Manifests) == 0 {
			return bad("it and the root disagree about %q", i.Reference)
		}
		if _, ok := indexes[i.Digest]; i.Partial && !ok || !i.Partial && !slices.Equal(i.Manifests, []Digest{i.Digest}) {
			return bad("it and the root disagree about the digest of %q", i.Reference)
		}
		if i.Tag != "" {
			name := i.Repository + ":" + i.Tag
			if other, ok := onSite[name]; ok && other != i.Digest {
				return bad("%s would be %q and %q on the site", name, other, i.Digest)
			}
			onSite[name] = i.Digest
		}
		for _, a := range i.Attestations {
			if !slices.Contains(inRoot[""], a) {
				return bad("the attestation %q of %s is not in the root", a, i.Reference)
			}
		}
		if ref.Digest != "" && ref.Digest != i.Digest {
			return bad("it says %q for %s", i.Digest, i.Reference)
		}
	}
	if len(listed) != len(inRoot)-1 { // the deployment document itself has no reference
		return bad("the root lists %d references, it %d", len(inRoot)-1, len(listed))
	}
	for _, c := range d.Components {
		for _, ref := range c.Images {
			if !listed[ref] {
				return bad("component %q needs %q, which is not in the bundle", c.Name, ref)
			}
		}
	}
	return nil
}

// PartialIndex is an upstream index that is carried as a layer, because the
// bundle has only some of its manifests.
type PartialIndex struct {
	Layer     Descriptor // the upstream bytes
	MediaType string     // of the index, as upstream served it
}

func (g *Geometry) partialIndexes() (map[Digest]PartialIndex, error) {
	all := map[Digest]PartialIndex{}
	for _, d := range g.Index.Manifests {
		if d.ArtifactType != TypePartialIndex {
			continue
		}
		layer, err := g.onlyLayer(d, TypePartialIndex+"+json")
		if err != nil {
			return nil, err
		}
		mediaType := layer.Annotations[AnnotationMediaType]
		if !IsIndex(mediaType) || layer.Size > MaxManifest {
			return nil, fmt.Errorf("%w: manifest %s carries a %q of %d bytes as an index", ErrFormat, d.Digest, mediaType, layer.Size)
		}
		all[layer.Digest] = PartialIndex{layer, mediaType}
	}
	return all, nil
}

// PartialIndex returns the bytes and media type of an index that is carried as
// a layer, after checking that each of the given manifests is listed in it.
func (r *Reader) PartialIndex(i Image) (data []byte, mediaType string, err error) {
	all, err := r.partialIndexes()
	if err != nil {
		return nil, "", err
	}
	p, ok := all[i.Digest]
	if !ok {
		return nil, "", fmt.Errorf("%w: the index %s is not in the bundle", ErrFormat, i.Digest)
	}
	if data, err = r.ReadBlob(p.Layer, MaxManifest); err != nil {
		return nil, "", err
	}
	d := Descriptor{MediaType: p.MediaType, Digest: i.Digest, Size: p.Layer.Size}
	m, err := ParseManifest(d, data)
	if err != nil {
		return nil, "", err
	}
	for _, want := range i.Manifests {
		if !slices.ContainsFunc(m.Manifests, func(c Descriptor) bool { return c.Digest == want }) {
			return nil, "", fmt.Errorf("%w: %s is not in the index of %s", ErrFormat, want, i.Reference)
		}
	}
	return data, p.MediaType, nil
}
