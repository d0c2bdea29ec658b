package bundle

import (
	"fmt"
	"slices"
)

// emptyConfig is the content of OCI's empty descriptor (image-spec, manifest.md).
const emptyConfig = "{}"

// NewArtifact returns the descriptor of an artifact and its blobs other than the layers: the
// manifest and the empty config. Subject is the manifest that the artifact refers to, or nil.
func NewArtifact(artifactType string, subject *Descriptor, layers ...Descriptor) (d Descriptor, blobs map[Digest][]byte) {
	config := []byte(emptyConfig)
	d, manifest := encodeManifest(ociManifest{
		ArtifactType: artifactType, Layers: layers, Subject: subject,
		Config: Descriptor{MediaType: TypeEmpty, Digest: DigestOf(config), Size: int64(len(config))},
	})
	return d, map[Digest][]byte{DigestOf(config): config, d.Digest: manifest}
}

// NewManifest returns the descriptor and the bytes of an image manifest with the given config.
func NewManifest(config Descriptor, annotations map[string]string, layers ...Descriptor) (d Descriptor, manifest []byte) {
	return encodeManifest(ociManifest{Config: config, Layers: layers, Annotations: annotations})
}

// NewReferrersIndex returns an index of manifests. Clients store such an index under a tag if
// a registry does not list the referrers of a manifest.
func NewReferrersIndex(list []Descriptor) (d Descriptor, index []byte) {
	data, err := Encode(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []Descriptor `json:"manifests"`
	}{2, TypeOCIIndex, list})
	if err != nil {
		panic("bundle: " + err.Error()) // strings and numbers always encode
	}
	return Descriptor{MediaType: TypeOCIIndex, Digest: DigestOf(data), Size: int64(len(data))}, data
}

// ociManifest is an image manifest (image-spec, manifest.md) as this package writes it.
type ociManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func encodeManifest(m ociManifest) (Descriptor, []byte) {
	m.SchemaVersion, m.MediaType = 2, TypeOCIManifest
	data, err := Encode(m)
	if err != nil {
		panic("bundle: " + err.Error()) // strings and numbers always encode
	}
	return Descriptor{MediaType: TypeOCIManifest, Digest: DigestOf(data), Size: int64(len(data)), ArtifactType: m.ArtifactType}, data
}

// onlyLayer returns the layer of an artifact that must have exactly one, of the given media
// type.
func (g *Geometry) onlyLayer(d Descriptor, mediaType string) (Descriptor, error) {
	m := g.Manifests[d.Digest]
	if m == nil || m.ArtifactType != d.ArtifactType || len(m.Layers) != 1 || m.Layers[0].MediaType != mediaType {
		return Descriptor{}, fmt.Errorf("%w: manifest %s is not a %q with one layer of type %q", ErrFormat, d.Digest, d.ArtifactType, mediaType)
	}
	return m.Layers[0], nil
}

// PartialIndex is an upstream index that the bundle carries as a layer, because the bundle
// contains only some of its manifests.
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

// PartialIndex returns the bytes and the media type of an index that is carried as a layer. It
// checks that the index lists each of the image's manifests.
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

// CarriedIndex returns an index of the carried manifests of a partial index, in the order of
// the root. Ok is false if there are fewer than two. Machines of all these platforms can pull
// the index from a registry that refuses the partial index.
func (g *Geometry) CarriedIndex(i Image) (d Descriptor, index []byte, ok bool) {
	if !i.Partial || len(i.Manifests) < 2 {
		return d, nil, false
	}
	var list []Descriptor
	for _, m := range g.Index.Manifests {
		if m.Annotations[AnnotationRef] == i.Reference && m.Platform.Machine() {
			list = append(list, Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size, Platform: m.Platform})
		}
	}
	d, index = NewReferrersIndex(list)
	return d, index, len(list) > 1
}
