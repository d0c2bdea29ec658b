package create_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// chartArtifact returns a chart for a registry, with a layer of the given type.
func chartArtifact(t *testing.T, archive []byte, layerType types.MediaType) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.cncf.helm.config.v1+json")
	img, err := mutate.AppendLayers(img, static.NewLayer(archive, layerType))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

const chartLayer = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

// TestChartLedToRegistry checks charts whose repository index refers to a registry.
func TestChartLedToRegistry(t *testing.T) {
	archive := world.Chart("acme", "1.2.3+b")
	other := world.Chart("acme", "1.2.3+b", "docker.io/library/x:1")
	up := world.NewRegistry(t, nil)
	up.Push(t, "charts/acme:1.2.3_b", chartArtifact(t, archive, chartLayer))
	up.Push(t, "charts/other:1", world.Image("linux/amd64", world.Layer(file("x"))))
	for name, test := range map[string]struct {
		url, digest, sha256 string
		says                string
		class               error
	}{
		"with a tag":           {url: "oci://$UP/charts/acme:1.2.3_b", digest: hexOf(archive)},
		"without a tag":        {url: "oci://$UP/charts/acme"},
		"a digest with prefix": {url: "oci://$UP/charts/acme", digest: "sha256:" + hexOf(archive)},
		"the manifest's":       {url: "oci://$UP/charts/acme", digest: world.Digest(t, up.Host+"/charts/acme:1.2.3_b")},
		"pinned":               {url: "oci://$UP/charts/acme", sha256: hexOf(archive)},
		"another digest": {
			url: "oci://$UP/charts/acme", digest: hexOf(other), says: "the repository's index says", class: remote.ErrRegistry,
		},
		"another pin":         {url: "oci://$UP/charts/acme", sha256: hexOf(other), says: "the manifest says", class: remote.ErrRegistry},
		"no chart":            {url: "oci://$UP/charts/other:1", says: "is not a Helm chart", class: remote.ErrRegistry},
		"nothing there":       {url: "oci://$UP/charts/acme:9", says: "404", class: remote.ErrNotFound},
		"a name without host": {url: "oci://charts/acme:1", says: "oci://HOST/NAME:TAG", class: remote.ErrRegistry},
		"a login":             {url: "oci://a:b@$UP/charts/acme", says: "oci://HOST/NAME:TAG", class: remote.ErrRegistry},
		"another scheme":      {url: "file:///etc/passwd", says: "not an http or https URL", class: remote.ErrRegistry},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWeb(t, map[string][]byte{"/charts/index.yaml": fmt.Appendf(
				nil,
				"entries:\n  acme:\n  - version: 1.2.3+b\n    digest: %q\n    urls: [%q]\n",
				test.digest, strings.ReplaceAll(test.url, "$UP", up.Host),
			)})
			pin := ""
			if test.sha256 != "" {
				pin = ", sha256: " + test.sha256
			}
			o := intake(t, s, `    charts: [{repository: "$WEB/charts", name: acme, version: 1.2.3+b`+pin+"}]\n")
			o.Source = world.Options(t, o.Manifest, world.NewKey(t), up, &world.Registry{Host: s.host()}).Source
			result, err := create.Run(t.Context(), o)
			if test.says != "" {
				if !errors.Is(err, test.class) || !strings.Contains(fmt.Sprint(err), test.says) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, d, _ := read(t, result.Output)
			ref := s.host() + "/charts/acme:1.2.3_b"
			if c := d.Charts[0]; c.Digest != bundle.DigestOf(archive) || c.Reference != ref || d.Images[0].Reference != ref {
				t.Errorf("got %+v and %+v", c, d.Images)
			}
			o.Lock, err = manifests.ReadLock(result.LockFile)
			if err != nil {
				t.Fatal(err)
			}
			if o.Lock.Charts[0].Manifest != bundle.Digest(world.Digest(t, up.Host+"/charts/acme:1.2.3_b")) {
				t.Errorf("locked %+v", o.Lock.Charts[0])
			}
			o.Output = strings.Replace(o.Output, ".oob", "-2.oob", 1)
			if _, err := create.Run(t.Context(), o); err != nil {
				t.Errorf("with the lock: %v", err)
			}
		})
	}
}

// TestOldChartLayers checks that create accepts the chart layer types that Helm pulls.
func TestOldChartLayers(t *testing.T) {
	archive := world.Chart("acme", "1.2.3")
	for layer, ok := range map[types.MediaType]bool{
		chartLayer:             true,
		"application/tar+gzip": true, // Helm before 3.7
		"application/vnd.cncf.helm.chart.content.layer.v1+tar": false, // pulled by no Helm 3 or 4
	} {
		up := world.NewRegistry(t, nil)
		ref := up.Push(t, "charts/acme:1.2.3", chartArtifact(t, archive, layer))
		s := newWeb(t, nil)
		o := intake(t, s, `    charts: [{repository: "oci://`+up.Host+`/charts", name: acme, version: 1.2.3}]`+"\n")
		o.Source = world.Options(t, o.Manifest, world.NewKey(t), up).Source
		result, err := create.Run(t.Context(), o)
		if !ok {
			if !errors.Is(err, remote.ErrRegistry) || !strings.Contains(fmt.Sprint(err), "push it again with Helm") {
				t.Errorf("%s: got %v", layer, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_, d, _ := read(t, result.Output)
		if d.Charts[0].Digest != bundle.DigestOf(archive) || d.Images[0].Digest != bundle.Digest(world.Digest(t, ref)) {
			t.Errorf("%s: got %+v and %+v", layer, d.Charts, d.Images)
		}
	}
}

// chartOf packs a chart; files alternates between names and contents.
func chartOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "acme/" + files[i], Mode: 0o644, Size: int64(len(files[i+1]))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMissingDependencies checks that create refuses a chart without its dependencies, as
// Helm does.
func TestMissingDependencies(t *testing.T) {
	const v1, v2 = "apiVersion: v1\nname: acme\nversion: 1.0.0\n", "apiVersion: v2\nname: acme\nversion: 1.0.0\n"
	const needs = "dependencies:\n- {name: db, version: ~1.2, repository: \"https://charts.example.com\"}\n- {name: mq, " +
		"version: 3.x, repository: \"oci://r.example.com/charts\", condition: mq.enabled}\n"
	const db, mq = "apiVersion: v2\nname: db\nversion: 1.2.9\n", "apiVersion: v2\nname: mq\nversion: 3.1.0\n"
	for name, test := range map[string]struct {
		files []string
		says  []string
		hides string
	}{
		"none needed": {files: []string{"Chart.yaml", v2}},
		"all there":   {files: []string{"Chart.yaml", v2 + needs, "charts/db/Chart.yaml", db, "charts/mq/Chart.yaml", mq}},
		"all missing": {
			files: []string{"Chart.yaml", v2 + needs},
			says:  []string{"db ~1.2 of https://charts.example.com", "mq 3.x of oci://r.example.com/charts", "helm dependency update"},
		},
		"a disabled one": {
			files: []string{"Chart.yaml", v2 + needs, "charts/db/Chart.yaml", db, "values.yaml", "mq: {enabled: false}\n"},
			says:  []string{"mq 3.x"}, hides: "db ~1.2",
		},
		"requirements.yaml": {
			files: []string{"Chart.yaml", v1, "requirements.yaml", needs, "charts/mq/Chart.yaml", mq}, says: []string{"db ~1.2"}, hides: "mq 3.x",
		},
		"under another name": {
			files: []string{
				"Chart.yaml", v2 + "dependencies: [{name: db, alias: other, version: 1.x.x, repository: \"file://../db\"}]\n",
				"charts/other/Chart.yaml", strings.Replace(db, "db", "other", 1),
			},
			says: []string{"db 1.x.x of file://../db"},
		},
		"an alias": {files: []string{"Chart.yaml", v2 + "dependencies: [{name: db, alias: other, version: " +
			"1.x.x}]\n", "charts/db/Chart.yaml", db}},
		"no repository": {
			files: []string{"Chart.yaml", v2 + "dependencies: [{name: db, version: 1.x.x}]\n"}, says: []string{"db 1.x.x of an unnamed repository"},
		},
		"of a chart inside": {
			files: []string{"Chart.yaml", v2 + "dependencies: [{name: db, version: 1.x.x}]\n", "charts/db/Chart.yaml", db + needs},
		},
		"a lock without charts": {
			files: []string{"Chart.yaml", v2 + needs, "Chart.lock", needs + "digest: sha256:x\n"}, says: []string{"db ~1.2"},
		},
	} {
		for _, kind := range []string{"repository", "registry"} {
			t.Run(name+", from a "+kind, func(t *testing.T) {
				archive := chartOf(t, test.files...)
				s := newWeb(
					t,
					map[string][]byte{"/c/a.tgz": archive, "/c/index.yaml": []byte("entries:\n  acme:\n  - {version: 1.0.0, urls: [a.tgz]}\n")},
				)
				up := world.NewRegistry(t, nil)
				up.Push(t, "c/acme:1.0.0", chartArtifact(t, archive, chartLayer))
				from := map[string]string{"repository": s.URL + "/c", "registry": "oci://" + up.Host + "/c"}[kind]
				o := intake(t, s, `    charts: [{repository: "`+from+`", name: acme, version: 1.0.0}]`+"\n")
				o.Source = world.Options(t, o.Manifest, world.NewKey(t), up, &world.Registry{Host: s.host()}).Source
				_, err := create.Run(t.Context(), o)
				if test.says == nil {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				if !errors.Is(err, bundle.ErrPolicy) {
					t.Fatalf("got %v", err)
				}
				for _, word := range test.says {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("%q is not in %v", word, err)
					}
				}
				if test.hides != "" && strings.Contains(err.Error(), test.hides) {
					t.Errorf("%q is in %v", test.hides, err)
				}
			})
		}
	}
}

// encodedWeb serves pages with content codings that the client did not ask for.
type encodedWeb struct {
	coding string // Content-Encoding header
	encode bool   // whether the body is encoded, too
	length bool   // whether Content-Length is sent
}

func (e *encodedWeb) wrap(s *web) func(http.ResponseWriter, *http.Request) http.ResponseWriter {
	return func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
		data := s.pages[r.URL.Path]
		if e.encode {
			data = world.Gzip(data)
		}
		w.Header().Set("Content-Encoding", e.coding)
		if e.length {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		} else {
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(data)
		return nil
	}
}

// TestContentCodings checks content codings. A known digest decides between the bytes as
// sent and the decoded bytes. Without a digest, a file is the bytes as sent. Documents
// are decoded.
func TestContentCodings(t *testing.T) {
	chart, plugin := world.Chart("acme", "1.0.0"), world.PluginFacts("com.example.demo", "1.2.3").Archive()
	text := bytes.Repeat([]byte("a file of text\n"), 5000)
	index := func(digest string) []byte {
		return []byte("entries:\n  acme:\n  - {version: 1.0.0, urls: [a.tgz], digest: \"" + digest + "\"}\n")
	}
	s := newWeb(t, map[string][]byte{
		"/c/a.tgz":      chart,
		"/c/index.yaml": index(hexOf(chart)),
		"/d/a.tgz":      chart,
		"/d/index.yaml": index(""),
		"/p.tar.gz":     plugin,
		"/f.txt":        text,
		"/f.tgz":        chart,
	})
	var e encodedWeb
	s.wrap = e.wrap(s)
	all := fmt.Sprintf(`    charts: [{repository: "$WEB/c", name: acme, version: 1.0.0}]
    plugins: [{url: "$WEB/p.tar.gz", sha256: %s}]
    files: [{source: "$WEB/f.txt", path: a, sha256: %s}, {source: "$WEB/f.txt", path: b, sha256: %s, size: %d}, `+
		`{source: "$WEB/f.tgz", path: c, sha256: %s}]
`, hexOf(plugin), hexOf(text), hexOf(text), len(text), hexOf(chart))
	for _, test := range []encodedWeb{
		{coding: "gzip", length: true}, {coding: "x-gzip", length: true},
		{coding: "gzip"}, {coding: "GZIP", length: true}, {coding: "br", length: true},
		{coding: "aws-chunked", length: true}, {coding: "utf-8", length: true}, {coding: "identity", length: true},
		{coding: "gzip", encode: true, length: true}, {coding: "gzip", encode: true},
		{coding: "x-gzip", encode: true}, {coding: "identity, gzip", encode: true},
	} {
		t.Run(fmt.Sprintf("%s, encoded %v, length %v", test.coding, test.encode, test.length), func(t *testing.T) {
			e.coding, e.encode, e.length = test.coding, test.encode, test.length
			body := all
			if test.coding == "br" { // the index is a document, and br cannot be decoded
				_, after, _ := strings.Cut(body, "    plugins")
				body = "    plugins" + after
			}
			o := intake(t, s, body)
			result, err := create.Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			_, d, _ := read(t, result.Output)
			for i, want := range [][]byte{text, text, chart} {
				if d.Files[i].Digest != bundle.DigestOf(want) || d.Files[i].Size != int64(len(want)) {
					t.Errorf("file %d: got %+v", i, d.Files[i])
				}
			}
			if d.Plugins[0].Archive != bundle.DigestOf(plugin) || test.coding != "br" && d.Charts[0].Digest != bundle.DigestOf(chart) {
				t.Errorf("got %+v and %+v", d.Plugins, d.Charts)
			}
		})
	}
	t.Run("without a digest", func(t *testing.T) {
		e.coding, e.encode, e.length = "gzip", false, true
		body := "    charts: [{repository: \"$WEB/d\", name: acme, version: 1.0.0}]\n    files: [{source: \"$WEB/f.tgz\", " +
			"path: c, sha256: first-use}]\n"
		result, err := create.Run(t.Context(), intake(t, s, body))
		if err != nil {
			t.Fatal(err)
		}
		_, d, _ := read(t, result.Output)
		if d.Charts[0].Digest != bundle.DigestOf(chart) || d.Files[0].Digest != bundle.DigestOf(chart) {
			t.Errorf("got %+v and %+v", d.Charts, d.Files)
		}
	})
	for name, body := range map[string]string{
		"neither has the digest":            "    files: [{source: \"$WEB/f.txt\", path: a, sha256: " + hexOf([]byte("x")) + "}]\n",
		"neither has the digest, with size": "    files: [{source: \"$WEB/f.txt\", path: a, size: 5, sha256: " + hexOf([]byte("x")) + "}]\n",
		"neither, a plugin":                 "    plugins: [{url: \"$WEB/p.tar.gz\", sha256: " + hexOf([]byte("x")) + "}]\n",
	} {
		t.Run(name, func(t *testing.T) {
			e.coding, e.encode, e.length = "gzip", true, true
			_, err := create.Run(t.Context(), intake(t, s, body))
			if !errors.Is(err, remote.ErrRegistry) || !strings.Contains(fmt.Sprint(err), `encoded as "gzip"`) {
				t.Errorf("got %v", err)
			}
		})
	}
}
