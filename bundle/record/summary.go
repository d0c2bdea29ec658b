// Package record tells people what is in a bundle: as one value, which is
// printed as JSON, and as a page on paper, with which somebody decides whether a
// disk goes in. It reads a bundle and nothing else. What it says is what the
// bundle says of itself; who has verified it says so.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Summary is everything that is told about a bundle. Its JSON is a contract:
// fields are never renamed.
type Summary struct {
	Verified   bool               `json:"verified"` // always false: nobody checked anything here
	Bundle     About              `json:"bundle"`
	Signatures []Signature        `json:"signatures"` // as they claim; none was checked
	Images     []Image            `json:"images"`     // every reference: also charts, and what cosign keeps under a tag
	Deployment string             `json:"deployment,omitempty"`
	Components []bundle.Component `json:"components"`
	Charts     []Chart            `json:"charts"`
	Plugins    []Plugin           `json:"plugins"`
	Files      []File             `json:"files"`
	Blobs      int                `json:"blobs"`
	Bytes      int64              `json:"bytes"`     // of the blobs
	FileBytes  int64              `json:"fileBytes"` // of the bundle as a whole
	Shares     Shares             `json:"shares"`
	SBOMs      []SBOM             `json:"sboms"` // the bundle's own first, then upstream's
	Host       *bundle.Host       `json:"host,omitempty"`
	Changes    *Changes           `json:"changes,omitempty"` // since another bundle, where one is given

	reader *bundle.Reader
}

// About is what the root says of the bundle as a whole.
type About struct {
	Digest    bundle.Digest `json:"digest"` // the identity
	Name      string        `json:"name"`
	Version   string        `json:"version"`
	Channel   string        `json:"channel"`
	Sequence  int64         `json:"sequence"`
	Created   string        `json:"created"` // RFC 3339, UTC
	Platforms []string      `json:"platforms"`
}

// Signature names a key that is said to have signed.
type Signature struct {
	Fingerprint string `json:"fingerprint"`
	Trusted     bool   `json:"trusted"` // always false
	Valid       bool   `json:"valid"`   // always false
}

// Kinds of what has a reference.
const (
	KindImage    = "image"
	KindChart    = "chart"
	KindEvidence = "evidence" // what cosign keeps under a tag: signatures, attestations, SBOMs
	KindArtifact = "artifact" // anything else
)

// Image is a reference and what is carried of it.
type Image struct {
	Reference string        `json:"reference"`
	Digest    bundle.Digest `json:"digest"`
	Partial   bool          `json:"partial"` // an index of which only some manifests are carried
	Manifests []Manifest    `json:"manifests"`
	Kind      string        `json:"kind"`
	Size      int64         `json:"size"`   // bytes of it in the bundle, as they are carried
	Shared    int64         `json:"shared"` // of these, bytes that other images have too
	Checks    []string      `json:"checks,omitempty"`
	Evidence  []Evidence    `json:"evidence,omitempty"` // manifests without a reference that speak of it
}

// Manifest is one platform's.
type Manifest struct {
	Platform string        `json:"platform,omitempty"`
	Digest   bundle.Digest `json:"digest"`
	Size     int64         `json:"size"` // of it and what it names, bytes
}

// Evidence is a signature, an attestation or an SBOM from upstream.
type Evidence struct {
	Digest bundle.Digest `json:"digest"`
	Type   string        `json:"type"` // artifact type
	Size   int64         `json:"size"` // of it and what it names, bytes
}

// Chart is a Helm chart.
type Chart struct {
	bundle.Chart
	Size   int64    `json:"size"` // of the archive, bytes
	Checks []string `json:"checks,omitempty"`
}

// Plugin is a Mattermost plugin.
type Plugin struct {
	bundle.Plugin
	Size   int64    `json:"size"` // of the archive, bytes
	Source string   `json:"source,omitempty"`
	Checks []string `json:"checks,omitempty"`
}

// File is a file for the host.
type File struct {
	bundle.HostFile
	Source string   `json:"source,omitempty"`
	Checks []string `json:"checks,omitempty"`
}

// Shares say where the bytes go. Every blob is counted once; together they are
// Summary.Bytes.
type Shares struct {
	Images    int64 `json:"images"`    // of one image only
	Shared    int64 `json:"shared"`    // of more than one image
	Charts    int64 `json:"charts"`    // and what follows: of no image
	Plugins   int64 `json:"plugins"`   //
	Files     int64 `json:"files"`     //
	Evidence  int64 `json:"evidence"`  // upstream's signatures, attestations and SBOMs
	Documents int64 `json:"documents"` // what the bundle says of itself, and indexes
}

// AboutOf returns what info says, under the given identity.
func AboutOf(identity bundle.Digest, i bundle.Info) About {
	return About{
		Digest: identity, Name: i.Name, Version: i.Version, Channel: i.Channel, Sequence: i.Sequence,
		Created: i.Created.UTC().Format("2006-01-02T15:04:05Z"), Platforms: i.PlatformNames(),
	}
}

// Read describes the bundle in file, of which nothing has to be trusted. What
// payload it looks into (image configs, its own SBOM) is left out where it is damaged.
// Errors are those of bundle.ReadHead, bundle.NewReader and bundle.ParseSlot.
func Read(file io.ReaderAt, size int64) (*Summary, error) {
	head, err := bundle.ReadHead(file, size)
	if err != nil {
		return nil, err
	}
	r, err := bundle.NewReader(file, size, head)
	if err != nil {
		return nil, err
	}
	signatures, err := bundle.ParseSlot(head.Slot)
	if err != nil {
		return nil, err
	}
	return Describe(r, signatures)
}

// Describe is Read for a bundle that is open. Errors are those of
// bundle.Reader.Deployment, or the file system's.
func Describe(r *bundle.Reader, signatures []bundle.Signature) (*Summary, error) {
	deployment, err := r.Deployment()
	if err != nil {
		return nil, err
	}
	d := newDescriber(r, deployment)
	s := &Summary{
		Bundle: AboutOf(bundle.DigestOf(r.Root), r.Info), Signatures: []Signature{}, Images: []Image{}, Deployment: deployment.Form,
		Components: deployment.Components, Charts: []Chart{}, Plugins: []Plugin{}, Files: []File{},
		Blobs: len(r.Blobs()), Bytes: r.PayloadSize(), FileBytes: r.Size, Host: deployment.Host, reader: r,
	}
	for _, g := range signatures {
		s.Signatures = append(s.Signatures, Signature{Fingerprint: g.Key.String()})
	}
	for _, i := range deployment.Images {
		image, err := d.image(i)
		if err != nil {
			return nil, err
		}
		s.Images = append(s.Images, image)
	}
	for _, c := range deployment.Charts {
		s.Charts = append(s.Charts, Chart{c, d.size(c.Digest), d.own.of(c.Digest, c.Name).checks})
	}
	for _, p := range deployment.Plugins {
		said := d.own.of(p.Archive, p.ID)
		s.Plugins = append(s.Plugins, Plugin{p, d.size(p.Archive), said.source, said.checks})
	}
	for _, f := range deployment.Files {
		said := d.own.of(f.Digest, f.Path)
		s.Files = append(s.Files, File{f, said.source, said.checks})
	}
	if s.Shares, err = d.shares(s); err != nil {
		return nil, err
	}
	if s.SBOMs, err = d.sboms(); err != nil {
		return nil, err
	}
	return s, d.failed
}

// cosignTag is a tag under which cosign keeps what speaks of a digest.
var cosignTag = regexp.MustCompile(`^sha256-([0-9a-f]{64})\.(sig|att|sbom)$`)

// describer looks into a bundle.
type describer struct {
	*bundle.Reader
	deployment *bundle.Deployment
	named      map[string][]bundle.Descriptor // of the root, by reference
	charts     map[string]bool                // by reference
	own        ownSBOM
	seen       int                      // descriptors, over all walks
	platforms  map[bundle.Digest]string // by config
	listed     int                      // manifests of images
	failed     error                    // of the medium, not of the content
}

// note keeps an error that says nothing about the bundle: the medium did not let
// it be read. What is damaged is left out of the summary instead.
func (d *describer) note(err error) {
	var disk *fs.PathError
	if d.failed == nil && errors.As(err, &disk) {
		d.failed = err
	}
}

func newDescriber(r *bundle.Reader, deployment *bundle.Deployment) *describer {
	d := &describer{
		Reader:     r,
		deployment: deployment,
		named:      map[string][]bundle.Descriptor{},
		charts:     map[string]bool{},
		platforms:  map[bundle.Digest]string{},
	}
	for _, m := range r.Index.Manifests {
		if ref := m.Annotations[bundle.AnnotationRef]; ref != "" {
			d.named[ref] = append(d.named[ref], m)
		}
	}
	for _, c := range deployment.Charts {
		d.charts[c.Reference] = true
	}
	d.own = d.readOwn()
	return d
}

func (d *describer) size(digest bundle.Digest) int64 {
	m, _ := d.Place(digest)
	return m.Size
}

func (d *describer) kind(i bundle.Image) string {
	switch {
	case d.charts[i.Reference]:
		return KindChart
	case cosignTag.MatchString(i.Tag):
		return KindEvidence
	}
	kind := KindArtifact
	err := d.walk(d.named[i.Reference], func(b bundle.Digest) {
		if m := d.Manifests[b]; m != nil && m.Runnable() {
			kind = KindImage
		}
	})
	if err != nil { // summing up meets it again, and says so
		return KindArtifact
	}
	return kind
}

func (d *describer) image(i bundle.Image) (Image, error) {
	out := Image{Reference: i.Reference, Digest: i.Digest, Partial: i.Partial, Manifests: []Manifest{}, Kind: d.kind(i)}
	ref, err := bundle.ParseReference(i.Reference)
	if err != nil {
		return out, err
	}
	out.Checks = d.own.of(i.Digest, ref.Repository()).checks
	for _, m := range d.named[i.Reference] {
		list := []bundle.Descriptor{m}
		if index := d.Manifests[m.Digest]; bundle.IsIndex(m.MediaType) && index != nil {
			list = index.Manifests
		}
		if d.listed += len(list); d.listed > bundle.MaxMembers { // references may share an index
			return out, fmt.Errorf("%w: the images have more than %d manifests", bundle.ErrLimit, bundle.MaxMembers)
		}
		for _, c := range list {
			size, err := d.sum(c)
			if err != nil {
				return out, err
			}
			out.Manifests = append(out.Manifests, Manifest{d.platform(c), c.Digest, size})
		}
	}
	if out.Size, err = d.sum(d.named[i.Reference]...); err != nil {
		return out, err
	}
	for _, digest := range slices.Concat(i.Attestations, i.Referrers) {
		m := d.Manifests[digest]
		size, err := d.sum(m.Descriptor)
		if err != nil {
			return out, err
		}
		out.Evidence = append(out.Evidence, Evidence{digest, m.ArtifactType, size})
	}
	return out, nil
}

// maxConfig bounds what is read of an image's config, in bytes.
const maxConfig = 1 << 20

// platform returns what the descriptor says, or the config.
func (d *describer) platform(c bundle.Descriptor) string {
	if c.Platform != nil {
		return c.Platform.String()
	}
	m := d.Manifests[c.Digest]
	if m == nil || !m.Runnable() {
		return ""
	}
	said, ok := d.platforms[m.Config.Digest]
	if ok {
		return said
	}
	data, err := d.ReadBlob(*m.Config, maxConfig)
	d.note(err)
	if err == nil {
		if p, err := configPlatform(data); err == nil {
			said = p.String()
		}
	}
	d.platforms[m.Config.Digest] = said // many references may share it
	return said
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

// typeOf words the kind of a piece of evidence.
func typeOf(artifactType, tag string) string {
	t := strings.ToLower(artifactType)
	switch {
	case strings.HasSuffix(tag, ".sig"):
		return "signature"
	case strings.HasSuffix(tag, ".att"), strings.Contains(t, "in-toto"), strings.Contains(t, "attestation"):
		return "attestation"
	case strings.HasSuffix(tag, ".sbom"), strings.Contains(t, "spdx"), strings.Contains(t, "cyclonedx"):
		return "SBOM"
	case strings.Contains(t, "sigstore.bundle"):
		return "signature or attestation"
	case strings.Contains(t, "signature"), strings.Contains(t, "simplesigning"), strings.Contains(t, "notary"):
		return "signature"
	case t == bundle.TypeOCIConfig, t == bundle.TypeDockerConfig:
		return "attestation" // as BuildKit attaches them
	}
	return "statement"
}
