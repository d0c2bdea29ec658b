package create_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// web is a file server whose answers a test can change.
type web struct {
	*httptest.Server
	pages map[string][]byte
	asked map[string]*atomic.Int64
	sent  atomic.Int64
	wrap  func(w http.ResponseWriter, r *http.Request) http.ResponseWriter // nil changes nothing; a nil result ends the request
}

func newWeb(t *testing.T, pages map[string][]byte) *web {
	s := &web{pages: pages, asked: map[string]*atomic.Int64{}}
	for p := range pages {
		s.asked[p] = &atomic.Int64{}
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := s.pages[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		s.asked[r.URL.Path].Add(1)
		if s.wrap != nil {
			if w = s.wrap(w, r); w == nil {
				return
			}
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *web) host() string { return strings.TrimPrefix(s.URL, "http://") }

// intake returns options with a manifest of one component with the given body.
func intake(t *testing.T, s *web, component string) create.Options {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "m.yaml")
	text := "apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: demo, version: 1.0.0}\ncomponents:\n  - name: all\n" + component
	world.Write(t, path, []byte(strings.ReplaceAll(text, "$WEB", s.URL)), 0o644)
	world.Write(t, filepath.Join(dir, "local.conf"), []byte("from the author\n"), 0o644)
	m, err := manifests.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	client, err := remote.New(remote.Options{PlainHTTP: []string{s.host()}})
	if err != nil {
		t.Fatal(err)
	}
	o := world.Options(t, m, world.NewKey(t))
	o.Source = &pull.Source{Client: client}
	return o
}

func hexOf(data []byte) string { return bundle.DigestOf(data).Hex() }

// TestFiles checks files from the author's disk and from the web, with path and mode.
func TestFiles(t *testing.T) {
	big := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(big)
	s := newWeb(t, map[string][]byte{"/big": big, "/first": []byte("whatever it is")})
	var dropped atomic.Int64
	s.wrap = func(w http.ResponseWriter, r *http.Request) http.ResponseWriter { // drop the connection after each MiB
		if r.URL.Path == "/big" && dropped.Add(1) > 1 {
			return &dropping{ResponseWriter: w, left: 1 << 20, sent: &s.sent}
		}
		return w
	}
	o := intake(t, s, fmt.Sprintf(`    files:
      - {source: local.conf, path: etc/demo.conf, mode: "0640"}
      - {source: "$WEB/big", path: share/big, sha256: %s}
      - {source: "$WEB/first", path: share/first, sha256: first-use}
`, hexOf(big)))
	r, d, _ := read(t, world.Create(t, o))
	want := []bundle.HostFile{
		{Path: "etc/demo.conf", Mode: "0640", Digest: bundle.DigestOf([]byte("from the author\n")), Size: 16},
		{Path: "share/big", Mode: "0644", Digest: bundle.DigestOf(big), Size: int64(len(big))},
		{Path: "share/first", Mode: "0644", Digest: bundle.DigestOf([]byte("whatever it is")), Size: 14},
	}
	for i, f := range d.Files {
		if f.Manifest = ""; f != want[i] {
			t.Errorf("got %+v, want %+v", f, want[i])
		}
		m, ok := r.Place(f.Digest)
		if !ok || m.Size != f.Size {
			t.Errorf("%s is not carried", f.Path)
		}
	}
	if n := s.sent.Load(); n < int64(len(big)) || n > int64(len(big))*11/10 {
		t.Errorf("%d bytes were sent for %d", n, len(big))
	}
	l, err := manifests.ReadLock(create.LockFile(o.Output))
	if err != nil {
		t.Fatal(err)
	}
	for i, check := range []string{"file of the author's", "pinned by sha256", "first use"} {
		if l.Files[i].Check != check {
			t.Errorf("the lock says %q", l.Files[i].Check)
		}
	}
	// The lock pins the file accepted at first use, and the author's own file.
	o.Lock = l
	s.pages["/first"] = []byte("something else now")
	if _, err := create.Run(t.Context(), o); !errors.Is(err, manifests.ErrMismatch) {
		t.Errorf("a file changed since it was locked: %v", err)
	}
}

// TestRefusedFiles checks the error class of each refused file; no bundle may remain.
func TestRefusedFiles(t *testing.T) {
	good := []byte("good content")
	for name, test := range map[string]struct {
		wrap  func(w http.ResponseWriter, r *http.Request) http.ResponseWriter
		file  string
		class error
		text  string
	}{
		"another hash": {
			nil, fmt.Sprintf(`{source: "$WEB/x", path: x, sha256: %s}`, hexOf([]byte("other"))), remote.ErrRegistry, "it sent sha256:",
		},
		"not there": {nil, fmt.Sprintf(`{source: "$WEB/y", path: x, sha256: %s}`, hexOf(good)), remote.ErrRegistry, "404"},
		"no size": {func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
			w.(http.Flusher).Flush()
			_, _ = w.Write(good)
			return nil
		}, fmt.Sprintf(`{source: "$WEB/x", path: x, sha256: %s}`, hexOf(good)), remote.ErrUnknownSize, "give size in the manifest"},
		"too long": {
			nil, fmt.Sprintf(`{source: "$WEB/x", path: x, sha256: %s, size: 3}`, hexOf(good)), remote.ErrRegistry, "more than the 3 bytes",
		},
		"local, another hash": {
			nil, fmt.Sprintf(`{source: local.conf, path: x, sha256: %s}`, hexOf(good)), bundle.ErrDigest, "the manifest says",
		},
		"a loop": {func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return nil
		}, fmt.Sprintf(`{source: "$WEB/x", path: x, sha256: %s}`, hexOf(good)), remote.ErrRegistry, "redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWeb(t, map[string][]byte{"/x": good})
			s.wrap = test.wrap
			o := intake(t, s, "    files: ["+test.file+"]\n")
			_, err := create.Run(t.Context(), o)
			if !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(o.Output); err == nil {
				t.Error("there is a bundle")
			}
		})
	}
	t.Run("a size that the server does not say", func(t *testing.T) {
		s := newWeb(t, map[string][]byte{"/x": good})
		s.wrap = func(w http.ResponseWriter, _ *http.Request) http.ResponseWriter {
			w.(http.Flusher).Flush()
			_, _ = w.Write(good)
			return nil
		}
		world.Create(
			t,
			intake(t, s, fmt.Sprintf(`    files: [{source: "$WEB/x", path: x, sha256: %s, size: %s}]`+"\n", hexOf(good), strconv.Itoa(len(good)))),
		)
	})
}

// TestPlacesOnTheHost checks that two plugins with the same file name get different
// names, and that create refuses a file whose path collides with another.
func TestPlacesOnTheHost(t *testing.T) {
	one, two := world.PluginFacts("com.example.one", "1.2.3").Archive(), world.PluginFacts("com.example.two", "1.0.0").Archive()
	s := newWeb(t, map[string][]byte{"/a/plugin.tar.gz": one, "/b/plugin.tar.gz": two, "/x": []byte("x")})
	plugins := fmt.Sprintf(
		"    plugins: [{url: $WEB/a/plugin.tar.gz, sha256: %s}, {url: $WEB/b/plugin.tar.gz, sha256: %s}]\n",
		hexOf(one), hexOf(two),
	)
	file := func(path string) string {
		return fmt.Sprintf("    files: [{source: $WEB/x, path: %s, sha256: %s}]\n", path, hexOf([]byte("x")))
	}
	o := intake(t, s, plugins+file("plugins/other.txt"))
	world.Create(t, o)
	data, err := os.ReadFile(o.Output)
	if err != nil || !bytes.Contains(data, []byte(`"com.example.two-1.0.0.tar.gz"`)) || !bytes.Contains(data, []byte(`"plugin.tar.gz"`)) {
		t.Errorf("the names of the plugins: %v", err)
	}
	for _, path := range []string{
		"plugins/plugin.tar.gz", "Plugins/PLUGIN.tar.gz", "plugins", "runtime/k3s/registries.yaml", "plugin-keys/x.asc", "runtime",
	} {
		o := intake(t, s, plugins+file(path))
		if _, err := create.Run(t.Context(), o); !errors.Is(err, manifests.ErrInvalid) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestPinnedPlugin checks a plugin that is pinned by hash instead of a signature. The run
// after an interrupted run must not fetch the plugin again.
func TestPinnedPlugin(t *testing.T) {
	archive := world.PluginFacts("com.example.demo", "1.2.3").Archive()
	payload := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(payload)
	s := newWeb(t, map[string][]byte{"/p/demo.tar.gz": archive, "/payload": payload})
	component := fmt.Sprintf(
		"    plugins: [{url: \"$WEB/p/demo.tar.gz\", sha256: %s}]\n    files: [{source: \"$WEB/payload\", path: x, sha256: %s}]\n",
		hexOf(archive), hexOf(payload),
	)
	o := intake(t, s, component)
	ctx, cancel := context.WithCancelCause(t.Context())
	var asked atomic.Int64
	s.wrap = func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
		if r.URL.Path == "/payload" && asked.Add(1) == 2 { // the first request asks for the size
			_, _ = io.CopyN(w, strings.NewReader(string(payload)), 1000)
			cancel(errors.New("the plug was pulled"))
			panic(http.ErrAbortHandler)
		}
		return w
	}
	if _, err := create.Run(ctx, o); err == nil {
		t.Fatal("it was not interrupted")
	}
	if _, err := os.Stat(o.Output + ".partial.d"); err != nil {
		t.Fatal("the plugin was not kept:", err)
	}
	before := s.asked["/p/demo.tar.gz"].Load()
	_, d, _ := read(t, world.Create(t, o))
	if len(d.Plugins) != 1 || d.Plugins[0].Name != "demo.tar.gz" || d.Plugins[0].Archive != bundle.DigestOf(archive) ||
		d.Plugins[0].Signature != "" {
		t.Errorf("%+v", d.Plugins)
	}
	if n := s.asked["/p/demo.tar.gz"].Load() - before; n != 0 {
		t.Errorf("the plugin was asked for %d times again", n)
	}
	if left, _ := filepath.Glob(o.Output + ".partial*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	wrong := intake(t, s, strings.Replace(component, hexOf(archive), hexOf(payload), 1))
	if _, err := create.Run(t.Context(), wrong); !errors.Is(err, bundle.ErrDigest) {
		t.Errorf("another plugin than the pinned one: %v", err)
	}
	if left, _ := filepath.Glob(wrong.Output + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
