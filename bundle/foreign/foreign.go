// Package foreign reads .tar.gz archives of third parties: of a plugin or of a server. They
// are not trusted, so the package refuses everything that such an archive does not need:
// links, devices, names that lead elsewhere, sparse files, bombs, data after the end.
package foreign

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/mholt/archives"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Limits of an archive.
const (
	maxEntries      = 100_000
	maxUnpacked     = 4 << 30 // bytes
	maxRatio        = 200     // of unpacked to packed bytes
	minUnpackedFree = 64 << 20
	maxEntryName    = 255 // bytes
)

// Entry is a file or a directory of an archive.
type Entry struct {
	Name string // relative, slashes, clean
	Dir  bool
	Mode int64 // permissions
	Size int64 // bytes
	Open func() (io.ReadCloser, error)
}

// walker records what Walk has seen of an archive.
type walker struct {
	limit    int64
	seen     map[string]bool // names of files, in lower case
	dirs     map[string]bool // names of directories, in lower case
	entries  int
	unpacked int64
	visit    func(Entry) error
}

// Walk reads a .tar.gz of packed bytes from its first to its last byte and calls visit for
// every entry. Errors wrap bundle.ErrFormat or bundle.ErrLimit, or are visit's or the
// context's.
func Walk(ctx context.Context, r io.Reader, packed int64, visit func(Entry) error) error {
	plain, err := archives.Gz{}.OpenReader(r)
	if err != nil {
		return fmt.Errorf("%w: it is not a .tar.gz: %w", bundle.ErrFormat, err)
	}
	w := &walker{seen: map[string]bool{}, dirs: map[string]bool{}, limit: min(int64(maxUnpacked), max(packed*maxRatio, minUnpackedFree))}
	var stopped error
	w.visit = func(e Entry) error {
		stopped = visit(e)
		return stopped
	}
	bounded := &boundedReader{plain, w.limit}
	err = archives.Tar{}.Extract(ctx, bounded, func(_ context.Context, info archives.FileInfo) error { return w.entry(info) })
	if err == nil {
		err = onlyZeros(bounded)
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case stopped != nil:
		err = stopped
	case err != nil:
		err = damaged(err)
	}
	return errors.Join(err, plain.Close())
}

// damaged wraps a library's error with ErrFormat, unless the error wraps ErrFormat or
// ErrLimit.
func damaged(err error) error {
	if errors.Is(err, bundle.ErrFormat) || errors.Is(err, bundle.ErrLimit) {
		return err
	}
	return fmt.Errorf("%w: its archive is damaged: %w", bundle.ErrFormat, err)
}

// content is the content of an entry. Its errors wrap ErrFormat or ErrLimit too.
type content struct{ io.ReadCloser }

func (c content) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = damaged(err)
	}
	return n, err
}

// boundedReader ends a decompression that yields more than left bytes.
type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, tooMuch()
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func tooMuch() error {
	return fmt.Errorf("%w: its archive unpacks to more than %d GiB, or than %d times its size", bundle.ErrLimit, maxUnpacked>>30, maxRatio)
}

// onlyZeros reads the bytes after the end of a tar, and refuses anything but padding.
func onlyZeros(r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if strings.Trim(string(buf[:n]), "\x00") != "" {
			return fmt.Errorf("%w: there is data behind the end of its archive", bundle.ErrFormat)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (w *walker) entry(info archives.FileInfo) error {
	h, ok := info.Header.(*tar.Header)
	if !ok {
		return fmt.Errorf("%w: its archive is not a tar", bundle.ErrFormat)
	}
	if w.entries++; w.entries > maxEntries {
		return fmt.Errorf("%w: its archive has more than %d entries", bundle.ErrLimit, maxEntries)
	}
	name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if h.Typeflag == tar.TypeDir && (name == "" || name == ".") {
		return nil
	}
	if err := checkEntry(h, name); err != nil {
		return err
	}
	if w.unpacked += h.Size; h.Size < 0 || w.unpacked > w.limit {
		return tooMuch()
	}
	e := Entry{Name: name, Mode: h.Mode & 0o777, Size: h.Size, Dir: h.Typeflag == tar.TypeDir}
	e.Open = func() (io.ReadCloser, error) {
		f, err := info.Open()
		if err != nil {
			return nil, damaged(err)
		}
		return content{f}, nil
	}
	if err := w.place(h.Name, name, e.Dir); err != nil {
		return err
	}
	return w.visit(e)
}

// place refuses a name that cannot be unpacked beside the others. It ignores case.
func (w *walker) place(spelled, name string, dir bool) error {
	name = strings.ToLower(name)
	if !dir && w.seen[name] {
		return fmt.Errorf("%w: its archive has %q twice", bundle.ErrFormat, spelled)
	}
	if !dir && w.dirs[name] || dir && w.seen[name] {
		return fmt.Errorf("%w: its archive has %q as a file and as a directory", bundle.ErrFormat, spelled)
	}
	above := path.Dir(name)
	if dir {
		above = name
	} else {
		w.seen[name] = true
	}
	for ; above != "." && !w.dirs[above]; above = path.Dir(above) {
		if w.seen[above] {
			return fmt.Errorf("%w: its archive has %q below a file", bundle.ErrFormat, spelled)
		}
		w.dirs[above] = true
	}
	return nil
}

func checkEntry(h *tar.Header, name string) error {
	bad := func(what string) error {
		return fmt.Errorf("%w: its archive has %s: %q", bundle.ErrFormat, what, h.Name)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeSymlink, tar.TypeLink:
		return bad("a link")
	default:
		return bad("something that is neither a file nor a directory")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return bad("a sparse file")
		}
	}
	odd := func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == ':' }
	switch {
	case name == "" || path.Clean(name) != name || path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../"):
		return bad("a name that leads elsewhere")
	case len(name) > maxEntryName || !utf8.ValidString(name) || strings.ContainsFunc(name, odd):
		return bad("a name that not every system can have")
	case h.Mode&0o7000 != 0:
		return bad("a file that runs as somebody else")
	}
	return nil
}
