package install

import (
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/verify"
)

func (c *content) place(repo, tag string) ledger.Place { return ledger.Tag(c.Target.Name, repo, tag) }

// tagNames returns the tags that an image may get.
func (c *content) tagNames(i bundle.Image) []string {
	if i.Tag == "" {
		return nil
	}
	return append(sortedKeys(c.platformTags(i)), i.Tag)
}

// platforms returns the root's descriptors of an image that name a platform.
func (c *content) platforms(i bundle.Image) []bundle.Descriptor {
	var list []bundle.Descriptor
	for _, d := range c.Bundle.Index.Manifests {
		if d.Annotations[bundle.AnnotationRef] == i.Reference && d.Platform != nil {
			list = append(list, d)
		}
	}
	return list
}

// repository is the content of one repository of the target.
type repository struct {
	name      string
	manifests []bundle.Digest // children before parents
	blobs     []bundle.Digest
	partial   []bundle.Image // indexes to offer, even if some children are missing
	retain    []bundle.Digest
	tags      []tag
}

// tag is a tag that moves last.
type tag struct {
	name   string
	image  bundle.Image
	digest bundle.Digest // the manifest it points to
}

// repositories returns the central repository, which gets all content, and then one repository
// for each repository that images name.
func (c *content) repositories() ([]*repository, error) {
	central := &repository{name: c.central}
	all := collector{g: c.Bundle.Geometry, into: central, seen: map[bundle.Digest]bool{}}
	for _, d := range c.Bundle.Index.Manifests {
		all.add(d)
	}
	list := []*repository{central}
	collectors := map[string]*collector{}
	total := 0
	for _, i := range c.images {
		own := collectors[i.Repository]
		if own == nil {
			own = &collector{g: c.Bundle.Geometry, into: &repository{name: i.Repository}, seen: map[bundle.Digest]bool{}}
			collectors[i.Repository] = own
			list = append(list, own.into)
		}
		for _, d := range slices.Concat(i.Manifests, i.Attestations, i.Referrers) {
			own.add(own.g.Manifests[d].Descriptor)
		}
		r := own.into
		if i.Partial {
			r.partial = append(r.partial, i)
		}
		for _, d := range i.Manifests {
			if !slices.Contains(r.retain, d) {
				r.retain = append(r.retain, d)
			}
		}
		if i.Tag != "" {
			r.tags = append(r.tags, tag{name: i.Tag, image: i, digest: i.Manifests[0]})
		}
		// Many repositories may need the same large set of blobs.
		if total += len(r.blobs) + len(r.manifests); total > bundle.MaxDescriptors {
			return nil, fmt.Errorf("%w: the repositories need more than %d blobs in all", bundle.ErrLimit, bundle.MaxDescriptors)
		}
	}
	return list, nil
}

// collector gathers the content that a repository needs, each digest once per role.
type collector struct {
	g    *bundle.Geometry
	into *repository
	seen map[bundle.Digest]bool
	blob map[bundle.Digest]bool
}

func (c *collector) add(d bundle.Descriptor) {
	m := c.g.Manifests[d.Digest]
	if m == nil || !bundle.IsManifest(d.MediaType) {
		if c.blob == nil {
			c.blob = map[bundle.Digest]bool{}
		}
		if !c.blob[d.Digest] {
			c.blob[d.Digest] = true
			c.into.blobs = append(c.into.blobs, d.Digest)
		}
		return
	}
	if c.seen[d.Digest] {
		return
	}
	c.seen[d.Digest] = true
	for _, child := range m.Children() {
		c.add(child)
	}
	c.into.manifests = append(c.into.manifests, d.Digest)
}

// siteReference returns the reference of an image on the site.
func (c *content) siteReference(i bundle.Image, d bundle.Digest) string {
	s := c.Target.Address + "/" + i.Repository
	if i.Tag != "" {
		return s + ":" + i.Tag
	}
	return s + "@" + string(d)
}

// platformTags returns one tag for each platform of an image, for a target that rejects its
// partial index. It omits a tag that another image of the bundle uses, and a tag longer than a
// registry allows (distribution-spec). Such a platform is reachable only by digest.
func (c *content) platformTags(i bundle.Image) map[string]bundle.Digest {
	if !i.Partial || len(i.Manifests) < 2 {
		return nil
	}
	names := map[string]bundle.Digest{}
	for _, d := range c.platforms(i) {
		name := i.Tag + "-" + strings.ReplaceAll(d.Platform.String(), "/", "-")
		taken := slices.ContainsFunc(c.images, func(o bundle.Image) bool { return o.Repository == i.Repository && o.Tag == name })
		if _, twice := names[name]; !taken && !twice && len(name) <= 128 { // Windows images have several manifests for one platform
			names[name] = d.Digest
		}
	}
	return names
}

// content is what a bundle brings, and the registry that it goes into.
type content struct {
	Bundle *verify.Verified
	Target Registry

	images  []bundle.Image
	central string // the repository that gets the complete tree
}

// content returns everything that the target gets, and the average number of repositories that
// each blob goes into, rounded up.
func (c *content) all(repos []*repository) (all []bundle.Descriptor, links int) {
	for _, m := range c.Bundle.Blobs() {
		all = append(all, bundle.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: m.Size})
	}
	all = append(all, bundle.Descriptor{Digest: c.Bundle.Identity, Size: int64(len(c.Bundle.Root))})
	slot, _, blobs := c.slot()
	all = append(all, slot)
	for d, data := range blobs {
		all = append(all, bundle.Descriptor{Digest: d, Size: int64(len(data))})
	}
	for _, r := range repos {
		links += len(r.blobs) + len(r.manifests)
	}
	return all, (links + len(all) - 1) / len(all)
}
