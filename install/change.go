package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// keptReleases is how many earlier releases a deployment keeps, to go back to.
const keptReleases = 2

// ErrNotInstalled says that there is nothing of that name to change.
var ErrNotInstalled = errors.New("nothing is installed")

// change switches a deployment from one state to another: tags first, then the
// release. Every step may be repeated.
type change struct {
	root, hostRoot string
	target         Target
}

func newJournal(action, target string) *Journal {
	return &Journal{APIVersion: bundle.APIVersion, Kind: "Journal", Action: action, Registry: target, Started: time.Now().UTC().Truncate(time.Second)}
}

// begin writes down what is going to be switched.
func (c *change) begin(j *Journal) error { return writeJSON(journalPath(c.root, j.Registry), j) }

// forth carries out what the journal says.
func (c *change) forth(ctx context.Context, j *Journal) error {
	for _, m := range j.Tags {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if m.From == m.To {
			continue
		}
		if err := c.target.Tag(ctx, m.Repository, m.Tag, m.To); err != nil {
			return fmt.Errorf("tagging %s:%s: %w", m.Repository, m.Tag, err)
		}
	}
	if err := c.release(j.Name, j.From, j.Release, j.Action != actionInstall); err != nil {
		return err
	}
	return c.target.Sync()
}

// back undoes what the journal says, as far as it has been carried out.
func (c *change) back(ctx context.Context, j *Journal) error {
	for _, m := range j.Tags {
		now, err := c.target.Resolve(ctx, m.Repository, m.Tag)
		if err != nil {
			return err
		}
		if now != m.To || now == m.From {
			continue // it had not come to this one
		}
		if err := c.target.Tag(ctx, m.Repository, m.Tag, m.From); err != nil {
			return err
		}
	}
	if err := c.release(j.Name, j.Release, j.From, true); err != nil {
		return err
	}
	return c.target.Sync()
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
	case undo && before != nil && (after == nil || before.ID != after.ID):
		return host.Deactivate(c.root, c.hostRoot, before, after)
	case after != nil:
		return host.Activate(c.root, c.hostRoot, after, before)
	}
	return nil
}

// about reads a release, or nil if it is "" or gone.
func (c *change) about(name, id string) (*host.About, error) {
	if id == "" {
		return nil, nil
	}
	a, err := host.ReadRelease(c.root, name, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return a, err
}

// forget drops receipts, with what only they kept: retention tags and releases.
func (c *change) forget(ctx context.Context, s *State, name string, receipts []string) error {
	var keep []string // releases of the deployment, with any target
	alive := map[string]bool{}
	for _, d := range s.Deployments {
		for _, r := range append([]string{d.Receipt}, d.Before...) {
			receipt, err := ReadReceipt(c.root, r)
			if err != nil {
				return err
			}
			alive[receipt.Registry+" "+string(receipt.Bundle.Digest)] = true
			if d.Name == name {
				keep = append(keep, receipt.Release)
			}
		}
	}
	for _, r := range receipts {
		receipt, err := ReadReceipt(c.root, r)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		prefix := retentionTag(receipt.Bundle.Digest, 0)
		for _, t := range receipt.Tags {
			if !strings.HasPrefix(t.Tag, prefix) || alive[receipt.Registry+" "+string(receipt.Bundle.Digest)] {
				continue
			}
			if err := c.target.Tag(ctx, t.Repository, t.Tag, ""); err != nil {
				return err
			}
		}
		if err := os.Remove(receiptPath(c.root, r)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return host.Prune(c.root, name, keep)
}

// inherit takes over what the tags were before the deployment first had them.
func (r *Receipt) inherit(root string, old Installed) error {
	for _, n := range append([]string{old.Receipt}, old.Before...) {
		earlier, err := ReadReceipt(root, n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for i, t := range r.Tags {
			k := slices.IndexFunc(earlier.Tags, func(x TagMove) bool { return x.Repository == t.Repository && x.Tag == t.Tag })
			if k >= 0 && t.From == earlier.Tags[k].To {
				r.Tags[i].From = earlier.Tags[k].From
			}
		}
	}
	return nil
}

// Site is an installation's surroundings, for changes that need no bundle.
type Site struct {
	Root, HostRoot string
	Target         Target
}

// Find returns the deployment of a name; an empty name means the only one. The
// error wraps ErrNotInstalled.
func (s *State) Find(name, target string) (Installed, error) {
	var found []Installed
	for _, key := range sortedKeys(s.Deployments) {
		if d := s.Deployments[key]; (name == "" || d.Name == name) && (target == "" || d.Registry == target) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if name == "" {
			return Installed{}, ErrNotInstalled
		}
		return Installed{}, fmt.Errorf("%w under the name %q; oob-bundle status lists what is", ErrNotInstalled, name)
	}
	var names []string
	for _, d := range found {
		names = append(names, d.Name+" (registry "+d.Registry+")")
	}
	return Installed{}, fmt.Errorf("%w by that name alone: there are %s; say which", ErrNotInstalled, strings.Join(names, ", "))
}

// unfinished says that another change has to be finished first.
func (j *Journal) unfinished() error {
	return fmt.Errorf("%w: the %s of %s %s, begun %s, did not finish; run it again first", ErrIncomplete, j.Action, j.Name, j.Version, j.Started.Format(time.RFC3339))
}

// Pending returns the deployment that an unfinished rollback or uninstallation
// was about, as it found it, or nil.
func Pending(root, action string) (*Installed, error) {
	journals, err := ReadJournals(root)
	if err != nil {
		return nil, err
	}
	for _, j := range journals {
		if j.Action == action && j.Deployment != nil {
			return j.Deployment, nil
		}
	}
	return nil, nil
}

// pending returns the journal of the target if it is of this deployment and
// action, and refuses if it is of another change.
func (s *Site) pending(d Installed, action string) (*Journal, error) {
	j, err := readJournal(journalPath(s.Root, s.Target.Name()))
	if err != nil || j == nil {
		return nil, err
	}
	if j.Action != action || j.Name != d.Name {
		return nil, j.unfinished()
	}
	return j, nil
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
	if len(d.Before) == 0 {
		return nil, fmt.Errorf("%w before %s %s that could be put back", ErrNotInstalled, d.Name, d.Version)
	}
	now, err := ReadReceipt(s.Root, d.Receipt)
	if err != nil {
		return nil, err
	}
	then, err := ReadReceipt(s.Root, d.Before[0])
	if err != nil {
		return nil, err
	}
	c := change{root: s.Root, hostRoot: s.HostRoot, target: s.Target}
	if j == nil {
		j = newJournal(actionRollback, s.Target.Name())
		j.Identity, j.Name, j.Version, j.Channel, j.Sequence = then.Bundle.Digest, d.Name, then.Bundle.Version, d.Channel, then.Bundle.Sequence
		found := d
		j.Release, j.From, j.Deployment = then.Release, now.Release, &found
		for _, t := range then.Tags {
			j.Tags = append(j.Tags, TagMove{Repository: t.Repository, Tag: t.Tag, To: t.To})
		}
		for _, t := range now.Tags {
			if !slices.ContainsFunc(then.Tags, func(x TagMove) bool { return x.Repository == t.Repository && x.Tag == t.Tag }) {
				j.Tags = append(j.Tags, TagMove{Repository: t.Repository, Tag: t.Tag, To: t.From})
			}
		}
		if j.Tags, err = s.moving(ctx, state, d, j.Tags, now.Tags); err != nil {
			return nil, err
		}
		if err := c.begin(j); err != nil {
			return nil, err
		}
	}
	if err := c.forth(ctx, j); err != nil {
		return nil, fmt.Errorf("%w: %w; run the same command again to finish it", ErrIncomplete, err)
	}
	dropped := d.Receipt
	d.Identity, d.Version, d.Release, d.Receipt, d.Before = then.Bundle.Digest, then.Bundle.Version, then.Release, d.Before[0], d.Before[1:]
	state.Deployments[deploymentKey(d.Name, d.Registry)] = d
	channel := state.Channels[d.Channel] // the sequence stays: a rollback is no downgrade
	channel.Identity = d.Identity
	state.Channels[d.Channel] = channel
	if err := state.write(s.Root); err != nil {
		return nil, err
	}
	if err := removeJournal(s.Root, s.Target.Name()); err != nil {
		return nil, err
	}
	return then, c.forget(ctx, state, d.Name, []string{dropped})
}

// moving completes moves with where the tags are now, and leaves those alone that
// this deployment has not put where they are, or that another one needs there.
func (s *Site) moving(ctx context.Context, state *State, d Installed, moves, ours []TagMove) ([]TagMove, error) {
	needed, err := s.neededByOthers(state, d)
	if err != nil {
		return nil, err
	}
	var list []TagMove
	for _, m := range moves {
		m.From, err = s.Target.Resolve(ctx, m.Repository, m.Tag)
		if err != nil {
			return nil, err
		}
		put := slices.ContainsFunc(ours, func(x TagMove) bool { return x.Repository == m.Repository && x.Tag == m.Tag && x.To == m.From })
		known := slices.ContainsFunc(ours, func(x TagMove) bool { return x.Repository == m.Repository && x.Tag == m.Tag })
		if known && !put || needed[m.Repository+":"+m.Tag] {
			continue
		}
		list = append(list, m)
	}
	return list, nil
}

// neededByOthers returns the tags that other deployments on the target have.
func (s *Site) neededByOthers(state *State, d Installed) (map[string]bool, error) {
	needed := map[string]bool{}
	for _, other := range state.Deployments {
		if other.Registry != d.Registry || other.Name == d.Name {
			continue
		}
		receipt, err := ReadReceipt(s.Root, other.Receipt)
		if err != nil {
			return nil, err
		}
		for _, t := range receipt.Tags {
			needed[t.Repository+":"+t.Tag] = true
		}
	}
	return needed, nil
}

// Uninstall removes a deployment: its tags are what they were before it, its
// files are gone, its data is left. It returns what is left of its directory. The
// sequence of its channel stays, and so does the right to install it again.
func Uninstall(ctx context.Context, s Site, d Installed) (left []string, err error) {
	state, err := ReadState(s.Root)
	if err != nil {
		return nil, err
	}
	j, err := s.pending(d, actionUninstall)
	if err != nil {
		return nil, err
	}
	c := change{root: s.Root, hostRoot: s.HostRoot, target: s.Target}
	receipts := append([]string{d.Receipt}, d.Before...)
	elsewhere := slices.ContainsFunc(sortedKeys(state.Deployments), func(k string) bool {
		return state.Deployments[k].Name == d.Name && state.Deployments[k].Registry != d.Registry
	})
	if j == nil {
		now, err := ReadReceipt(s.Root, d.Receipt)
		if err != nil {
			return nil, err
		}
		j = newJournal(actionUninstall, s.Target.Name())
		j.Deployment = &d
		j.Identity, j.Name, j.Version, j.Channel, j.Sequence = d.Identity, d.Name, d.Version, d.Channel, now.Bundle.Sequence
		if current, err := host.Current(s.Root, d.Name); err != nil {
			return nil, err
		} else if current == d.Release {
			j.From = d.Release
		}
		for _, t := range now.Tags {
			j.Tags = append(j.Tags, TagMove{Repository: t.Repository, Tag: t.Tag, To: t.From})
		}
		if j.Tags, err = s.moving(ctx, state, d, j.Tags, now.Tags); err != nil {
			return nil, err
		}
		if err := s.handOver(state, d, now.Tags); err != nil {
			return nil, err
		}
		if err := c.begin(j); err != nil {
			return nil, err
		}
	}
	if err := c.forth(ctx, j); err != nil {
		return nil, fmt.Errorf("%w: %w; run the same command again to finish it", ErrIncomplete, err)
	}
	delete(state.Deployments, deploymentKey(d.Name, d.Registry))
	for key, owner := range state.Owners {
		if owner.Deployment == d.Name && owner.Channel == d.Channel && (!elsewhere || strings.HasPrefix(key, "tag "+d.Registry+" ")) {
			delete(state.Owners, key)
		}
	}
	if err := state.write(s.Root); err != nil {
		return nil, err
	}
	if err := c.forget(ctx, state, d.Name, receipts); err != nil {
		return nil, err
	}
	if !elsewhere {
		if left, err = host.Remove(s.Root, d.Name); err != nil {
			return nil, err
		}
	}
	return left, removeJournal(s.Root, s.Target.Name())
}

// handOver tells other deployments that have the same tags what these were
// before: when the last of them goes, that comes back.
func (s *Site) handOver(state *State, d Installed, tags []TagMove) error {
	for _, other := range state.Deployments {
		if other.Registry != d.Registry || other.Name == d.Name {
			continue
		}
		for _, name := range append([]string{other.Receipt}, other.Before...) {
			receipt, err := ReadReceipt(s.Root, name)
			if err != nil {
				return err
			}
			changed := false
			for i, t := range receipt.Tags {
				k := slices.IndexFunc(tags, func(x TagMove) bool { return x.Repository == t.Repository && x.Tag == t.Tag })
				if k >= 0 && t.From == tags[k].To {
					receipt.Tags[i].From, changed = tags[k].From, true
				}
			}
			if !changed {
				continue
			}
			if err := writeJSON(receiptPath(s.Root, name), receipt); err != nil {
				return err
			}
		}
	}
	return nil
}
