package install

import (
	"context"
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

// foreignOwner returns the deployment of another channel that owns a tag, if there is one.
func (p *Plan) foreignOwner(repo, tag string) (ledger.Deployment, bool) {
	owner, ok := p.ledger.Owner(p.place(repo, tag))
	return owner, ok && owner.Current().Channel != p.Bundle.Info.Channel
}

// sortedKeys returns the keys of a map in sorted order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Done reports whether the bundle is already installed, so that Apply has nothing to do.
func (p *Plan) Done() bool { return p.done != nil }

// channelTag returns the tag that points to the newest root of a channel.
func channelTag(channel string) string { return "channel-" + bundle.DigestOf([]byte(channel)).Short() }

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
