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

// Plan describes what an installation will do.
type Plan struct {
	content
	Options Options

	ledger  *ledger.Ledger
	journal *ledger.Journal
	release *host.Release
	done    *Result      // set if the bundle is already installed
	drift   []host.Drift // what was repaired, with Options.Again
}

// Options are the site's decisions about one installation.
type Options struct {
	Root string
	// HostRoot is the directory whose etc/ gets links to the release. "" selects the HostRoot
	// of the current release, or FirstHostRoot if there is no current release. FirstHostRoot
	// may be "", too.
	HostRoot, FirstHostRoot string
	// Values are the site's values. Nil selects the values of the current release.
	Values map[string]string
	// PlainHTTP reports whether a registry address is contacted without TLS. Nil means that
	// every registry uses TLS.
	PlainHTTP      func(address string) bool
	Start          bool          // the release will be started on this host
	Policy         verify.Policy // for bundles found on the registry
	AllowDowngrade bool
	TakeOver       bool
	// Chosen means that the user named the target; it is not the default.
	Chosen bool
	// InPlace means that the bundle comes from the target itself, where another host stored
	// it. Nothing is stored or tagged.
	InPlace bool
	// Again carries out every step even if the bundle is already installed.
	Again bool
	Warn  func(format string, args ...any)
	// Before is called with the new release when everything is stored and nothing is switched
	// yet. An error stops the installation there.
	Before func(ctx context.Context, next *host.About) error
}

// CentralRepository returns the repository that holds the root and everything below it.
func CentralRepository(name string) string { return "oob-bundle/" + name }

// NewPlan decides whether the bundle may be installed, and computes the changes. The caller
// must hold the lock. The error contains every problem found; the problems wrap
// bundle.ErrPolicy, disk.ErrSpace, host.ErrValues or fs.ErrPermission, or are the target's.
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
		content: content{Bundle: v, Target: target, images: v.Deployment.Images, central: CentralRepository(v.Info.Name)},
		Options: o, ledger: l, journal: journal,
	}
	check := preflight{p}
	if err := check.checkSequence(ctx); err != nil {
		return nil, err
	}
	return p, check.run(ctx)
}

// Release returns the ID of the release that the plan makes.
func (p *Plan) Release() string { return p.release.ID }

// Links returns the paths outside of the root that the release will link, as its bundle names
// them.
func (p *Plan) Links() []bundle.Link { return p.release.Linked() }

// checkHost refuses to replace a file of the host, or a link of another deployment, with a
// link.
func (p preflight) checkHost() error {
	foreign, err := p.release.Foreign()
	if err != nil || p.Options.TakeOver || p.again() { // links of other deployments stay theirs
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

// checkSequence refuses a downgrade, judged by this host's records and by the verified root on
// the target.
func (p preflight) checkSequence(ctx context.Context) error {
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
		return nil // already installed here, even if other hosts are further; nothing is stored or tagged
	}
	if p.Target.Network == nil {
		return nil // the ledger describes its content
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

// checkAgainst compares the bundle's sequence with the known state of its channel. A bundle
// that is installed or whose installation was started is never refused.
func (p preflight) checkAgainst(known ledger.Channel, where string) error {
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

// checkOwners refuses to change what another channel installed. A tag that already points to
// the same image is not a change.
func (p preflight) checkOwners(ctx context.Context) error {
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

// foreignOwner returns the deployment of another channel that owns a tag, if there is one.
func (p *Plan) foreignOwner(repo, tag string) (ledger.Deployment, bool) {
	owner, ok := p.ledger.Owner(p.place(repo, tag))
	return owner, ok && owner.Current().Channel != p.Bundle.Info.Channel
}

func (c *content) place(repo, tag string) ledger.Place { return ledger.Tag(c.Target.Name, repo, tag) }

// tagNames returns the tags that an image may get.
func (c *content) tagNames(i bundle.Image) []string {
	if i.Tag == "" {
		return nil
	}
	return append(sortedKeys(c.platformTags(i)), i.Tag)
}

// sortedKeys returns the keys of a map in sorted order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Done reports whether the bundle is already installed, so that Apply has nothing to do.
func (p *Plan) Done() bool { return p.done != nil }

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

// channelTag returns the tag that points to the newest root of a channel.
func channelTag(channel string) string { return "channel-" + bundle.DigestOf([]byte(channel)).Short() }

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

// retentionTag returns a tag that protects an installed manifest from garbage collection:
// oob-<first 16 hex digits of the identity>, followed by -2, -3, … from the second manifest
// on.
func retentionTag(identity bundle.Digest, n int) string {
	t := "oob-" + identity.Short()
	if n > 0 {
		t += "-" + strconv.Itoa(n+1)
	}
	return t
}

// Retaining returns the tags of a release that only protect its content from garbage
// collection.
func Retaining(l *ledger.Ledger, d ledger.Deployment, r ledger.Release) []ledger.Placed {
	return slices.DeleteFunc(l.Tags(d, r.ID), func(t ledger.Placed) bool {
		_, _, tag, _ := t.Place.Split()
		return !strings.HasPrefix(tag, retentionTag(r.Identity, 0))
	})
}

// Published returns the image tags of a deployment's current release, except those that
// another deployment owns now.
func Published(l *ledger.Ledger, d ledger.Deployment) []ledger.Placed {
	retaining := retentionTag(d.Current().Identity, 0)
	return slices.DeleteFunc(l.Tags(d, d.Current().ID), func(t ledger.Placed) bool {
		_, repo, tag, _ := t.Place.Split()
		owner, _ := l.Owner(t.Place)
		return repo == CentralRepository(d.Name) || strings.HasPrefix(tag, retaining) || owner.Key() != d.Key()
	})
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
