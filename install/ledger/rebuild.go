package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// evidence is what a root contains besides state.json.
type evidence struct {
	root     string
	journals []*Journal
	current  map[string]string // deployment → ID of its current release
}

// readEvidence reads the journals and the current releases. Errors are the file system's; the
// error for a damaged journal wraps host.ErrState.
func readEvidence(root string) (*evidence, error) {
	d := &evidence{root: root, current: map[string]string{}}
	var err error
	if d.journals, err = ReadJournals(root); err != nil {
		return nil, err
	}
	deployments, err := os.ReadDir(filepath.Dir(host.Base(root, "x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range deployments {
		id, err := host.Current(root, e.Name())
		if err == nil && id != "" { // any operation on the deployment reports the error
			d.current[e.Name()] = id
		}
	}
	return d, nil
}

func (d *evidence) empty() bool {
	receipts, _ := os.ReadDir(filepath.Dir(ReceiptPath(d.root, "x")))
	return len(receipts)+len(d.journals)+len(d.current) == 0
}

// changing reports whether an unfinished change affects a deployment.
func (d *evidence) changing(name string) bool {
	return slices.ContainsFunc(d.journals, func(j *Journal) bool { return j.Name == name })
}

// unknownTo returns an error if a ledger lacks a current release. The error wraps
// host.ErrState.
func (d *evidence) unknownTo(l *Ledger) error {
	for _, name := range slices.Sorted(maps.Keys(d.current)) {
		if !l.hasCurrent(name, d.current[name]) && !d.changing(name) {
			return fmt.Errorf("%w: %s has no record of release %s of %s, which is installed", host.ErrState, path(d.root), d.current[name], name)
		}
	}
	return nil
}

func (l *Ledger) hasCurrent(name, release string) bool {
	return slices.ContainsFunc(l.Sorted(), func(d Deployment) bool { return d.Name == name && d.Current().ID == release })
}

// rebuild completes a ledger, which may be nil, from the records on the disk. Why becomes
// Ledger.Rebuilt.
func (d *evidence) rebuild(base *Ledger, why error) (*Ledger, error) {
	receipts, err := readReceipts(d.root)
	if err != nil {
		return nil, err
	}
	l := New()
	if base != nil {
		l = base.clone()
	}
	l.Rebuilt = why
	for _, r := range receipts {
		l.raise(r.Bundle.Channel, r.Bundle.Sequence, r.Bundle.Digest)
	}
	for _, j := range d.journals {
		l.raise(j.Channel, j.Sequence, j.Identity)
		if c := l.Channels[j.Channel]; j.Action == ActionInstall {
			c.Pending = j.Identity
			l.Channels[j.Channel] = c
		}
	}
	found := d.group(receipts)
	for _, have := range l.Sorted() { // an earlier ledger may list removed deployments
		if d.current[have.Name] == "" && !d.changing(have.Name) && found[have.Key()] == nil {
			l = l.Without(have)
			l.Rebuilt = why
		}
	}
	for key, list := range found {
		newest := list[0]
		if l.Deployments[key].Current().ID == newest.Release {
			delete(found, key)
			continue
		}
		c := l.Channels[newest.Bundle.Channel]
		c.Identity = newest.Bundle.Digest
		l.Channels[newest.Bundle.Channel] = c
	}
	if err := l.enter(d.root, found, nil); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(d.current)) {
		if !l.Has(name) && !d.changing(name) {
			l.Unknown = append(l.Unknown, name)
		}
	}
	return l, nil
}

// raise records that a channel has reached at least the given sequence.
func (l *Ledger) raise(channel string, sequence int64, identity bundle.Digest) {
	if c, ok := l.Channels[channel]; !ok || c.Sequence < sequence {
		c.Sequence, c.Highest = sequence, identity
		l.Channels[channel] = c
	}
}

// readReceipts returns the receipts of a root, by file name. It skips damaged ones and those
// that a newer program wrote.
func readReceipts(root string) (map[string]*Receipt, error) {
	files, err := os.ReadDir(filepath.Dir(ReceiptPath(root, "x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list := map[string]*Receipt{}
	for _, f := range files {
		r, err := ReadReceipt(root, f.Name())
		if err == nil && r.target(f.Name()) != "" {
			list[f.Name()] = r
		} else if err != nil && !host.Lost(err) && !errors.Is(err, bundle.ErrNewer) {
			return nil, err
		}
	}
	return list, nil
}

// group returns the receipts of each deployment, by Key. The receipt of the current release is
// first; the others follow, newest first.
func (d *evidence) group(receipts map[string]*Receipt) map[string][]*Receipt {
	groups := map[string][]*Receipt{}
	for _, file := range slices.Sorted(maps.Keys(receipts)) {
		r := receipts[file]
		key := Key(r.Bundle.Name, r.target(file))
		groups[key] = append(groups[key], r)
	}
	for _, list := range groups {
		slices.SortStableFunc(list, func(a, b *Receipt) int {
			current := d.current[a.Bundle.Name]
			switch {
			case a.Release == b.Release:
				return 0
			case a.Release == current:
				return -1
			case b.Release == current:
				return 1
			}
			return cmp.Or(cmp.Compare(b.Installed, a.Installed), cmp.Compare(b.Bundle.Sequence, a.Bundle.Sequence))
		})
	}
	return groups
}

// enter adds deployments, by Key, from the receipts of their releases, and replaces
// deployments with the same key. Owners are those of a State, or nil: then the deployment
// installed last is the owner. Errors are the file system's.
func (l *Ledger) enter(root string, groups map[string][]*Receipt, owners map[string]owner) error {
	type entry struct {
		key     string
		receipt *Receipt
	}
	var entries []entry
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		if have, ok := l.Deployments[key]; ok {
			l.release(func(c Claim) bool { return c.Deployment == have.Key() })
		}
		d := Deployment{Name: groups[key][0].Bundle.Name, Registry: key[len(groups[key][0].Bundle.Name)+1:]}
		for _, r := range groups[key][:min(len(groups[key]), kept+1)] {
			release, _ := r.entry()
			d.Releases = append(d.Releases, release)
			entries = append(entries, entry{key, r})
		}
		l.Deployments[key] = d
		l.Names[d.Name] = d.Current().Channel
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.receipt.Installed, b.receipt.Installed) })
	for _, e := range entries {
		d := l.Deployments[e.key]
		release, tags := e.receipt.entry()
		for _, t := range tags {
			p := t.place(d.Registry)
			l.Claims[p] = append(l.Claims[p], Claim{e.key, release.ID, t.To})
			if _, known := l.Before[p]; !known && !release.InPlace {
				l.Before[p] = t.From
			}
		}
		about, err := host.ReadRelease(root, d.Name, release.ID)
		if err != nil && !host.Lost(err) {
			return err
		}
		if err != nil {
			continue
		}
		for _, link := range about.LinkPaths() {
			l.Claims[Path(link)] = append(l.Claims[Path(link)], Claim{Deployment: e.key, Release: release.ID})
		}
	}
	for p, claims := range l.Claims {
		slices.SortStableFunc(claims, func(a, b Claim) int { return cmp.Compare(l.rank(p, a, owners), l.rank(p, b, owners)) })
	}
	return nil
}

// rank returns 1 for a claim of the owner, which sorts last, and 0 for any other.
func (l *Ledger) rank(p Place, c Claim, owners map[string]owner) int {
	o, ok := owners[string(p)]
	if d := l.Deployments[c.Deployment]; ok && o.Deployment == d.Name && o.Channel == d.Current().Channel {
		return 1
	}
	return 0
}

// state is the former format of state.json: the owners of single places, and receipts for
// everything else.
type state struct {
	APIVersion  string               `json:"apiVersion"`
	Kind        string               `json:"kind"` // "State"
	Channels    map[string]Channel   `json:"channels"`
	Owners      map[string]owner     `json:"owners"`      // by Place, or "deployment NAME"
	Deployments map[string]installed `json:"deployments"` // by Key
}

type owner struct {
	Channel    string `json:"channel"`
	Deployment string `json:"deployment"`
}

type installed struct {
	Name     string        `json:"name"`
	Channel  string        `json:"channel"`
	Identity bundle.Digest `json:"identity"`
	Version  string        `json:"version"`
	Registry string        `json:"registry"`
	Release  string        `json:"release"`
	Receipt  string        `json:"receipt"` // file name
	Before   []string      `json:"before,omitempty"`
}

// ledger converts a State, with the receipts and releases of its time, to a ledger. Errors are
// those of read.
func (s *state) ledger(root, file string) (*Ledger, error) {
	if s.Channels == nil || s.Owners == nil || s.Deployments == nil {
		return nil, incomplete(file, "it has not all its parts")
	}
	l := New()
	l.Channels = s.Channels
	groups := map[string][]*Receipt{}
	for key, d := range s.Deployments {
		if key != Key(d.Name, d.Registry) {
			return nil, incomplete(file, fmt.Sprintf("deployment %q is of %q", key, d.Name))
		}
		current, err := ReadReceipt(root, d.Receipt)
		switch {
		case err != nil && !host.Lost(err):
			return nil, err
		case err != nil: // its tags are recorded when the bundle is installed again or repaired
			l.Rebuilt = err
			current = &Receipt{
				Bundle:  Bundle{Digest: d.Identity, Name: d.Name, Version: d.Version, Channel: d.Channel, Sequence: s.Channels[d.Channel].Sequence},
				Release: d.Release, Signers: []string{}, Images: []Image{},
			}
		}
		groups[key] = []*Receipt{current}
		for _, name := range d.Before {
			r, err := ReadReceipt(root, name)
			if err == nil {
				groups[key] = append(groups[key], r)
			} else if !host.Lost(err) {
				return nil, err
			}
		}
	}
	if err := l.enter(root, groups, s.Owners); err != nil {
		return nil, err
	}
	for key, o := range s.Owners {
		if name, ok := strings.CutPrefix(key, "deployment "); ok {
			l.Names[name] = o.Channel
		}
	}
	return l, checkSequences(file, l.Channels)
}
