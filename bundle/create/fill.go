package create

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
)

const (
	// bufferSize is the size of a copy buffer, in bytes.
	bufferSize = 256 << 10
	// checkpointPause is the minimum time between two checkpoints. The pause is longer
	// if checkpoints take long, so that the disk is free for the payload.
	checkpointPause = 100 * time.Millisecond
	// If fewer than littleBytes arrived, the next checkpoint waits for littlePause. This
	// keeps the journal small on a slow connection.
	littleBytes = 1 << 20
	littlePause = time.Second
)

// filler writes the blobs to their places in the bundle.
type filler struct {
	content *content
	out     *output
	reuse   []*reusable
	watch   bundle.Watch
	warn    func(format string, args ...any)

	blobs   []bundle.Member // largest first, so that no large blob runs alone at the end
	have    []atomic.Int64  // per blob: bytes written, from its start
	claimed []int64         // per blob: bytes claimed in the journal; only checkpoints write it
	reused  atomic.Int64    // bytes copied from earlier bundles
}

func newFiller(g *bundle.Geometry, c *content, out *output) *filler {
	f := &filler{content: c, out: out, blobs: slices.Clone(g.Blobs())}
	slices.SortStableFunc(f.blobs, func(a, b bundle.Member) int { return cmp.Compare(b.Size, a.Size) })
	f.have, f.claimed = make([]atomic.Int64, len(f.blobs)), make([]int64, len(f.blobs))
	return f
}

// resume takes over the claims of the journal.
func (f *filler) resume() {
	for i, m := range f.blobs {
		f.claimed[i] = f.out.journal.claims[m.Digest].Have
	}
}

// run writes all blobs, jobs at a time. If a blob fails, run claims the written bytes in
// the journal before it returns. If ctx ends, run returns without waiting for the disk.
func (f *filler) run(ctx context.Context, jobs int) error {
	checkpoints := make(chan error, 1)
	stop := make(chan struct{})
	durable, cancel := context.WithCancelCause(ctx) // canceled when a checkpoint fails
	defer cancel(nil)
	group, gctx := errgroup.WithContext(durable)
	go func() {
		err := f.checkpoints(stop)
		if err != nil {
			cancel(err)
		}
		checkpoints <- err
	}()
	var next atomic.Int64
	for range min(jobs, len(f.blobs)) {
		group.Go(func() error {
			buf := make([]byte, bufferSize)
			for i := next.Add(1) - 1; i < int64(len(f.blobs)); i = next.Add(1) - 1 {
				if gctx.Err() != nil {
					return context.Cause(gctx)
				}
				if err := f.blob(gctx, int(i), buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	close(stop)
	if failed := <-checkpoints; failed != nil {
		return failed // no second sync: it could succeed although data was lost
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, f.checkpoint())
	}
	return err
}

// checkpoints makes checkpoints until stop is closed. A kill or a power cut loses only
// the bytes written since the last checkpoint.
func (f *filler) checkpoints(stop <-chan struct{}) error {
	pause, last := checkpointPause, time.Time{}
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(pause):
		}
		if time.Since(last) < littlePause && f.came() < littleBytes {
			continue
		}
		begun := time.Now()
		if err := f.checkpoint(); err != nil {
			return err
		}
		last = time.Now()
		pause = max(checkpointPause, 10*last.Sub(begun))
	}
}

// came returns the number of bytes that are written but not yet claimed.
func (f *filler) came() (n int64) {
	for i := range f.have {
		n += max(f.have[i].Load()-f.claimed[i], 0)
	}
	return n
}

// checkpoint syncs the file, then claims the bytes written before the sync.
func (f *filler) checkpoint() error {
	var claims []claim
	var at []int
	for i, m := range f.blobs {
		if n := f.have[i].Load(); n != f.claimed[i] && n > 0 {
			claims, at = append(claims, claim{m.Digest, m.Data, n}), append(at, i)
		}
	}
	if len(claims) == 0 {
		return nil
	}
	if err := f.out.file.Sync(); err != nil {
		return err
	}
	if err := f.out.journal.add(claims); err != nil {
		return err
	}
	for k, i := range at {
		f.claimed[i] = claims[k].Have
	}
	return nil
}

// place writes blob i to its place in the bundle, and counts the written bytes.
type place struct {
	*filler
	i int
}

func (p place) WriteAt(data []byte, off int64) (int, error) {
	n, err := p.out.file.WriteAt(data, p.blobs[p.i].Data+off)
	p.have[p.i].Store(off + int64(n))
	return n, err
}

// blob writes one blob to its place: from memory, from the partial file of an
// interrupted run, from an earlier bundle, or from upstream.
func (f *filler) blob(ctx context.Context, i int, buf []byte) error {
	m := f.blobs[i]
	defer f.watch.Begun(m)()
	if data, ok := f.content.documents[m.Digest]; ok {
		if int64(len(data)) != m.Size {
			return fmt.Errorf("%w: upstream lists %s with %d bytes, and it has %d", remote.ErrRegistry, m.Digest, m.Size, len(data))
		}
		_, err := place{f, i}.WriteAt(data, 0)
		f.watch.Add(m.Size)
		return err
	}
	t := &remote.Transfer{Hash: sha256.New(), Buffer: buf, Done: f.watch.Add}
	if err := f.keep(ctx, i, t); err != nil {
		return err
	}
	if t.Have == m.Size {
		if bundle.DigestFrom(t.Hash.Sum(nil)) == m.Digest {
			return nil
		}
		f.again(t)
	}
	if ok, err := f.fromReuse(ctx, i, t); ok || err != nil {
		return err
	}
	from, ok := f.content.sources[m.Root]
	if !ok {
		return fmt.Errorf("%w: nothing says where blob %s comes from", bundle.ErrFormat, m.Digest)
	}
	d := bundle.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: m.Size}
	if err := from.Fetch(ctx, d, place{f, i}, t); err != nil {
		return fmt.Errorf("%s: %w", from.name, err)
	}
	return nil
}

// again restarts a transfer from the first byte.
func (f *filler) again(t *remote.Transfer) {
	f.watch.Add(-t.Have)
	t.Hash.Reset()
	t.Have = 0
}

// keep reads the claimed bytes of a blob back from the file, and hashes them into t.
func (f *filler) keep(ctx context.Context, i int, t *remote.Transfer) error {
	m := f.blobs[i]
	for want := f.claimed[i]; t.Have < want; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.out.file.ReadAt(t.Buffer[:min(int64(len(t.Buffer)), want-t.Have)], m.Data+t.Have)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			break
		}
		t.Hash.Write(t.Buffer[:n])
		t.Have += int64(n)
		f.watch.Add(int64(n))
	}
	f.have[i].Store(t.Have) // not earlier: a checkpoint must not shrink the claim
	return nil
}
