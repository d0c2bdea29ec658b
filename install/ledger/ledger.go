// Package ledger records what is installed on a host and which deployment owns which tag or
// path: ROOT/state.json. An installation, a rollback and an uninstallation are each the
// difference between two ledgers; the reverse difference undoes them. This file contains the
// rules, which are pure functions. The other files read and write.
package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Ledger describes what is installed on a host. A Ledger that was read is not changed: With,
// Back and Without return the next one.
type Ledger struct {
	APIVersion string             `json:"apiVersion"` // bundle.APIVersion
	Kind       string             `json:"kind"`       // "Ledger"
	Channels   map[string]Channel `json:"channels"`
	// Names maps the name of a deployment to the channel it last came from, even after
	// removal. Another channel may not install that name while its data exists.
	Names       map[string]string     `json:"names"`
	Deployments map[string]Deployment `json:"deployments"` // by Key
	// Claims are the tags and paths that releases need, in order of installation. See Value
	// for the claim that counts.
	Claims map[Place][]Claim `json:"claims"`
	// Before is the value of a tag before the first claim, "" if the tag did not exist. A tag
	// without an entry was set by another host and is never moved.
	Before map[Place]bundle.Digest `json:"before"`

	// Rebuilt is the reason why the ledger was rebuilt from other records, or nil.
	Rebuilt error `json:"-"`
	// Unknown are the deployments on the disk that no record describes.
	Unknown []string `json:"-"`
}

// Channel is the state of an update channel.
type Channel struct {
	Sequence int64 `json:"sequence"` // the highest; lower ones are refused
	// Identity is the installed bundle, or "".
	Identity bundle.Digest `json:"identity,omitempty"`
	// Highest is the bundle with that sequence. It may be installed again after a rollback or
	// an uninstallation.
	Highest bundle.Digest `json:"highest,omitempty"`
	// Pending is the bundle whose installation started to switch and did not finish, or "". It
	// may be installed, whatever was installed since then.
	Pending bundle.Digest `json:"pending,omitempty"`
}

// Deployment is what is installed under one name with the images in one registry.
type Deployment struct {
	Name     string `json:"name"`
	Registry string `json:"registry"` // name of the target: an address, or "embedded"
	// Releases are the current release and those that a rollback can return to, newest first.
	Releases []Release `json:"releases"`
}

// Release is one installation of a bundle with the values of a site.
type Release struct {
	ID        string        `json:"id"` // below deployments/NAME/releases
	Identity  bundle.Digest `json:"identity"`
	Version   string        `json:"version"`
	Channel   string        `json:"channel"`
	Sequence  int64         `json:"sequence"`
	Installed string        `json:"installed"` // RFC 3339, by this host's clock
	Signers   []string      `json:"signers"`   // fingerprints of the trusted keys
	Address   string        `json:"address"`   // of the registry: the prefix of image references
	// InPlace means that another host stored the images in the registry. This host must not
	// move their tags.
	InPlace bool    `json:"inPlace,omitempty"`
	Images  []Image `json:"images"`
}

// Place is a tag of a registry or a path outside of the root. Several deployments may need the
// same place. See Tag and Path.
type Place string

// Tag returns the place of a tag. Registry is the name used in Deployment.
func Tag(registry, repository, tag string) Place {
	return Place("tag " + registry + " " + repository + ":" + tag)
}

// Path returns the place of an absolute path.
func Path(path string) Place { return Place("path " + path) }

// Split returns the parts of a tag's place. Ok is false for a path.
func (p Place) Split() (registry, repository, tag string, ok bool) {
	rest, ok := strings.CutPrefix(string(p), "tag ")
	registry, rest, found := strings.Cut(rest, " ")
	colon := strings.LastIndexByte(rest, ':')
	if !ok || !found || colon < 0 {
		return "", "", "", false
	}
	return registry, rest[:colon], rest[colon+1:], true
}

// Claim is the need of one release for a place.
type Claim struct {
	Deployment string        `json:"deployment"`      // Key
	Release    string        `json:"release"`         // ID
	Value      bundle.Digest `json:"value,omitempty"` // of a tag
}

// Key identifies a deployment in a ledger.
func Key(name, registry string) string { return name + " " + registry }

// Key identifies the deployment in its ledger.
func (d Deployment) Key() string { return Key(d.Name, d.Registry) }

// Current returns the installed release. Every deployment in a ledger has one.
func (d Deployment) Current() Release {
	if len(d.Releases) == 0 {
		return Release{}
	}
	return d.Releases[0]
}

// Release returns the release with the given ID.
func (d Deployment) Release(id string) (Release, bool) {
	n := slices.IndexFunc(d.Releases, func(r Release) bool { return r.ID == id })
	if n < 0 {
		return Release{}, false
	}
	return d.Releases[n], true
}

// New returns the ledger of a host on which nothing was ever installed.
func New() *Ledger {
	return &Ledger{
		APIVersion: bundle.APIVersion, Kind: "Ledger", Channels: map[string]Channel{}, Names: map[string]string{},
		Deployments: map[string]Deployment{}, Claims: map[Place][]Claim{}, Before: map[Place]bundle.Digest{},
	}
}

// Sorted returns the deployments, sorted by name and registry.
func (l *Ledger) Sorted() []Deployment {
	var list []Deployment
	for _, key := range slices.Sorted(maps.Keys(l.Deployments)) {
		list = append(list, l.Deployments[key])
	}
	return list
}

// Has reports whether a deployment of that name is installed, with any registry.
func (l *Ledger) Has(name string) bool {
	return slices.ContainsFunc(l.Sorted(), func(d Deployment) bool { return d.Name == name })
}

// Find returns the deployment with a name and a registry. An empty name or registry matches
// any, if that leaves exactly one deployment. The error wraps ErrNotInstalled.
func (l *Ledger) Find(name, registry string) (Deployment, error) {
	var found []Deployment
	for _, d := range l.Sorted() {
		if (name == "" || d.Name == name) && (registry == "" || d.Registry == registry) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && name == "":
		return Deployment{}, fmt.Errorf("%w below this root; was it installed with another --root?", ErrNotInstalled)
	case len(found) == 0:
		return Deployment{}, fmt.Errorf("%w under the name %q; oob-bundle status lists what is", ErrNotInstalled, name)
	}
	var names []string
	for _, d := range found {
		names = append(names, d.Name+" (registry "+d.Registry+")")
	}
	if name == "" && slices.ContainsFunc(found, func(d Deployment) bool { return d.Name != found[0].Name }) {
		return Deployment{}, fmt.Errorf("%w as the only one: there are %s; give the name", ErrNotInstalled, strings.Join(names, ", "))
	}
	return Deployment{}, fmt.Errorf(
		"%w by that name alone: there are %s; say which with --registry",
		ErrNotInstalled, strings.Join(names, ", "),
	)
}

// isCurrent reports whether a claim is of the current release of its deployment.
func (l *Ledger) isCurrent(c Claim) bool {
	return l.Deployments[c.Deployment].Current().ID == c.Release
}

// holding returns the claim that counts: the last claim of a current release, or else the last
// claim of a release that a rollback can return to.
func holding(l *Ledger, p Place) (Claim, bool) {
	claims := l.Claims[p]
	for _, c := range slices.Backward(claims) {
		if l.isCurrent(c) {
			return c, true
		}
	}
	if len(claims) == 0 {
		return Claim{}, false
	}
	return claims[len(claims)-1], true
}

// Value returns the required value of a tag: that of the claim that counts, or "" without one.
func (l *Ledger) Value(p Place) bundle.Digest {
	c, _ := holding(l, p)
	return c.Value
}

// Owner returns the deployment whose current release owns a place.
func (l *Ledger) Owner(p Place) (Deployment, bool) {
	if c, ok := holding(l, p); ok && l.isCurrent(c) {
		return l.Deployments[c.Deployment], true
	}
	return Deployment{}, false
}

// claimsOf returns the places that a release needs, sorted, with their values.
func (l *Ledger) claimsOf(key, release string) []Placed {
	var list []Placed
	for _, p := range slices.Sorted(maps.Keys(l.Claims)) {
		for _, c := range l.Claims[p] {
			if c.Deployment == key && c.Release == release {
				list = append(list, Placed{p, c.Value})
			}
		}
	}
	return list
}

// Placed is a place and its actual or required value.
type Placed struct {
	Place Place
	Value bundle.Digest
}

// Tags returns the tags that a release needs, sorted, with their values.
func (l *Ledger) Tags(d Deployment, release string) []Placed {
	return slices.DeleteFunc(l.claimsOf(d.Key(), release), func(p Placed) bool { return !strings.HasPrefix(string(p.Place), "tag ") })
}

// Paths returns the absolute paths that the releases of a deployment claim, with any registry.
func (l *Ledger) Paths(name string) (list []string) {
	for _, p := range slices.Sorted(maps.Keys(l.Claims)) {
		path, ok := strings.CutPrefix(string(p), "path ")
		if ok && slices.ContainsFunc(l.Claims[p], func(c Claim) bool { return l.Deployments[c.Deployment].Name == name }) {
			list = append(list, path)
		}
	}
	return list
}

// kept is the number of earlier releases that a deployment keeps for a rollback.
const kept = 2

// Wanted is a place that a release needs.
type Wanted struct {
	Place Place
	Value bundle.Digest // of a tag
	Found bundle.Digest // value of the tag before the installation
	// Yields means that the place stays with its owner, another deployment. This deployment
	// gets the place when the owner is gone.
	Yields bool
}

// With returns the ledger after the installation of a release. Of the earlier values of a tag,
// the ledger keeps the last one that no release of this host set.
func (l *Ledger) With(name, registry string, r Release, wanted []Wanted) *Ledger {
	next, key := l.clone(), Key(name, registry)
	earlier := slices.DeleteFunc(slices.Clone(l.Deployments[key].Releases), func(e Release) bool { return e.ID == r.ID })
	releases := slices.Insert(earlier, 0, r)
	releases = releases[:min(len(releases), kept+1)]
	next.Deployments[key] = Deployment{Name: name, Registry: registry, Releases: releases}
	next.Names[name] = r.Channel
	next.release(func(c Claim) bool {
		return c.Deployment == key && (c.Release == r.ID || !slices.ContainsFunc(releases, func(k Release) bool { return k.ID == c.Release }))
	})
	for _, w := range wanted {
		claim := Claim{Deployment: key, Release: r.ID, Value: w.Value}
		if w.Yields {
			next.Claims[w.Place] = slices.Insert(next.Claims[w.Place], 0, claim)
		} else {
			next.Claims[w.Place] = append(next.Claims[w.Place], claim)
		}
		if _, _, _, tag := w.Place.Split(); !tag || r.InPlace {
			continue
		}
		before, known := l.Before[w.Place]
		ours := slices.ContainsFunc(l.Claims[w.Place], func(c Claim) bool { return c.Value == w.Found })
		if !known || !ours {
			before = w.Found
		}
		next.Before[w.Place] = before
	}
	return next
}

// Back returns the ledger after a rollback of a deployment to an earlier release. The newer
// releases are removed.
func (l *Ledger) Back(d Deployment, release string) *Ledger {
	next := l.clone()
	n := slices.IndexFunc(d.Releases, func(r Release) bool { return r.ID == release })
	gone := d.Releases[:max(n, 0)]
	d.Releases = d.Releases[len(gone):]
	next.Deployments[d.Key()] = d
	next.Names[d.Name] = d.Current().Channel
	next.release(func(c Claim) bool {
		return c.Deployment == d.Key() && slices.ContainsFunc(gone, func(r Release) bool { return r.ID == c.Release })
	})
	channel := next.Channels[d.Current().Channel] // the sequence stays: a rollback permits no downgrade
	channel.Identity = d.Current().Identity
	next.Channels[d.Current().Channel] = channel
	return next
}

// Without returns the ledger after a deployment was removed. The sequence of its channel
// stays.
func (l *Ledger) Without(d Deployment) *Ledger {
	next := l.clone()
	delete(next.Deployments, d.Key())
	next.release(func(c Claim) bool { return c.Deployment == d.Key() })
	return next
}

// Move is the change of one tag.
type Move struct {
	Place    Place
	From, To bundle.Digest // "" for no tag
}

// Diff returns the tag moves of a registry that lead from one ledger to another, sorted.
// Diff(b, a) undoes Diff(a, b). A tag that another host set is not moved.
func Diff(from, to *Ledger, registry string) []Move {
	places := maps.Clone(from.Claims)
	maps.Copy(places, to.Claims)
	var list []Move
	for _, p := range slices.Sorted(maps.Keys(places)) {
		m := Move{Place: p, From: from.or(p, to), To: to.or(p, from)}
		at, _, _, tag := p.Split()
		if tag && at == registry && m.From != m.To && from.puts(p) {
			list = append(list, m)
		}
	}
	return list
}

// puts reports whether this host set a tag, or would set it.
func (l *Ledger) puts(p Place) bool {
	c, claimed := holding(l, p)
	if !claimed {
		return true
	}
	r, _ := l.Deployments[c.Deployment].Release(c.Release)
	_, known := l.Before[p]
	return known && !r.InPlace
}

// or returns the value of a tag, or its value before any claim according to the other ledger.
func (l *Ledger) or(p Place, other *Ledger) bundle.Digest {
	if len(l.Claims[p]) == 0 {
		return other.Before[p]
	}
	return l.Value(p)
}

// release removes claims. Without the last claim of a place, the record of the place is
// removed.
func (l *Ledger) release(gone func(Claim) bool) {
	for p, claims := range l.Claims {
		left := slices.DeleteFunc(slices.Clone(claims), gone)
		if l.Claims[p] = left; len(left) == 0 {
			delete(l.Claims, p)
			delete(l.Before, p)
		}
	}
}

func (l *Ledger) clone() *Ledger {
	next := *l
	next.Rebuilt, next.Unknown = nil, nil
	next.Channels, next.Names, next.Deployments = maps.Clone(l.Channels), maps.Clone(l.Names), maps.Clone(l.Deployments)
	next.Claims, next.Before = map[Place][]Claim{}, maps.Clone(l.Before)
	for p, claims := range l.Claims {
		next.Claims[p] = slices.Clone(claims)
	}
	return &next
}
