package pull

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// Image is a reference and the content that is carried for it.
type Image struct {
	Reference bundle.Reference
	// Top is the index or manifest to which the reference resolved.
	Top bundle.Descriptor
	// Partial reports that Top is an index of which only some manifests are carried.
	Partial bool
	// Manifests contains the carried manifests: Top itself, or those of a partial index,
	// in the order of the requested platforms.
	Manifests []bundle.Descriptor
	// Attestations contains the other carried manifests of a partial index: attestations
	// of Manifests, and entries that are not images.
	Attestations []bundle.Descriptor
	// Referrers contains the manifests that refer to Top, to the carried manifests, or to
	// other referrers, sorted by tag and digest.
	Referrers []Referrer
	// Moved describes what upstream has under the tag now, if a lock pins other content.
	Moved string
	// Warnings name the referrers that are not carried, and the reason.
	Warnings []string
	// Checks lists the checks that the image passed, for the lock.
	Checks []string
	// Documents contains, by digest, all fetched manifests and the small blobs that were
	// needed to resolve the image.
	Documents map[bundle.Digest][]byte
	// Repository is the source of all other content.
	Repository *remote.Repository

	held     int64            // bytes of Documents except Top
	upstream bundle.Reference // under which upstream has the image
}

// Called reports whether a pattern of the manifest matches the image's repository, under
// the name that is carried or under upstream's name.
func (i *Image) Called(pattern string) bool {
	return manifests.MatchImages(pattern, i.Reference.Repository()) || manifests.MatchImages(pattern, i.upstream.Repository())
}

// image resolves a reference, finds its referrers and checks its signatures.
func (s *Source) image(ctx context.Context, ref bundle.Reference, r Request) (*Image, error) {
	return s.imageAt(ctx, ref, ref, r)
}

// imageAt does the same for an image that upstream has under one reference, and that is
// carried and locked under another, ref.
func (s *Source) imageAt(ctx context.Context, upstream, ref bundle.Reference, r Request) (*Image, error) {
	pin := r.Pinned(ref)
	i, err := s.resolve(ctx, upstream, r.Selection.Platforms, pin)
	if err != nil {
		return nil, err
	}
	i.Reference, i.upstream = ref, upstream
	if pin != nil {
		if i.Moved, err = i.moved(ctx); err != nil {
			return nil, err
		}
	}
	asked := slices.ContainsFunc(r.Selection.VerifyImages, func(v manifests.WantedSignature) bool {
		return i.Called(v.Images)
	})
	if r.WithoutReferrers && !asked {
		return i, nil
	}
	if pin != nil && !r.WithoutReferrers {
		err = i.pinned(ctx, pin.Referrers)
	} else {
		err = i.referrers(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := i.checkSignatures(ctx, r.Selection.VerifyImages); err != nil {
		return nil, err
	}
	if r.WithoutReferrers {
		i.Referrers, i.Warnings = nil, nil
	}
	return i, nil
}

func (s *Source) resolve(ctx context.Context, ref bundle.Reference, platforms []bundle.Platform, pin *Pin) (*Image, error) {
	repo, err := s.repository(ctx, ref)
	if err != nil {
		return nil, err
	}
	ask := ref.Tag
	if ref.Digest != "" {
		ask = string(ref.Digest)
	}
	if pin != nil {
		ask = string(pin.Digest)
	}
	top, data, err := repo.Manifest(ctx, ask)
	if err != nil {
		return nil, err
	}
	image := &Image{Reference: ref, Top: top, Documents: map[bundle.Digest][]byte{top.Digest: data}, Repository: repo}
	m, err := bundle.ParseManifest(top, data)
	if err != nil {
		return nil, fmt.Errorf("%w: it sent what no bundle can carry: %w", remote.ErrRegistry, err)
	}
	if !bundle.IsIndex(top.MediaType) {
		if image.Top.Platform, err = image.platform(ctx, m); err != nil {
			return nil, err
		}
		image.Manifests = []bundle.Descriptor{image.Top}
		return image, image.checkPlatform(platforms)
	}
	return image, image.choose(ctx, m, platforms)
}

// moved describes what upstream has under the tag now, or returns "" if upstream has the
// locked content: a user may have changed the lock file. The error is the cause of the end
// of ctx.
func (i *Image) moved(ctx context.Context) (string, error) {
	if i.upstream.Tag == "" || i.upstream.Digest != "" {
		return "", nil
	}
	now, err := i.Repository.Resolve(ctx, i.upstream.Tag)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return fmt.Sprintf("what upstream has now is unknown: %v", err), nil
	case now == "":
		return "upstream has no such tag now", nil
	case now != i.Top.Digest:
		return fmt.Sprintf("upstream has %s now", now), nil
	}
	return "", nil
}

// platform reads the platform from an image's config. It returns nil for an artifact.
func (i *Image) platform(ctx context.Context, m *bundle.Manifest) (*bundle.Platform, error) {
	if !m.Runnable() {
		return nil, nil
	}
	data, err := i.small(ctx, *m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	var p bundle.Platform
	if json.Unmarshal(data, &p) == nil && p.Machine() {
		return &p, nil
	}
	return nil, nil // the config names no platform; the image is accepted as it is
}

// small returns a blob, which it fetches into memory once. limit is in bytes.
func (i *Image) small(ctx context.Context, d bundle.Descriptor, limit int64) ([]byte, error) {
	if data, ok := i.Documents[d.Digest]; ok {
		return data, nil
	}
	if d.Size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", bundle.ErrLimit, d.Digest, d.Size, limit)
	}
	var buf memory
	if err := i.Repository.Fetch(ctx, d, &buf, nil); err != nil {
		return nil, err
	}
	return buf.data, i.keep(d.Digest, buf.data)
}

// keep adds a document to Documents. The error wraps bundle.ErrLimit if there are too many.
func (i *Image) keep(d bundle.Digest, data []byte) error {
	if i.held+int64(len(data)) > maxHeld || len(i.Documents) >= maxDocuments {
		return fmt.Errorf(
			"%w: upstream has more manifests and the like for it than can be held in memory (%d, %d bytes)",
			bundle.ErrLimit, len(i.Documents), i.held,
		)
	}
	i.Documents[d] = data
	i.held += int64(len(data))
	return nil
}

// memory is an io.WriterAt that is written sequentially.
type memory struct{ data []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.data = append(m.data[:off], p...)
	return len(p), nil
}

// fetchManifests fetches d and, if d is an index, all manifests below it.
func (i *Image) fetchManifests(ctx context.Context, d bundle.Descriptor, depth int) error {
	if !bundle.IsManifest(d.MediaType) || i.Documents[d.Digest] != nil {
		return nil
	}
	if depth > bundle.MaxDepth {
		return fmt.Errorf("%w: indexes are nested more than %d deep", bundle.ErrLimit, bundle.MaxDepth)
	}
	_, data, err := i.Repository.Manifest(ctx, string(d.Digest))
	if err != nil {
		return err
	}
	if err := d.Verify(data); err != nil {
		return fmt.Errorf("%w: %w", remote.ErrRegistry, err)
	}
	_, err = i.hold(ctx, d, data, depth)
	return err
}

// hold keeps a fetched manifest, and fetches all manifests below it.
func (i *Image) hold(ctx context.Context, d bundle.Descriptor, data []byte, depth int) (*bundle.Manifest, error) {
	if err := i.keep(d.Digest, data); err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(d, data)
	if err != nil {
		return nil, fmt.Errorf("%w: it sent what no bundle can carry: %w", remote.ErrRegistry, err)
	}
	for _, c := range m.Manifests {
		if err := i.fetchManifests(ctx, c, depth+1); err != nil {
			return nil, err
		}
	}
	return m, nil
}
