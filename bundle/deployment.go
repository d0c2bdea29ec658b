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

// Check compares the document with the root and the manifests that it lists. The error
// wraps ErrFormat or ErrNewer.
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
	if len(c.listed) != len(c.inRoot)-1 { // the deployment document itself has no reference
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

// Installable reports why no host could install the deployment, although the format allows
// it: two things in one place, or what Host.Installable finds. Whoever makes a bundle and
// whoever verifies one refuses it.
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
		if f.As != AsArchive && f.Platform == "" && add(f.Path) { // an archive is unpacked beside what is there
			return fmt.Errorf("the file %q is where something else is", f.Path)
		}
	}
	return nil
}

// pluginDir is where plugins are in a release, or a name that nothing else has where only
// the host will know.
func (d *Deployment) pluginDir() string {
	switch {
	case d.Host == nil || d.Host.Plugins == "":
		return "plugins"
	case strings.Contains(d.Host.Plugins, "{{"):
		return "{{"
	}
	return d.Host.Plugins
}

// ownDirs are directories of a release that an installation fills itself.
var ownDirs = []string{"runtime", "plugin-keys"}

var (
	retention = regexp.MustCompile(`^oob-[0-9a-f]{16}(-[0-9]+)?$`) // as in install.retentionTag
	pluginID  = regexp.MustCompile(`^[a-z0-9_.-]{3,190}$`)
	fileName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,250}$`) // with .sig at most 255 bytes
	// releaseMode is that of a file of a release: root runs or reads it, so that others must
	// not write it.
	releaseMode = regexp.MustCompile(`^0[0-7][0145][0145]$`)
	// dataMode is that of a file or directory below the data directory, which may have a
	// group of its own.
	dataMode = regexp.MustCompile(`^0[0-7][0-7][0145]$`)
)

// ReleaseFile is where a release says what it is. No file of a bundle may be called
// that, or have a path that begins with a dot: these are the installation's own.
const ReleaseFile = "release.json"

// CheckPath reports why a path cannot be that of a file of a release.
func CheckPath(p string) error {
	if !validPath(p) {
		return fmt.Errorf("%q is not a path that every host can have: at most 1024 bytes, 255 in each name", p)
	}
	return nil
}

// validPath reports whether a path is relative, stays below its directory, and can be made
// on every system: each component has at most 255 bytes.
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
