package create

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
)

// reusable is an earlier bundle from which blobs are copied instead of fetched. The
// bundle need not be trusted: only blobs with the expected digest are used.
type reusable struct {
	file *bundle.File
	*bundle.Reader
}

// openReusable opens the bundles of --reuse. The caller must close the returned bundles,
// also after an error. Errors are those of bundle.OpenFile, bundle.ReadHead and
// bundle.NewReader.
func openReusable(paths []string) (list []*reusable, err error) {
	for _, path := range paths {
		f, err := bundle.OpenFile(path, os.O_RDONLY)
		if err != nil {
			return list, err
		}
		r := &reusable{file: f}
		list = append(list, r)
		head, err := bundle.ReadHead(f, f.Size())
		if err == nil {
			r.Reader, err = bundle.NewReader(f, f.Size(), head)
		}
		if err != nil {
			return list, fmt.Errorf("reusing %s: %w", path, err)
		}
	}
	return list, nil
}

// unreadable reports whether r cannot be read at the given offset. After a failed copy,
// this tells an unreadable earlier bundle from a new one that cannot be written.
func unreadable(r io.ReaderAt, at int64, buf []byte) bool {
	_, err := r.ReadAt(buf, at)
	return err != nil && !errors.Is(err, io.EOF)
}

// fromReuse copies a blob from an earlier bundle, and reports whether it did. If the blob
// is damaged or unreadable there, fromReuse warns and the blob is fetched instead.
func (f *filler) fromReuse(ctx context.Context, i int, t *remote.Transfer) (bool, error) {
	m := f.blobs[i]
	for _, r := range f.reuse {
		old, ok := r.Place(m.Digest)
		if !ok || old.Size != m.Size {
			continue
		}
		f.again(t) // discard the bytes of an interrupted run; the earlier bundle has all
		for t.Have < m.Size {
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			n, err := bundle.CopyAt(f.out.file, m.Data+t.Have, r.file, old.Data+t.Have, m.Size-t.Have, t.Buffer)
			if err != nil {
				if !unreadable(r.file, old.Data+t.Have, t.Buffer) {
					return false, err
				}
				f.warn("%s cannot be read: %v; %s is fetched instead", r.file.Parts()[0], err, r.Describe(old))
				break
			}
			t.Hash.Write(t.Buffer[:n])
			t.Have += int64(n)
			f.have[i].Store(t.Have)
			f.watch.Add(int64(n))
		}
		if t.Have < m.Size {
			f.again(t)
			continue
		}
		if bundle.DigestFrom(t.Hash.Sum(nil)) == m.Digest {
			f.reused.Add(m.Size)
			return true, nil
		}
		f.warn("%s is damaged: %s does not match its digest; it is fetched instead", r.file.Parts()[0], r.Describe(old))
		f.again(t)
	}
	return false, nil
}
