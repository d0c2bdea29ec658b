package install

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/install/host"
)

// CanUninstall reports why Uninstall would refuse, before anything is stopped for it.
func CanUninstall(ctx context.Context, s Site, d Installed) error {
	state, err := ReadState(s.Root)
	if err != nil {
		return err
	}
	j, err := s.pending(d, actionUninstall)
	if err != nil || j != nil {
		return err
	}
	_, err = s.uninstallJournal(ctx, state, d)
	return err
}

// Uninstall removes a deployment: its tags are what they were before it, its
// files are gone, its data is left. It returns what is left of its directory, and data
// directories elsewhere. The
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
	if j != nil && s.Leave && !j.Leave { // it was begun without that
		j.Leave, j.Tags = true, []TagMove{}
		if err := s.change(state).begin(j); err != nil {
			return nil, err
		}
	}
	c := s.change(state)
	c.leave = s.Leave || j != nil && j.Leave
	data := outside(s.Root, d.Name)
	elsewhere := slices.ContainsFunc(sortedKeys(state.Deployments), func(k string) bool {
		return state.Deployments[k].Name == d.Name && state.Deployments[k].Registry != d.Registry
	})
	if j == nil {
		if j, err = s.uninstallJournal(ctx, state, d); err != nil {
			return nil, err
		}
		if err := c.begin(j); err != nil {
			return nil, err
		}
	}
	if err := c.carryOut(ctx, j); err != nil {
		return nil, err
	}
	delete(state.Deployments, deploymentKey(d.Name, d.Registry))
	if err := state.settleOwners(s.Root); err != nil {
		return nil, unfinished(actionUninstall, err)
	}
	if err := state.write(s.Root); err != nil {
		return nil, unfinished(actionUninstall, err)
	}
	if s.Switched != nil {
		err = s.Switched(ctx)
	}
	if err == nil {
		err = c.forget(ctx, state, d.Name)
	}
	if err == nil && !elsewhere {
		if left, err = host.Remove(s.Root, d.Name); err == nil {
			left = append(left, data...)
		}
	}
	if err == nil && s.Last != nil {
		err = s.Last(ctx)
	}
	// The journal goes last: without it the same command would find nothing to do.
	if err == nil {
		err = removeJournal(s.Root, s.Target.Name())
	}
	if err != nil {
		return nil, unfinished(actionUninstall, err)
	}
	return left, nil
}

// RemoveStaged removes what is left of a deployment whose first installation was taken
// back. It returns what Uninstall returns.
func RemoveStaged(ctx context.Context, s Site, d Installed) (left []string, err error) {
	data := outside(s.Root, d.Name)
	if s.Switched != nil {
		if err := s.Switched(ctx); err != nil {
			return nil, err
		}
	}
	if left, err = host.Remove(s.Root, d.Name); err != nil {
		return nil, err
	}
	if s.Last != nil {
		err = s.Last(ctx)
	}
	return append(left, data...), err
}

// outside lists the data directories of a deployment that are not in its own directory.
func outside(root, name string) (list []string) {
	releases, _ := host.Releases(root, name) // as far as they can be read
	base, err := filepath.Abs(host.Base(root, name))
	for _, r := range releases {
		if _, statErr := os.Lstat(r.Data); err == nil && statErr == nil && !strings.HasPrefix(r.Data, base+string(filepath.Separator)) {
			list = append(list, r.Data)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// uninstallJournal says what changes when a deployment goes.
func (s *Site) uninstallJournal(ctx context.Context, state *State, d Installed) (*Journal, error) {
	now, err := ReadReceipt(s.Root, d.Receipt)
	if err != nil {
		return nil, err
	}
	j := newJournal(actionUninstall, s.Target.Name())
	j.Identity, j.Name, j.Version, j.Channel, j.Sequence = d.Identity, d.Name, d.Version, d.Channel, now.Bundle.Sequence
	j.Deployment = &d
	current, err := host.Current(s.Root, d.Name)
	if err != nil {
		return nil, err
	}
	if current == d.Release || current == "" { // the link to it may be lost
		j.From = d.Release
		for _, other := range state.installed() { // what is left of the name gets its place back
			if other.Name != d.Name || other.Registry == d.Registry {
				continue
			}
			if _, err := host.ReadRelease(s.Root, d.Name, other.Release); err == nil {
				j.Release = other.Release
			}
		}
	}
	if j.Leave = s.Leave; j.Leave {
		j.Tags = []TagMove{}
		return j, nil
	}
	var moves []TagMove
	for _, t := range now.Tags {
		moves = append(moves, TagMove{Repository: t.Repository, Tag: t.Tag, To: t.From})
	}
	j.Tags, err = s.moving(ctx, state, d, moves, now.Tags, nil)
	return j, err
}
