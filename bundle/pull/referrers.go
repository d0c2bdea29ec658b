package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/manifests"
)

const (
	// maxReferrers bounds what is fetched because it refers to one image.
	maxReferrers = 200
	// maxReferrerDepth bounds referrers of referrers (a signature of an SBOM).
	maxReferrerDepth = 3
	// maxReferrerBlob bounds a referrer's blob that is fetched while the image is
	// resolved, in bytes. The registry is only asked whether it has a larger one.
	maxReferrerBlob = 1 << 20
	// maxReferrerBytes bounds these blobs of one image together, in bytes.
	maxReferrerBytes = maxHeld / 2
)

// cosignTags are the names that cosign gave to what speaks of an image, before
// registries had referrers: sha256-HEX and one of these.
var cosignTags = []string{".sig", ".att", ".sbom"}

// Referrer is a manifest that speaks of a carried one.
type Referrer struct {
	bundle.Descriptor                // its ArtifactType is set
	Subject           *bundle.Digest // what it refers to; nil for one that is found by its tag
	Tag               string         // under which cosign finds it; empty for one that the registry lists
}

// finder finds an image's referrers. None of them is needed to run the image, so
// one that cannot be carried is a warning.
type finder struct {
	*Image
	own     map[bundle.Digest]bool // manifests of the image itself
	checked map[string]bool        // subject and referrer
	tried   int
}

// errTooMany ends the search.
var errTooMany = fmt.Errorf("%w: upstream has more than %d of them", bundle.ErrLimit, maxReferrers)

// referrers finds what upstream has that refers to the image: signatures,
// attestations, SBOMs. It fetches their manifests, and leaves out with a warning
// what cannot be carried. The only error is the end of ctx.
func (i *Image) referrers(ctx context.Context) error {
	subjects := []bundle.Descriptor{i.Top}
	for _, d := range i.Manifests {
		if d.Digest != i.Top.Digest {
			subjects = append(subjects, d)
		}
	}
	if !i.Partial && bundle.IsIndex(i.Top.MediaType) {
		m, err := bundle.ParseManifest(i.Top, i.Documents[i.Top.Digest])
		if err != nil {
			return err
		}
		subjects = append(subjects, m.Manifests...)
	}
	f := &finder{Image: i, own: map[bundle.Digest]bool{}, checked: map[string]bool{}}
	for d := range i.Documents {
		f.own[d] = true
	}
	seen := map[bundle.Digest]bool{}
	var err error
	for _, d := range subjects {
		if err == nil && !seen[d.Digest] {
			seen[d.Digest] = true
			err = f.of(ctx, d.Digest)
		}
	}
	i.sortReferrers()
	if errors.Is(err, errTooMany) {
		return f.leave(ctx, "the rest of what refers to it", err)
	}
	return err
}

// of finds the referrers of one manifest.
func (f *finder) of(ctx context.Context, subject bundle.Digest) error {
	for _, suffix := range cosignTags {
		if err := f.tagged(ctx, strings.Replace(string(subject), ":", "-", 1)+suffix); err != nil {
			return err
		}
	}
	return f.listed(ctx, subject, 1)
}

// leave warns that something is not carried. Its error is the end of ctx, or
// errTooMany.
func (f *finder) leave(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f.Warnings = append(
		f.Warnings,
		fmt.Sprintf("%s is not carried: %v; --without-referrers leaves all signatures, attestations and SBOMs out", what, err),
	)
	return nil
}

// try counts what is fetched.
func (f *finder) try() error {
	if f.tried == maxReferrers {
		return errTooMany
	}
	f.tried++
	return nil
}

// sortReferrers makes the bundle the same, in whatever order registries list.
func (i *Image) sortReferrers() {
	slices.SortFunc(i.Referrers, func(a, b Referrer) int {
		return cmp.Or(strings.Compare(a.Tag, b.Tag), strings.Compare(string(a.Digest), string(b.Digest)))
	})
}

// pinned fetches the referrers that a lock names. What upstream got since does not
// matter, nor that a tag of cosign's means another manifest by now: cosign rewrites it
// with every further signature.
func (i *Image) pinned(ctx context.Context, list []manifests.LockedReferrer) error {
	for _, l := range list {
		d, data, err := i.Repository.Manifest(ctx, string(l.Digest))
		if errors.Is(err, remote.ErrNotFound) {
			return fmt.Errorf(
				"%w: upstream has no longer %s, which it names; create without --lock makes a new one: %w",
				manifests.ErrMismatch, l.Digest, err,
			)
		}
		if err != nil {
			return err
		}
		m, err := i.hold(ctx, d, data, 2)
		if err != nil {
			return err
		}
		d.ArtifactType = m.ArtifactType
		r := Referrer{Descriptor: d, Tag: l.Tag}
		if l.Tag == "" {
			if m.Subject == nil {
				return fmt.Errorf("%w: %s, which the lock names, refers to nothing", manifests.ErrInvalid, l.Digest)
			}
			r.Subject = &m.Subject.Digest
		}
		i.Referrers = append(i.Referrers, r)
	}
	i.sortReferrers()
	return nil
}

// listed carries what the registry lists as referrers of a digest, and what refers
// to these.
func (f *finder) listed(ctx context.Context, subject bundle.Digest, depth int) error {
	list, listErr := f.Repository.Referrers(ctx, subject)
	for _, d := range list {
		key := string(subject) + " " + string(d.Digest)
		if f.own[d.Digest] || f.checked[key] {
			continue
		}
		f.checked[key] = true
		if err := f.try(); err != nil {
			return err
		}
		if depth > maxReferrerDepth {
			return f.leave(
				ctx, fmt.Sprintf("what refers to %s", subject),
				fmt.Errorf("signatures of signatures are nested more than %d deep", maxReferrerDepth),
			)
		}
		if err := f.referrer(ctx, d, subject); err != nil {
			if err := f.leave(ctx, fmt.Sprintf("the referrer %s of %s", d.Digest, subject), err); err != nil {
				return err
			}
			continue
		}
		if err := f.listed(ctx, d.Digest, depth+1); err != nil {
			return err
		}
	}
	if listErr != nil {
		return f.leave(ctx, fmt.Sprintf("what refers to %s and cannot be listed", subject), listErr)
	}
	return nil
}

// referrer adds one that the registry lists.
func (f *finder) referrer(ctx context.Context, listed bundle.Descriptor, subject bundle.Digest) error {
	if listed.Digest == "" {
		return errors.New("its entry in the list is not a descriptor")
	}
	if _, err := bundle.ParseDigest(string(listed.Digest)); err != nil {
		return fmt.Errorf("its digest %q is not a sha256 digest", listed.Digest)
	}
	if !bundle.IsManifest(listed.MediaType) {
		return fmt.Errorf("its type %q is none of a manifest that current registries accept", listed.MediaType)
	}
	d, data, err := f.Repository.Manifest(ctx, string(listed.Digest))
	if err != nil {
		return err
	}
	m, err := f.fetched(ctx, d, data)
	if err != nil {
		return err
	}
	if m.Subject == nil || m.Subject.Digest != subject {
		return fmt.Errorf("it is listed and does not refer to %s", subject)
	}
	d.ArtifactType = m.ArtifactType
	f.Referrers = append(f.Referrers, Referrer{Descriptor: d, Subject: &subject})
	return nil
}

// fetched holds a referrer, and makes sure that upstream has all that it names: after
// this a missing blob would cost the whole bundle.
func (f *finder) fetched(ctx context.Context, d bundle.Descriptor, data []byte) (*bundle.Manifest, error) {
	m, err := f.hold(ctx, d, data, 2)
	if err != nil {
		return nil, err
	}
	return m, f.complete(ctx, m)
}

// complete fetches the small blobs below a manifest and asks for the large ones.
func (f *finder) complete(ctx context.Context, m *bundle.Manifest) error {
	for _, d := range m.Children() {
		var err error
		switch {
		case bundle.IsManifest(d.MediaType):
			var child *bundle.Manifest
			if child, err = bundle.ParseManifest(d, f.Documents[d.Digest]); err == nil {
				err = f.complete(ctx, child)
			}
		case d.Size <= maxReferrerBlob && f.held+d.Size <= maxReferrerBytes:
			_, err = f.small(ctx, d, maxReferrerBlob)
		default:
			err = f.Repository.CheckBlob(ctx, d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tagged carries what is under a tag of cosign's, if there is such a tag.
func (f *finder) tagged(ctx context.Context, tag string) error {
	// Asked without a download first: registries count downloads.
	if f.Repository.Absent(ctx, tag) {
		return nil
	}
	d, data, err := f.Repository.Manifest(ctx, tag)
	if errors.Is(err, remote.ErrNotFound) || err == nil && f.own[d.Digest] { // the registry takes the tag for a digest
		return nil
	}
	if err := f.try(); err != nil {
		return err
	}
	if err == nil && bundle.IsIndex(d.MediaType) {
		err = errors.New("it is not a signature, attestation or SBOM")
	}
	var m *bundle.Manifest
	if err == nil {
		m, err = f.fetched(ctx, d, data)
	}
	if err != nil {
		return f.leave(ctx, "what upstream has under the tag "+tag, err)
	}
	d.ArtifactType = m.ArtifactType
	f.Referrers = append(f.Referrers, Referrer{Descriptor: d, Tag: tag})
	return nil
}
