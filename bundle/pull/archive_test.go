package pull

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

const goodManifest = `{"id":"com.example.demo","name":"Demo","version":"1.2.3","min_server_version":"10.0.0",
"props":{"n":1},"server":{"executables":{"linux-amd64":"server/dist/plugin-linux-amd64"}}}`

// member is one entry of an archive under test.
type member struct {
	header tar.Header
	data   string
}

func reg(name, data string) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(data))}, data}
}

func good() []member {
	return []member{
		{tar.Header{Typeflag: tar.TypeDir, Name: "com.example.demo/", Mode: 0o755}, ""},
		reg("com.example.demo/plugin.json", goodManifest),
		reg("com.example.demo/server/dist/plugin-linux-amd64", "program"),
		reg("com.example.demo/webapp/dist/main.js", "// js"),
	}
}

func pack(t testing.TB, members []member) []byte {
	t.Helper()
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, m := range members {
		if err := w.WriteHeader(&m.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return zip(t, plain.Bytes())
}

func zip(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func inspect(t testing.TB, data []byte, platforms ...string) (PluginManifest, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.tar.gz")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	var list []bundle.Platform
	for _, s := range platforms {
		p, err := bundle.ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return inspectPlugin(t.Context(), path, list)
}

func TestPluginArchive(t *testing.T) {
	m, err := inspect(t, pack(t, good()), "linux/amd64")
	if err != nil || m.ID != "com.example.demo" || m.Version != "1.2.3" || m.MinServerVersion != "10.0.0" {
		t.Fatalf("%+v, %v", m, err)
	}
	flat := []member{reg("plugin.json", strings.Replace(goodManifest, "server/dist/", "", 1)), reg("plugin-linux-amd64", "x")}
	if m, err := inspect(t, pack(t, flat), "linux/amd64"); err != nil || m.Name != "Demo" {
		t.Errorf("files at the top, as the server takes them too: %+v, %v", m, err)
	}
	if _, err := inspect(t, pack(t, append(good(), reg("com.example.demo/./a", ""))[:4]), "linux/amd64"); err != nil {
		t.Error(err)
	}
}

// TestHostileArchives checks that each hostile archive is refused for the right reason.
func TestHostileArchives(t *testing.T) {
	link := func(kind byte, name, to string) member {
		return member{tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777}, ""}
	}
	with := func(m ...member) []member { return append(good(), m...) }
	without := func(name string) []member {
		var out []member
		for _, m := range good() {
			if m.header.Name != name {
				out = append(out, m)
			}
		}
		return out
	}
	manifest := func(old, new string) []member {
		out := good()
		out[1] = reg("com.example.demo/plugin.json", strings.Replace(goodManifest, old, new, 1))
		return out
	}
	for name, test := range map[string]struct {
		members []member
		class   error
		text    string
	}{
		"a symbolic link":    {with(link(tar.TypeSymlink, "com.example.demo/x", "/etc/passwd")), bundle.ErrFormat, "a link"},
		"a hard link":        {with(link(tar.TypeLink, "com.example.demo/x", "com.example.demo/plugin.json")), bundle.ErrFormat, "a link"},
		"a device":           {with(link(tar.TypeBlock, "com.example.demo/x", "")), bundle.ErrFormat, "neither a file nor a directory"},
		"a fifo":             {with(link(tar.TypeFifo, "com.example.demo/x", "")), bundle.ErrFormat, "neither a file nor a directory"},
		"a way up":           {with(reg("com.example.demo/../../x", "")), bundle.ErrFormat, "leads elsewhere"},
		"an absolute path":   {with(reg("/etc/x", "")), bundle.ErrFormat, "leads elsewhere"},
		"two slashes":        {with(reg("com.example.demo//x", "")), bundle.ErrFormat, "leads elsewhere"},
		"a backslash":        {with(reg(`com.example.demo\x`, "")), bundle.ErrFormat, "not every system"},
		"a drive":            {with(reg(`C:x`, "")), bundle.ErrFormat, "not every system"},
		"a newline":          {with(reg("com.example.demo/a\nb", "")), bundle.ErrFormat, "not every system"},
		"an escape sequence": {with(reg("com.example.demo/\x1b[2J", "")), bundle.ErrFormat, "not every system"},
		"a long name":        {with(reg("com.example.demo/"+strings.Repeat("x", 300), "")), bundle.ErrFormat, "not every system"},
		"setuid": {
			with(member{tar.Header{Typeflag: tar.TypeReg, Name: "com.example.demo/x", Mode: 0o4755}, ""}), bundle.ErrFormat, "somebody else",
		},
		"a file twice":            {with(reg("com.example.demo/webapp/dist/main.js", "2")), bundle.ErrFormat, "twice"},
		"two files without case":  {with(reg("com.example.demo/webapp/dist/MAIN.js", "2")), bundle.ErrFormat, "twice"},
		"no manifest":             {without("com.example.demo/plugin.json"), bundle.ErrFormat, "no plugin.json"},
		"a manifest too deep":     {[]member{reg("a/b/plugin.json", goodManifest)}, bundle.ErrFormat, "no plugin.json"},
		"two directories":         {with(reg("other/x", "")), bundle.ErrFormat, "no plugin.json"},
		"a manifest in YAML too":  {with(reg("com.example.demo/plugin.yml", "id: x")), bundle.ErrFormat, "plugin.yml"},
		"no program":              {without("com.example.demo/server/dist/plugin-linux-amd64"), bundle.ErrFormat, "does not have it"},
		"no program for it":       {manifest("linux-amd64", "darwin-amd64"), bundle.ErrPolicy, "no program for linux/amd64"},
		"an id with a slash":      {manifest("com.example.demo", "../x"), bundle.ErrFormat, "the id"},
		"an id in capitals":       {manifest(`"com.example.demo"`, `"Com.Example"`), bundle.ErrFormat, "the id"},
		"a version of words":      {manifest("1.2.3", "latest"), bundle.ErrFormat, "the version"},
		"a manifest that is none": {manifest(goodManifest, "[]"), bundle.ErrFormat, "plugin.json"},
		"a key twice":             {manifest(`"name":"Demo"`, `"id":"x"`), bundle.ErrFormat, "plugin.json"},
		"a key in capitals":       {manifest(`"name":"Demo"`, `"ID":"com.mattermost.calls"`), bundle.ErrFormat, `"ID"`},
		"a huge manifest":         {manifest(goodManifest, strings.Repeat(" ", 2<<20)), bundle.ErrLimit, "plugin.json"},
		"a sparse file of GNU's": {
			with(member{tar.Header{Typeflag: tar.TypeReg, Name: "com.example.demo/x", PAXRecords: map[string]string{"X.y": "z"}}, ""}), nil, "",
		},
		"a program that cannot run": {
			append(
				without("com.example.demo/server/dist/plugin-linux-amd64"),
				member{tar.Header{Typeflag: tar.TypeReg, Name: "com.example.demo/server/dist/plugin-linux-amd64", Mode: 0o644}, ""},
			),
			bundle.ErrFormat, "without permission",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := inspect(t, pack(t, test.members), "linux/amd64")
			if !errors.Is(err, test.class) || test.class != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestDamagedArchives checks that damage to the gzip or tar container is refused.
func TestDamagedArchives(t *testing.T) {
	whole := pack(t, good())
	var bomb bytes.Buffer
	w := tar.NewWriter(&bomb)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x/zeros", Size: 200 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 200<<20)); err != nil {
		t.Fatal(err)
	}
	plain := func() []byte {
		r, err := gzip.NewReader(bytes.NewReader(whole))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}()
	for name, test := range map[string]struct {
		data  []byte
		class error
	}{
		"nothing":               {nil, bundle.ErrFormat},
		"a web page":            {[]byte("<html>sign in</html>"), bundle.ErrFormat},
		"not compressed":        {plain, bundle.ErrFormat},
		"data behind the gzip":  {append(bytes.Clone(whole), "more"...), bundle.ErrFormat},
		"data behind the tar":   {zip(t, append(bytes.Clone(plain), "more"...)), bundle.ErrFormat},
		"a second archive":      {append(bytes.Clone(whole), whole...), bundle.ErrFormat},
		"a bomb":                {zip(t, bomb.Bytes()), bundle.ErrLimit},
		"a bomb behind the end": {append(bytes.Clone(whole), zip(t, make([]byte, 200<<20))...), bundle.ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := inspect(t, test.data); !errors.Is(err, test.class) {
				t.Errorf("got %v", err)
			}
		})
	}
	for n := range whole { // every truncation
		if _, err := inspect(t, whole[:n]); err == nil {
			t.Fatalf("cut at %d of %d and taken", n, len(whole))
		}
	}
}

// TestChartIndex checks that a chart is found in indexes that Helm writes, and in others.
func TestChartIndex(t *testing.T) {
	const index = `apiVersion: v1
entries:
  alpha:
  - name: alpha
    version: 1.0.0
    urls: [https://e.example/alpha-1.0.0.tgz]
  demo:
  - name: demo
    version: 1.2.3
    description: |-
      many
      lines
    digest: abc
    urls:
    - demo-1.2.3.tgz
  - name: demo
    version: "1.10"
    urls:
    - demo-1.10.tgz
  demo-two:
  - name: demo-two
    version: 9.9.9
generated: "2026-01-01T00:00:00Z"
`
	for name, test := range map[string]struct {
		text, chart string
		versions    []string
	}{
		"in the middle": {index, "demo", []string{"1.2.3", "1.10"}},
		"the first":     {index, "alpha", []string{"1.0.0"}},
		"the last":      {index, "demo-two", []string{"9.9.9"}},
		"none":          {index, "nothing", nil},
		"long lines":    {strings.Replace(index, "many", strings.Repeat("x", 200_000), 1), "demo", []string{"1.2.3", "1.10"}},
		"no newline":    {strings.TrimSuffix(strings.Split(index, "generated")[0], "\n"), "demo-two", []string{"9.9.9"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := chartEntries(strings.NewReader(test.text), test.chart)
			if err != nil {
				t.Fatal(err)
			}
			var versions []string
			for _, v := range got {
				versions = append(versions, v.Version)
			}
			if fmt.Sprint(versions) != fmt.Sprint(test.versions) {
				t.Errorf("got %v", versions)
			}
		})
	}
	if _, err := chartEntries(strings.NewReader("entries:\n  demo:\n  - version: [\n"), "demo"); !errors.Is(err, bundle.ErrFormat) {
		t.Errorf("got %v", err)
	}
}

func TestValueImages(t *testing.T) {
	values := map[string]any{
		"image":     map[string]any{"repository": "acme/app", "tag": "", "pullPolicy": "Always"},
		"sidecar":   map[string]any{"image": map[string]any{"registry": "registry.k8s.io", "image": "ingress-nginx/controller", "tag": "v1"}},
		"init":      []any{map[string]any{"image": "busybox:1.36"}},
		"unrelated": map[string]any{"repository": "https://charts.example.com"},
		"number":    map[string]any{"image": map[string]any{"repository": "acme/b", "tag": 13}},
	}
	got := map[string]bool{}
	valueImages(values, "7.1", func(s string) { got[s] = true })
	for _, want := range []string{"acme/app:7.1", "registry.k8s.io/ingress-nginx/controller:v1", "busybox:1.36", "acme/b:13"} {
		if !got[want] {
			t.Errorf("%s was not found in %v", want, got)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("found too: %v", got)
	}
}

// TestHostileCharts checks that a chart and all charts in it share one budget, however
// they are packed.
func TestHostileCharts(t *testing.T) {
	const about = "apiVersion: v2\nname: demo\nversion: 1.0.0\n"
	pack := func(files map[string][]byte) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, data := range files {
			if err := errors.Join(
				w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "demo/" + name, Mode: 0o644, Size: int64(len(data))}),
				write(w, data),
			); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return seeds.Gzip(b.Bytes())
	}
	with := func(name string, data []byte) []byte {
		return pack(map[string][]byte{"Chart.yaml": []byte(about), name: data})
	}
	many := map[string][]byte{"Chart.yaml": []byte(about)}
	for n := range 10 {
		many[fmt.Sprintf("charts/s%d.tgz", n)] = with("files/zeros", make([]byte, 7<<20))
	}
	deep := with("a", nil)
	for range maxChartDepth {
		deep = with("charts/s.tgz", deep)
	}
	values := bytes.Repeat([]byte("- {}\n"), maxChartParsed/8)
	for name, c := range map[string]struct {
		archive []byte
		want    error
	}{
		"a good one":            {with("charts/s.tgz", with("values.yaml", []byte("a: b\n"))), nil},
		"zeros":                 {with("zeros", make([]byte, maxChartUnpacked)), bundle.ErrLimit},
		"zeros, packed into it": {pack(many), bundle.ErrLimit},
		"too deep":              {deep, bundle.ErrLimit},
		"values": {
			pack(map[string][]byte{"Chart.yaml": []byte(about), "charts/a/values.yaml": values, "charts/b/values.yaml": values}), bundle.ErrLimit,
		},
		"values, packed into it": {
			pack(map[string][]byte{"Chart.yaml": []byte(about), "values.yaml": values, "charts/b.tgz": with("values.yaml", values)}),
			bundle.ErrLimit,
		},
		"something else that is a chart":  {with("charts/s.tgz", []byte("x")), bundle.ErrFormat},
		"a name that leads elsewhere":     {with("../../x", nil), bundle.ErrFormat},
		"something that is no chart":      {pack(map[string][]byte{"a": nil}), bundle.ErrFormat},
		"something that is no archive":    {[]byte("x"), bundle.ErrFormat},
		"the same name in another letter": {pack(map[string][]byte{"Chart.yaml": []byte(about), "README.md": nil, "readme.md": nil}), nil},
		"a file that is no chart":         {with("files/data.tgz", []byte("x")), nil},
		"what a Mac leaves":               {with("charts/._s.tgz", []byte("x")), nil},
		"values that Helm does not read": {
			pack(map[string][]byte{"Chart.yaml": []byte(about), "ci/a/values.yaml": values, "ci/b/values.yaml": values}), nil,
		},
		"names of Windows":    {pack(map[string][]byte{"Chart.yaml": []byte(about), `templates\a.yaml`: nil}), nil},
		"a name with a colon": {with("files/a:b", nil), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := loadChart(t.Context(), c.archive); !errors.Is(err, c.want) {
				t.Errorf("%v instead of %v", err, c.want)
			}
		})
	}
}

func write(w io.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}
