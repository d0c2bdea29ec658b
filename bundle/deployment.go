package bundle

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Deployment is the deployment document: what of the bundle goes where on the
// site. It names content by digest; the content stands in the root.
type Deployment struct {
	APIVersion string            `json:"apiVersion"` // APIVersion
	Kind       string            `json:"kind"`       // "Deployment"
	Name       string            `json:"name"`
	Version    string            `json:"version"`
	Form       string            `json:"form,omitempty"`     // compose, linux or kubernetes, if the author distinguishes
	Versions   map[string]string `json:"versions,omitempty"` // of what is carried, by the author's names
	Settings   map[string]string `json:"settings,omitempty"` // the author's
	Components []Component       `json:"components"`
	Images     []Image           `json:"images"` // every reference once, in the order of the root
	Charts     []Chart           `json:"charts,omitempty"`
	Plugins    []Plugin          `json:"plugins,omitempty"`
	Files      []HostFile        `json:"files,omitempty"`
	Host       *Host             `json:"host,omitempty"`
}

// APIVersion is that of every document of ours, JSON or YAML.
const APIVersion = "oobbundle.dev/v1"

// Component groups what belongs together.
type Component struct {
	Name    string   `json:"name"`
	Images  []string `json:"images"`            // references, as in Deployment.Images
	Charts  []string `json:"charts,omitempty"`  // references, as in Deployment.Charts
	Plugins []string `json:"plugins,omitempty"` // ids, as in Deployment.Plugins
	Files   []string `json:"files,omitempty"`   // paths, as in Deployment.Files
}

// Image says which name a reference has on the site and what it means there. A
// chart, and what cosign keeps under a tag, is an image in this sense too.
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
	// Referrers are manifests that refer to the image (OCI 1.1), or to what
	// refers to it; in the root they have no reference either.
	Referrers []Digest `json:"referrers,omitempty"`
}

// Chart is a Helm chart. It stands among the images with the same reference.
type Chart struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	Repository string `json:"repository"` // upstream
	Reference  string `json:"reference"`
	Digest     Digest `json:"digest"` // of the archive
}

// Plugin is a Mattermost plugin.
type Plugin struct {
	ID        string `json:"id"`
	Version   string `json:"version"`
	Name      string `json:"name"`                // of its archive, without directories
	Manifest  Digest `json:"manifest"`            // in the root: its layers are archive, signature and key
	Archive   Digest `json:"archive"`             // the .tar.gz
	Signature Digest `json:"signature,omitempty"` // detached, OpenPGP
	// Key is the public key of the signature, where it is not one that the server
	// comes with.
	Key Digest `json:"key,omitempty"`
}

// HostFile is a file for the host.
type HostFile struct {
	Path     string `json:"path"`               // relative, slashes
	Mode     string `json:"mode"`               // permissions, four octal digits
	As       string `json:"as,omitempty"`       // AsTemplate, AsArchive, AsImages; "" is as it comes
	Strip    int    `json:"strip,omitempty"`    // of an archive: leading directories to leave away
	Platform string `json:"platform,omitempty"` // OS/ARCHITECTURE of the hosts it is for; "" is all
	Manifest Digest `json:"manifest"`           // in the root: its layer is the file
	Digest   Digest `json:"digest"`
	Size     int64  `json:"size"` // bytes
}

// NewDeployment returns a document with its constant fields set.
func NewDeployment(name, version string) Deployment {
	return Deployment{APIVersion: APIVersion, Kind: "Deployment", Name: name, Version: version, Components: []Component{}, Images: []Image{}}
}

// emptyConfig is the content of OCI's empty descriptor (image-spec, manifest.md).
const emptyConfig = "{}"

// NewArtifact returns the descriptor of an artifact, which may refer to a
// subject, and the blobs it consists of besides its layers: its manifest and the
// empty config.
func NewArtifact(artifactType string, subject *Descriptor, layers ...Descriptor) (d Descriptor, blobs map[Digest][]byte) {
	config := []byte(emptyConfig)
	d, manifest := encodeManifest(ociManifest{
		ArtifactType: artifactType, Layers: layers, Subject: subject,
		Config: Descriptor{MediaType: TypeEmpty, Digest: DigestOf(config), Size: int64(len(config))},
	})
	return d, map[Digest][]byte{DigestOf(config): config, d.Digest: manifest}
}

// NewManifest returns the descriptor and the bytes of an image manifest with a
// config of its own.
func NewManifest(config Descriptor, annotations map[string]string, layers ...Descriptor) (d Descriptor, manifest []byte) {
	return encodeManifest(ociManifest{Config: config, Layers: layers, Annotations: annotations})
}

// NewReferrersIndex returns the index that clients keep under a tag where a
// registry does not list what refers to a manifest.
func NewReferrersIndex(list []Descriptor) (d Descriptor, index []byte) {
	data, err := Encode(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []Descriptor `json:"manifests"`
	}{2, TypeOCIIndex, list})
	if err != nil {
		panic("bundle: " + err.Error()) // strings and numbers only
	}
	return Descriptor{MediaType: TypeOCIIndex, Digest: DigestOf(data), Size: int64(len(data))}, data
}

// ociManifest is an image manifest (image-spec, manifest.md) as we write it.
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
		panic("bundle: " + err.Error()) // strings and numbers only
	}
	return Descriptor{MediaType: TypeOCIManifest, Digest: DigestOf(data), Size: int64(len(data)), ArtifactType: m.ArtifactType}, data
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
	if err := d.Check(r.Geometry); err != nil {
		return nil, fmt.Errorf("the deployment document: %w", err)
	}
	return &d, nil
}

// Check compares the document with the root and the manifests that it speaks of.
// The error wraps ErrFormat.
func (d *Deployment) Check(g *Geometry) error {
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
		for _, r := range i.Referrers {
			if !slices.Contains(inRoot[""], r) {
				return bad("the referrer %q of %s is not in the root", r, i.Reference)
			}
		}
		if ref.Digest != "" && ref.Digest != i.Digest {
			return bad("it says %q for %s", i.Digest, i.Reference)
		}
	}
	if len(listed) != len(inRoot)-1 { // the deployment document itself has no reference
		return bad("the root lists %d references, it %d", len(inRoot)-1, len(listed))
	}
	if err := d.checkContent(g, inRoot[""], listed); err != nil {
		return err
	}
	if d.Host != nil {
		if err := d.Host.Check(d.Files); err != nil {
			return err
		}
	}
	return d.checkComponents(listed)
}

// checkContent compares charts, plugins and files with the root.
func (d *Deployment) checkContent(g *Geometry, unnamed []Digest, references map[string]bool) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	artifact := func(digest Digest, artifactType string, layers ...Descriptor) bool {
		m := g.Manifests[digest]
		return m != nil && slices.Contains(unnamed, digest) && m.ArtifactType == artifactType &&
			slices.EqualFunc(m.Layers, layers, func(a, b Descriptor) bool {
				return a.MediaType == b.MediaType && a.Digest == b.Digest && (b.Size < 0 || a.Size == b.Size)
			})
	}
	for _, c := range d.Charts {
		if !references[c.Reference] {
			return bad("the chart %q is not among the images", c.Reference)
		}
	}
	ids := map[string]bool{}
	for _, p := range d.Plugins {
		if !pluginID.MatchString(p.ID) || ids[p.ID] || !fileName.MatchString(p.Name) {
			return bad("it lists the plugin %q (%q) twice, or it is none", p.ID, p.Name)
		}
		ids[p.ID] = true
		layers := []Descriptor{{MediaType: TypePluginArchive, Digest: p.Archive, Size: -1}}
		if p.Signature != "" {
			layers = append(layers, Descriptor{MediaType: TypePluginSignature, Digest: p.Signature, Size: -1})
		}
		if p.Key != "" {
			layers = append(layers, Descriptor{MediaType: TypePluginKey, Digest: p.Key, Size: -1})
		}
		if !artifact(p.Manifest, TypePlugin, layers...) {
			return bad("it and the root disagree about the plugin %q", p.ID)
		}
	}
	paths, dirs := map[string]bool{}, map[string]bool{}
	for _, f := range d.Files {
		if !validPath(f.Path) || paths[strings.ToLower(f.Path)] || !fileMode.MatchString(f.Mode) {
			return bad("it lists the file %q (mode %q) twice, or it is none", f.Path, f.Mode)
		}
		if !slices.Contains([]string{"", AsTemplate, AsArchive, AsImages}, f.As) || f.Strip < 0 || f.Strip > 8 || f.Strip > 0 && f.As != AsArchive {
			return bad("what %q is (%q) is not known", f.Path, f.As)
		}
		if f.As == AsTemplate || f.As == AsImages {
			if f.Size > MaxTemplate {
				return bad("the template %q has %d bytes, at most %d are allowed", f.Path, f.Size, MaxTemplate)
			}
		}
		paths[strings.ToLower(f.Path)] = true
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			dirs[strings.ToLower(dir)] = true
		}
		if !artifact(f.Manifest, TypeFile, Descriptor{MediaType: TypeFileContent, Digest: f.Digest, Size: f.Size}) {
			return bad("it and the root disagree about the file %q", f.Path)
		}
	}
	for _, f := range d.Files {
		if dirs[strings.ToLower(f.Path)] && f.As != AsArchive { // which is unpacked into a directory
			return bad("%q is a file and a directory", f.Path)
		}
	}
	return nil
}

var (
	pluginID = regexp.MustCompile(`^[a-z0-9_.-]{3,190}$`)
	fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,254}$`)
	fileMode = regexp.MustCompile(`^0[0-7]{3}$`)
)

// validPath reports whether a path can stand on every system below a directory,
// and nowhere else.
func validPath(p string) bool {
	if p == "" || len(p) > 1024 || path.Clean(p) != p || path.IsAbs(p) || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return false
	}
	return strings.IndexFunc(p, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`\:*?"<>|`, r) }) < 0
}

// checkComponents wants everything that a component names to be carried.
func (d *Deployment) checkComponents(references map[string]bool) error {
	for _, c := range d.Components {
		missing := ""
		for _, ref := range slices.Concat(c.Images, c.Charts) {
			if !references[ref] {
				missing = ref
			}
		}
		for _, id := range c.Plugins {
			if !slices.ContainsFunc(d.Plugins, func(p Plugin) bool { return p.ID == id }) {
				missing = id
			}
		}
		for _, f := range c.Files {
			if !slices.ContainsFunc(d.Files, func(x HostFile) bool { return x.Path == f }) {
				missing = f
			}
		}
		if missing != "" {
			return fmt.Errorf("%w: component %q needs %q, which is not in the bundle", ErrFormat, c.Name, missing)
		}
	}
	return nil
}

// Document returns the only layer of the artifact of ours with that type, or
// nil if the bundle has none. At most limit bytes are read.
func (r *Reader) Document(artifactType string, limit int64) ([]byte, error) {
	for _, d := range r.Index.Manifests {
		if d.ArtifactType != artifactType {
			continue
		}
		m := r.Manifests[d.Digest]
		if m == nil || m.ArtifactType != artifactType || len(m.Layers) != 1 {
			return nil, fmt.Errorf("%w: manifest %s is not a %q with one layer", ErrFormat, d.Digest, artifactType)
		}
		return r.ReadBlob(m.Layers[0], limit)
	}
	return nil, nil
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
