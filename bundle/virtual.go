package bundle

import (
	"errors"
	"fmt"
	"io"
	"sort"
)

// Virtual is a bundle that does not exist as a file. Its frame is computed from its root, and
// its content is read from wherever the blobs are. A reader sees the same bytes as in the
// file.
type Virtual struct {
	geometry *Geometry
	slot     []byte
	content  func(Member) io.ReaderAt
}

// NewVirtual computes the layout of the bundle with a head that the caller trusts. Load
// returns manifests; content returns the bytes of blobs. Errors are those of NewGeometry.
func NewVirtual(h *Head, load Load, content func(Member) io.ReaderAt) (*Virtual, error) {
	if len(h.Slot) != SlotSize {
		return nil, fmt.Errorf("%w: %d bytes of signatures instead of %d", ErrFormat, len(h.Slot), SlotSize)
	}
	known := map[Digest][]byte{} // manifests are few and small, and are read again
	g, err := NewGeometry(h.Root, func(m Member) ([]byte, error) {
		data, err := load(m)
		known[m.Digest] = data
		return data, err
	})
	if err != nil {
		return nil, err
	}
	v := &Virtual{geometry: g, slot: h.Slot}
	v.content = func(m Member) io.ReaderAt {
		switch {
		case m.Name == NameLayout:
			return bytesAt(layoutDocument)
		case m.Name == NameIndex:
			return bytesAt(g.Root)
		case m.Name == NameSignatures:
			return bytesAt(v.slot)
		case m.Name == NameLoadList:
			return bytesAt(g.LoadList)
		case known[m.Digest] != nil:
			return bytesAt(known[m.Digest])
		}
		return content(m)
	}
	return v, nil
}

// bytesAt are bytes in memory.
type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size returns the size of the file, in bytes.
func (v *Virtual) Size() int64 { return v.geometry.Size }

// ReadAt implements io.ReaderAt.
func (v *Virtual) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		if off >= v.Size() {
			return n, io.EOF
		}
		k, err := v.readSome(p[n:], off)
		n, off = n+k, off+int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readSome reads from one header, one content, or the zeros after it.
func (v *Virtual) readSome(p []byte, off int64) (int, error) {
	members := v.geometry.Members
	i := sort.Search(len(members), func(i int) bool { return members[i].end() > off })
	if i == len(members) { // the zeros at the end
		k := min(int64(len(p)), v.Size()-off)
		clear(p[:k])
		return int(k), nil
	}
	m := members[i]
	switch {
	case off < m.Data:
		return copy(p, header(m.Name, m.Size)[off-m.Offset:]), nil
	case off < m.Data+m.Size:
		p = p[:min(int64(len(p)), m.Data+m.Size-off)]
		n, err := v.content(m).ReadAt(p, off-m.Data)
		if n == len(p) && errors.Is(err, io.EOF) {
			err = nil
		}
		if n == 0 && err == nil {
			err = io.ErrNoProgress
		}
		return n, err
	}
	k := min(int64(len(p)), m.end()-off)
	clear(p[:k])
	return int(k), nil
}
