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
	// maxReferrers bounds what is carried because it speaks of one image.
	maxReferrers = 200
	// maxReferrerDepth bounds referrers of referrers (a signature of an SBOM).
	maxReferrerDepth = 3
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

// referrers finds what upstream has that speaks of the image: signatures,
// attestations, SBOMs. It fetches their manifests.
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
	seen := map[bundle.Digest]bool{}
	for _, d := range subjects {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		if err := i.listed(ctx, d.Digest, 1); err != nil {
			return err
		}
		for _, suffix := range cosignTags {
			if err := i.tagged(ctx, strings.Replace(string(d.Digest), ":", "-", 1)+suffix); err != nil {
				return err
			}
		}
	}
	i.sortReferrers()
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
			return fmt.Errorf("%w: upstream has no longer %s, which it names; create without --lock makes a new one: %w", manifests.ErrMismatch, l.Digest, err)
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
		if err := i.addReferrer(r); err != nil {
			return err
		}
	}
	i.sortReferrers()
	return nil
}

// listed carries what the registry lists as referrers of a digest, and what
// speaks of these.
func (i *Image) listed(ctx context.Context, subject bundle.Digest, depth int) error {
	list, err := i.Repository.Referrers(ctx, subject)
	if err != nil {
		return err
	}
	for _, d := range list {
		if i.Documents[d.Digest] != nil {
			continue
		}
		if depth > maxReferrerDepth {
			return fmt.Errorf("%w: signatures of signatures are nested more than %d deep; --without-referrers leaves all of them out", bundle.ErrLimit, maxReferrerDepth)
		}
		if !bundle.IsManifest(d.MediaType) {
			return fmt.Errorf("%w: it lists a %q among what refers to %s", remote.ErrRegistry, d.MediaType, subject)
		}
		if err := i.fetchManifests(ctx, d, 2); err != nil {
			return err
		}
		m, err := bundle.ParseManifest(d, i.Documents[d.Digest])
		if err != nil {
			return fmt.Errorf("%w: it sent what no bundle can carry: %w", remote.ErrRegistry, err)
		}
		if m.Subject == nil || m.Subject.Digest != subject {
			return fmt.Errorf("%w: it lists %s among what refers to %s, which it does not", remote.ErrRegistry, d.Digest, subject)
		}
		own := bundle.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: m.ArtifactType}
		if err := i.addReferrer(Referrer{Descriptor: own, Subject: &subject}); err != nil {
			return err
		}
		if err := i.listed(ctx, d.Digest, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (i *Image) addReferrer(r Referrer) error {
	if i.Referrers = append(i.Referrers, r); len(i.Referrers) > maxReferrers {
		return fmt.Errorf("%w: upstream has more than %d signatures and the like for it; --without-referrers leaves all of them out", bundle.ErrLimit, maxReferrers)
	}
	return nil
}

// tagged carries what stands under a tag of cosign's, if there is such a tag.
func (i *Image) tagged(ctx context.Context, tag string) error {
	// Asked without a download first: registries count downloads.
	if i.Repository.Absent(ctx, tag) {
		return nil
	}
	d, data, err := i.Repository.Manifest(ctx, tag)
	if errors.Is(err, remote.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(i.Referrers, func(r Referrer) bool { return r.Digest == d.Digest && r.Tag == tag }) {
		return nil
	}
	m, err := bundle.ParseManifest(d, data)
	if err != nil || bundle.IsIndex(d.MediaType) {
		return fmt.Errorf("%w: what it has under %s is not a signature, attestation or SBOM", remote.ErrRegistry, tag)
	}
	if err := i.keep(d.Digest, data); err != nil {
		return err
	}
	d.ArtifactType = m.ArtifactType
	return i.addReferrer(Referrer{Descriptor: d, Tag: tag})
}
