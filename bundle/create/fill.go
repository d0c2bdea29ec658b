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
	// bufferSize is what is moved at a time, in bytes.
	bufferSize = 256 << 10
	// checkpointPause is the least time between two checkpoints. It is longer where
	// they take long: a disk is to be busy with the payload.
	checkpointPause = 100 * time.Millisecond
	// Where less than littleBytes came, the next one waits for littlePause: a journal
	// is not to grow as fast as what a slow line brings.
	littleBytes = 1 << 20
	littlePause = time.Second
)

// filler brings the blobs to their places.
type filler struct {
	content *content
	out     *output
	reuse   []*reusable
	watch   bundle.Watch
	warn    func(format string, args ...any)

	blobs   []bundle.Member // the largest first, so that none is left alone at the end
	have    []atomic.Int64  // of each, bytes from its start that are written
	claimed []int64         // of each, what the journal says; the checkpoints' own
	reused  atomic.Int64    // bytes that came out of earlier bundles
}

func newFiller(g *bundle.Geometry, c *content, out *output) *filler {
	f := &filler{content: c, out: out, blobs: slices.Clone(g.Blobs())}
	slices.SortStableFunc(f.blobs, func(a, b bundle.Member) int { return cmp.Compare(b.Size, a.Size) })
	f.have, f.claimed = make([]atomic.Int64, len(f.blobs)), make([]int64, len(f.blobs))
	return f
}

// resume takes over what the journal claims.
func (f *filler) resume() {
	for i, m := range f.blobs {
		f.claimed[i] = f.out.journal.claims[m.Digest].Have
	}
}

// run fills all blobs, jobs at a time. However it ends, the journal then says
// what is there, except that an interruption does not wait for the disk.
func (f *filler) run(ctx context.Context, jobs int) error {
	checkpoints := make(chan error, 1)
	stop := make(chan struct{})
	durable, cancel := context.WithCancelCause(ctx) // ends when the disk cannot keep what comes
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
		return failed // what is not durable is not claimed, and a second sync would say that it is
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, f.checkpoint())
	}
	return err
}

// checkpoints makes one after the other, until stop. What went by since the last
// one is what a kill or a power cut can cost.
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

// came is how many bytes are written and not claimed yet.
func (f *filler) came() (n int64) {
	for i := range f.have {
		n += max(f.have[i].Load()-f.claimed[i], 0)
	}
	return n
}

// checkpoint syncs the file, and then claims what had been written before.
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

// place is where a blob goes; it remembers how much of it is there.
type place struct {
	*filler
	i int
}

func (p place) WriteAt(data []byte, off int64) (int, error) {
	n, err := p.out.file.WriteAt(data, p.blobs[p.i].Data+off)
	p.have[p.i].Store(off + int64(n))
	return n, err
}

// blob brings one blob to its place: from memory, from what an interrupted run
// left there, from an earlier bundle, or from upstream.
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

// again begins a transfer anew.
func (f *filler) again(t *remote.Transfer) {
	f.watch.Add(-t.Have)
	t.Hash.Reset()
	t.Have = 0
}

// keep reads what the journal claims of a blob into t.
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
	f.have[i].Store(t.Have) // not before: what is not read yet stays claimed
	return nil
}
