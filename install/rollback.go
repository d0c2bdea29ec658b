package install

import (
	"context"
	"errors"
	"fmt"

	"github.com/oob-bundle/oob-bundle/install/host"
)

// Site is an installation's surroundings, for changes that need no bundle.
type Site struct {
	Root   string
	Target Target
	Warn   func(format string, args ...any) // nil means that nobody wants to know
	// Leave says that an uninstallation asks nothing of the target, and changes nothing
	// there: it is gone, or others need what is there.
	Leave bool
	// Switched is called when tags and files are switched, and Last when an
	// uninstallation has removed everything of its own; both before the change counts
	// as finished. Nil does nothing.
	Switched, Last func(ctx context.Context) error
	// TakenBack is an unfinished change that was undone before this one, or nil.
	TakenBack *Journal
}

func (s *Site) change(state *State) *change {
	return &change{root: s.Root, state: state, target: s.Target, warn: s.Warn, leave: s.Leave}
}

// pending returns the journal of the target if it is of this deployment and
// action, and refuses if it is of another change.
func (s *Site) pending(d Installed, action string) (*Journal, error) {
	j, err := readJournal(journalPath(s.Root, s.Target.Name()))
	if err != nil || j == nil {
		return nil, err
	}
	if j.Action != action || j.Name != d.Name {
		return nil, j.Unfinished(s.Root)
	}
	return j, nil
}

// TakeBack ends the unfinished installation or rollback of a deployment, if there is one
// for the target: it is undone, or completed if the state has recorded it. It returns the
// journal, or nil. Errors are the target's or the file system's.
func TakeBack(ctx context.Context, s Site, name string) (*Journal, error) {
	state, err := ReadState(s.Root)
	if err != nil {
		return nil, err
	}
	j, err := readJournal(journalPath(s.Root, s.Target.Name()))
	if err != nil || j == nil || j.Name != name || j.Action == actionUninstall {
		return nil, err
	}
	return j, s.change(state).settle(ctx, j)
}

// Earlier returns the release that a rollback of d goes back to. Errors wrap
// ErrNotInstalled.
func Earlier(root string, d Installed) (*host.About, error) {
	receipt, _, err := d.earlier(root)
	if err != nil {
		return nil, err
	}
	return host.ReadRelease(root, d.Name, receipt.Release)
}

// earlier returns the newest of the receipts that a rollback can go back to, and where it
// stands in Before: those that are lost or damaged are passed over, as in Kept.
func (d Installed) earlier(root string) (*Receipt, int, error) {
	for n, name := range d.Before {
		r, err := ReadReceipt(root, name)
		if err == nil || !host.Lost(err) {
			return r, n, err
		}
	}
	return nil, 0, fmt.Errorf("%w before %s %s that could be put back", ErrNotInstalled, d.Name, d.Version)
}

// CanRollback reports why Rollback would refuse, before anything is stopped for it.
func CanRollback(ctx context.Context, s Site, d Installed) error {
	state, err := ReadState(s.Root)
	if err != nil {
		return err
	}
	j, err := s.pending(d, actionRollback)
	if err != nil || j != nil {
		return err
	}
	then, _, err := d.earlier(s.Root)
	if err != nil {
		return err
	}
	_, err = s.rollbackJournal(ctx, state, d, then)
	return err
}

// Rollback puts the release before the current one back: tags and files. What
// programs have written since, such as a database, is theirs. Errors wrap
// ErrNotInstalled, ErrIncomplete, or are the target's or the file system's.
func Rollback(ctx context.Context, s Site, d Installed) (*Receipt, error) {
	state, err := ReadState(s.Root)
	if err != nil {
		return nil, err
	}
	j, err := s.pending(d, actionRollback)
	if err != nil {
		return nil, err
	}
	if j != nil {
		d = *j.Deployment
	}
	then, at, err := d.earlier(s.Root)
	if err != nil {
		return nil, err
	}
	c := s.change(state)
	if j == nil {
		if j, err = s.rollbackJournal(ctx, state, d, then); err != nil {
			return nil, err
		}
		if err := c.begin(j); err != nil {
			return nil, err
		}
	}
	if err := c.carryOut(ctx, j); err != nil {
		return nil, err
	}
	d.Identity, d.Version, d.Release, d.Receipt, d.Before = then.Bundle.Digest, then.Bundle.Version, then.Release, d.Before[at], d.Before[at+1:]
	d.Channel = then.Bundle.Channel // it was another's if the name was taken over
	state.Deployments[deploymentKey(d.Name, d.Registry)] = d
	if err := state.settleOwners(s.Root); err != nil {
		return nil, unfinished(actionRollback, err)
	}
	channel := state.Channels[d.Channel] // the sequence stays: a rollback is no downgrade
	channel.Identity = d.Identity
	state.Channels[d.Channel] = channel
	if err := state.write(s.Root); err != nil {
		return nil, unfinished(actionRollback, err)
	}
	if s.Switched != nil {
		if err := s.Switched(ctx); err != nil {
			return nil, unfinished(actionRollback, err)
		}
	}
	// The journal goes last: without it the same command would go back once more.
	if err := c.forget(ctx, state, d.Name); err != nil {
		return nil, unfinished(actionRollback, err)
	}
	if err := removeJournal(s.Root, s.Target.Name()); err != nil {
		return nil, unfinished(actionRollback, err)
	}
	return then, nil
}

// rollbackJournal says what changes when the release of an earlier receipt is put back:
// its tags, and those that only the current one has, which become what they were.
func (s *Site) rollbackJournal(ctx context.Context, state *State, d Installed, then *Receipt) (*Journal, error) {
	now, err := ReadReceipt(s.Root, d.Receipt)
	if err != nil {
		return nil, err
	}
	j := newJournal(actionRollback, s.Target.Name())
	j.Identity, j.Name, j.Version, j.Channel, j.Sequence = then.Bundle.Digest, d.Name, then.Bundle.Version, then.Bundle.Channel, then.Bundle.Sequence
	current, err := host.Current(s.Root, d.Name) // which may be of another target
	if err != nil {
		return nil, err
	}
	if current == "" { // the link to it is lost
		current = d.Release
	}
	if err := s.checkData(d.Name, current, then.Release); err != nil {
		return nil, err
	}
	j.Release, j.From, j.Deployment = then.Release, current, &d
	if len(now.Tags) == 0 { // another host has filled the registry with what is current
		j.Tags = []TagMove{}
		return j, nil
	}
	var moves []TagMove
	for _, t := range then.Tags {
		moves = append(moves, TagMove{Repository: t.Repository, Tag: t.Tag, To: t.To})
	}
	for _, t := range now.Tags {
		if indexTag(then.Tags, t) < 0 {
			moves = append(moves, TagMove{Repository: t.Repository, Tag: t.Tag, To: t.From})
		}
	}
	j.Tags, err = s.moving(ctx, state, d, moves, now.Tags, then)
	return j, err
}

// checkData refuses to go back to a release with another data directory, in which there is
// nothing, or that could not merge into what is there.
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
