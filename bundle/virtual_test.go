package bundle_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestVirtual: a bundle computed from its blobs has the bytes of the file, at every offset.
func TestVirtual(t *testing.T) {
	file := world.Small(t, world.NewKey(t))
	head, err := bundle.ReadHead(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := bundle.NewReader(bytes.NewReader(file), int64(len(file)), head)
	if err != nil {
		t.Fatal(err)
	}
	load := func(m bundle.Member) ([]byte, error) { return io.ReadAll(r.Content(m)) }
	v, err := bundle.NewVirtual(head, load, func(m bundle.Member) io.ReaderAt {
		data, err := load(m)
		if err != nil {
			t.Error(err)
		}
		return bytes.NewReader(data)
	})
	if err != nil {
		t.Fatal(err)
	}
	if v.Size() != int64(len(file)) {
		t.Fatalf("%d bytes instead of %d", v.Size(), len(file))
	}
	all, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size()))
	if err != nil || !bytes.Equal(all, file) {
		t.Fatalf("%v; the bytes are the same: %t", err, bytes.Equal(all, file))
	}
	for range 2000 {
		from := rand.Int64N(v.Size())
		p := make([]byte, 1+rand.IntN(3000))
		n, err := v.ReadAt(p, from)
		want := file[from:min(from+int64(len(p)), v.Size())]
		if !bytes.Equal(p[:n], want) || (err != nil) != (n < len(p)) {
			t.Fatalf("at %d: %d bytes, %v", from, n, err)
		}
	}
}
