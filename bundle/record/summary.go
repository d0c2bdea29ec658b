// Package record describes the content of a bundle: as a value that is printed as
// JSON, and as a page on paper, the transfer record, for the decision whether a disk is
// admitted. The package reads a bundle and nothing else. It repeats the bundle's own
// claims; a caller that has verified the bundle must report that itself.
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

// Summary is the description of a bundle. Its JSON is a contract: fields are never
// renamed.
type Summary struct {
	Verified   bool               `json:"verified"` // always false: this package checks no signature
	Bundle     About              `json:"bundle"`
	Signatures []Signature        `json:"signatures"` // claimed, not checked
	Images     []Image            `json:"images"`     // every reference, also charts and cosign's tags
	Deployment string             `json:"deployment,omitempty"`
	Components []bundle.Component `json:"components"`
	Charts     []Chart            `json:"charts"`
	Plugins    []Plugin           `json:"plugins"`
	Files      []File             `json:"files"`
	Blobs      int                `json:"blobs"`
	Bytes      int64              `json:"bytes"`     // total size of the blobs
	FileBytes  int64              `json:"fileBytes"` // size of the whole bundle
	Shares     Shares             `json:"shares"`
	SBOMs      []SBOM             `json:"sboms"` // the bundle's own first, then upstream's
	Host       *bundle.Host       `json:"host,omitempty"`
	Changes    *Changes           `json:"changes,omitempty"` // since another bundle; set by Compare

	reader *bundle.Reader
}

// About is the information in the root about the bundle as a whole.
type About struct {
	Digest    bundle.Digest `json:"digest"` // identity of the bundle
	Name      string        `json:"name"`
	Version   string        `json:"version"`
	Channel   string        `json:"channel"`
	Sequence  int64         `json:"sequence"`
	Created   string        `json:"created"` // RFC 3339, UTC
	Platforms []string      `json:"platforms"`
}

// Signature names a key that, by its claim, has signed the bundle.
type Signature struct {
	Fingerprint string `json:"fingerprint"`
	Trusted     bool   `json:"trusted"` // always false
	Valid       bool   `json:"valid"`   // always false
}

// Kinds of content with a reference.
const (
	KindImage    = "image"
	KindChart    = "chart"
	KindEvidence = "evidence" // signatures, attestations and SBOMs under cosign's tags
	KindArtifact = "artifact" // anything else
)

// Image is a reference and the part of its content that the bundle contains.
type Image struct {
	Reference string        `json:"reference"`
	Digest    bundle.Digest `json:"digest"`
	Partial   bool          `json:"partial"` // an index of which the bundle contains only some manifests
	Manifests []Manifest    `json:"manifests"`
	Kind      string        `json:"kind"`
	Size      int64         `json:"size"`   // bytes in the bundle, blobs as stored
	Shared    int64         `json:"shared"` // part of Size that other images share, bytes
	Checks    []string      `json:"checks,omitempty"`
	Evidence  []Evidence    `json:"evidence,omitempty"` // manifests about the image that have no reference
}

// Manifest is the manifest of one platform.
type Manifest struct {
	Platform string        `json:"platform,omitempty"`
	Digest   bundle.Digest `json:"digest"`
	Size     int64         `json:"size"` // of the manifest and its content, bytes
}

// Evidence is a signature, an attestation or an SBOM from upstream.
type Evidence struct {
	Digest bundle.Digest `json:"digest"`
	Type   string        `json:"type"` // artifact type
	Size   int64         `json:"size"` // of the manifest and its content, bytes
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

// Shares divide the bytes of the blobs by kind of content. Every blob is counted once;
// the sum is Summary.Bytes.
type Shares struct {
	Images    int64 `json:"images"`    // blobs of one image only
	Shared    int64 `json:"shared"`    // blobs of several images
	Charts    int64 `json:"charts"`    // this and all below: blobs of no image
	Plugins   int64 `json:"plugins"`   //
	Files     int64 `json:"files"`     //
	Evidence  int64 `json:"evidence"`  // upstream's signatures, attestations and SBOMs
	Documents int64 `json:"documents"` // the bundle's own documents, and indexes
}

// AboutOf returns the About of a bundle with the given identity and info.
func AboutOf(identity bundle.Digest, i bundle.Info) About {
	return About{
		Digest: identity, Name: i.Name, Version: i.Version, Channel: i.Channel, Sequence: i.Sequence,
		Created: i.Created.UTC().Format("2006-01-02T15:04:05Z"), Platforms: i.PlatformNames(),
	}
}

// Read describes the bundle in file. The bundle need not be trusted. Damaged payload
// (image configs, the bundle's own SBOM) is left out of the description. Errors are
// those of bundle.ReadHead, bundle.NewReader, bundle.ParseSlot and Describe.
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

// Describe describes an open bundle, like Read. Errors are those of
// bundle.Reader.Deployment, wrap bundle.ErrLimit, or are the file system's.
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

// cosignTag matches the tags under which cosign stores content about a digest.
var cosignTag = regexp.MustCompile(`^sha256-([0-9a-f]{64})\.(sig|att|sbom)$`)

// describer collects the description of a bundle.
type describer struct {
	*bundle.Reader
	deployment *bundle.Deployment
	named      map[string][]bundle.Descriptor // descriptors of the root, by reference
	charts     map[string]bool                // by reference
	own        ownSBOM
	seen       int                      // number of descriptors visited in all walks
	platforms  map[bundle.Digest]string // by config
	listed     int                      // number of manifests listed in images
	failed     error                    // I/O error of the medium
}

// note keeps the first I/O error of the medium, which Describe returns. Other errors are
// ignored: damaged content is left out of the summary.
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
	if err != nil { // d.sum returns the same error
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

// maxConfig is the maximum size of an image's config, in bytes.
const maxConfig = 1 << 20

// platform returns the platform in the descriptor, or else in the image's config.
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
	d.platforms[m.Config.Digest] = said // many references may share a config
	return said
}

// configPlatform returns the platform in an image's config (image-spec, config.md).
func configPlatform(config []byte) (bundle.Platform, error) {
	var p bundle.Platform
	if err := json.Unmarshal(config, &p); err != nil {
		return p, err
	}
	return bundle.ParsePlatform(p.String())
}

// typeOf returns the kind of a piece of evidence in words.
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
