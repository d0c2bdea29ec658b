package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// keptReleases is how many earlier releases a deployment keeps, to go back to.
const keptReleases = 2

// change switches a deployment from one state to another: tags first, then the
// release. Every step may be repeated.
type change struct {
	root   string
	state  *State
	target Target
	leave  bool                             // the target is left alone
	modest bool                             // so are places that others have by now
	warn   func(format string, args ...any) // nil means that nobody wants to know
}

// tell passes on what the operator should know.
func (c *change) tell(format string, args ...any) {
	if c.warn != nil {
		c.warn(format, args...)
	}
}

// begin writes down what is going to be switched.
func (c *change) begin(j *Journal) error { return host.WriteRecord(journalPath(c.root, j.Registry), j) }

// forth carries out what the journal says. Tags that are right already are left alone: a
// registry with immutable tags refuses to put one a second time. The error wraps
// ErrRefused if the target does not let a tag move.
func (c *change) forth(ctx context.Context, j *Journal) error {
	for _, m := range slices.Concat(j.Tags, j.Others) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if m.From == m.To {
			continue
		}
		now, err := c.target.Resolve(ctx, m.Repository, m.Tag)
		if err == nil && (now != m.To || m.To == "") { // a removal may be half done
			err = c.move(ctx, j, m)
		}
		if err != nil {
			return fmt.Errorf("tagging %s:%s: %w", m.Repository, m.Tag, err)
		}
	}
	if err := c.release(j.Name, j.From, j.Release, j.Action != actionInstall); err != nil {
		return err
	}
	return c.target.Sync()
}

// move moves one tag. What an installation puts must be there; anything else may be gone.
func (c *change) move(ctx context.Context, j *Journal, m TagMove) error {
	if j.Action == actionInstall && indexTag(j.Others, m) < 0 {
		return c.target.Tag(ctx, m.Repository, m.Tag, m.To)
	}
	return c.point(ctx, m.Repository, m.Tag, m.To)
}

// back undoes what the journal says, as far as it has been carried out.
func (c *change) back(ctx context.Context, j *Journal) error {
	for _, m := range slices.Concat(j.Tags, j.Others) {
		now, err := c.target.Resolve(ctx, m.Repository, m.Tag)
		if err != nil {
			return err
		}
		if now != m.To || now == m.From {
			continue // it had not come to this one
		}
		if err := c.point(ctx, m.Repository, m.Tag, m.From); err != nil {
			return err
		}
	}
	if err := c.release(j.Name, j.Release, j.From, true); err != nil {
		return err
	}
	return c.target.Sync()
}

// settle ends a change that another run left unfinished: one that the state has recorded
// is completed, any other is undone.
func (c *change) settle(ctx context.Context, j *Journal) error {
	d, ok := c.state.Deployments[deploymentKey(j.Name, j.Registry)]
	if ok && j.Action != actionUninstall && d.Identity == j.Identity && d.Release == j.Release {
		if err := c.forth(ctx, j); err != nil {
			return err
		}
		if err := c.forget(ctx, c.state, j.Name); err != nil {
			return err
		}
	} else if err := c.back(ctx, j); err != nil {
		return err
	}
	return removeJournal(c.root, j.Registry)
}

// carryOut is forth for a change that is refused as a whole: where the target does not let
// a tag move, what has been moved is moved back and the journal is removed. The error
// wraps bundle.ErrPolicy then, and ErrIncomplete otherwise.
func (c *change) carryOut(ctx context.Context, j *Journal) error {
	err := c.forth(ctx, j)
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrRefused) {
		return unfinished(j.Action, err)
	}
	if undone := c.back(ctx, j); undone != nil {
		return unfinished(j.Action, errors.Join(err, undone))
	}
	if removed := removeJournal(c.root, j.Registry); removed != nil {
		return unfinished(j.Action, errors.Join(err, removed))
	}
	return fmt.Errorf("%w: %w; everything is as it was. Let the registry's rules for immutable tags leave these out, or use another --registry HOST/PREFIX", bundle.ErrPolicy, err)
}

// release makes another release of a deployment current; "" is none. Undo says that
// the one it was is taken back, with what it has merged into files of others.
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
		return fmt.Errorf("%w: release %s of %s is not there any more", ErrNotInstalled, to, name)
	}
	if (undo || c.modest) && after != nil { // what is put back takes nothing from those that have it by now
		after.Links = c.state.OwnLinks(after)
	}
	switch {
	case before != nil || after != nil:
		return host.Switch(c.root, name, before, after, undo)
	case from != "":
		return host.RemoveLost(c.root, name, c.state.paths(name))
	}
	return nil
}

// about reads a release, or nil if it is "", or nobody knows any more what it is.
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

// forget drops the receipts that the state names no more, with what only they kept:
// tags, which become what they were before, and releases. An interrupted run leaves
// such receipts, and the next change finds them. Where one that is named cannot be
// read nobody knows what it keeps, and nothing is dropped.
func (c *change) forget(ctx context.Context, s *State, name string) error {
	if err := c.dropLost(s); err != nil {
		return err
	}
	var keep []string // releases of the deployment, with any target
	named, names, bundles, claimed := map[string]bool{}, map[string]bool{}, map[bundle.Digest]bool{}, claims{}
	for _, d := range s.installed() {
		names[d.Name] = true
		for _, r := range append([]string{d.Receipt}, d.Before...) {
			receipt, err := ReadReceipt(c.root, r)
			if err != nil && !host.Lost(err) {
				return err
			}
			if err != nil {
				c.tell("%v; until that is put right nothing of earlier releases is removed", err)
				return nil
			}
			named[r] = true
			if d.Name == name {
				keep = append(keep, receipt.Release)
			}
			if receipt.Registry != c.target.Address() {
				continue
			}
			bundles[receipt.Bundle.Digest] = true
			if r == d.Receipt {
				claimed.add(s, d, receipt)
			}
			for _, t := range receipt.Tags {
				claimed.keep(t.Repository+":"+t.Tag, t.To)
			}
			for _, i := range receipt.Images { // where another host has put them there are no tags of our own
				claimed.keep(strings.TrimPrefix(i.Reference, receipt.Registry+"/"), i.Digest)
			}
		}
	}
	entries, err := os.ReadDir(filepath.Dir(receiptPath(c.root, "x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if named[e.Name()] || filepath.Ext(e.Name()) != ".json" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		receipt, err := ReadReceipt(c.root, e.Name())
		if err != nil && !host.Lost(err) {
			return err
		}
		if err != nil {
			c.tell("%v; no installation needs this receipt, and what it kept cannot be removed", err)
			continue
		}
		if receipt.Registry != c.target.Address() {
			continue
		}
		if other := receipt.Bundle.Name; other != name && !names[other] {
			current, err := host.Current(c.root, other)
			if err != nil {
				return err
			}
			if current != "" { // the state was lost, and does not know it yet
				continue
			}
		}
		if !c.leave {
			if err := c.giveUp(ctx, receipt, bundles, claimed); err != nil {
				return err
			}
		}
		if err := os.Remove(receiptPath(c.root, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	started, err := host.ReadStarted(c.root, name)
	if err != nil {
		return err
	}
	if started != nil { // programs have its files open
		keep = append(keep, started.Release)
	}
	return host.Prune(c.root, name, keep)
}

// dropLost takes earlier releases out of the state whose receipts are gone: nothing
// can go back to them.
func (c *change) dropLost(s *State) error {
	changed := false
	for key, d := range s.Deployments {
		d.Before = slices.DeleteFunc(slices.Clone(d.Before), func(r string) bool {
			_, err := os.Lstat(receiptPath(c.root, r))
			return errors.Is(err, fs.ErrNotExist)
		})
		if len(d.Before) == len(s.Deployments[key].Before) {
			continue
		}
		c.tell("receipts of earlier releases of %s are gone: a rollback cannot go back to these any more", d.Name)
		s.Deployments[key], changed = d, true
	}
	if !changed {
		return nil
	}
	return s.write(c.root)
}
