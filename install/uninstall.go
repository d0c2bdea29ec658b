package install

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// CanUninstall reports why Uninstall would refuse, before services are stopped for it.
func CanUninstall(ctx context.Context, s Site, d ledger.Deployment) error {
	l, j, err := s.open(d.Name, ledger.ActionUninstall)
	if err != nil || j != nil {
		return err
	}
	_, err = s.uninstallJournal(ctx, l, d)
	return err
}

// Uninstall removes a deployment. It restores the tags to their earlier values and removes the
// files, and keeps the data. It returns what is left of the deployment's directory, and data
// directories elsewhere. The sequence of its channel stays recorded, and the same bundle may
// be installed again.
func Uninstall(ctx context.Context, s Site, d ledger.Deployment) (left []string, err error) {
	l, j, err := s.open(d.Name, ledger.ActionUninstall)
	if err != nil {
		return nil, err
	}
	data := outside(s.Root, d.Name)
	begun := j != nil
	if !begun {
		if j, err = s.uninstallJournal(ctx, l, d); err != nil {
			return nil, err
		}
		if err := j.Write(s.Root); err != nil {
			return nil, err
		}
	} else if s.Leave && !j.Leave { // the earlier run had no --leave-registry
		j.Leave, j.Tags, j.Others = true, []ledger.TagMove{}, nil
		if err := j.Write(s.Root); err != nil {
			return nil, err
		}
	}
	if !j.Recorded(l) {
		next := l.Without(l.Deployments[d.Key()])
		if err := s.switchOver(ctx, l, next, j, begun); err != nil {
			return nil, err
		}
		l = next
		if err := l.Write(s.Root); err != nil {
			return nil, unfinished(j.Action, err)
		}
	}
	if s.Switched != nil {
		err = s.Switched(ctx)
	}
	if err == nil {
		err = s.change(l).tidy(d.Name)
	}
	if err == nil && !l.Has(d.Name) {
		left, err = host.Remove(s.Root, d.Name)
		left = append(left, data...)
	}
	if err == nil && s.Last != nil {
		err = s.Last(ctx)
	}
	// The journal is removed last: without it the same command would find nothing to do.
	if err == nil {
		err = j.Remove(s.Root)
	}
	return left, unfinished(j.Action, err)
}

// RemoveStaged removes the rest of a deployment whose first installation was reverted. It
// returns the same as Uninstall.
func RemoveStaged(ctx context.Context, s Site, d ledger.Deployment) (left []string, err error) {
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

// outside returns the data directories of a deployment that are outside of its own directory.
func outside(root, name string) (list []string) {
	releases, _ := host.Releases(root, name) // unreadable releases are ignored
	base, err := filepath.Abs(host.Base(root, name))
	for _, r := range releases {
		if _, statErr := os.Lstat(r.Data); err == nil && statErr == nil && !strings.HasPrefix(r.Data, base+string(filepath.Separator)) {
			list = append(list, r.Data)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// uninstallJournal returns the changes that remove a deployment.
func (s *Site) uninstallJournal(ctx context.Context, l *ledger.Ledger, d ledger.Deployment) (*ledger.Journal, error) {
	now := d.Current()
	j := ledger.NewJournal(ledger.ActionUninstall, s.Target.Name)
	j.Identity, j.Name, j.Version, j.Channel, j.Sequence = now.Identity, d.Name, now.Version, now.Channel, now.Sequence
	current, err := host.Current(s.Root, d.Name)
	if err != nil {
		return nil, err
	}
	if current == now.ID || current == "" { // the "current" link may be lost
		j.From = now.ID
		for _, other := range l.Sorted() { // another registry's release of this name becomes current
			if other.Name != d.Name || other.Registry == d.Registry {
				continue
			}
			if _, err := host.ReadRelease(s.Root, d.Name, other.Current().ID); err == nil {
				j.Release = other.Current().ID
			}
		}
	}
	if j.Leave = s.Leave; j.Leave {
		return j, nil
	}
	j.Tags, j.Others, err = s.change(l).moves(ctx, l.Without(d), nil)
	return j, err
}
