package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Head is the front of a bundle, as unparsed bytes: the root, which must be trusted, and the
// signatures on it.
type Head struct {
	Root []byte // the content of index.json
	Slot []byte // the content of signatures.jsonl, SlotSize bytes
}

// Identity returns the digest of index.json, which identifies the bundle.
func (h *Head) Identity() Digest { return DigestOf(h.Root) }

// SlotOffset returns the offset of the slot's content in the file, in bytes.
func (h *Head) SlotOffset() int64 {
	n := int64(len(h.Root))
	return headOffset + headerSize(n) + n + padding(n) + headerSize(SlotSize)
}

// headOffset is the offset of the header of index.json.
const headOffset = 2 * blockSize // oci-layout: a header and one block of content

// ReadHead reads the first three members and compares every byte that is not content. It
// parses no document. Errors wrap ErrFormat or ErrLimit, or are r's.
func ReadHead(r io.ReaderAt, size int64) (*Head, error) {
	b := &boundedReader{r: r, size: size}
	if err := b.refuseOther(); err != nil {
		return nil, err
	}
	g := &Geometry{}
	m := g.add(Member{Name: NameLayout, Size: int64(len(layoutDocument))})
	if err := b.compareMember(m, []byte(layoutDocument)); err != nil {
		return nil, err
	}
	n, err := b.statedSize(g.Size)
	if err != nil {
		return nil, err
	}
	h := &Head{}
	m = g.add(Member{Name: NameIndex, Size: n})
	if h.Root, err = b.readMember(m); err != nil {
		return nil, err
	}
	m = g.add(Member{Name: NameSignatures, Size: SlotSize})
	if h.Slot, err = b.readMember(m); err != nil {
		return nil, err
	}
	return h, nil
}

// Reader gives access to a bundle whose layout has been checked: every header, every padding
// byte, every manifest. ReadBlob verifies the other blobs. A Reader is safe for concurrent
// use.
type Reader struct {
	*Geometry
	b *boundedReader
}

// NewReader computes the layout of the bundle with head h and compares r with it. The caller
// must have verified h.Root, or must report that it has not. Errors wrap ErrFormat, ErrDigest,
// ErrLimit, ErrPolicy or ErrNewer, or are r's.
func NewReader(r io.ReaderAt, size int64, h *Head) (*Reader, error) {
	b := &boundedReader{r: r, size: size}
	g, err := NewGeometry(h.Root, func(m Member) ([]byte, error) { return b.readMember(m) })
	if err != nil {
		return nil, err
	}
	if size < g.Size {
		return nil, b.cutShort(g.Size)
	}
	for _, m := range g.Members {
		if err := b.compareFrame(m); err != nil {
			return nil, err
		}
	}
	if err := b.compareMember(g.Members[len(g.Members)-1], g.LoadList); err != nil {
		return nil, err
	}
	if err := b.compare(g.Size-endSize, make([]byte, endSize), "the end of the bundle"); err != nil {
		return nil, err
	}
	if size > g.Size {
		if p := b.padding(g.Size); p != nil {
			return nil, p
		}
		if why := b.misfit(g.Size); why != "" {
			return nil, fmt.Errorf("%w: %s; copy it again, or take away what does not belong", ErrFormat, why)
		}
		return nil, fmt.Errorf("%w: %d bytes follow the end of the bundle", ErrFormat, size-g.Size)
	}
	return &Reader{Geometry: g, b: b}, nil
}

// Describe describes a member for people, and names the volumes that contain it.
func (r *Reader) Describe(m Member) string { return r.Geometry.Describe(m) + r.b.where(m.Data, m.Size) }

// ReadBlob returns the verified content of a blob of at most limit bytes.
func (r *Reader) ReadBlob(d Descriptor, limit int64) ([]byte, error) {
	m, ok := r.Place(d.Digest)
	if !ok {
		return nil, fmt.Errorf("%w: blob %s is not in the bundle", ErrFormat, d.Digest)
	}
	if m.Size > limit {
		return nil, fmt.Errorf("%w: %s: at most %d bytes are allowed", ErrLimit, r.Describe(m), limit)
	}
	data, err := r.b.read(m.Data, m.Size)
	if err != nil {
		return nil, err
	}
	if err := d.Verify(data); err != nil {
		return nil, fmt.Errorf("%w: %s", err, r.Describe(m))
	}
	return data, nil
}

// Content returns the content of a member, not verified. The caller must hash it.
func (r *Reader) Content(m Member) io.Reader { return io.NewSectionReader(r.b.r, m.Data, m.Size) }

// boundedReader reads from a file of known size. It distinguishes a file that ends too early
// from a medium that fails.
type boundedReader struct {
	r    io.ReaderAt
	size int64
}

// volumes is a bundle that may consist of several files, such as File.
type volumes interface {
	where(off, n int64) string
	misfit(want int64) string
	last(size int64) (path string, keep int64)
}

// where names the volumes that contain some bytes, or returns "" if there are no volumes.
func (b *boundedReader) where(off, n int64) string {
	if v, ok := b.r.(volumes); ok {
		return v.where(off, n)
	}
	return ""
}

func (b *boundedReader) misfit(want int64) string {
	if v, ok := b.r.(volumes); ok {
		return v.misfit(want)
	}
	return ""
}

func (b *boundedReader) cutShort(want int64) error {
	if why := b.misfit(want); why != "" {
		return fmt.Errorf("%w: incomplete: %s", ErrFormat, why)
	}
	return fmt.Errorf("%w: incomplete: the file has %d bytes where at least %d are needed%s", ErrFormat, b.size, want, cutBy(b.size))
}

func (b *boundedReader) read(off, n int64) ([]byte, error) {
	if off+n > b.size {
		return nil, b.cutShort(off + n)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(b.r, off, n), buf); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: the file became shorter while it was read", ErrFormat)
		}
		return nil, err
	}
	return buf, nil
}

func (b *boundedReader) compare(off int64, want []byte, what string) error {
	got, err := b.read(off, int64(len(want)))
	if err != nil {
		return err
	}
	if i := firstDifference(got, want); i >= 0 {
		return fmt.Errorf("%w: %s differs at byte %d of the file%s", ErrFormat, what, off+int64(i), b.where(off+int64(i), 1))
	}
	return nil
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range b {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// compareFrame compares a member's header and padding.
func (b *boundedReader) compareFrame(m Member) error {
	if err := b.compare(m.Offset, header(m.Name, m.Size), "the header of "+m.Name); err != nil {
		return err
	}
	return b.compare(m.Data+m.Size, make([]byte, padding(m.Size)), "the padding of "+m.Name)
}

func (b *boundedReader) compareMember(m Member, content []byte) error {
	if err := b.compareFrame(m); err != nil {
		return err
	}
	return b.compare(m.Data, content, m.Name)
}

func (b *boundedReader) readMember(m Member) ([]byte, error) {
	if err := b.compareFrame(m); err != nil {
		return nil, err
	}
	return b.read(m.Data, m.Size)
}

// statedSize reads the size of index.json, the only number that the reader takes from a
// header. The caller must compare the whole header afterwards.
func (b *boundedReader) statedSize(off int64) (int64, error) {
	h, err := b.read(off, blockSize)
	if err != nil {
		return 0, err
	}
	// USTAR (POSIX.1-1988): eleven octal digits at 124, then NUL.
	n, err := strconv.ParseInt(string(h[124:135]), 8, 64)
	if err != nil || n < 0 || // a sign is not an octal digit
		strings.TrimRight(string(h[:100]), "\x00") != NameIndex {
		return 0, fmt.Errorf("%w: the second member is not %s", ErrFormat, NameIndex)
	}
	if n > MaxManifest {
		return 0, fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrLimit, NameIndex, n, MaxManifest)
	}
	return n, nil
}

// refuseOther refuses a file that is not a bundle, and names what it looks like.
func (b *boundedReader) refuseOther() error {
	if b.size == 0 {
		return fmt.Errorf("%w: the file is empty", ErrFormat)
	}
	start, err := b.read(0, min(b.size, blockSize))
	if err != nil {
		return err
	}
	looks := func(what string) error { return fmt.Errorf("%w: it looks like %s", ErrOther, what) }
	text := strings.ToLower(strings.TrimLeft(string(start), "\ufeff \t\r\n"))
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return looks("a gzip file; somebody has packed it: unpack it with gunzip")
	case bytes.HasPrefix(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return looks("a zstd file; somebody has packed it: unpack it with zstd -d")
	case bytes.HasPrefix(start, []byte("PK\x03\x04")):
		return looks("a zip file; somebody has packed it: unpack it with unzip")
	case bytes.HasPrefix(start, []byte("\xfd7zXZ\x00")):
		return looks("an xz file; somebody has packed it: unpack it with xz -d")
	case bytes.HasPrefix(start, []byte("-----BEGIN ")):
		return looks("a key or a certificate; give the bundle, which is an uncompressed tar")
	case strings.HasPrefix(text, "<!doctype") || strings.HasPrefix(text, "<html"):
		return looks(
			"a web page: the transfer record that lies beside a bundle, or what a proxy or a sign-in sent instead of it; give the bundle itself",
		)
	case strings.HasPrefix(text, "apiversion: oobbundle.dev"):
		return looks("the lock file that lies beside a bundle, or a manifest; give the bundle itself")
	case !bytes.HasPrefix(start, append([]byte(NameLayout), 0)):
		return looks(
			"something else, its first member is not " + NameLayout + "; give the bundle, or the first part of one that was cut into parts",
		)
	}
	return nil
}
