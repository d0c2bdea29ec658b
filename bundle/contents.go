package bundle

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// invalid returns an error about the deployment document. The error wraps ErrFormat.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// contents is the content of the root, with the names found so far in the deployment document
// that is checked against it.
type contents struct {
	geometry *Geometry
	inRoot   map[string][]Digest     // reference, or "" for manifests without one → manifests
	partial  map[Digest]PartialIndex // indexes of which only some manifests are carried
	listed   map[string]bool         // references of the document
	onSite   map[string]Digest       // REPOSITORY:TAG → the digest it names
}

func newContents(g *Geometry) (*contents, error) {
	c := &contents{geometry: g, inRoot: map[string][]Digest{}, listed: map[string]bool{}, onSite: map[string]Digest{}}
	for _, m := range g.Index.Manifests {
		ref := m.Annotations[AnnotationRef]
		c.inRoot[ref] = append(c.inRoot[ref], m.Digest)
	}
	var err error
	c.partial, err = g.partialIndexes()
	return c, err
}

// image checks an image of the document and adds it to the listed references.
func (c *contents) image(i Image) error {
	ref, err := ParseReference(i.Reference)
	if err != nil {
		return invalid("invalid reference %q", i.Reference)
	}
	if c.listed[i.Reference] {
		return invalid("duplicate reference %q", i.Reference)
	}
	c.listed[i.Reference] = true
	if i.Repository != ref.SiteRepository() || i.Tag != ref.Tag {
		return invalid("the image %q has the repository %q and the tag %q for the site", i.Reference, i.Repository, i.Tag)
	}
	if len(i.Manifests) == 0 || !slices.Equal(i.Manifests, c.inRoot[i.Reference]) {
		return invalid("the root lists other manifests for %q", i.Reference)
	}
	if ref.Digest != "" && ref.Digest != i.Digest {
		return invalid("the image %s has the digest %q", i.Reference, i.Digest)
	}
	_, carried := c.partial[i.Digest]
	if i.Partial && !carried || !i.Partial && !slices.Equal(i.Manifests, []Digest{i.Digest}) {
		return invalid("the root lists another digest for %q", i.Reference)
	}
	for _, d := range slices.Concat(i.Attestations, i.Referrers) {
		if !slices.Contains(c.inRoot[""], d) {
			return invalid("the root does not list %q, which refers to %s", d, i.Reference)
		}
	}
	return c.tag(i)
}

// tag checks that an image's tag is not reserved and names only one digest on the site.
func (c *contents) tag(i Image) error {
	if i.Tag == "" {
		return nil
	}
	if retention.MatchString(i.Tag) {
		return invalid("the tag of %q has a form that is reserved for installations", i.Reference)
	}
	name := i.Repository + ":" + i.Tag
	if other, ok := c.onSite[name]; ok && other != i.Digest {
		return invalid("%s means both %q and %q on the site", name, other, i.Digest)
	}
	c.onSite[name] = i.Digest
	return nil
}

// hasArtifact reports whether the root lists an artifact with these layers. A negative size
// matches any size.
func (c *contents) hasArtifact(digest Digest, artifactType string, layers ...Descriptor) bool {
	same := func(a, b Descriptor) bool {
		return a.MediaType == b.MediaType && a.Digest == b.Digest && (b.Size < 0 || a.Size == b.Size)
	}
	m := c.geometry.Manifests[digest]
	return m != nil && m.ArtifactType == artifactType && slices.Contains(c.inRoot[""], digest) && slices.EqualFunc(m.Layers, layers, same)
}

// plugins checks the plugins of the document.
func (c *contents) plugins(list []Plugin) error {
	ids := map[string]bool{}
	for _, p := range list {
		switch {
		case !pluginID.MatchString(p.ID):
			return invalid("invalid plugin ID %q", p.ID)
		case ids[p.ID]:
			return invalid("duplicate plugin %q", p.ID)
		case !fileName.MatchString(p.Name):
			return invalid("the plugin %q has the file name %q, which is invalid", p.ID, p.Name)
		}
		ids[p.ID] = true
		layers := []Descriptor{{MediaType: TypePluginArchive, Digest: p.Archive, Size: -1}}
		if p.Signature != "" {
			layers = append(layers, Descriptor{MediaType: TypePluginSignature, Digest: p.Signature, Size: -1})
		}
		if p.Key != "" {
			layers = append(layers, Descriptor{MediaType: TypePluginKey, Digest: p.Key, Size: -1})
		}
		if !c.hasArtifact(p.Manifest, TypePlugin, layers...) {
			return invalid("the root does not list the plugin %q with these digests", p.ID)
		}
	}
	return nil
}

// files checks the files of the document.
func (c *contents) files(list []HostFile) error {
	paths, dirs := map[string]bool{}, map[string]bool{}
	for _, f := range list {
		if err := f.check(); err != nil {
			return err
		}
		folded := strings.ToLower(f.Path)
		if paths[folded] {
			return invalid("duplicate file path %q", f.Path)
		}
		paths[folded] = true
		for dir := path.Dir(folded); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
		if !c.hasArtifact(f.Manifest, TypeFile, Descriptor{MediaType: TypeFileContent, Digest: f.Digest, Size: f.Size}) {
			return invalid("the root does not list the file %q with this digest and size", f.Path)
		}
	}
	for _, f := range list {
		if dirs[strings.ToLower(f.Path)] && f.As != AsArchive { // the path of an archive is a directory
			return invalid("%q is both a file and a directory", f.Path)
		}
	}
	return nil
}

// check checks a file without the rest of the document.
func (f HostFile) check() error {
	strips := f.Strip == 0 || f.As == AsArchive && f.Strip > 0 && f.Strip <= 8
	switch {
	case !validPath(f.Path):
		return invalid("invalid file path %q", f.Path)
	case !releaseMode.MatchString(f.Mode):
		return invalid("the file %q has the mode %q; it must be four octal digits, and neither group nor others may write", f.Path, f.Mode)
	case strings.HasPrefix(f.Path, ".") || strings.EqualFold(f.Path, ReleaseFile):
		return invalid("%q is a name that an installation uses itself; give the file another path", f.Path)
	case !slices.Contains([]string{"", AsTemplate, AsArchive, AsImages}, f.As):
		return invalid("the file %q is a %q, which this version does not know", f.Path, f.As)
	case !strips:
		return invalid("the file %q has strip %d; only an archive has one, of at most 8", f.Path, f.Strip)
	case f.Size < 0:
		return invalid("the file %q has the size %d", f.Path, f.Size)
	case (f.As == AsTemplate || f.As == AsImages) && f.Size > MaxTemplate:
		return invalid("the template %q has %d bytes, at most %d are allowed", f.Path, f.Size, MaxTemplate)
	}
	return nil
}

// components checks that the bundle contains everything that a component names.
func (c *contents) components(d *Deployment) error {
	plugins, files := map[string]bool{}, map[string]bool{}
	for _, p := range d.Plugins {
		plugins[p.ID] = true
	}
	for _, f := range d.Files {
		files[f.Path] = true
	}
	missing := func(names []string, carried map[string]bool) int {
		return slices.IndexFunc(names, func(n string) bool { return !carried[n] })
	}
	for _, component := range d.Components {
		for _, needs := range []struct {
			names   []string
			carried map[string]bool
		}{
			{component.Images, c.listed}, {component.Charts, c.listed}, {component.Plugins, plugins}, {component.Files, files},
		} {
			if n := missing(needs.names, needs.carried); n >= 0 {
				return invalid("component %q needs %q, which is not in the bundle", component.Name, needs.names[n])
			}
		}
	}
	return nil
}
