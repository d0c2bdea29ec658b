package create_test

import (
	"bytes"
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
	"github.com/oob-bundle/oob-bundle/bundle/bundletest"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// chartArtifact is a chart in a registry, with a layer of any type.
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

// TestChartLedToRegistry: the index of a repository on the web leads to a registry.
func TestChartLedToRegistry(t *testing.T) {
	archive := bundletest.Chart("acme", "1.2.3+b")
	other := bundletest.Chart("acme", "1.2.3+b", "docker.io/library/x:1")
	up := bundletest.NewRegistry(t, nil)
	up.Push(t, "charts/acme:1.2.3_b", chartArtifact(t, archive, chartLayer))
	up.Push(t, "charts/other:1", bundletest.Image("linux/amd64", bundletest.Layer(file("x"))))
	for name, test := range map[string]struct {
		url, digest, sha256 string
		says                string
		class               error
	}{
		"with a tag":           {url: "oci://$UP/charts/acme:1.2.3_b", digest: hexOf(archive)},
		"without a tag":        {url: "oci://$UP/charts/acme"},
		"a digest with prefix": {url: "oci://$UP/charts/acme", digest: "sha256:" + hexOf(archive)},
		"pinned":               {url: "oci://$UP/charts/acme", sha256: hexOf(archive)},
		"another digest":       {url: "oci://$UP/charts/acme", digest: hexOf(other), says: "the repository's index says", class: remote.ErrRegistry},
		"another pin":          {url: "oci://$UP/charts/acme", sha256: hexOf(other), says: "the manifest says", class: remote.ErrRegistry},
		"no chart":             {url: "oci://$UP/charts/other:1", says: "is not a Helm chart", class: remote.ErrRegistry},
		"nothing there":        {url: "oci://$UP/charts/acme:9", says: "404", class: remote.ErrNotFound},
		"a name without host":  {url: "oci://charts/acme:1", says: "oci://HOST/NAME:TAG", class: remote.ErrRegistry},
		"a login":              {url: "oci://a:b@$UP/charts/acme", says: "oci://HOST/NAME:TAG", class: remote.ErrRegistry},
		"another scheme":       {url: "file:///etc/passwd", says: "not an http or https URL", class: remote.ErrRegistry},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWeb(t, map[string][]byte{"/charts/index.yaml": fmt.Appendf(nil,
				"entries:\n  acme:\n  - version: 1.2.3+b\n    digest: %q\n    urls: [%q]\n", test.digest, strings.ReplaceAll(test.url, "$UP", up.Host))})
			pin := ""
			if test.sha256 != "" {
				pin = ", sha256: " + test.sha256
			}
			o := intake(t, s, `    charts: [{repository: "$WEB/charts", name: acme, version: 1.2.3+b`+pin+"}]\n")
			o.Source = bundletest.Options(t, o.Manifest, bundletest.NewKey(t), up, &bundletest.Registry{Host: s.host()}).Source
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
			if o.Lock.Charts[0].Manifest != bundle.Digest(bundletest.Digest(t, up.Host+"/charts/acme:1.2.3_b")) {
				t.Errorf("locked %+v", o.Lock.Charts[0])
			}
			o.Output = strings.Replace(o.Output, ".oob", "-2.oob", 1)
			if _, err := create.Run(t.Context(), o); err != nil {
				t.Errorf("with the lock: %v", err)
			}
		})
	}
}

// TestOldChartLayers: what Helm pulls is carried, whichever version pushed it.
func TestOldChartLayers(t *testing.T) {
	archive := bundletest.Chart("acme", "1.2.3")
	for layer, ok := range map[types.MediaType]bool{
		chartLayer:             true,
		"application/tar+gzip": true, // Helm before 3.7
		"application/vnd.cncf.helm.chart.content.layer.v1+tar": false, // which no Helm 3 or 4 pulls
	} {
		up := bundletest.NewRegistry(t, nil)
		ref := up.Push(t, "charts/acme:1.2.3", chartArtifact(t, archive, layer))
		s := newWeb(t, nil)
		o := intake(t, s, `    charts: [{repository: "oci://`+up.Host+`/charts", name: acme, version: 1.2.3}]`+"\n")
		o.Source = bundletest.Options(t, o.Manifest, bundletest.NewKey(t), up).Source
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
		if d.Charts[0].Digest != bundle.DigestOf(archive) || d.Images[0].Digest != bundle.Digest(bundletest.Digest(t, ref)) {
			t.Errorf("%s: got %+v and %+v", layer, d.Charts, d.Images)
		}
	}
}

// encodedWeb serves pages with codings that were not asked for.
type encodedWeb struct {
	coding string // header
	encode bool   // the body, too
	length bool   // it is stated
}

func (e *encodedWeb) wrap(s *web) func(http.ResponseWriter, *http.Request) http.ResponseWriter {
	return func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
		data := s.pages[r.URL.Path]
		if e.encode {
			data = bundletest.Gzip(data)
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

// TestContentCodings: a known digest decides between the bytes as sent and the decoded
// ones. Without one the file is what was sent. Documents are decoded.
func TestContentCodings(t *testing.T) {
	chart, plugin := bundletest.Chart("acme", "1.0.0"), bundletest.PluginFacts("com.example.demo", "1.2.3").Archive()
	text := bytes.Repeat([]byte("a file of text\n"), 5000)
	index := func(digest string) []byte {
		return []byte("entries:\n  acme:\n  - {version: 1.0.0, urls: [a.tgz], digest: \"" + digest + "\"}\n")
	}
	s := newWeb(t, map[string][]byte{
		"/c/a.tgz": chart, "/c/index.yaml": index(hexOf(chart)), "/d/a.tgz": chart, "/d/index.yaml": index(""), "/p.tar.gz": plugin, "/f.txt": text, "/f.tgz": chart,
	})
	var e encodedWeb
	s.wrap = e.wrap(s)
	all := fmt.Sprintf(`    charts: [{repository: "$WEB/c", name: acme, version: 1.0.0}]
    plugins: [{url: "$WEB/p.tar.gz", sha256: %s}]
    files: [{source: "$WEB/f.txt", path: a, sha256: %s}, {source: "$WEB/f.txt", path: b, sha256: %s, size: %d}, {source: "$WEB/f.tgz", path: c, sha256: %s}]
`, hexOf(plugin), hexOf(text), hexOf(text), len(text), hexOf(chart))
	for _, test := range []encodedWeb{
		{coding: "gzip", length: true}, {coding: "x-gzip", length: true}, {coding: "gzip"}, {coding: "GZIP", length: true}, {coding: "br", length: true},
		{coding: "aws-chunked", length: true}, {coding: "utf-8", length: true}, {coding: "identity", length: true},
		{coding: "gzip", encode: true, length: true}, {coding: "gzip", encode: true}, {coding: "x-gzip", encode: true}, {coding: "identity, gzip", encode: true},
	} {
		t.Run(fmt.Sprintf("%s, encoded %v, length %v", test.coding, test.encode, test.length), func(t *testing.T) {
			e.coding, e.encode, e.length = test.coding, test.encode, test.length
			body := all
			if test.coding == "br" { // the index is a document
				body = body[strings.Index(body, "    plugins"):]
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
		body := "    charts: [{repository: \"$WEB/d\", name: acme, version: 1.0.0}]\n    files: [{source: \"$WEB/f.tgz\", path: c, sha256: first-use}]\n"
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
