package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// TestWalk checks the order of the walk and the sharing of blobs.
func TestWalk(t *testing.T) {
	c := newContent("walk")
	shared := c.blob("application/vnd.oci.image.layer.v1.tar", "shared")
	a := c.image("example.com/a:1", shared, c.blob("application/vnd.oci.image.layer.v1.tar", "only a"))
	b := c.image("example.com/b:1", shared)
	index := c.blob(bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[`+string(encode(b))+`,`+string(encode(a))+`]}`)
	c.add("example.com/c:1", index)
	r := open(t, c.file(t))
	var got []string
	for _, m := range r.Blobs()[3:] { // after the deployment document
		got = append(got, string(c.blobs[m.Digest][:min(8, len(c.blobs[m.Digest]))]))
	}
	want := []string{`{"schema`, `{"archit`, "shared", "only a", `{"schema`, `{"schema`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	tags := `"RepoTags":["example.com/a:1"]` // c's first manifest is b, so its entry has b's layers
	if !strings.Contains(string(r.LoadList), tags) || strings.Count(string(r.LoadList), shared.Digest.Hex()) != 3 {
		t.Errorf("load list %s", r.LoadList)
	}
}

// TestRefused checks roots and manifests that the format forbids.
func TestRefused(t *testing.T) {
	layer := func(c *content) bundle.Descriptor {
		return c.blob("application/vnd.oci.image.layer.v1.tar", "x")
	}
	tests := []struct {
		name  string
		build func(c *content)
		want  error
		text  string
	}{
		{"one blob with two sizes", func(c *content) {
			l := layer(c)
			c.image("example.com/a:1", l)
			l.Size++
			c.image("example.com/b:1", l)
		}, bundle.ErrFormat, "listed with 1 and with 2 bytes"},
		{"a negative size", func(c *content) {
			l := layer(c)
			l.Size = -1
			c.image("example.com/a:1", l)
		}, bundle.ErrFormat, "has the size -1"},
		{"a size beyond all files", func(c *content) {
			l := layer(c)
			l.Size = 1<<63 - 1
			c.image("example.com/a:1", l)
		}, bundle.ErrLimit, "more than a bundle can hold"},
		{"a layer to be fetched elsewhere", func(c *content) {
			l := layer(c)
			l.URLs = []string{"https://example.com/layer"}
			c.image("example.com/a:1", l)
		}, bundle.ErrPolicy, "cannot cross an air gap"},
		{"embedded data that is not the blob's", func(c *content) {
			l := layer(c)
			l.Data = []byte("y")
			c.image("example.com/a:1", l)
		}, bundle.ErrDigest, "embedded data"},
		{"another algorithm", func(c *content) {
			l := layer(c)
			l.Digest = bundle.Digest("sha512:" + strings.Repeat("0", 128))
			c.image("example.com/a:1", l)
		}, bundle.ErrFormat, "not a sha256 digest"},
		{"a path for a digest", func(c *content) {
			l := layer(c)
			l.Digest = "sha256:../../etc/passwd"
			c.image("example.com/a:1", l)
		}, bundle.ErrFormat, "not a sha256 digest"},
		{"an upper-case digest", func(c *content) {
			l := layer(c)
			l.Digest = bundle.Digest("sha256:" + strings.ToUpper(l.Digest.Hex()))
			c.image("example.com/a:1", l)
		}, bundle.ErrFormat, "not a sha256 digest"},
		{"a reference with two meanings", func(c *content) {
			c.image("example.com/a:1", layer(c))
			c.image("example.com/a:1", c.blob("application/vnd.oci.image.layer.v1.tar", "z"))
		}, bundle.ErrFormat, "two meanings"},
		{"a short reference", func(c *content) {
			c.image("nginx:1", layer(c))
		}, bundle.ErrFormat, "not one in full"},
		{"schema 1", func(c *content) {
			c.add("example.com/a:1", c.blob(bundle.TypeDockerManifest, `{"schemaVersion":1,"fsLayers":[]}`))
		}, bundle.ErrFormat, "schema 1"},
		{"an index that is called a manifest", func(c *content) {
			c.add("example.com/a:1", c.blob(bundle.TypeOCIManifest, `{"schemaVersion":2,"manifests":[]}`))
		}, bundle.ErrFormat, "listed as an image manifest and is none"},
		{"a manifest that is called an index", func(c *content) {
			c.add("example.com/a:1", c.blob(bundle.TypeOCIIndex, `{"schemaVersion":2,"config":{},"layers":[]}`))
		}, bundle.ErrFormat, ""},
		{"a manifest with another media type inside", func(c *content) {
			c.add("example.com/a:1", c.blob(bundle.TypeOCIManifest, `{"schemaVersion":2,"mediaType":"`+bundle.TypeDockerManifest+`"}`))
		}, bundle.ErrFormat, "calls itself"},
		{"a folded key", func(c *content) {
			c.add("example.com/a:1", c.blob(bundle.TypeOCIManifest, `{"schemaVersion":2,"Layers":[]}`))
		}, bundle.ErrFormat, `key "Layers"`},
		{"a key that folds beyond ASCII", func(c *content) {
			c.add("example.com/a:1", c.blob(bundle.TypeOCIManifest, `{"schemaVersion":2,"layerſ":[]}`))
		}, bundle.ErrFormat, "layerſ"},
		{"a doubled key", func(c *content) {
			c.add("example.com/a:1", c.blob(bundle.TypeOCIManifest, `{"schemaVersion":2,"layers":[],"layers":[]}`))
		}, bundle.ErrFormat, "duplicate"},
		{"a manifest beyond what registries take", func(c *content) {
			c.add("example.com/a:1", c.blob(bundle.TypeOCIManifest, strings.Repeat(" ", bundle.MaxManifest+1)))
		}, bundle.ErrLimit, "at most"},
		{"indexes in indexes without end", func(c *content) {
			d := c.blob(bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[]}`)
			for range bundle.MaxDepth {
				d = c.blob(bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[`+string(encode(d))+`]}`)
			}
			c.add("example.com/a:1", d)
		}, bundle.ErrLimit, "nested"},
		{"indexes in indexes without end, the innermost first", func(c *content) {
			d := c.blob(bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[]}`)
			for i := range bundle.MaxDepth + 1 {
				c.add(fmt.Sprintf("example.com/a:%d", i), d)
				d = c.blob(bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[`+string(encode(d))+`]}`)
			}
		}, bundle.ErrLimit, "nested"},
		{"one manifest of two types", func(c *content) {
			d := c.blob(bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[]}`)
			c.add("example.com/a:1", d)
			d.MediaType = bundle.TypeDockerList
			c.add("example.com/b:1", d)
		}, bundle.ErrFormat, "is listed as"},
		{"more manifests than can be held", func(c *content) {
			for i := range bundle.MaxManifests/bundle.MaxManifest + 1 {
				text := fmt.Sprintf("%d", i) + strings.Repeat("x", bundle.MaxManifest-1000)
				c.add(
					fmt.Sprintf("example.com/a:%d", i),
					c.blob(bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[],"annotations":{"a":"`+text+`"}}`),
				)
			}
			c.add(
				"example.com/b:1",
				c.blob(
					bundle.TypeOCIIndex,
					`{"schemaVersion":2,"manifests":[],"annotations":{"a":"`+strings.Repeat("y", bundle.MaxManifest-1000)+`"}}`,
				),
			)
		}, bundle.ErrLimit, "the manifests have more than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newContent("refused")
			test.build(c)
			_, err := bundle.NewGeometry(c.index(), c.load)
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.text)
			}
		})
	}
}

// TestRoots checks which error each change of index.json causes.
func TestRoots(t *testing.T) {
	root := string(worked().index())
	tests := []struct {
		name, old, new string
		want           error
	}{
		{"unknown field", `{"schemaVersion":2,`, `{"schemaVersion":2,"more":1,`, bundle.ErrFormat},
		{"doubled key", `{"schemaVersion":2,`, `{"schemaVersion":2,"schemaVersion":2,`, bundle.ErrFormat},
		{"folded key", `"schemaVersion"`, `"SchemaVersion"`, bundle.ErrFormat},
		{"null", `"annotations":{"dev`, `"annotations":null,"x":{"dev`, bundle.ErrFormat},
		{"a number with an exponent", `"schemaVersion":2`, `"schemaVersion":2e0`, bundle.ErrFormat},
		{"a number with a fraction", `"schemaVersion":2`, `"schemaVersion":2.0`, bundle.ErrFormat},
		{"trailing data", `{"schemaVersion"`, ` {}{"schemaVersion"`, bundle.ErrFormat},
		{"invalid UTF-8", `"1.0.0"`, "\"1.\xff.0\"", bundle.ErrFormat},
		{"a lone surrogate", `"1.0.0"`, `"1.\ud800.0"`, bundle.ErrFormat},
		{"NUL", `"1.0.0"`, `"1.\u0000.0"`, bundle.ErrFormat},
		{"a byte order mark", `{"schemaVersion"`, "\ufeff{\"schemaVersion\"", bundle.ErrFormat},
		{"another artifact", bundle.TypeBundle, "application/vnd.example", bundle.ErrFormat},
		{"a newer format", bundle.TypeBundle, "application/vnd.oobbundle.bundle.v2", bundle.ErrNewer},
		{
			"an unknown annotation of ours",
			`"annotations":{"dev.oobbundle.channel"`,
			`"annotations":{"dev.oobbundle.base":"x","dev.oobbundle.channel"`,
			bundle.ErrNewer,
		},
		{"an unknown annotation on a descriptor", `"annotations":{"org`, `"annotations":{"dev.oobbundle.base":"x","org`, bundle.ErrNewer},
		{"a sequence with a sign", `sequence":"7"`, `sequence":"+7"`, bundle.ErrFormat},
		{"a sequence beyond", `sequence":"7"`, `sequence":"9223372036854775808"`, bundle.ErrFormat},
		{"a name with a slash", `name":"example"`, `name":"../example"`, bundle.ErrFormat},
		{"a platform that is none", `"linux/amd64"`, `"amd64"`, bundle.ErrFormat},
		{"no deployment first", bundle.TypeDeployment + `"`, `application/vnd.example"`, bundle.ErrFormat},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changed := strings.Replace(root, test.old, test.new, 1)
			if changed == root {
				t.Fatalf("%s has no %s", root, test.old)
			}
			if _, _, err := bundle.ParseIndex([]byte(changed)); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	if _, _, err := bundle.ParseIndex([]byte(root)); err != nil {
		t.Fatal(err)
	}
}

// TestOtherFiles checks the errors for files that are not bundles.
func TestOtherFiles(t *testing.T) {
	good := worked().file(t)
	for name, test := range map[string]struct {
		data []byte
		text string
	}{
		"empty":      {nil, "empty"},
		"gzip":       {[]byte("\x1f\x8b\x08\x00"), "gzip"},
		"zstd":       {[]byte("\x28\xb5\x2f\xfd"), "zstd"},
		"zip":        {[]byte("PK\x03\x04"), "zip"},
		"web page":   {[]byte("\n<!DOCTYPE html><title>Sign in</title>"), "not a bundle: it looks like a web page"},
		"xz":         {[]byte("\xfd7zXZ\x00 and so on"), "not a bundle: it looks like an xz file; somebody has packed it: unpack it with xz -d"},
		"a key":      {[]byte("-----BEGIN PUBLIC KEY-----"), "a key or a certificate"},
		"other tar":  {append([]byte("./oci-layout\x00"), make([]byte, 1024)...), "first member"},
		"text":       {[]byte("hello"), "first member"},
		"first half": {good[:len(good)/2], "incomplete"},
		"longer":     {append(bytes.Clone(good), 0), "1 bytes follow"},
		"a block":    {append(bytes.Clone(good), make([]byte, 512)...), "512 bytes follow"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(test.data)
			if !errors.Is(err, bundle.ErrFormat) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("got %v, want %q", err, test.text)
			}
		})
	}
}

// TestLargeMember writes a bundle with a layer of more than 8 GiB, mostly a hole. It reads the
// bundle back with this package and with tar, and checks the bytes of the extended header.
func TestLargeMember(t *testing.T) {
	const size = 8<<30 + 4096
	digest := bundle.DigestOf([]byte("not read here; verify's test hashes such a layer"))
	c := newContent("large")
	c.image("example.com/large:1", bundle.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: digest, Size: size})
	g, err := bundle.NewGeometry(c.index(), c.load)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "large.oob.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(g.Size); err != nil {
		t.Skipf("no sparse files of that size here: %v", err)
	}
	slot, err := bundle.EncodeSlot([]bundle.Signature{{Digest: bundle.DigestOf(g.Root), Bytes: []byte("none")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.WriteFrame(f, slot); err != nil {
		t.Fatal(err)
	}
	for _, m := range g.Blobs() {
		if _, err := f.WriteAt(c.blobs[m.Digest], m.Data); err != nil {
			t.Fatal(err)
		}
	}
	head, err := bundle.ReadHead(f, g.Size)
	if err != nil {
		t.Fatal(err)
	}
	r, err := bundle.NewReader(f, g.Size, head)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := r.Place(digest)
	if !ok || m.Size != size {
		t.Fatalf("the large layer is at %+v", m)
	}
	if _, err := f.WriteAt([]byte("end"), m.Data+size-3); err != nil {
		t.Fatal(err)
	}
	tail := make([]byte, 4)
	content, ok := r.Content(m).(io.ReaderAt)
	if !ok {
		t.Fatal("no random access")
	}
	if n, err := content.ReadAt(tail, size-3); n != 3 || !errors.Is(err, io.EOF) || string(tail[:3]) != "end" {
		t.Fatalf("the end of the layer is %q, %v", tail[:n], err)
	}
	out, err := exec.Command("tar", "-tvf", f.Name()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprint(int64(size))) {
		t.Errorf("tar lists %s, %v", out, err)
	}
	checkLongHeader(t, f, m)
}

// checkLongHeader fails the test if the extended header of the large layer does not follow the
// format.
func checkLongHeader(t *testing.T, f io.ReaderAt, m bundle.Member) {
	t.Helper()
	pax := make([]byte, 1024)
	if _, err := f.ReadAt(pax, m.Offset); err != nil {
		t.Fatal(err)
	}
	if name := "blobs/sha256/PaxHeaders.0/" + m.Digest.Hex() + "\x00"; !strings.HasPrefix(string(pax), name) || pax[156] != 'x' {
		t.Errorf("the extended header begins with %q", pax[:100])
	}
	if record := "19 size=8589938688\n"; string(pax[512:512+len(record)]) != record {
		t.Errorf("the record is %q", pax[512:540])
	}
}
