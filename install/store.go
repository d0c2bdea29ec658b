package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// stored records the results that depend on the target.
type stored struct {
	mu      sync.Mutex
	partial map[string]bool // reference → its partial index was accepted
	slot    bundle.Descriptor
	slotDoc []byte
}

// store stores all content in the target: the complete tree in the central repository, and
// from there the content of each image's repository.
func (c *content) store(ctx context.Context, repos []*repository, watch bundle.Watch) (*stored, error) {
	s := &stored{partial: map[string]bool{}}
	central := repos[0]
	if c.Target.Store != nil {
		blobs, _ := c.all(repos)
		if err := c.Target.Store.Prepare(blobs); err != nil {
			return nil, err
		}
	}
	if err := c.fill(ctx, central, "", watch); err != nil {
		return nil, err
	}
	root := bundle.Descriptor{MediaType: bundle.TypeOCIIndex, Digest: c.Bundle.Identity, Size: int64(len(c.Bundle.Root))}
	rootManifest := &bundle.Manifest{Descriptor: root, ArtifactType: bundle.TypeBundle, Annotations: c.Bundle.Index.Annotations}
	if err := c.Target.PutManifest(ctx, c.central, rootManifest, c.Bundle.Root); err != nil {
		return nil, err
	}
	if err := c.storeSlot(ctx, s); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for _, r := range repos[1:] {
		g.Go(func() error {
			if err := c.fill(gctx, r, c.central, bundle.Watch{}); err != nil {
				return err
			}
			return c.storePartial(gctx, r, s)
		})
	}
	return s, g.Wait()
}

// fill stores the blobs and manifests of a repository. If the target has collected content
// meanwhile, or does not have content that it reported, fill stores all blobs again.
func (c *content) fill(ctx context.Context, r *repository, from string, watch bundle.Watch) error {
	if err := c.storeBlobs(ctx, r, from, watch, missingOnly); err != nil {
		return err
	}
	err := c.storeManifests(ctx, r)
	if !errors.Is(err, ErrMissing) {
		return err
	}
	if err := c.storeBlobs(ctx, r, "", bundle.Watch{}, whateverItSays); err != nil {
		return err
	}
	return c.storeManifests(ctx, r)
}

// extent selects the blobs that are stored.
type extent int

const (
	missingOnly    extent = iota
	whateverItSays        // also blobs that the target reports as present
)

// storeBlobs stores the blobs of a repository, the largest first, so that no large blob is
// left for the end.
func (c *content) storeBlobs(ctx context.Context, r *repository, from string, watch bundle.Watch, which extent) error {
	var blobs []bundle.Member
	for _, d := range r.blobs {
		m, ok := c.Bundle.Place(d)
		if !ok {
			return fmt.Errorf("%w: blob %s is not in the bundle", bundle.ErrFormat, d)
		}
		blobs = append(blobs, m)
	}
	slices.SortStableFunc(blobs, func(a, b bundle.Member) int { return cmp.Compare(b.Size, a.Size) })
	g, gctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(writers, len(blobs)) {
		g.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(blobs)); i = next.Add(1) - 1 {
				if gctx.Err() != nil {
					return context.Cause(gctx)
				}
				if err := c.storeBlob(gctx, r, blobs[i], from, watch, which); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (c *content) storeBlob(ctx context.Context, r *repository, m bundle.Member, from string, watch bundle.Watch, which extent) error {
	d := bundle.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: m.Size}
	has := false
	if which == missingOnly {
		var err error
		if has, err = c.Target.HasBlob(ctx, r.name, d); err != nil {
			return err
		}
	}
	if has && from != "" {
		return nil
	}
	if has { // not stored again, but the bundle must still be verified
		return c.Bundle.Hash(ctx, m, make([]byte, min(hashBuffer, m.Size+1)), watch)
	}
	defer watch.Begun(m)()
	var sent *counting
	err := c.Target.PutBlob(ctx, r.name, d, from, func() io.Reader {
		if sent != nil {
			watch.Add(-sent.n.Load()) // the target restarts the upload
		}
		sent = &counting{r: c.Bundle.Content(m), watch: watch}
		return sent
	})
	if errors.Is(err, bundle.ErrDigest) {
		return c.Bundle.Mismatch(m)
	}
	return err
}

// hashBuffer is the read size for a blob that the target already has, in bytes.
const hashBuffer = 256 << 10

// counting reports the bytes that are read.
type counting struct {
	r     io.Reader
	watch bundle.Watch
	n     atomic.Int64 // atomic, because a failed connection may still be reading
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	c.watch.Add(int64(n))
	return n, err
}

func (c *content) storeManifests(ctx context.Context, r *repository) error {
	for _, d := range r.manifests {
		m := c.Bundle.Manifests[d]
		data, err := c.Bundle.ReadBlob(m.Descriptor, bundle.MaxManifest)
		if err != nil {
			return err
		}
		if err := c.Target.PutManifest(ctx, r.name, m, data); err != nil {
			return err
		}
	}
	return nil
}

func (c *content) storePartial(ctx context.Context, r *repository, s *stored) error {
	for _, i := range r.partial {
		data, mediaType, err := c.Bundle.PartialIndex(i)
		if err != nil {
			return err
		}
		d := bundle.Descriptor{MediaType: mediaType, Digest: i.Digest, Size: int64(len(data))}
		m, err := bundle.ParseManifest(d, data)
		if err != nil {
			return err
		}
		err = c.Target.PutManifest(ctx, r.name, m, data)
		accepted := err == nil
		if !accepted && !errors.Is(err, ErrNotTaken) && !errors.Is(err, ErrMissing) {
			return err
		}
		if err := c.storeCarried(ctx, r, i); err != nil {
			return err
		}
		s.mu.Lock()
		s.partial[i.Reference] = accepted
		s.mu.Unlock()
	}
	return nil
}

// storeCarried stores an index of the manifests that the bundle carries of a partial index.
func (c *content) storeCarried(ctx context.Context, r *repository, i bundle.Image) error {
	d, data, ok := c.Bundle.CarriedIndex(i)
	if !ok {
		return nil
	}
	m, err := bundle.ParseManifest(d, data)
	if err != nil {
		return err
	}
	return c.Target.PutManifest(ctx, r.name, m, data)
}
