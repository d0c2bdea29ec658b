package bundle_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// TestCutByFileSystem: a bundle that was cut at the limit of FAT32 or of an old program is
// refused, and the error names that reason.
func TestCutByFileSystem(t *testing.T) {
	c := newContent("large")
	c.image("example.com/large:1", bundle.Descriptor{
		MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: bundle.DigestOf([]byte("large")), Size: 5 << 30,
	})
	g, err := bundle.NewGeometry(c.index(), c.load)
	if err != nil {
		t.Fatal(err)
	}
	slot, err := bundle.EncodeSlot([]bundle.Signature{{Digest: bundle.DigestOf(g.Root), Bytes: []byte("none")}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "large.oob.tar")
	f, err := bundle.CreateFile(path, g.Size, 0)
	if err != nil {
		t.Skipf("no sparse files of that size here: %v", err)
	}
	if err := g.WriteFrame(f, slot); err != nil {
		t.Fatal(err)
	}
	for _, m := range g.Blobs() {
		if _, err := f.WriteAt(c.blobs[m.Digest], m.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		size int64
		want string // empty means that no reason is given
	}{
		{5 << 30, ""},
		{4<<30 + 1, ""},
		{4<<30 - 1, "FAT32 file systems cut files at 4 GiB"},
		{4<<30 - 1, "--volume-size 4294963200"},
		{4<<30 - 4096, "FAT32"},
		{4<<30 - 32768, "FAT32"},
		{3 << 30, ""},
		{2 << 30, ""},
		{2<<30 - 1, "cut files at 2 GiB"},
		{2<<30 - 1, "--volume-size 2147479552"},
		{2<<30 - 512, "cut files at 2 GiB"},
		{1 << 30, ""},
	} {
		if err := os.Truncate(path, x.size); err != nil {
			t.Fatal(err)
		}
		err := readAt(path)
		cut := strings.Contains(fmt.Sprint(err), "cut files")
		if !errors.Is(err, bundle.ErrFormat) || cut != (x.want != "") || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%d bytes: %v", x.size, err)
		}
	}
}
