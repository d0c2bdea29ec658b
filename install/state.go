package install

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// State is ROOT/state.json: what this host knows about what is installed.
type State struct {
	APIVersion string             `json:"apiVersion"` // bundle.APIVersion
	Kind       string             `json:"kind"`       // "State"
	Channels   map[string]Channel `json:"channels"`
	// Owners says whose something is: "deployment NAME" or
	// "tag TARGET REPOSITORY:TAG".
	Owners map[string]Owner `json:"owners"`
	// Deployments are the installed ones, by name and target (see deploymentKey).
	Deployments map[string]Installed `json:"deployments"`

	// Rebuilt is why the state was rebuilt from other records, or nil.
	Rebuilt error `json:"-"`
	// Unknown are the names of deployments of which neither state nor receipts are left.
	Unknown []string `json:"-"`
}

// Owner is what may change something without --take-over.
type Owner struct {
	Channel    string `json:"channel"`
	Deployment string `json:"deployment"`
}

// Channel is how far a channel has come.
type Channel struct {
	Sequence int64 `json:"sequence"` // the highest; lower ones are refused
	// Identity is the bundle that is installed, or "".
	Identity bundle.Digest `json:"identity,omitempty"`
	// Highest is the bundle that has the sequence. It stays welcome, also after it
	// was rolled back or uninstalled.
	Highest bundle.Digest `json:"highest,omitempty"`
	// Pending is the bundle whose installation has begun to switch and did not
	// finish, or "". It stays welcome, whatever was installed since.
	Pending bundle.Digest `json:"pending,omitempty"`
}

// Installed is a deployment that is in place.
type Installed struct {
	Name     string        `json:"name"`
	Channel  string        `json:"channel"`
	Identity bundle.Digest `json:"identity"`
	Version  string        `json:"version"`
	Registry string        `json:"registry"` // name of the target
	Release  string        `json:"release"`  // ID below deployments/NAME/releases
	Receipt  string        `json:"receipt"`  // file name below receipts/
	// Before are the receipts that a rollback can go back to, the newest first.
	Before []string `json:"before,omitempty"`
}

func statePath(root string) string { return filepath.Join(root, "state.json") }

// earlierPath is the state before the last change, which counts where state.json is lost.
func earlierPath(root string) string { return statePath(root) + ".old" }

// ErrState marks a record of this host, not a bundle, as damaged or lost.
var ErrState = host.ErrState

func newState() *State {
	return &State{
		APIVersion: bundle.APIVersion, Kind: "State",
		Channels: map[string]Channel{}, Owners: map[string]Owner{}, Deployments: map[string]Installed{},
	}
}

// ReadState reads the state of a root. A host on which nothing was ever installed has an
// empty one. Where state.json is lost, damaged or does not know what is installed, the
// state is rebuilt, and State.Rebuilt is the reason. Errors wrap ErrState or
// bundle.ErrNewer, or are the file system's.
func ReadState(root string) (*State, error) {
	records, err := readRecords(root)
	if err != nil {
		return nil, err
	}
	s, err := readStateFile(statePath(root))
	if err == nil {
		err = records.missingIn(s)
	}
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, fs.ErrNotExist):
		earlier, earlierErr := readStateFile(earlierPath(root))
		if errors.Is(earlierErr, fs.ErrNotExist) && records.empty() {
			return newState(), nil
		}
		s, err = earlier, fmt.Errorf("%w: %s is lost", ErrState, statePath(root))
	case errors.Is(err, bundle.ErrNewer) || !errors.Is(err, ErrState):
		return nil, err
	case s == nil:
		s, _ = readStateFile(earlierPath(root)) // the receipts are the next best record
	}
	if s == nil {
		s = newState()
	}
	s.Rebuilt = err
	return s, records.complete(s)
}

// readStateFile reads one file. Errors wrap ErrState, fs.ErrNotExist or bundle.ErrNewer, or
// are the file system's.
func readStateFile(path string) (*State, error) {
	var s State
	if err := host.ReadRecord(path, "State", &s); err != nil {
		return nil, err
	}
	if s.Channels == nil || s.Owners == nil || s.Deployments == nil {
		return nil, fmt.Errorf("%w: %w: %s is not complete", ErrState, bundle.ErrFormat, path)
	}
	for name, c := range s.Channels {
		if c.Sequence < 0 {
			return nil, fmt.Errorf("%w: %w: %s has the sequence %d for channel %q", ErrState, bundle.ErrFormat, path, c.Sequence, name)
		}
	}
	return &s, nil
}

// write replaces the state durably, and keeps the one before.
func (s *State) write(root string) error {
	if _, err := readStateFile(statePath(root)); err == nil {
		earlier, err := bundle.ReadFile(statePath(root), bundle.MaxRecord)
		if err == nil {
			err = bundle.WriteFile(earlierPath(root), earlier, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return host.WriteRecord(statePath(root), s)
}

// deploymentKey tells one deployment on several registries apart.
func deploymentKey(name, target string) string { return name + " " + target }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// ErrNotInstalled says that there is nothing of that name to change.
var ErrNotInstalled = errors.New("nothing is installed")

// settleOwners makes everything that an installed deployment has its own again, and
// nothing else anybody's, after a change that may have left it to nobody: its name, its
// tags and its links. What it shares stays with who has had it, if that one is installed.
func (s *State) settleOwners(root string) error {
	owners := map[string]Owner{}
	claim := func(key string, o Owner) {
		if had, ok := s.Owners[key]; ok && slices.ContainsFunc(s.installed(), func(d Installed) bool { return had == Owner{d.Channel, d.Name} }) {
			o = had
		}
		if _, taken := owners[key]; !taken { // the first, as for what the tag becomes
			owners[key] = o
		}
	}
	for _, d := range s.installed() {
		self := Owner{d.Channel, d.Name}
		claim("deployment "+d.Name, self)
		receipt, err := ReadReceipt(root, d.Receipt)
		if err != nil && !host.Lost(err) {
			return err
		}
		if err != nil { // what cannot be read keeps what it has had
			for key, o := range s.Owners {
				if o == self {
					owners[key] = o
				}
			}
			continue
		}
		for _, t := range receipt.Tags {
			if t.Repository != CentralRepository(d.Name) && !strings.HasPrefix(t.Tag, retentionTag(receipt.Bundle.Digest, 0)) {
				claim(tagKey(d.Registry, t.Repository, t.Tag), self)
			}
		}
		for _, i := range receipt.Images { // where another host has put them there are no tags of our own
			if name := strings.TrimPrefix(i.Reference, receipt.Registry+"/"); !strings.Contains(name, "@") {
				claim("tag "+d.Registry+" "+name, self)
			}
		}
		about, err := host.ReadRelease(root, d.Name, d.Release)
		if err != nil && !host.Lost(err) {
			return err
		}
		if err != nil {
			for key, o := range s.Owners {
				if o == self && strings.HasPrefix(key, "path ") {
					owners[key] = o
				}
			}
			continue
		}
		for _, l := range about.LinkPaths() {
			claim("path "+l, self)
		}
	}
	for key, o := range s.Owners { // a name that still has data or passwords is not anybody's
		name, ok := strings.CutPrefix(key, "deployment ")
		if _, taken := owners[key]; !ok || taken {
			continue
		}
		keeps, err := host.Keeps(root, name)
		if err != nil {
			return err
		}
		if keeps {
			owners[key] = o
		}
	}
	s.Owners = owners
	return nil
}

// installed returns the deployments, in the order of their names.
func (s *State) installed() []Installed {
	var list []Installed
	for _, key := range sortedKeys(s.Deployments) {
		list = append(list, s.Deployments[key])
	}
	return list
}

// tagKey is the owners' key of a tag.
func tagKey(target, repo, tag string) string { return fmt.Sprintf("tag %s %s:%s", target, repo, tag) }

// paths returns the places outside of the root that belong to a deployment.
func (s *State) paths(name string) (list []string) {
	for key, owner := range s.Owners {
		if p, ok := strings.CutPrefix(key, "path "); ok && owner.Deployment == name {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// OwnTags returns the tags of a receipt by which people find images, as far as nobody
// else has taken them over.
func (s *State) OwnTags(d Installed, r *Receipt) []TagMove {
	return slices.DeleteFunc(slices.Clone(r.Tags), func(t TagMove) bool {
		return s.Owners[tagKey(d.Registry, t.Repository, t.Tag)] != Owner{d.Channel, d.Name}
	})
}

// OwnLinks returns the links of a release in whose places no other deployment that is
// installed has its own.
func (s *State) OwnLinks(a *host.About) []bundle.Link {
	return slices.DeleteFunc(slices.Clone(a.Links), func(l bundle.Link) bool {
		owner, ok := s.Owners["path "+filepath.Join(a.HostRoot, l.Path)]
		return ok && owner.Deployment != a.Name && slices.ContainsFunc(s.installed(), func(d Installed) bool { return owner == Owner{d.Channel, d.Name} })
	})
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
			return Installed{}, fmt.Errorf("%w below this root; was it installed with another --root?", ErrNotInstalled)
		}
		return Installed{}, fmt.Errorf("%w under the name %q; oob-bundle status lists what is", ErrNotInstalled, name)
	}
	var names []string
	for _, d := range found {
		names = append(names, d.Name+" (registry "+d.Registry+")")
	}
	if name == "" && slices.ContainsFunc(found, func(d Installed) bool { return d.Name != found[0].Name }) {
		return Installed{}, fmt.Errorf("%w as the only one: there are %s; give the name", ErrNotInstalled, strings.Join(names, ", "))
	}
	return Installed{}, fmt.Errorf("%w by that name alone: there are %s; say which with --registry", ErrNotInstalled, strings.Join(names, ", "))
}

// Kept returns the receipts of a deployment: the current one, and those that a
// rollback can go back to, the newest first. Earlier ones that are lost or damaged are
// left out.
func (d Installed) Kept(root string) ([]*Receipt, error) {
	var list []*Receipt
	for n, name := range append([]string{d.Receipt}, d.Before...) {
		r, err := ReadReceipt(root, name)
		if n > 0 && err != nil && host.Lost(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}
