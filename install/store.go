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
func (p *Plan) store(ctx context.Context, repos []*repository, watch bundle.Watch) (*stored, error) {
	s := &stored{partial: map[string]bool{}}
	central := repos[0]
	if p.Target.Store != nil {
		blobs, _ := p.content(repos)
		if err := p.Target.Store.Prepare(blobs); err != nil {
			return nil, err
		}
	}
	if err := p.fill(ctx, central, "", watch); err != nil {
		return nil, err
	}
	root := bundle.Descriptor{MediaType: bundle.TypeOCIIndex, Digest: p.Bundle.Identity, Size: int64(len(p.Bundle.Root))}
	rootManifest := &bundle.Manifest{Descriptor: root, ArtifactType: bundle.TypeBundle, Annotations: p.Bundle.Index.Annotations}
	if err := p.Target.PutManifest(ctx, p.central, rootManifest, p.Bundle.Root); err != nil {
		return nil, err
	}
	if err := p.storeSlot(ctx, s); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for _, r := range repos[1:] {
		g.Go(func() error {
			if err := p.fill(gctx, r, p.central, bundle.Watch{}); err != nil {
				return err
			}
			return p.storePartial(gctx, r, s)
		})
	}
	return s, g.Wait()
}

// fill stores the blobs and manifests of a repository. If the target has collected content
// meanwhile, or does not have content that it reported, fill stores all blobs again.
func (p *Plan) fill(ctx context.Context, r *repository, from string, watch bundle.Watch) error {
	if err := p.storeBlobs(ctx, r, from, watch, missingOnly); err != nil {
		return err
	}
	err := p.storeManifests(ctx, r)
	if !errors.Is(err, ErrMissing) {
		return err
	}
	if err := p.storeBlobs(ctx, r, "", bundle.Watch{}, whateverItSays); err != nil {
		return err
	}
	return p.storeManifests(ctx, r)
}

// extent selects the blobs that are stored.
type extent int

const (
	missingOnly    extent = iota
	whateverItSays        // also blobs that the target reports as present
)

// storeBlobs stores the blobs of a repository, the largest first, so that no large blob is
// left for the end.
func (p *Plan) storeBlobs(ctx context.Context, r *repository, from string, watch bundle.Watch, which extent) error {
	var blobs []bundle.Member
	for _, d := range r.blobs {
		m, ok := p.Bundle.Place(d)
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
				if err := p.storeBlob(gctx, r, blobs[i], from, watch, which); err != nil {
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

func (p *Plan) storeBlob(ctx context.Context, r *repository, m bundle.Member, from string, watch bundle.Watch, which extent) error {
	d := bundle.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: m.Size}
	has := false
	if which == missingOnly {
		var err error
		if has, err = p.Target.HasBlob(ctx, r.name, d); err != nil {
			return err
		}
	}
	if has && from != "" {
		return nil
	}
	if has { // not stored again, but the bundle must still be verified
		return p.Bundle.Hash(ctx, m, make([]byte, min(hashBuffer, m.Size+1)), watch)
	}
	defer watch.Begun(m)()
	var sent *counting
	err := p.Target.PutBlob(ctx, r.name, d, from, func() io.Reader {
		if sent != nil {
			watch.Add(-sent.n.Load()) // the target restarts the upload
		}
		sent = &counting{r: p.Bundle.Content(m), watch: watch}
		return sent
	})
	if errors.Is(err, bundle.ErrDigest) {
		return p.Bundle.Mismatch(m)
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

func (p *Plan) storeManifests(ctx context.Context, r *repository) error {
	for _, d := range r.manifests {
		m := p.Bundle.Manifests[d]
		data, err := p.Bundle.ReadBlob(m.Descriptor, bundle.MaxManifest)
		if err != nil {
			return err
		}
		if err := p.Target.PutManifest(ctx, r.name, m, data); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) storePartial(ctx context.Context, r *repository, s *stored) error {
	for _, i := range r.partial {
		data, mediaType, err := p.Bundle.PartialIndex(i)
		if err != nil {
			return err
		}
		d := bundle.Descriptor{MediaType: mediaType, Digest: i.Digest, Size: int64(len(data))}
		m, err := bundle.ParseManifest(d, data)
		if err != nil {
			return err
		}
		err = p.Target.PutManifest(ctx, r.name, m, data)
		accepted := err == nil
		if !accepted && !errors.Is(err, ErrNotTaken) && !errors.Is(err, ErrMissing) {
			return err
		}
		if err := p.storeCarried(ctx, r, i); err != nil {
			return err
		}
		s.mu.Lock()
		s.partial[i.Reference] = accepted
		s.mu.Unlock()
	}
	return nil
}

// storeCarried stores an index of the manifests that the bundle carries of a partial index.
func (p *Plan) storeCarried(ctx context.Context, r *repository, i bundle.Image) error {
	d, data, ok := p.Bundle.CarriedIndex(i)
	if !ok {
		return nil
	}
	m, err := bundle.ParseManifest(d, data)
	if err != nil {
		return err
	}
	return p.Target.PutManifest(ctx, r.name, m, data)
}
