package create

import (
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/manifests"
)

func (o *Options) followLock() error {
	l := o.Lock
	mismatch := func(what string, lock, asked any) error {
		return fmt.Errorf("%w: it has the %s %v, and %v is asked for; create without --lock makes a new one", manifests.ErrMismatch, what, lock, asked)
	}
	if l.Manifest != o.Manifest.Digest {
		return mismatch("manifest", l.Manifest, o.Manifest.Digest)
	}
	var locked []bundle.Platform
	for _, s := range l.Platforms {
		p, err := bundle.ParsePlatform(s)
		if err != nil {
			return fmt.Errorf("%w: the lock: %w", manifests.ErrInvalid, err)
		}
		locked = append(locked, p)
	}
	if len(o.Platforms) > 0 && !slices.EqualFunc(o.Platforms, locked, bundle.Platform.Matches) {
		return mismatch("platforms", l.Platforms, bundle.Info{Platforms: o.Platforms}.PlatformNames())
	}
	if o.Channel != "" && o.Channel != l.Channel {
		return mismatch("channel", l.Channel, o.Channel)
	}
	if o.Sequence != nil && *o.Sequence != l.Sequence {
		return mismatch("sequence", l.Sequence, *o.Sequence)
	}
	o.Platforms, o.Channel, o.Sequence, o.Now = locked, l.Channel, &l.Sequence, l.Created
	return nil
}

func (o *Options) pinned(ref bundle.Reference) bundle.Digest {
	if o.Lock == nil {
		return ""
	}
	i, _ := o.Lock.Image(ref)
	return i.Digest
}

// lock returns the lock of what was resolved. If one was given, it is that one,
// and what was resolved has to agree.
func (o *Options) lock(images []*pull.Image) (*manifests.Lock, error) {
	info := o.info()
	l := &manifests.Lock{
		APIVersion: bundle.APIVersion, Kind: "Lock", Metadata: o.Manifest.Metadata, Program: o.Program,
		Manifest: o.Manifest.Digest, Channel: info.Channel, Sequence: info.Sequence, Created: info.Created,
		Platforms: info.PlatformNames(),
	}
	for _, i := range images {
		locked := manifests.LockedImage{Reference: i.Reference.String(), MediaType: i.Top.MediaType, Digest: i.Top.Digest, Size: i.Top.Size}
		if i.Partial {
			for _, d := range slices.Concat(i.Manifests, i.Attestations) {
				m := manifests.LockedManifest{Digest: d.Digest, Size: d.Size}
				if d.Platform != nil && d.Platform.OS != "unknown" {
					m.Platform = d.Platform.String()
				}
				locked.Carried = append(locked.Carried, m)
			}
		}
		l.Images = append(l.Images, locked)
	}
	if err := sameTags(images); err != nil {
		return nil, err
	}
	if o.Lock == nil {
		return l, nil
	}
	l.Program = o.Lock.Program
	want, err := o.Lock.Encode()
	if err != nil {
		return nil, err
	}
	got, err := l.Encode()
	if err != nil {
		return nil, err
	}
	if string(want) != string(got) {
		return nil, fmt.Errorf("%w: resolving it gives another result (%s); create without --lock makes a new one", manifests.ErrMismatch, firstOther(string(want), string(got)))
	}
	return o.Lock, nil
}

// sameTags refuses two references that would be one tag on the site and are not
// one image, such as app:1 and app:1@sha256:… of last year.
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
	return "one has more images than the other"
}
