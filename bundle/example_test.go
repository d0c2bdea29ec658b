package bundle_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
)

var update = flag.Bool("update", false, "write the golden files anew")

// memory is a file of fixed length.
type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

// content is the content of a bundle: its blobs by digest, its root, and its document.
type content struct {
	blobs map[bundle.Digest][]byte
	roots []bundle.Descriptor
	doc   bundle.Deployment
}

func newContent(name string) *content {
	return &content{blobs: map[bundle.Digest][]byte{}, doc: bundle.NewDeployment(name, "1.0.0")}
}

func (c *content) blob(mediaType, data string) bundle.Descriptor {
	d := bundle.Descriptor{MediaType: mediaType, Digest: bundle.DigestOf([]byte(data)), Size: int64(len(data))}
	c.blobs[d.Digest] = []byte(data)
	return d
}

// image adds a manifest with a config and the given layers to the root.
func (c *content) image(ref string, layers ...bundle.Descriptor) bundle.Descriptor {
	config := c.blob(bundle.TypeOCIConfig, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	list := make([]string, len(layers))
	for i, l := range layers {
		list[i] = string(encode(l))
	}
	d := c.blob(
		bundle.TypeOCIManifest,
		`{"schemaVersion":2,"mediaType":"`+bundle.TypeOCIManifest+`","config":`+string(encode(config))+`,"layers":[`+strings.Join(list, ",")+`]}`,
	)
	c.add(ref, d)
	return d
}

// add lists a manifest in the root and the deployment document.
func (c *content) add(ref string, d bundle.Descriptor) {
	d.Annotations = map[string]string{bundle.AnnotationRef: ref}
	c.roots = append(c.roots, d)
	r, err := bundle.ParseReference(ref)
	if err != nil {
		panic(err)
	}
	c.doc.Images = append(c.doc.Images, bundle.Image{
		Reference: ref, Repository: r.SiteRepository(), Tag: r.Tag, Digest: d.Digest, Manifests: []bundle.Digest{d.Digest},
	})
}

func encode(v any) []byte {
	data, err := bundle.Encode(v)
	if err != nil {
		panic(err)
	}
	return data
}

// index returns index.json.
func (c *content) index() []byte {
	layer := c.blob(bundle.TypeDeployment+"+json", string(encode(c.doc)))
	d, blobs := bundle.NewArtifact(bundle.TypeDeployment, nil, layer)
	for digest, data := range blobs {
		c.blobs[digest] = data
	}
	info := bundle.Info{
		Name: c.doc.Name, Version: c.doc.Version, Channel: c.doc.Name, Sequence: 7,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Platforms: []bundle.Platform{{OS: "linux", Architecture: "amd64"}},
	}
	return encode(bundle.NewIndex(info, append([]bundle.Descriptor{d}, c.roots...)))
}

func (c *content) load(m bundle.Member) ([]byte, error) { return c.blobs[m.Digest], nil }

// file returns the whole bundle, with an invalid signature.
func (c *content) file(t testing.TB) []byte {
	t.Helper()
	g, err := bundle.NewGeometry(c.index(), c.load)
	if err != nil {
		t.Fatal(err)
	}
	slot, err := bundle.EncodeSlot([]bundle.Signature{{Digest: bundle.DigestOf(g.Root), Bytes: []byte("no signature at all")}})
	if err != nil {
		t.Fatal(err)
	}
	out := memory(make([]byte, g.Size))
	if err := g.WriteFrame(out, slot); err != nil {
		t.Fatal(err)
	}
	for _, m := range g.Blobs() {
		copy(out[m.Data:], c.blobs[m.Digest])
	}
	return out
}

// worked returns the example of the package comment.
func worked() *content {
	c := newContent("example")
	c.image("docker.io/library/hello:1", c.blob("application/vnd.oci.image.layer.v1.tar", strings.Repeat("\x00", 1024)))
	return c
}

// TestWorkedExample checks every byte of the example in the package comment, and so the
// format.
func TestWorkedExample(t *testing.T) {
	got := worked().file(t)
	const golden = "testdata/example.oob.tar"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the bytes of the worked example have changed: that is another format")
	}
	r := open(t, got)
	var table strings.Builder
	for _, m := range r.Members {
		table.WriteString(row(m))
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), table.String()) {
		t.Errorf("doc.go lacks this table:\n%s", table.String())
	}
}

func open(t testing.TB, file []byte) *bundle.Reader {
	t.Helper()
	r, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(file []byte) (*bundle.Reader, error) {
	b := bytes.NewReader(file)
	head, err := bundle.ReadHead(b, b.Size())
	if err != nil {
		return nil, err
	}
	return bundle.NewReader(b, b.Size(), head)
}

// TestTarReadsIt checks that an independent tar program lists the members.
func TestTarReadsIt(t *testing.T) {
	path, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar here")
	}
	out, err := exec.Command(path, "-tf", "testdata/example.oob.tar").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var want strings.Builder
	for _, m := range open(t, worked().file(t)).Members {
		want.WriteString(m.Name + "\n")
	}
	if diff := cmp.Diff(want.String(), string(out)); diff != "" {
		t.Error(diff)
	}
}
