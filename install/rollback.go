package install

import (
	"context"
	"errors"
	"fmt"

	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// Site is the environment of a change that needs no bundle.
type Site struct {
	Root   string
	Target Registry
	Warn   func(format string, args ...any) // or nil
	// Leave makes an uninstallation ignore the target: nothing is read or changed there,
	// because the target is gone or others need its content.
	Leave bool
	// Switched is called after tags and files are switched. Last is called after an
	// uninstallation has removed its files. Both run before the change counts as finished.
	// Either may be nil.
	Switched, Last func(ctx context.Context) error
}

func (s *Site) change(l *ledger.Ledger) *change {
	return &change{root: s.Root, ledger: l, target: s.Target, warn: s.Warn}
}

// open reads the ledger, and the target's journal if that belongs to this deployment and
// action. It refuses a journal of another change.
func (s *Site) open(name, action string) (*ledger.Ledger, *ledger.Journal, error) {
	l, err := ledger.Read(s.Root)
	if err != nil {
		return nil, nil, err
	}
	j, err := ledger.ReadJournal(s.Root, s.Target.Name)
	if err != nil || j == nil {
		return l, nil, err
	}
	if j.Action != action || j.Name != name {
		return nil, nil, Unfinished(s.Root, j)
	}
	return l, j, nil
}

// TakeBack ends the unfinished installation or rollback of a deployment on the target, if
// there is one. It reverts the change, or completes it if the ledger has recorded it. It
// returns the journal, or nil. Errors are the target's or the file system's.
func TakeBack(ctx context.Context, s Site, name string) (*ledger.Journal, error) {
	l, err := ledger.Read(s.Root)
	if err != nil {
		return nil, err
	}
	j, err := ledger.ReadJournal(s.Root, s.Target.Name)
	if err != nil || j == nil || j.Name != name || j.Action == ledger.ActionUninstall {
		return nil, err
	}
	return j, s.change(l).settle(ctx, j)
}

// Earlier returns the release that a rollback of d returns to: the newest earlier release
// whose files exist, or the release of an unfinished rollback. Errors wrap
// ledger.ErrNotInstalled, or are the file system's.
func Earlier(root string, d ledger.Deployment) (*host.About, error) {
	j, err := ledger.ReadJournal(root, d.Registry)
	if err != nil {
		return nil, err
	}
	if j != nil && j.Action == ledger.ActionRollback && j.Name == d.Name {
		return host.ReadRelease(root, d.Name, j.Release)
	}
	for _, r := range d.Releases[min(1, len(d.Releases)):] {
		about, err := host.ReadRelease(root, d.Name, r.ID)
		if err == nil || !host.Lost(err) {
			return about, err
		}
	}
	return nil, fmt.Errorf("%w before %s %s that could be put back", ledger.ErrNotInstalled, d.Name, d.Current().Version)
}

// CanRollback reports why Rollback would refuse, before services are stopped for it.
func CanRollback(ctx context.Context, s Site, d ledger.Deployment) error {
	l, j, err := s.open(d.Name, ledger.ActionRollback)
	if err != nil || j != nil {
		return err
	}
	_, err = s.rollbackJournal(ctx, l, d)
	return err
}

// Rollback returns to the release before the current one: tags and files. Data that programs
// have written since then, such as a database, stays as it is. Errors wrap
// ledger.ErrNotInstalled, bundle.ErrPolicy or ErrIncomplete, or are the target's or the file
// system's.
func Rollback(ctx context.Context, s Site, d ledger.Deployment) (*ledger.Receipt, error) {
	l, j, err := s.open(d.Name, ledger.ActionRollback)
	if err != nil {
		return nil, err
	}
	begun := j != nil
	if !begun {
		if j, err = s.rollbackJournal(ctx, l, d); err != nil {
			return nil, err
		}
		if err := j.Write(s.Root); err != nil {
			return nil, err
		}
	}
	if !j.Recorded(l) {
		next := l.Back(l.Deployments[d.Key()], j.Release)
		if err := s.switchOver(ctx, l, next, j, begun); err != nil {
			return nil, err
		}
		l = next
		if err := l.Write(s.Root); err != nil {
			return nil, unfinished(j.Action, err)
		}
	}
	receipt, err := s.receipt(l, l.Deployments[d.Key()])
	if err == nil && s.Switched != nil {
		err = s.Switched(ctx)
	}
	if err == nil {
		err = s.change(l).tidy(d.Name)
	}
	if err == nil { // last: without the journal, the same command would roll back once more
		err = j.Remove(s.Root)
	}
	if err != nil {
		return nil, unfinished(j.Action, err)
	}
	return receipt, nil
}

// switchOver carries out a journal, including one that another run started.
func (s *Site) switchOver(ctx context.Context, l, next *ledger.Ledger, j *ledger.Journal, begun bool) error {
	c := s.change(l)
	if begun && !j.Leave {
		if err := c.complete(ctx, j, next); err != nil {
			return unfinished(j.Action, err)
		}
	}
	return c.carryOut(ctx, j)
}

// receipt returns the receipt of the current release of a deployment.
func (s *Site) receipt(l *ledger.Ledger, d ledger.Deployment) (*ledger.Receipt, error) {
	about, err := host.ReadRelease(s.Root, d.Name, d.Current().ID)
	if err != nil {
		return nil, err
	}
	return l.Receipt(s.Root, d, d.Current(), about)
}

// rollbackJournal returns the changes that restore the release before the current one.
func (s *Site) rollbackJournal(ctx context.Context, l *ledger.Ledger, d ledger.Deployment) (*ledger.Journal, error) {
	about, err := Earlier(s.Root, d)
	if err != nil {
		return nil, err
	}
	then, ok := d.Release(about.ID)
	if !ok {
		return nil, fmt.Errorf("%w: release %s of %s is not recorded", ledger.ErrNotInstalled, about.ID, d.Name)
	}
	current, err := host.Current(s.Root, d.Name) // may be the release of another target
	if err != nil {
		return nil, err
	}
	if current == "" { // the "current" link is lost
		current = d.Current().ID
	}
	if err := s.checkData(d.Name, current, then.ID); err != nil {
		return nil, err
	}
	j := ledger.NewJournal(ledger.ActionRollback, s.Target.Name)
	j.Identity, j.Name, j.Version, j.Channel, j.Sequence = then.Identity, d.Name, then.Version, then.Channel, then.Sequence
	j.Release, j.From = then.ID, current
	next := l.Back(d, then.ID)
	forced := map[ledger.Place]bool{}
	if !d.Current().InPlace { // otherwise another host filled the registry
		for _, t := range l.Tags(d, then.ID) {
			forced[t.Place] = next.Value(t.Place) == t.Value
		}
		for _, t := range l.Tags(d, d.Current().ID) {
			delete(forced, t.Place)
		}
	}
	j.Tags, j.Others, err = s.change(l).moves(ctx, next, forced)
	return j, err
}

// checkData refuses to return to a release that uses another, empty data directory, or that
// could not merge into the present files.
func (s *Site) checkData(name, from, to string) error {
	c := s.change(nil)
	before, err := c.about(name, from)
	if err != nil || before == nil {
		return err
	}
	after, err := c.about(name, to)
	if err != nil || after == nil {
		return err
	}
	return errors.Join(host.CheckMoved(before.Data, after.Data), after.CheckSwitch(s.Root, before))
}
