package install

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/verify"
)

// Target is a registry that images can be put into. Repositories are named
// without the target's own prefix. All methods may be called concurrently,
// except that Undo and Sync are called alone.
type Target interface {
	// Name identifies the target in the state.
	Name() string
	// Address is what references on the site begin with.
	Address() string
	// HasBlob reports whether the repository has the blob.
	HasBlob(ctx context.Context, repo string, d bundle.Descriptor) (bool, error)
	// PutBlob stores a blob, or mounts it from another repository if from is not
	// empty. Content that is not d's is not kept, and the error wraps
	// bundle.ErrDigest.
	PutBlob(ctx context.Context, repo string, d bundle.Descriptor, from string, open func() io.Reader) error
	// PutManifest stores a manifest whose children are there.
	PutManifest(ctx context.Context, repo string, m *bundle.Manifest, data []byte) error
	// PutPartial stores an index although some of its children are missing, if
	// the target can.
	PutPartial(ctx context.Context, repo string, m *bundle.Manifest, data []byte) (accepted bool, err error)
	// Resolve returns the digest of a tag, or "" if there is none.
	Resolve(ctx context.Context, repo, tag string) (bundle.Digest, error)
	// Tag points a tag to a manifest that is there.
	Tag(ctx context.Context, repo, tag string, d bundle.Descriptor, data []byte) error
	// Retag points a tag back to a digest; "" removes it where that is possible.
	Retag(ctx context.Context, repo, tag string, to bundle.Digest) error
	// Root returns the root and signatures found under a tag, or nil.
	Root(ctx context.Context, repo, tag string) (*bundle.Head, error)
	// Sync makes durable what was stored.
	Sync() error
	// Undo removes what was stored since the target was opened, where possible.
	Undo(ctx context.Context) error
}

// Plan is what an installation will do.
type Plan struct {
	Bundle  *verify.Verified
	Target  Target
	Options Options

	state   *State
	journal *Journal
	images  []bundle.Image
	central string // the repository that gets the whole tree
}

// Options are the site's decisions about one installation.
type Options struct {
	Root           string
	Policy         verify.Policy // for what is found on the registry
	AllowDowngrade bool
	TakeOver       bool
	Warn           func(format string, args ...any)
}

// CentralRepository is where the root and everything below it is kept.
func CentralRepository(name string) string { return "oob-bundle/" + name }

// NewPlan decides whether the bundle may be installed and what that means. The
// caller holds the lock. Errors wrap bundle.ErrPolicy, or are the target's.
func NewPlan(ctx context.Context, v *verify.Verified, target Target, o Options) (*Plan, error) {
	state, err := ReadState(o.Root)
	if err != nil {
		return nil, err
	}
	journal, err := ReadJournal(o.Root)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		Bundle: v, Target: target, Options: o,
		state: state, journal: journal, images: v.Deployment.Images, central: CentralRepository(v.Info.Name),
	}
	if err := p.checkSequence(ctx); err != nil {
		return nil, err
	}
	return p, p.checkOwners()
}

// checkSequence refuses to go back, by what this host knows and by what the
// target's own verified root says.
func (p *Plan) checkSequence(ctx context.Context) error {
	o := p.Options
	info, identity := p.Bundle.Info, p.Bundle.Identity
	known := p.state.Channels[info.Channel]
	_, installed := p.state.Channels[info.Channel]
	where := "on this host"
	head, err := p.Target.Root(ctx, p.central, channelTag(info.Channel))
	if err != nil {
		return err
	}
	if head != nil {
		found, _, err := verify.Root(head, o.Policy)
		switch {
		case err != nil:
			o.Warn("the bundle found on %s is not signed by a trusted key and is not taken into account: %v", p.Target.Name(), err)
		case found.Channel == info.Channel && (!installed || found.Sequence > known.Sequence):
			known = Channel{Sequence: found.Sequence, Identity: head.Identity()}
			installed, where = true, "on "+p.Target.Name()
		}
	}
	switch {
	case !installed || identity == known.Identity || identity == known.Pending:
		return nil
	case info.Sequence > known.Sequence:
		return nil
	case info.Sequence == known.Sequence && known.Identity == "" && known.Pending == "":
		return nil
	case o.AllowDowngrade:
		o.Warn("going back on channel %q from sequence %d to %d, as --allow-downgrade says", info.Channel, known.Sequence, info.Sequence)
		return nil
	case info.Sequence == known.Sequence:
		return fmt.Errorf("%w: another bundle with the same sequence %d is installed %s on channel %q (%s)",
			bundle.ErrPolicy, info.Sequence, where, info.Channel, known.Identity)
	}
	return fmt.Errorf("%w: it is older than the one installed %s on channel %q (sequence %d, installed %d); --allow-downgrade installs it all the same",
		bundle.ErrPolicy, where, info.Channel, info.Sequence, known.Sequence)
}

// checkOwners refuses to change what another channel installed.
func (p *Plan) checkOwners() error {
	if p.Options.TakeOver {
		return nil
	}
	for _, key := range p.owned() {
		if owner, ok := p.state.Owners[key]; ok && owner != p.Bundle.Info.Channel {
			return fmt.Errorf("%w: %q belongs to channel %q, and this bundle is of channel %q; --take-over gives it to this one",
				bundle.ErrPolicy, key, owner, p.Bundle.Info.Channel)
		}
	}
	return nil
}

// owned returns what the bundle will own, as keys of State.Owners.
func (p *Plan) owned() []string {
	keys := []string{"deployment " + p.Bundle.Info.Name}
	for _, i := range p.images {
		if i.Tag != "" {
			keys = append(keys, fmt.Sprintf("tag %s %s:%s", p.Target.Name(), i.Repository, i.Tag))
		}
	}
	return keys
}

// channelTag is the tag under which the newest root of a channel is found.
func channelTag(channel string) string { return "channel-" + bundle.DigestOf([]byte(channel)).Short() }

// repository is what goes into one repository of the target.
type repository struct {
	name      string
	manifests []bundle.Digest // children before parents
	blobs     []bundle.Descriptor
	partial   []bundle.Image // indexes that are offered, whatever their children
	retain    []bundle.Digest
	tags      []tag
}

// tag is one that moves last.
type tag struct {
	name   string
	image  bundle.Image
	digest bundle.Digest // what it points to
}

// repositories returns the central repository first, with everything, and then
// one for each repository that images ask for.
func (p *Plan) repositories() []*repository {
	central := &repository{name: p.central}
	all := collector{g: p.Bundle.Geometry, into: central, seen: map[bundle.Digest]bool{}}
	for _, d := range p.Bundle.Index.Manifests {
		all.add(d)
	}
	list := []*repository{central}
	collectors := map[string]*collector{}
	for _, i := range p.images {
		c := collectors[i.Repository]
		if c == nil {
			c = &collector{g: p.Bundle.Geometry, into: &repository{name: i.Repository}, seen: map[bundle.Digest]bool{}}
			collectors[i.Repository] = c
			list = append(list, c.into)
		}
		for _, d := range slices.Concat(i.Manifests, i.Attestations) {
			c.add(c.g.Manifests[d].Descriptor)
		}
		r := c.into
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
	}
	return list
}

// collector gathers what a repository needs, each digest once per role.
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
			c.into.blobs = append(c.into.blobs, d)
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

// retentionTags keeps each installed manifest from being taken for garbage:
// oob-<16 digits of the identity>, and with a number from the second one on.
func retentionTag(identity bundle.Digest, n int) string {
	t := "oob-" + identity.Short()
	if n > 0 {
		t += "-" + strconv.Itoa(n+1)
	}
	return t
}

// siteReference is how an image is called on the site.
func (p *Plan) siteReference(i bundle.Image, d bundle.Digest) string {
	s := p.Target.Address() + "/" + i.Repository
	if i.Tag != "" {
		return s + ":" + i.Tag
	}
	return s + "@" + string(d)
}

// platformTag names one platform's manifest where the index cannot be stored.
func platformTag(tag string, p *bundle.Platform) string {
	return tag + "-" + strings.ReplaceAll(p.String(), "/", "-")
}
