package install

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// records are what a root has besides state.json: enough to rebuild it, except for
// channels of which nothing is installed any more.
type records struct {
	root     string
	receipts map[string]*Receipt // by file name; damaged ones are left out
	journals []*Journal
	current  map[string]string // deployment → ID of its current release
}

// readRecords reads what there is. Errors are the file system's; a damaged journal wraps
// ErrState.
func readRecords(root string) (*records, error) {
	r := &records{root: root, receipts: map[string]*Receipt{}, current: map[string]string{}}
	files, err := os.ReadDir(filepath.Dir(receiptPath(root, "x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range files {
		receipt, err := ReadReceipt(root, f.Name())
		if err == nil && receipt.target(f.Name()) != "" {
			r.receipts[f.Name()] = receipt
		} else if err != nil && !host.Lost(err) && !errors.Is(err, bundle.ErrNewer) {
			return nil, err
		}
	}
	if r.journals, err = ReadJournals(root); err != nil {
		return nil, err
	}
	deployments, err := os.ReadDir(filepath.Dir(host.Base(root, "x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, d := range deployments {
		id, err := host.Current(root, d.Name())
		if err != nil {
			continue // it is reported by whatever is done with the deployment
		}
		if id != "" {
			r.current[d.Name()] = id
		}
	}
	return r, nil
}

func (r *records) empty() bool { return len(r.receipts)+len(r.journals)+len(r.current) == 0 }

// target returns the name of the target that a receipt of that file name is about, or "".
func (r *Receipt) target(file string) string {
	for _, t := range []string{embedded, r.Registry} {
		if receiptName(r.Bundle.Name, t, r.Release) == file {
			return t
		}
	}
	return ""
}

// embedded is the name of the target below the root.
const embedded = "embedded"

// missingIn reports what is installed and unknown to a state. The error wraps ErrState.
func (r *records) missingIn(s *State) error {
	for _, name := range sortedKeys(r.receipts) {
		if receipt := r.receipts[name]; s.Channels[receipt.Bundle.Channel] == (Channel{}) {
			return fmt.Errorf("%w: %s has no record of channel %q, from which %s %s was installed", ErrState, statePath(r.root), receipt.Bundle.Channel, receipt.Bundle.Name, receipt.Bundle.Version)
		}
	}
	for _, name := range sortedKeys(r.current) {
		if !s.has(name) && !r.changing(name) {
			return fmt.Errorf("%w: %s has no record of %s, which is installed", ErrState, statePath(r.root), name)
		}
	}
	return nil
}

// has reports whether a deployment of that name is installed.
func (s *State) has(name string) bool {
	return slices.ContainsFunc(s.installed(), func(d Installed) bool { return d.Name == name })
}

// changing reports whether an unfinished change is about a deployment.
func (r *records) changing(name string) bool {
	return slices.ContainsFunc(r.journals, func(j *Journal) bool { return j.Name == name })
}

// complete adds to a state what the records know.
func (r *records) complete(s *State) error {
	for _, name := range sortedKeys(r.receipts) {
		s.raise(r.receipts[name].Bundle.Channel, r.receipts[name].Bundle.Sequence, r.receipts[name].Bundle.Digest)
	}
	for _, j := range r.journals {
		s.raise(j.Channel, j.Sequence, j.Identity)
		if c := s.Channels[j.Channel]; j.Action == actionInstall {
			c.Pending = j.Identity
			s.Channels[j.Channel] = c
		}
	}
	for _, key := range sortedKeys(s.Deployments) { // an earlier state may know what is gone
		if d := s.Deployments[key]; r.current[d.Name] == "" && !r.changing(d.Name) && r.receipts[d.Receipt] == nil {
			delete(s.Deployments, key)
		}
	}
	for _, name := range r.names() {
		for _, d := range r.deployments(name) {
			key := deploymentKey(d.Name, d.Registry)
			if known, ok := s.Deployments[key]; ok && known.Release == d.Release && r.receipts[known.Receipt] != nil {
				continue
			}
			s.Deployments[key] = d
			c := s.Channels[d.Channel]
			c.Identity = d.Identity
			s.Channels[d.Channel] = c
		}
		if !s.has(name) && r.current[name] != "" && !r.changing(name) {
			s.Unknown = append(s.Unknown, name)
		}
	}
	return s.settleOwners(r.root)
}

// raise records that a channel has come at least as far as a sequence.
func (s *State) raise(channel string, sequence int64, identity bundle.Digest) {
	if c, ok := s.Channels[channel]; !ok || c.Sequence < sequence {
		c.Sequence, c.Highest = sequence, identity
		s.Channels[channel] = c
	}
}

// names returns the deployments of which there is a receipt or a current release.
func (r *records) names() (list []string) {
	list = sortedKeys(r.current)
	for _, receipt := range r.receipts {
		list = append(list, receipt.Bundle.Name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// deployments returns what is installed under a name, one for each target.
func (r *records) deployments(name string) (list []Installed) {
	files := map[string][]string{} // target → receipts, the newest first
	for _, f := range sortedKeys(r.receipts) {
		if receipt := r.receipts[f]; receipt.Bundle.Name == name {
			files[receipt.target(f)] = append(files[receipt.target(f)], f)
		}
	}
	for _, target := range sortedKeys(files) {
		slices.SortStableFunc(files[target], func(a, b string) int { return r.newer(r.receipts[a], r.receipts[b]) })
		newest := r.receipts[files[target][0]]
		before := files[target][1:]
		list = append(list, Installed{
			Name: name, Channel: newest.Bundle.Channel, Identity: newest.Bundle.Digest, Version: newest.Bundle.Version,
			Registry: target, Release: newest.Release, Receipt: files[target][0], Before: before[:min(len(before), keptReleases)],
		})
	}
	return list
}

// newer orders receipts: that of the current release first, then the newest.
func (r *records) newer(a, b *Receipt) int {
	current := r.current[a.Bundle.Name]
	switch {
	case a.Release == b.Release:
		return 0
	case a.Release == current:
		return -1
	case b.Release == current:
		return 1
	}
	return cmp.Or(cmp.Compare(b.Installed, a.Installed), cmp.Compare(b.Bundle.Sequence, a.Bundle.Sequence))
}
