package create

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// followLock sets the options from the lock, and refuses options that contradict it.
func (j *job) followLock() error {
	l := j.Lock
	if l.Manifest != j.Manifest.Digest {
		return mismatch("manifest", string(l.Manifest), string(j.Manifest.Digest))
	}
	if now := j.Now; now.After(firstRelease) && l.Created.After(now.Add(clockError)) {
		return fmt.Errorf(
			"%w: it was created on %s, and this machine's clock shows %s; set the clock, or make a new lock",
			manifests.ErrMismatch, l.Created.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339),
		)
	}
	var locked []bundle.Platform
	for _, s := range l.Platforms {
		p, err := bundle.ParsePlatform(s)
		if err != nil {
			return fmt.Errorf("%w: the lock: %w", manifests.ErrInvalid, err)
		}
		locked = append(locked, p)
	}
	if len(j.Platforms) > 0 && !slices.EqualFunc(j.Platforms, locked, bundle.Platform.Matches) {
		return mismatch("platforms", words(l.Platforms), words(bundle.Info{Platforms: j.Platforms}.PlatformNames()))
	}
	if j.Sequence != nil && *j.Sequence != l.Sequence {
		return mismatch("sequence", strconv.FormatInt(l.Sequence, 10), strconv.FormatInt(*j.Sequence, 10))
	}
	for _, asked := range []struct{ what, lock, asked string }{
		{"channel", l.Channel, j.Channel},
		{"deployment", l.Deployment, j.Choice.Deployment},
		{"optional components", words(l.With), wordsOrNothing(j.Choice.With)},
		{"components left out", words(l.Without), wordsOrNothing(j.Choice.Without)},
	} {
		if asked.asked != "" && asked.asked != asked.lock {
			return mismatch(asked.what, asked.lock, asked.asked)
		}
	}
	if j.WithoutReferrers && !l.WithoutReferrers {
		return mismatch("signatures and the like", "included", "--without-referrers")
	}
	set, err := j.lockedSet()
	if err != nil {
		return err
	}
	j.Choice.Deployment, j.Choice.With, j.Choice.Without, j.Choice.Set = l.Deployment, l.With, l.Without, set
	j.WithoutReferrers = l.WithoutReferrers
	j.Platforms, j.Channel, j.Sequence, j.Now = locked, l.Channel, &l.Sequence, l.Created
	return nil
}

// lockedSet returns the values in the lock, plus the requested keys. Keys are files of
// this machine and not in the lock; the results of their checks are compared instead.
func (j *job) lockedSet() (map[string]string, error) {
	set := map[string]string{}
	var given []string
	for _, k := range slices.Sorted(maps.Keys(j.Lock.Set)) {
		set[k] = j.Lock.Set[k]
		given = append(given, k+"="+set[k])
	}
	for k, v := range j.Choice.Set {
		if have, ok := j.Lock.Set[k]; ok && have != v || !ok && !strings.HasPrefix(k, "keys.") {
			return nil, mismatch("values", words(given), k+"="+v)
		}
		set[k] = v
	}
	return set, nil
}

func mismatch(what, lock, asked string) error {
	return fmt.Errorf(
		"%w: it has the %s %s, and %s is asked for; oob-bundle lock --diff shows what else differs, create without --lock makes a new one",
		manifests.ErrMismatch, what, lock, asked,
	)
}

// wordsOrNothing is words, or "" for an empty list.
func wordsOrNothing(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return words(list)
}

// clockError is the tolerated difference between the clocks of two builders.
const clockError = 24 * time.Hour

// firstRelease is earlier than any lock. A clock before firstRelease is wrong, so no lock
// is compared with it.
var firstRelease = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// words joins a list for messages.
func words(list []string) string {
	if len(list) == 0 {
		return "(none)"
	}
	return strings.Join(list, ", ")
}

func (j *job) pinned(ref bundle.Reference) *pull.Pin {
	if j.Lock == nil {
		return nil
	}
	if i, ok := j.Lock.Image(ref); ok {
		return &pull.Pin{Digest: i.Digest, Referrers: i.Referrers}
	}
	for _, c := range j.Lock.Charts {
		if c.Reference == ref.String() && c.Manifest != "" {
			return &pull.Pin{Digest: c.Manifest, Referrers: c.Referrers}
		}
	}
	return nil
}

// lock returns the lock of the resolved content. If the options contain a lock, lock
// returns that lock, and refuses resolved content that differs from it.
func (j *job) lock(r *pull.Resolved) (*manifests.Lock, error) {
	info, s := j.info(), j.selection
	l := &manifests.Lock{
		APIVersion: bundle.APIVersion, Kind: "Lock", Metadata: manifests.LockMetadata{Name: s.Name, Version: s.Version}, Program: j.Program,
		Manifest: j.Manifest.Digest, Channel: info.Channel, Sequence: info.Sequence, Created: info.Created,
		Platforms: info.PlatformNames(), Deployment: s.Deployment, With: j.Choice.With, Without: j.Choice.Without,
		WithoutReferrers: j.WithoutReferrers, Versions: s.Versions, Settings: s.Settings, Images: []manifests.LockedImage{},
	}
	for k, v := range j.Choice.Set {
		if !strings.HasPrefix(k, "keys.") {
			if l.Set == nil {
				l.Set = map[string]string{}
			}
			l.Set[k] = v
		}
	}
	for _, c := range s.Components {
		l.Components = append(l.Components, c.Name)
	}
	for _, i := range r.Images {
		l.Images = append(l.Images, lockedImage(i))
	}
	for _, c := range r.Charts {
		locked := manifests.LockedChart{
			Name: c.Wanted.Name, Version: c.Wanted.Version, Repository: c.Wanted.Repository, Reference: c.Reference.String(),
			Digest: c.Content.Digest, Size: c.Content.Size, Check: c.Check,
		}
		if c.OCI != nil {
			locked.Manifest, locked.Referrers = c.OCI.Top.Digest, lockedReferrers(c.OCI)
			for _, check := range c.OCI.Checks {
				locked.Check += ", " + check
			}
		}
		l.Charts = append(l.Charts, locked)
	}
	for _, p := range r.Plugins {
		locked := manifests.LockedPlugin{
			ID:      p.About.ID,
			Version: p.About.Version,
			Source:  sourceName(p.Wanted.URL),
			Digest:  p.Archive.Digest,
			Size:    p.Archive.Size,
			Checks:  p.Checks,
		}
		if p.Signature != nil {
			locked.Signature = bundle.DigestOf(p.Signature)
		}
		if p.Key != nil {
			locked.Key = bundle.DigestOf(p.Key)
		}
		l.Plugins = append(l.Plugins, locked)
	}
	for _, f := range r.Files {
		l.Files = append(l.Files, manifests.LockedFile{
			Source: sourceName(f.Wanted.Source), Path: f.Wanted.Path, Mode: fmt.Sprintf("%04o", f.Wanted.Mode),
			Digest: f.Content.Digest, Size: f.Content.Size, Check: f.Check,
		})
	}
	if err := sameTags(r.Images); err != nil {
		return nil, err
	}
	return j.compare(l)
}

// compare returns the lock in the options, and refuses l if it differs. Without a lock in
// the options, compare returns l.
func (j *job) compare(l *manifests.Lock) (*manifests.Lock, error) {
	if j.Lock == nil {
		return l, nil
	}
	l.Program = j.Lock.Program
	for i, c := range l.Charts { // the same chart may come by another way now
		if i < len(j.Lock.Charts) && j.Lock.Charts[i].Digest == c.Digest && j.Lock.Charts[i].Reference == c.Reference {
			l.Charts[i].Check = j.Lock.Charts[i].Check
		}
	}
	want, err := j.Lock.Encode()
	if err != nil {
		return nil, err
	}
	got, err := l.Encode()
	if err != nil {
		return nil, err
	}
	if string(want) != string(got) {
		return nil, fmt.Errorf(
			"%w: resolving it gives another result (%s); oob-bundle lock --diff shows what changed, create without --lock makes a new one",
			manifests.ErrMismatch, firstOther(string(want), string(got)),
		)
	}
	return j.Lock, nil
}

func lockedImage(i *pull.Image) manifests.LockedImage {
	locked := manifests.LockedImage{
		Reference: i.Reference.String(),
		MediaType: i.Top.MediaType,
		Digest:    i.Top.Digest,
		Size:      i.Top.Size,
		Total:     total(i),
		Checks:    i.Checks,
	}
	if i.Partial {
		for _, d := range slices.Concat(i.Manifests, i.Attestations) {
			m := manifests.LockedManifest{Digest: d.Digest, Size: d.Size}
			if d.Platform.Machine() {
				m.Platform = d.Platform.String()
			}
			locked.Carried = append(locked.Carried, m)
		}
	}
	locked.Referrers = lockedReferrers(i)
	return locked
}

func lockedReferrers(i *pull.Image) (list []manifests.LockedReferrer) {
	for _, r := range i.Referrers {
		list = append(list, manifests.LockedReferrer{Tag: r.Tag, ArtifactType: r.ArtifactType, Digest: r.Digest, Size: r.Size})
	}
	return list
}

// sameTags refuses two references that would have one tag on the site but are different
// images, such as app:1 and an old app:1@sha256:….
func sameTags(images []*pull.Image) error {
	seen := map[string]*pull.Image{}
	for _, i := range images {
		if i.Reference.Tag == "" {
			continue
		}
		name := i.Reference.Repository() + ":" + i.Reference.Tag
		if other := seen[name]; other != nil && other.Top.Digest != i.Top.Digest {
			return fmt.Errorf("%w: %s and %s are different images with one name; leave one of them out, or give one by its digest alone",
				manifests.ErrInvalid, other.Reference, i.Reference)
		}
		seen[name] = i
	}
	return nil
}

func firstOther(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("%q instead of %q", strings.TrimSpace(g[i]), strings.TrimSpace(w[i]))
		}
	}
	return "one has more in it than the other"
}

// total returns the size of an image's blobs in a bundle that contains only that image, in bytes.
func total(i *pull.Image) int64 {
	seen := map[bundle.Digest]bool{}
	var sum int64
	var add func(d bundle.Descriptor)
	add = func(d bundle.Descriptor) {
		if seen[d.Digest] {
			return
		}
		seen[d.Digest] = true
		sum += d.Size
		data, ok := i.Documents[d.Digest]
		if !ok || !bundle.IsManifest(d.MediaType) {
			return
		}
		m, err := bundle.ParseManifest(d, data)
		if err != nil {
			return // refused elsewhere
		}
		for _, c := range m.Children() {
			add(c)
		}
	}
	for _, d := range slices.Concat(i.Manifests, i.Attestations) {
		add(d)
	}
	for _, r := range i.Referrers {
		add(r.Descriptor)
	}
	return sum
}

// sourceName returns a source in the form for the lock. A local file is reduced to its
// base name, because its directory exists only on the author's machine. The content is
// pinned by digest anyway.
func sourceName(s string) string {
	if strings.Contains(s, "://") {
		return pull.PlainSource(s)
	}
	return s[strings.LastIndexAny(s, `/\`)+1:]
}
