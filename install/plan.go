package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/verify"
)

// Plan is what an installation will do.
type Plan struct {
	Bundle  *verify.Verified
	Target  Registry
	Options Options

	ledger  *ledger.Ledger
	journal *ledger.Journal
	images  []bundle.Image
	central string // the repository that gets the whole tree
	release *host.Release
	done    *Result      // it is installed as it stands
	drift   []host.Drift // what was put right, with Options.Again
}

// Options are the site's decisions about one installation.
type Options struct {
	Root string
	// HostRoot is the directory whose etc/ gets links to the release; "" stands for
	// that of the current release, or where there is none for FirstHostRoot, which may
	// be "", too.
	HostRoot, FirstHostRoot string
	// Values are what only the site knows; nil stands for those that the current
	// release was made with.
	Values map[string]string
	// PlainHTTP reports whether a registry, by its address, is spoken to without TLS;
	// nil means that none is.
	PlainHTTP      func(address string) bool
	Start          bool          // it is going to be started on this host
	Policy         verify.Policy // for what is found on the registry
	AllowDowngrade bool
	TakeOver       bool
	// Chosen says that the target was named, and is not what is taken otherwise.
	Chosen bool
	// InPlace says that the bundle comes from the target itself, where another
	// host has put it: nothing of it is stored or tagged.
	InPlace bool
	// Again does everything although the bundle is installed as it stands.
	Again bool
	Warn  func(format string, args ...any)
	// Before is called when everything is stored and nothing is switched yet, with the
	// release that is going to be current. An error leaves it at that.
	Before func(ctx context.Context, next *host.About) error
}

// CentralRepository is where the root and everything below it is kept.
func CentralRepository(name string) string { return "oob-bundle/" + name }

// NewPlan decides whether the bundle may be installed and what that means. The
// caller holds the lock. The error holds every problem that was found; they wrap
// bundle.ErrPolicy, disk.ErrSpace, host.ErrValues, fs.ErrPermission, or are the
// target's.
func NewPlan(ctx context.Context, v *verify.Verified, target Registry, o Options) (*Plan, error) {
	l, err := ledger.Read(o.Root)
	if err != nil {
		return nil, err
	}
	if l.Rebuilt != nil {
		o.Warn("%v; what is installed is known from receipts and releases", l.Rebuilt)
	}
	journal, err := ledger.ReadJournal(o.Root, target.Name)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		Bundle: v, Target: target, Options: o,
		ledger: l, journal: journal, images: v.Deployment.Images, central: CentralRepository(v.Info.Name),
	}
	if err := p.checkSequence(ctx); err != nil {
		return nil, err
	}
	return p, p.preflight(ctx)
}

// Release returns the ID of the release that the plan makes.
func (p *Plan) Release() string { return p.release.ID }

// Links returns the places outside of the root that the release will have, as its
// bundle names them.
func (p *Plan) Links() []bundle.Link { return p.release.Linked() }

// checkHost refuses to put a link in the place of something that is the host's.
func (p *Plan) checkHost() error {
	foreign, err := p.release.Foreign()
	if err != nil || p.Options.TakeOver || p.again() { // what others have by now is left to them
		return err
	}
	var problems []error
	var hosts []string
	for _, path := range foreign {
		owner, ok := p.ledger.Owner(ledger.Path(path))
		switch {
		case !ok:
			hosts = append(hosts, path)
		case owner.Name != p.Bundle.Info.Name:
			problems = append(problems, fmt.Errorf(
				"%w: %s belongs to %s (channel %q); --take-over gives it to %s",
				bundle.ErrPolicy, path, owner.Name, owner.Current().Channel, p.Bundle.Info.Name,
			))
		}
	}
	if len(hosts) > 0 {
		problems = append(problems, fmt.Errorf(
			"%w: the host has something of its own at %s; --take-over keeps it aside and puts it back with uninstall",
			bundle.ErrPolicy, strings.Join(hosts, ", "),
		))
	}
	return errors.Join(problems...)
}

// checkSequence refuses to go back, by what this host knows and by what the
// target's own verified root says.
func (p *Plan) checkSequence(ctx context.Context) error {
	info := p.Bundle.Info
	if slices.Contains(p.ledger.Unknown, info.Name) && !p.Options.AllowDowngrade {
		return fmt.Errorf(
			"%w: %s is installed, and the records that show which sequence it has are lost; restore state.json or receipts/ "+
				"from a backup, or install the newest bundle with --allow-downgrade",
			bundle.ErrPolicy, info.Name,
		)
	}
	if known, ok := p.ledger.Channels[info.Channel]; ok {
		if err := p.checkAgainst(known, "on this host"); err != nil {
			return err
		}
	}
	if p.Options.InPlace && p.ledger.Channels[info.Channel].Identity == p.Bundle.Identity {
		return nil // this host has it, however far others are; nothing is stored or tagged
	}
	if p.Target.Network == nil {
		return nil // the ledger knows what is in it
	}
	head, err := p.Target.Network.Root(ctx, p.central, channelTag(info.Channel))
	if err != nil || head == nil {
		return err
	}
	found, _, err := verify.Root(head, p.Options.Policy)
	if err != nil {
		p.Options.Warn("the bundle found on %s is not signed by a trusted key and is not taken into account: %v", p.Target.Name, err)
		return nil
	}
	if found.Channel != info.Channel {
		return nil
	}
	return p.checkAgainst(
		ledger.Channel{Sequence: found.Sequence, Identity: head.Identity(), Pending: p.ledger.Channels[info.Channel].Pending},
		"on "+p.Target.Name,
	)
}

// checkAgainst compares the bundle with how far its channel is known to be. What
// is installed, or was begun, is never refused.
func (p *Plan) checkAgainst(known ledger.Channel, where string) error {
	info, identity := p.Bundle.Info, p.Bundle.Identity
	switch {
	case identity == known.Identity || identity == known.Pending || identity == known.Highest || info.Sequence > known.Sequence:
		return nil
	case info.Sequence == known.Sequence:
		return fmt.Errorf(
			"%w: channel %q has had another bundle with the same sequence %d %s (%s); create this one again with a higher --sequence",
			bundle.ErrPolicy, info.Channel, info.Sequence, where, cmp.Or(known.Pending, known.Identity),
		)
	case p.Options.AllowDowngrade:
		p.Options.Warn("going back on channel %q from sequence %d to %d, as --allow-downgrade says", info.Channel, known.Sequence, info.Sequence)
		return nil
	}
	return fmt.Errorf(
		"%[1]w: it is older than the newest that channel %[3]q has had %[2]s (sequence %[4]d, newest %[5]d); is it the right "+
			"file? oob-bundle rollback goes back to the release before, and --allow-downgrade installs it all the same",
		bundle.ErrPolicy, where, info.Channel, info.Sequence, known.Sequence,
	)
}

// checkOwners refuses to change what another channel installed. A tag that means the same
// already is not changed.
func (p *Plan) checkOwners(ctx context.Context) error {
	info := p.Bundle.Info
	if p.Options.TakeOver {
		return nil
	}
	if channel, known := p.ledger.Names[info.Name]; known && channel != info.Channel {
		taken, err := host.Keeps(p.Options.Root, info.Name)
		if err != nil {
			return err
		}
		if taken || p.ledger.Has(info.Name) {
			return fmt.Errorf(
				"%w: deployment %s belongs to channel %q, and this bundle is of channel %q; --take-over gives it to this one",
				bundle.ErrPolicy, info.Name, channel, info.Channel,
			)
		}
	}
	for _, i := range p.images {
		for _, tag := range p.tagNames(i) {
			owner, ok := p.foreignOwner(i.Repository, tag)
			if !ok {
				continue
			}
			now, err := p.Target.Resolve(ctx, i.Repository, tag)
			if err != nil {
				return err
			}
			if !meansSame(i, now) {
				return fmt.Errorf("%w: %s/%s:%s belongs to %s (channel %q), and this bundle of channel %q would change it; --take-over allows that",
					bundle.ErrPolicy, p.Target.Address, i.Repository, tag, owner.Name, owner.Current().Channel, info.Channel)
			}
		}
	}
	return nil
}

// foreignOwner returns the deployment of another channel that has a tag, if one does.
func (p *Plan) foreignOwner(repo, tag string) (ledger.Deployment, bool) {
	owner, ok := p.ledger.Owner(p.place(repo, tag))
	return owner, ok && owner.Current().Channel != p.Bundle.Info.Channel
}

func (p *Plan) place(repo, tag string) ledger.Place { return ledger.Tag(p.Target.Name, repo, tag) }

// tagNames returns the tags that an image may get.
func (p *Plan) tagNames(i bundle.Image) []string {
	if i.Tag == "" {
		return nil
	}
	return append(sortedKeys(p.platformTags(i)), i.Tag)
}

// sortedKeys returns the keys of a map in their order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Done reports whether the bundle is installed as it stands, and Apply has nothing
// to do.
func (p *Plan) Done() bool { return p.done != nil }

// platforms returns the root's descriptors of an image that say a platform.
func (p *Plan) platforms(i bundle.Image) []bundle.Descriptor {
	var list []bundle.Descriptor
	for _, d := range p.Bundle.Index.Manifests {
		if d.Annotations[bundle.AnnotationRef] == i.Reference && d.Platform != nil {
			list = append(list, d)
		}
	}
	return list
}

// channelTag is the tag under which the newest root of a channel is found.
func channelTag(channel string) string { return "channel-" + bundle.DigestOf([]byte(channel)).Short() }

// repository is what goes into one repository of the target.
type repository struct {
	name      string
	manifests []bundle.Digest // children before parents
	blobs     []bundle.Digest
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
func (p *Plan) repositories() ([]*repository, error) {
	central := &repository{name: p.central}
	all := collector{g: p.Bundle.Geometry, into: central, seen: map[bundle.Digest]bool{}}
	for _, d := range p.Bundle.Index.Manifests {
		all.add(d)
	}
	list := []*repository{central}
	collectors := map[string]*collector{}
	total := 0
	for _, i := range p.images {
		c := collectors[i.Repository]
		if c == nil {
			c = &collector{g: p.Bundle.Geometry, into: &repository{name: i.Repository}, seen: map[bundle.Digest]bool{}}
			collectors[i.Repository] = c
			list = append(list, c.into)
		}
		for _, d := range slices.Concat(i.Manifests, i.Attestations, i.Referrers) {
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
		// Many repositories may need the same many blobs.
		if total += len(r.blobs) + len(r.manifests); total > bundle.MaxDescriptors {
			return nil, fmt.Errorf("%w: the repositories need more than %d blobs in all", bundle.ErrLimit, bundle.MaxDescriptors)
		}
	}
	return list, nil
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

// retentionTags keeps each installed manifest from being taken for garbage:
// oob-<16 digits of the identity>, and with a number from the second one on.
func retentionTag(identity bundle.Digest, n int) string {
	t := "oob-" + identity.Short()
	if n > 0 {
		t += "-" + strconv.Itoa(n+1)
	}
	return t
}

// Retaining returns the tags of a release that only keep its content from being collected.
func Retaining(l *ledger.Ledger, d ledger.Deployment, r ledger.Release) []ledger.Placed {
	return slices.DeleteFunc(l.Tags(d, r.ID), func(t ledger.Placed) bool {
		_, _, tag, _ := t.Place.Split()
		return !strings.HasPrefix(tag, retentionTag(r.Identity, 0))
	})
}

// Published returns the tags of a deployment's current release by which people find images,
// except those that another deployment has by now.
func Published(l *ledger.Ledger, d ledger.Deployment) []ledger.Placed {
	retaining := retentionTag(d.Current().Identity, 0)
	return slices.DeleteFunc(l.Tags(d, d.Current().ID), func(t ledger.Placed) bool {
		_, repo, tag, _ := t.Place.Split()
		owner, _ := l.Owner(t.Place)
		return repo == CentralRepository(d.Name) || strings.HasPrefix(tag, retaining) || owner.Key() != d.Key()
	})
}

// siteReference is how an image is called on the site.
func (p *Plan) siteReference(i bundle.Image, d bundle.Digest) string {
	s := p.Target.Address + "/" + i.Repository
	if i.Tag != "" {
		return s + ":" + i.Tag
	}
	return s + "@" + string(d)
}

// platformTags are the names of an image's platforms, for a target that does not take its
// partial index. A name that another image of the bundle has is left to that, and so is one
// that is longer than a registry takes (distribution-spec): the digest remains.
func (p *Plan) platformTags(i bundle.Image) map[string]bundle.Digest {
	if !i.Partial || len(i.Manifests) < 2 {
		return nil
	}
	names := map[string]bundle.Digest{}
	for _, d := range p.platforms(i) {
		name := i.Tag + "-" + strings.ReplaceAll(d.Platform.String(), "/", "-")
		taken := slices.ContainsFunc(p.images, func(o bundle.Image) bool { return o.Repository == i.Repository && o.Tag == name })
		if _, twice := names[name]; !taken && !twice && len(name) <= 128 { // Windows has several of a platform
			names[name] = d.Digest
		}
	}
	return names
}
