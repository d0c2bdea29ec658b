package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// change switches a deployment from one ledger to the next: first the tags, then the release.
// Every step may be repeated.
type change struct {
	root   string
	ledger *ledger.Ledger // before the change, or after it where it was recorded
	target Registry
	// yielding leaves a path to the deployment that owns it now.
	yielding bool
	warn     func(format string, args ...any) // or nil
}

// tell reports a fact to the operator.
func (c *change) tell(format string, args ...any) {
	if c.warn != nil {
		c.warn(format, args...)
	}
}

// moves returns the tags that must move to reach the next ledger, in the order in which they
// are switched. Own are the forced tags; they move whatever their current value is. Others are
// the remaining tags, without those that another host or user has moved since this host set
// them.
func (c *change) moves(ctx context.Context, next *ledger.Ledger, forced map[ledger.Place]bool) (own, others []ledger.TagMove, err error) {
	from := map[ledger.Place]bundle.Digest{}
	to := map[ledger.Place]bundle.Digest{}
	for p, is := range forced {
		if is {
			to[p] = next.Value(p)
		}
	}
	for _, m := range ledger.Diff(c.ledger, next, c.target.Name) {
		from[m.Place], to[m.Place] = m.From, m.To
	}
	for p := range to {
		_, repository, tag, _ := p.Split()
		now, err := c.target.Resolve(ctx, repository, tag)
		if err != nil {
			return nil, nil, err
		}
		move := ledger.TagMove{Repository: repository, Tag: tag, From: now, To: to[p]}
		switch {
		case forced[p]:
			own = append(own, move)
		case now == from[p]:
			others = append(others, move)
		}
	}
	slices.SortFunc(own, inOrder)
	slices.SortFunc(others, inOrder)
	return own, others, nil
}

// complete adds further tags that must move to the journal of another run. Programs that kept
// a State moved the tags of earlier releases later.
func (c *change) complete(ctx context.Context, j *ledger.Journal, next *ledger.Ledger) error {
	d := next.Deployments[ledger.Key(j.Name, j.Registry)]
	forced := map[ledger.Place]bool{}
	if j.Action == ledger.ActionInstall { // these are in the journal, or another host has set them
		for _, t := range next.Tags(d, d.Current().ID) {
			forced[t.Place] = true
		}
	}
	_, others, err := c.moves(ctx, next, forced)
	if err != nil {
		return err
	}
	have := len(j.Others)
	for _, m := range others {
		same := func(x ledger.TagMove) bool { return x.Repository == m.Repository && x.Tag == m.Tag }
		if !slices.ContainsFunc(j.Tags, same) && !slices.ContainsFunc(j.Others, same) {
			j.Others = append(j.Others, m)
		}
	}
	if len(j.Others) == have {
		return nil
	}
	return j.Write(c.root)
}

// inOrder sorts tags by the order in which they move: first existing tags, which a registry
// may refuse to move; then new tags; then channel tags, by which other hosts discover a
// bundle; last the tags that are removed.
func inOrder(a, b ledger.TagMove) int {
	rank := func(m ledger.TagMove) int {
		switch {
		case m.To == "":
			return 3
		case strings.HasPrefix(m.Repository, CentralRepository("")) && strings.HasPrefix(m.Tag, "channel-"):
			return 2
		case m.From != "" && m.From != m.To:
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Tag, b.Tag))
}

// apply carries out the journal. A tag that already has the right value is set again, because
// an earlier run may have written it partially; a registry with immutable tags may refuse
// that. The error wraps ErrRefused if the target does not let a tag move.
func (c *change) apply(ctx context.Context, j *ledger.Journal) error {
	for n, m := range slices.Concat(j.Tags, j.Others) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if m.From == m.To {
			continue
		}
		put := c.point
		if j.Action == ledger.ActionInstall && n < len(j.Tags) { // the manifests of an installation must be there
			put = c.target.Tag
		}
		now, err := c.target.Resolve(ctx, m.Repository, m.Tag)
		if err == nil {
			err = put(ctx, m.Repository, m.Tag, m.To)
		}
		if errors.Is(err, ErrRefused) && now == m.To {
			continue
		}
		if err != nil {
			return fmt.Errorf("tagging %s:%s: %w", m.Repository, m.Tag, err)
		}
	}
	if err := c.release(j.Name, j.From, j.Release, j.Action != ledger.ActionInstall); err != nil {
		return err
	}
	return c.target.sync()
}

// revert undoes those steps of the journal that were carried out.
func (c *change) revert(ctx context.Context, j *ledger.Journal) error {
	for _, m := range slices.Concat(j.Tags, j.Others) {
		now, err := c.target.Resolve(ctx, m.Repository, m.Tag)
		if err != nil {
			return err
		}
		if now != m.To || now == m.From {
			continue // the tag was not moved
		}
		if err := c.point(ctx, m.Repository, m.Tag, m.From); err != nil {
			return err
		}
	}
	if err := c.release(j.Name, j.Release, j.From, true); err != nil {
		return err
	}
	return c.target.sync()
}

// point sets a tag to an earlier value. If the registry has collected that manifest as
// untagged content, point removes the tag.
func (c *change) point(ctx context.Context, repo, tag string, to bundle.Digest) error {
	err := c.target.Tag(ctx, repo, tag, to)
	if to != "" && errors.Is(err, ErrMissing) {
		c.tell("%s:%s was %s before, which %s does not have any more; the tag is removed", repo, tag, to, c.target.Address)
		err = c.target.Tag(ctx, repo, tag, "")
	}
	return err
}

// settle ends a change that another run left unfinished. A change that the ledger has recorded
// is completed; any other change is reverted.
func (c *change) settle(ctx context.Context, j *ledger.Journal) error {
	if j.Action != ledger.ActionUninstall && j.Recorded(c.ledger) {
		if err := c.apply(ctx, j); err != nil {
			return err
		}
		if err := c.tidy(j.Name); err != nil {
			return err
		}
	} else if err := c.revert(ctx, j); err != nil {
		return err
	}
	return j.Remove(c.root)
}

// carryOut applies a change completely or not at all. If the target does not let a tag move,
// carryOut moves the other tags back and removes the journal, and the error wraps
// bundle.ErrPolicy. Other errors wrap ErrIncomplete.
func (c *change) carryOut(ctx context.Context, j *ledger.Journal) error {
	err := c.apply(ctx, j)
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrRefused) {
		return unfinished(j.Action, err)
	}
	if undone := c.revert(ctx, j); undone != nil {
		return unfinished(j.Action, errors.Join(err, undone))
	}
	if removed := j.Remove(c.root); removed != nil {
		return unfinished(j.Action, errors.Join(err, removed))
	}
	return fmt.Errorf(
		"%w: %w; everything is as it was. Let the registry's rules for immutable tags leave these out, or use another --registry HOST/PREFIX",
		bundle.ErrPolicy, err,
	)
}

// release makes another release of a deployment current; "" means none. Undo reverts the
// previous release, including what it merged into files of others.
func (c *change) release(name, from, to string, undo bool) error {
	before, err := c.about(name, from)
	if err != nil {
		return err
	}
	after, err := c.about(name, to)
	switch {
	case err != nil:
		return err
	case to != "" && after == nil:
		return fmt.Errorf("%w: release %s of %s is not there any more", ledger.ErrNotInstalled, to, name)
	}
	if (undo || c.yielding) && after != nil { // a restored release takes no path from its present owner
		after.Links = OwnLinks(c.ledger, after)
	}
	switch {
	case before != nil || after != nil:
		return host.Switch(c.root, name, before, after, undo)
	case from != "":
		return host.RemoveLost(c.root, name, c.ledger.Paths(name))
	}
	return nil
}

// about reads a release. It returns nil if the ID is "" or the release's record is lost.
func (c *change) about(name, id string) (*host.About, error) {
	if id == "" {
		return nil, nil
	}
	a, err := host.ReadRelease(c.root, name, id)
	if err != nil && host.Lost(err) {
		return nil, nil
	}
	return a, err
}

// OwnLinks returns the links of a release whose paths do not belong to another deployment.
func OwnLinks(l *ledger.Ledger, a *host.About) []bundle.Link {
	return slices.DeleteFunc(slices.Clone(a.Links), func(link bundle.Link) bool {
		owner, ok := l.Owner(ledger.Path(filepath.Join(a.HostRoot, link.Path)))
		return ok && owner.Name != a.Name
	})
}

// tidy removes the releases of a deployment that are not in the ledger, and writes or removes
// receipts so that they match the rest. The release that was started last stays, because
// programs have its files open.
func (c *change) tidy(name string) error {
	var keep []string
	receipts := map[string]bool{}
	for _, d := range c.ledger.Sorted() {
		if d.Name != name {
			continue
		}
		for _, r := range d.Releases {
			keep = append(keep, r.ID)
			receipts[ledger.ReceiptName(name, d.Registry, r.ID)] = true
			if err := c.writeReceipt(d, r); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(filepath.Dir(ledger.ReceiptPath(c.root, "x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	own := regexp.MustCompile("^" + regexp.QuoteMeta(name) + "-[0-9a-f]{16}-[0-9a-f]{8}[.]json$")
	for _, e := range entries {
		if own.MatchString(e.Name()) && !receipts[e.Name()] {
			if err := os.Remove(ledger.ReceiptPath(c.root, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	started, err := host.ReadStarted(c.root, name)
	if err != nil {
		return err
	}
	if started != nil {
		keep = append(keep, started.Release)
	}
	return host.Prune(c.root, name, keep)
}

// writeReceipt writes the receipt of a release whose receipt is missing.
func (c *change) writeReceipt(d ledger.Deployment, r ledger.Release) error {
	path := ledger.ReceiptPath(c.root, ledger.ReceiptName(d.Name, d.Registry, r.ID))
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	about, err := c.about(d.Name, r.ID)
	if err != nil || about == nil {
		return err
	}
	receipt, err := c.ledger.Receipt(c.root, d, r, about)
	if err != nil {
		return err
	}
	return host.WriteRecord(path, receipt)
}
