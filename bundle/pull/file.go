package pull

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// Fetcher is a source of content. Fetch writes the content that d describes to w and
// verifies it. t records how much is written already, as in remote.Repository.Fetch, but
// must not be nil.
type Fetcher interface {
	Fetch(ctx context.Context, d bundle.Descriptor, w io.WriterAt, t *remote.Transfer) error
}

// File is the path of a file on this machine.
type File string

// Fetch copies the file. The error wraps bundle.ErrDigest if the file no longer has the
// size and digest of d.
func (p File) Fetch(ctx context.Context, d bundle.Descriptor, w io.WriterAt, t *remote.Transfer) (err error) {
	f, err := disk.OpenRegular(string(p))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if t.Hash == nil {
		t.Hash = sha256.New()
	}
	if t.Buffer == nil {
		t.Buffer = make([]byte, 256<<10)
	}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.ReadAt(t.Buffer[:min(int64(len(t.Buffer)), d.Size+1-t.Have)], t.Have)
		if t.Have+int64(n) > d.Size {
			return fmt.Errorf("%w: %s grew while it was read", bundle.ErrDigest, string(p))
		}
		if n > 0 {
			if _, err := w.WriteAt(t.Buffer[:n], t.Have); err != nil {
				return err
			}
			t.Hash.Write(t.Buffer[:n])
			t.Have += int64(n)
			if t.Done != nil {
				t.Done(int64(n))
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if t.Have != d.Size || bundle.DigestFrom(t.Hash.Sum(nil)) != d.Digest {
		return fmt.Errorf("%w: %s changed while it was read; run it again", bundle.ErrDigest, string(p))
	}
	return nil
}

// Bytes is content in memory.
type Bytes []byte

// Fetch verifies the bytes and writes those that t lacks.
func (b Bytes) Fetch(_ context.Context, d bundle.Descriptor, w io.WriterAt, t *remote.Transfer) error {
	if err := d.Verify(b); err != nil {
		return err
	}
	if _, err := w.WriteAt(b[t.Have:], t.Have); err != nil {
		return err
	}
	if n := int64(len(b)) - t.Have; t.Done != nil {
		t.Done(n)
	}
	t.Have = int64(len(b))
	return nil
}

// Blob is a file for the host whose hash and size are known.
type Blob struct {
	Wanted  manifests.WantedFile
	Content bundle.Descriptor
	Check   string // the check that it passed or will pass, for the lock
	Text    string // of a template that was read; otherwise empty

	content Fetcher
}

// From returns the source of the content.
func (b *Blob) From() Fetcher { return b.content }

// maxFirstUse bounds a file that must be downloaded to learn its digest, in bytes.
const maxFirstUse = 16 << 30

// file returns a file with its digest and size. A URL that is pinned by sha256 is not
// downloaded; if the manifest gives no size, Page.Describe finds it.
func (s *Source) file(ctx context.Context, w manifests.WantedFile, dir string) (*Blob, error) {
	b := &Blob{Wanted: w}
	if data, ok, err := manifests.CatalogueFile(w.Source); ok {
		b.content, b.Check = Bytes(data), "part of the catalogue"
		b.Content = bundle.Descriptor{MediaType: bundle.TypeFileContent, Digest: bundle.DigestOf(data), Size: int64(len(data))}
		return b, errors.Join(err, b.checkTemplate(data))
	}
	if w.FirstUse {
		// Use the content that the server sends now, not an earlier run's download.
		if err := os.Remove(downloadPath(dir, w.Source)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if w.FirstUse || !strings.Contains(w.Source, "://") {
		path, _, err := s.download(ctx, w.Source, dir, maxFirstUse, "")
		if err != nil {
			return nil, err
		}
		b.content, b.Check = File(path), "file of the author's"
		if w.FirstUse {
			b.Check = "first use"
		}
		if b.Content, err = describe(path, bundle.TypeFileContent); err != nil {
			return nil, err
		}
		if w.SHA256 != "" {
			if b.Content.Digest.Hex() != w.SHA256 {
				return nil, fmt.Errorf("%w: it has the sha256 %s, and the manifest says %s", bundle.ErrDigest, b.Content.Digest.Hex(), w.SHA256)
			}
			b.Check = checkPinned
		}
		if w.As != bundle.AsTemplate || b.Content.Size > bundle.MaxTemplate { // a larger template is refused later
			return b, nil
		}
		data, err := disk.ReadFile(path, bundle.MaxTemplate)
		if err != nil {
			return nil, err
		}
		return b, b.checkTemplate(data)
	}
	page, err := s.page(w.Source)
	if err != nil {
		return nil, err
	}
	b.content, b.Check = page, checkPinned
	b.Content = bundle.Descriptor{MediaType: bundle.TypeFileContent, Digest: pinOf(w.SHA256), Size: w.Size}
	if w.Size == 0 {
		found, err := page.Describe(ctx, b.Content.Digest)
		if errors.Is(err, remote.ErrUnknownSize) {
			err = fmt.Errorf("%w\ngive size in the manifest, in bytes", err)
		}
		if err != nil {
			return nil, err
		}
		b.Content.Size = found.Size
	}
	return b, nil
}

const checkPinned = "pinned by sha256"

// checkTemplate refuses a template that no site could fill in, and keeps its text. A
// template that is fetched directly into the bundle is not checked here.
func (b *Blob) checkTemplate(data []byte) error {
	if b.Wanted.As != bundle.AsTemplate {
		return nil
	}
	b.Text = string(data)
	if err := bundle.CheckTemplate(b.Wanted.Path, b.Text); err != nil {
		return fmt.Errorf("%w: %w", manifests.ErrInvalid, err)
	}
	return nil
}
