package record_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/bundletest"
	"github.com/oob-bundle/oob-bundle/bundle/record"
)

// counted counts the bytes that are read.
type counted struct {
	io.ReaderAt
	n int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}

// TestRepeatedLayer: a layer that is listed a thousand times and may be an SBOM is looked
// into once.
func TestRepeatedLayer(t *testing.T) {
	c := bundletest.NewContent("repeated")
	image := c.Image("linux/amd64", "x")
	c.Add("docker.io/library/app:1", image)
	text := fmt.Appendf(nil, `{"x":[%s0]}`, bytes.Repeat([]byte("0,"), 50_000))
	layer := c.Blob("application/vnd.in-toto+json", text)
	config := c.Blob(bundle.TypeOCIConfig, []byte(`{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}`))
	d, data := bundle.NewManifest(config, nil, slices.Repeat([]bundle.Descriptor{layer}, 1000)...)
	c.Blobs[d.Digest] = data
	c.Add("docker.io/library/app:sha256-"+image.Digest.Hex()+".att", d)
	file := c.File(t, bundletest.NewKey(t))
	r := &counted{ReaderAt: bytes.NewReader(file)}
	if _, err := record.Read(r, int64(len(file))); err != nil {
		t.Fatal(err)
	}
	if r.n > 5*int64(len(file)) {
		t.Errorf("%d bytes are read of a file of %d", r.n, len(file))
	}
}
