package bundle

import (
	"errors"
	"fmt"
	"mime"
	"strings"

	"github.com/go-json-experiment/json"
)

// Manifest contains the parts of a manifest or index that the walk needs, for documents of any
// author. The bytes themselves are never re-encoded.
type Manifest struct {
	Descriptor Descriptor   // under which it was first met as a manifest
	Config     *Descriptor  // nil for an index
	Layers     []Descriptor // empty for an index
	Manifests  []Descriptor // empty for an image manifest
	Subject    *Descriptor  // the manifest it refers to (OCI 1.1), or nil; never followed
	// ArtifactType is the type that the referrers API reports (distribution-spec 1.1, listing
	// referrers): the manifest's own, else its config's type.
	ArtifactType string
	Annotations  map[string]string
}

// Children returns the descriptors that the walk visits, in order: config before layers.
func (m *Manifest) Children() []Descriptor {
	if m.Config == nil {
		return m.Manifests
	}
	return append([]Descriptor{*m.Config}, m.Layers...)
}

// Runnable reports whether a container engine can load the manifest: it has an image config
// and only file system layers.
func (m *Manifest) Runnable() bool {
	if m.Config == nil || !isImageConfig(m.Config.MediaType) {
		return false
	}
	for _, l := range m.Layers {
		if !isFilesystemLayer(l.MediaType) {
			return false
		}
	}
	return true
}

// schema1 describes the format that Docker pushed until 2016.
const schema1 = "Docker's schema 1, which no current registry accepts; push the image again with a current tool"

// ManifestType returns the media type of a manifest or index that a registry served with a
// Content-Type. Registries and proxies also send application/json, text/plain or no
// Content-Type. If the Content-Type is not a manifest type, the manifest's own mediaType
// decides. If that is missing too, the manifest is OCI's, and its fields decide (image-spec,
// manifest.md and image-index.md: mediaType is optional). The error names what was served
// instead, and wraps no error of this package.
func ManifestType(contentType string, data []byte) (string, error) {
	served, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		served = ""
	}
	var doc struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
		FSLayers      any    `json:"fsLayers"`
		Config        any    `json:"config"`
		Layers        any    `json:"layers"`
		Manifests     any    `json:"manifests"`
	}
	isJSON := json.Unmarshal(data, &doc) == nil
	isIndex, isManifest := doc.Manifests != nil, doc.Config != nil && doc.Layers != nil
	switch {
	case doc.SchemaVersion == 1 || doc.FSLayers != nil || strings.HasPrefix(served, "application/vnd.docker.distribution.manifest.v1+"):
		return "", errors.New("it is in " + schema1)
	case IsManifest(served):
		return served, nil
	case isJSON && IsManifest(doc.MediaType):
		return doc.MediaType, nil
	case doc.MediaType != "":
		return "", fmt.Errorf("it sent a %q of type %q instead of a manifest", contentType, doc.MediaType[:min(len(doc.MediaType), MaxName)])
	case doc.SchemaVersion == 2 && isIndex && !isManifest:
		return TypeOCIIndex, nil
	case doc.SchemaVersion == 2 && isManifest && !isIndex:
		return TypeOCIManifest, nil
	}
	return "", fmt.Errorf("it sent a %q instead of a manifest", contentType)
}

// ParseManifest parses a manifest or index that d describes. The caller must have verified
// data against d. Errors wrap ErrFormat, ErrLimit, ErrDigest or ErrPolicy.
func ParseManifest(d Descriptor, data []byte) (*Manifest, error) {
	var doc struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        *Descriptor       `json:"config"`
		Layers        *[]Descriptor     `json:"layers"`
		Manifests     *[]Descriptor     `json:"manifests"`
		FSLayers      any               `json:"fsLayers"`
		Subject       *Descriptor       `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
	}
	if err := decodeForeign(data, &doc); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	bad := func(why string) (*Manifest, error) {
		return nil, fmt.Errorf("%w: manifest %s %s", ErrFormat, d.Digest, why)
	}
	switch {
	case doc.SchemaVersion == 1 || doc.FSLayers != nil:
		return bad("is in " + schema1)
	case doc.SchemaVersion != 2:
		return bad(fmt.Sprintf("has the schema version %d", doc.SchemaVersion))
	case doc.MediaType != "" && doc.MediaType != d.MediaType:
		return bad(fmt.Sprintf("calls itself %q and is listed as %q", doc.MediaType, d.MediaType))
	case doc.MediaType == "" && strings.Contains(d.MediaType, "docker"):
		return bad("has no mediaType")
	}
	m := &Manifest{Descriptor: d, Subject: doc.Subject, ArtifactType: doc.ArtifactType, Annotations: doc.Annotations}
	if IsIndex(d.MediaType) {
		if doc.Manifests == nil || doc.Config != nil || doc.Layers != nil {
			return bad("is listed as an index and is none")
		}
		m.Manifests = *doc.Manifests
	} else {
		if doc.Config == nil || doc.Manifests != nil {
			return bad("is listed as an image manifest and is none")
		}
		m.Config = doc.Config
		if doc.Layers != nil {
			m.Layers = *doc.Layers
		}
		if m.ArtifactType == "" {
			m.ArtifactType = m.Config.MediaType
		}
		if err := m.checkStorable(); err != nil {
			return nil, err
		}
	}
	return m, m.checkDescriptors()
}

// checkDescriptors checks everything that a manifest refers to.
func (m *Manifest) checkDescriptors() error {
	for _, c := range m.Children() {
		if err := c.check(); err != nil {
			return fmt.Errorf("manifest %s: %w", m.Descriptor.Digest, err)
		}
	}
	if m.Subject != nil {
		if err := m.Subject.check(); err != nil {
			return fmt.Errorf("manifest %s: its subject: %w", m.Descriptor.Digest, err)
		}
	}
	return nil
}

// checkIndex refuses an index with entries that are not manifests, because distribution looks
// for each entry among its manifests. An index that is carried as a layer may have other
// entries. The error wraps ErrFormat.
func (m *Manifest) checkIndex() error {
	for _, c := range m.Manifests {
		if !IsManifest(c.MediaType) {
			return fmt.Errorf(
				"%w: manifest %s lists %s of the type %q, which is not a manifest; registries refuse such an index",
				ErrFormat, m.Descriptor.Digest, c.Digest, c.MediaType,
			)
		}
	}
	return nil
}

// checkStorable refuses an image manifest that registries refuse. They look for a config or
// layer among their blobs, which contain no manifests, and require a URL for a foreign layer
// (distribution, registry/storage). Errors wrap ErrFormat or ErrPolicy.
func (m *Manifest) checkStorable() error {
	for _, c := range m.Children() {
		if IsManifest(c.MediaType) {
			return fmt.Errorf("%w: manifest %s lists %s, of the manifest type %q, as a config or layer; registries refuse that",
				ErrFormat, m.Descriptor.Digest, c.Digest, c.MediaType)
		}
		if m.Descriptor.MediaType == TypeDockerManifest && c.MediaType == typeDockerForeign && len(c.URLs) == 0 {
			return fmt.Errorf(
				"%w: manifest %s has the foreign layer %s without a URL, which registries refuse; push the image again with its "+
					"layers (for Docker: allow-nondistributable-artifacts)",
				ErrPolicy, m.Descriptor.Digest, c.Digest,
			)
		}
	}
	return nil
}
