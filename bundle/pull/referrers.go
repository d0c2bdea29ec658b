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
	// maxReferrers bounds the referrers that are fetched for one image.
	maxReferrers = 200
	// maxReferrerDepth bounds the nesting of referrers (a signature of an SBOM).
	maxReferrerDepth = 3
	// maxReferrerBlob bounds a referrer's blob that is fetched while the image is
	// resolved, in bytes. For a larger blob, only its presence is checked.
	maxReferrerBlob = 1 << 20
	// maxReferrerBytes bounds the held documents of one image, in bytes. Beyond it no such
	// blob is fetched.
	maxReferrerBytes = maxHeld / 2
)

// cosignTags are the suffixes of the tags sha256-HEX.SUFFIX under which cosign stored
// signatures, attestations and SBOMs before registries had referrers.
var cosignTags = []string{".sig", ".att", ".sbom"}

// Referrer is a manifest that refers to a carried manifest.
type Referrer struct {
	bundle.Descriptor                // with ArtifactType
	Subject           *bundle.Digest // the manifest that it refers to; nil if Tag is set
	Tag               string         // under which cosign finds it; empty if the registry lists it as a referrer
}

// finder finds an image's referrers. The image runs without them, so a referrer that
// cannot be carried only causes a warning.
type finder struct {
	*Image
	own     map[bundle.Digest]bool // manifests of the image itself
	checked map[string]bool        // "SUBJECT REFERRER" → was seen
	tried   int
}

// errTooMany ends the search for referrers.
var errTooMany = fmt.Errorf("%w: upstream has more than %d of them", bundle.ErrLimit, maxReferrers)

// referrers finds the image's referrers upstream: signatures, attestations, SBOMs. It
// fetches their manifests. A referrer that cannot be carried is left out with a warning.
// The only error is the cause of the end of ctx.
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

// of finds the referrers of one manifest, those with cosign's tags first.
func (f *finder) of(ctx context.Context, subject bundle.Digest) error {
	for _, suffix := range cosignTags {
		if err := f.tagged(ctx, strings.Replace(string(subject), ":", "-", 1)+suffix); err != nil {
			return err
		}
	}
	return f.listed(ctx, subject, 1)
}

// leave adds a warning that something is not carried. Its only error is the cause of the
// end of ctx.
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

// try counts a fetch. It returns errTooMany if there were maxReferrers already.
func (f *finder) try() error {
	if f.tried == maxReferrers {
		return errTooMany
	}
	f.tried++
	return nil
}

// sortReferrers makes the bundle independent of the order in which registries list
// referrers.
func (i *Image) sortReferrers() {
	slices.SortFunc(i.Referrers, func(a, b Referrer) int {
		return cmp.Or(strings.Compare(a.Tag, b.Tag), strings.Compare(string(a.Digest), string(b.Digest)))
	})
}

// pinned fetches the referrers that a lock names, by digest. It ignores referrers that
// upstream got later, and manifests that cosign's tags point to by now: cosign rewrites a
// tag with each new signature.
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

// listed adds the referrers that the registry lists for a digest and, recursively, the
// referrers of those.
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

// referrer adds one referrer that the registry lists.
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

// fetched holds a referrer, and checks that upstream has all blobs that it names. Later, a
// missing blob would make the whole bundle fail.
func (f *finder) fetched(ctx context.Context, d bundle.Descriptor, data []byte) (*bundle.Manifest, error) {
	m, err := f.hold(ctx, d, data, 2)
	if err != nil {
		return nil, err
	}
	return m, f.complete(ctx, m)
}

// complete fetches the small blobs below a manifest and checks that the registry has the
// large ones.
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

// tagged adds the manifest under one of cosign's tags, if the tag exists.
func (f *finder) tagged(ctx context.Context, tag string) error {
	// A HEAD request first, because registries count downloads.
	if f.Repository.Absent(ctx, tag) {
		return nil
	}
	d, data, err := f.Repository.Manifest(ctx, tag)
	if errors.Is(err, remote.ErrNotFound) || err == nil && f.own[d.Digest] { // own: the registry reads the tag as a digest
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
