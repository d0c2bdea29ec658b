package bundle

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Deployment is the deployment document: it records where each part of the bundle goes on the
// site. It names content by digest; the root lists the content.
type Deployment struct {
	APIVersion string            `json:"apiVersion"` // APIVersion
	Kind       string            `json:"kind"`       // "Deployment"
	Name       string            `json:"name"`
	Version    string            `json:"version"`
	Form       string            `json:"form,omitempty"`     // compose, linux or kubernetes, if the author distinguishes them
	Versions   map[string]string `json:"versions,omitempty"` // of the content, by the author's names
	Settings   map[string]string `json:"settings,omitempty"` // the author's, for templates
	Components []Component       `json:"components"`
	Images     []Image           `json:"images"` // every reference once, in the order of the root
	Charts     []Chart           `json:"charts,omitempty"`
	Plugins    []Plugin          `json:"plugins,omitempty"`
	Files      []HostFile        `json:"files,omitempty"`
	Host       *Host             `json:"host,omitempty"`
}

// APIVersion is the apiVersion of every oob-bundle document, JSON or YAML.
const APIVersion = "oobbundle.dev/v1"

// Component groups images, charts, plugins and files that belong together.
type Component struct {
	Name    string   `json:"name"`
	Images  []string `json:"images"`            // references, as in Deployment.Images
	Charts  []string `json:"charts,omitempty"`  // references, as in Deployment.Charts
	Plugins []string `json:"plugins,omitempty"` // ids, as in Deployment.Plugins
	Files   []string `json:"files,omitempty"`   // paths, as in Deployment.Files
}

// Image records the name of a reference on the site, and the content that the name has there.
// A chart is an Image too, and so is content that cosign stores under a tag.
type Image struct {
	Reference  string `json:"reference"`  // upstream reference in full
	Repository string `json:"repository"` // on the site's registry, below its prefix
	Tag        string `json:"tag,omitempty"`
	// Digest is the digest of the index or manifest that the upstream reference resolved to.
	Digest Digest `json:"digest"`
	// Partial reports that Digest is an index and that only the Manifests of it are carried.
	// The index itself is carried as a layer.
	Partial bool `json:"partial,omitempty"`
	// Manifests are the manifests of a partial index for the carried platforms; the first is
	// for the first platform. For any other image, Manifests contains only Digest.
	Manifests []Digest `json:"manifests"`
	// Attestations are further carried manifests of a partial index that describe the
	// Manifests. The root lists them without a reference.
	Attestations []Digest `json:"attestations,omitempty"`
	// Referrers are manifests that refer to the image (OCI 1.1) or to one of its referrers.
	// The root lists them without a reference.
	Referrers []Digest `json:"referrers,omitempty"`
}

// Chart is a Helm chart. Deployment.Images contains an image with the same reference.
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
	// Key is the public key of the signature. It is empty if the server already contains the
	// key.
	Key Digest `json:"key,omitempty"`
}

// HostFile is a file for the host.
type HostFile struct {
	Path     string `json:"path"`               // relative, slashes
	Mode     string `json:"mode"`               // permissions, four octal digits
	As       string `json:"as,omitempty"`       // AsTemplate, AsArchive, AsImages; "" is unchanged
	Strip    int    `json:"strip,omitempty"`    // of an archive: leading directories to drop
	Platform string `json:"platform,omitempty"` // OS/ARCHITECTURE of the hosts that get the file; "" is all
	Manifest Digest `json:"manifest"`           // in the root: its layer is the file
	Digest   Digest `json:"digest"`
	Size     int64  `json:"size"` // bytes
}

// NewDeployment returns a document with its constant fields set.
func NewDeployment(name, version string) Deployment {
	return Deployment{APIVersion: APIVersion, Kind: "Deployment", Name: name, Version: version, Components: []Component{}, Images: []Image{}}
}

// Deployment reads the deployment document and checks that it lists the same references with
// the same digests as the root. Errors wrap ErrFormat, ErrDigest, ErrLimit or ErrNewer, or
// come from the underlying reader.
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

// Check compares the document with the root and its manifests. The error wraps ErrFormat or
// ErrNewer.
func (d *Deployment) Check(g *Geometry) error {
	switch {
	case newer(d.APIVersion):
		return fmt.Errorf("%w: it is of %q; use a newer version here", ErrNewer, d.APIVersion)
	case d.APIVersion != APIVersion || d.Kind != "Deployment":
		return invalid("it is a %q of %q", d.Kind, d.APIVersion)
	case d.Name != g.Info.Name || d.Version != g.Info.Version:
		return invalid("it is of %q %q, the root of %q %q", d.Name, d.Version, g.Info.Name, g.Info.Version)
	}
	c, err := newContents(g)
	if err != nil {
		return err
	}
	for _, i := range d.Images {
		if err := c.image(i); err != nil {
			return err
		}
	}
	if len(c.listed) != len(c.inRoot)-1 { // inRoot has one more key, "", for manifests without a reference
		return invalid("the root lists %d references, the document %d", len(c.inRoot)-1, len(c.listed))
	}
	for _, chart := range d.Charts {
		if !c.listed[chart.Reference] {
			return invalid("the chart %q is not among the images", chart.Reference)
		}
	}
	if err := c.plugins(d.Plugins); err != nil {
		return err
	}
	if err := c.files(d.Files); err != nil {
		return err
	}
	if d.Host != nil {
		if err := d.Host.Check(d.Files, append([]Chart{}, d.Charts...)); err != nil {
			return err
		}
	}
	return c.components(d)
}

// Installable returns an error if no host could install the deployment although the format
// allows it: two things have the same path, a file is in a directory of the installer, or
// Host.Installable returns an error. Both the creator and the verifier of a bundle refuse it.
func (d *Deployment) Installable() error {
	paths, dirs := map[string]bool{}, map[string]bool{}
	add := func(p string) (again bool) {
		p = strings.ToLower(p)
		again = paths[p] || dirs[p]
		paths[p] = true
		for i := range p {
			if p[i] == '/' {
				again = again || paths[p[:i]]
				dirs[p[:i]] = true
			}
		}
		return again
	}
	if d.Host != nil {
		if err := d.Host.Installable(); err != nil {
			return err
		}
	}
	for _, p := range d.Plugins {
		name := d.pluginDir() + "/" + p.Name
		if add(name) || p.Signature != "" && add(name+".sig") {
			return fmt.Errorf("two plugins are in files called %q", p.Name)
		}
	}
	for _, f := range d.Files {
		if top, _, _ := strings.Cut(strings.ToLower(f.Path), "/"); slices.Contains(ownDirs, top) {
			return fmt.Errorf("%q is in a directory that an installation uses itself; give the file another path", f.Path)
		}
		if f.As != AsArchive && f.Platform == "" && add(f.Path) { // archives may share a directory with other files
			return fmt.Errorf("the file %q is where something else is", f.Path)
		}
	}
	return nil
}

// pluginDir returns the directory of the plugins in a release. If only the host will know the
// directory, pluginDir returns a name that no file has.
func (d *Deployment) pluginDir() string {
	switch {
	case d.Host == nil || d.Host.Plugins == "":
		return "plugins"
	case strings.Contains(d.Host.Plugins, "{{"):
		return "{{"
	}
	return d.Host.Plugins
}

// ownDirs are the directories of a release that the installer itself fills.
var ownDirs = []string{"runtime", "plugin-keys"}

var (
	retention = regexp.MustCompile(`^oob-[0-9a-f]{16}(-[0-9]+)?$`) // as in install.retentionTag
	pluginID  = regexp.MustCompile(`^[a-z0-9_.-]{3,190}$`)
	fileName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,250}$`) // with .sig at most 255 bytes
	// releaseMode matches the mode of a file of a release. Root runs or reads the file, so
	// other users and groups must not write it.
	releaseMode = regexp.MustCompile(`^0[0-7][0145][0145]$`)
	// dataMode matches the mode of a file or directory below the data directory. It may have
	// its own group, which may write it.
	dataMode = regexp.MustCompile(`^0[0-7][0-7][0145]$`)
)

// ReleaseFile is the file in which a release describes itself. A file of a bundle must not
// have this path, or a path that starts with a dot: these names belong to the installation.
const ReleaseFile = "release.json"

// CheckPath returns an error if p is not a path that every host can have.
func CheckPath(p string) error {
	if !validPath(p) {
		return fmt.Errorf("%q is not a path that every host can have: at most 1024 bytes, 255 in each name", p)
	}
	return nil
}

// validPath reports whether a path is relative, stays below its directory, and can be created
// on every system. It has at most 1,024 bytes, and 255 in each component.
func validPath(p string) bool {
	if p == "" || len(p) > 1024 || path.Clean(p) != p || path.IsAbs(p) || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return false
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > MaxName {
			return false
		}
	}
	return strings.IndexFunc(p, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`\:*?"<>|`, r) }) < 0
}

// Document returns the only layer of the artifact with the given type, or nil if the bundle
// has no such artifact. A layer of more than limit bytes is refused with ErrLimit.
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
