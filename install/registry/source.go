package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// Heads returns the root of a bundle that was installed into the registry, once with each list
// of signatures that hosts have stored next to it. Version is a tag or a digest of the
// repository. The result is not verified, and may be another bundle than the requested one
// (install.CheckAsked). Errors wrap remote.ErrRegistry or bundle.ErrFormat.
func (e *External) Heads(ctx context.Context, repo, version string) ([]*bundle.Head, error) {
	if strings.HasPrefix(version, "channel-") {
		head, err := e.Root(ctx, repo, version)
		if err == nil && head == nil {
			err = fmt.Errorf("%w: %s/%s:%s is not a bundle that was installed there", bundle.ErrFormat, e.Address(), repo, version)
		}
		return []*bundle.Head{head}, err
	}
	r, err := e.repository(ctx, repo)
	if err != nil {
		return nil, err
	}
	d, root, err := r.Manifest(ctx, version)
	if err != nil {
		return nil, err
	}
	referrers, err := r.Referrers(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	var heads []*bundle.Head
	var failed []error
	for _, ref := range referrers {
		if ref.ArtifactType != bundle.TypeSignatures || len(heads) == maxSlots {
			continue
		}
		slot, err := fetchSlot(ctx, r, ref)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil { // another list may be readable
			failed = append(failed, err)
		} else if slot != nil {
			heads = append(heads, &bundle.Head{Root: root, Slot: slot})
		}
	}
	if len(heads) == 0 && len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	if len(heads) == 0 {
		return nil, fmt.Errorf("%w: %s/%s has no signatures for %s; is it a bundle?", bundle.ErrFormat, e.Address(), repo, version)
	}
	return heads, nil
}

// fetchSlot returns a list of signatures, or nil if the manifest is something else.
func fetchSlot(ctx context.Context, r *remote.Repository, ref bundle.Descriptor) ([]byte, error) {
	_, data, err := r.Manifest(ctx, string(ref.Digest))
	if err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(ref, data)
	if err != nil || len(m.Layers) != 1 || m.Layers[0].Size != bundle.SlotSize {
		return nil, nil //nolint:nilerr // made by another program; it proves nothing either way
	}
	slot := buffer(make([]byte, bundle.SlotSize))
	return slot, r.Fetch(ctx, m.Layers[0], slot, nil)
}

// maxSlots limits the lists of signatures that are tried. A bundle that is signed again and
// installed again gets one more list.
const maxSlots = 50

// OnlyChannel returns the tag of the only channel of a repository. Errors wrap
// remote.ErrRegistry, or ledger.ErrNotInstalled if there are several channels.
func (e *External) OnlyChannel(ctx context.Context, repo string) (string, error) {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return "", err
	}
	tags, err := r.Tags(ctx)
	if err != nil {
		return "", err
	}
	tags = slices.DeleteFunc(tags, func(t string) bool { return !strings.HasPrefix(t, "channel-") })
	switch len(tags) {
	case 1:
		return tags[0], nil
	case 0:
		return "", fmt.Errorf(
			"%w: %w: %s/%s has no bundle; a host that has one fills it with oob-bundle install BUNDLE --registry %s",
			remote.ErrRegistry, remote.ErrNotFound, e.Address(), repo, e.Address(),
		)
	}
	slices.Sort(tags)
	var list []string
	for i, tag := range tags {
		if i == maxDescribed {
			list = append(list, fmt.Sprintf("\n  and %d more", len(tags)-i))
			break
		}
		list = append(list, "\n  :"+tag+"  "+e.describe(ctx, repo, tag))
	}
	return "", fmt.Errorf(
		"%w as the only bundle: %s/%s has those of %d channels; say which with one of the tags%s",
		ledger.ErrNotInstalled, e.Address(), repo, len(tags), strings.Join(list, ""),
	)
}

// maxDescribed limits the channels that an error describes, because each takes requests.
const maxDescribed = 10

// describe returns the name, version and channel in a root, which is not verified.
func (e *External) describe(ctx context.Context, repo, tag string) string {
	head, err := e.Root(ctx, repo, tag)
	if err != nil || head == nil {
		return "(not a bundle)"
	}
	_, info, err := bundle.ParseIndex(head.Root)
	if err != nil {
		return "(not a bundle)"
	}
	return fmt.Sprintf("says that it is %q of channel %q", info.Name+" "+info.Version, info.Channel)
}

// Bundle returns a bundle of the registry as if it were a file. The head must be verified.
// Blobs are checked against their digests while they are fetched.
func (e *External) Bundle(ctx context.Context, repo string, head *bundle.Head) (*bundle.Virtual, error) {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return nil, err
	}
	load := func(m bundle.Member) ([]byte, error) {
		_, data, err := r.Manifest(ctx, string(m.Digest))
		return data, err
	}
	var mu sync.Mutex
	open := map[bundle.Digest]*stream{}
	return bundle.NewVirtual(head, load, func(m bundle.Member) io.ReaderAt {
		mu.Lock()
		defer mu.Unlock()
		s := open[m.Digest]
		if s == nil {
			s = &stream{size: m.Size, fetch: func(w io.WriterAt) error {
				return r.Fetch(ctx, bundle.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: m.Size}, w, nil)
			}}
			open[m.Digest] = s
		}
		return s
	})
}

// stream reads one blob. Sequential reads use one transfer; a read at another offset restarts
// the transfer.
type stream struct {
	size  int64
	fetch func(io.WriterAt) error

	mu   sync.Mutex
	pipe *io.PipeReader
	at   int64
}

// ReadAt implements io.ReaderAt.
func (s *stream) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pipe == nil || s.at != off {
		if err := s.begin(off); err != nil {
			return 0, err
		}
	}
	n, err := io.ReadFull(s.pipe, p)
	s.at += int64(n)
	if err != nil || s.at == s.size {
		err = errors.Join(noEOF(err), s.pipe.Close())
		s.pipe = nil
	}
	return n, err
}

func noEOF(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// begin starts the transfer again and reads up to an offset.
func (s *stream) begin(off int64) error {
	if s.pipe != nil {
		if err := s.pipe.Close(); err != nil {
			return err
		}
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.fetch(&sequential{w: w})) }()
	s.pipe, s.at = r, off
	_, err := io.CopyN(io.Discard, r, off)
	return err
}

// sequential turns writes at growing offsets into a stream. A transfer that restarts writes
// earlier bytes again; they are skipped.
type sequential struct {
	w  io.Writer
	at int64
}

func (s *sequential) WriteAt(p []byte, off int64) (int, error) {
	skip := min(max(s.at-off, 0), int64(len(p)))
	n, err := s.w.Write(p[skip:])
	s.at += int64(n)
	return int(skip) + n, err
}
