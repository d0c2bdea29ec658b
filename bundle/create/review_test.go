package create_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestNotOneBundle checks that create makes no bundle that verify would refuse.
func TestNotOneBundle(t *testing.T) {
	archive := world.PluginFacts("com.example.demo", "1.2.3").Archive()
	s := newWeb(t, map[string][]byte{"/a.tar.gz": archive, "/b.tar.gz": archive})
	for name, body := range map[string]string{
		"a plugin twice": fmt.Sprintf("    plugins: [{url: \"$WEB/a.tar.gz\", sha256: %s}, {url: "+
			"\"$WEB/b.tar.gz\", sha256: %[1]s}]\n", hexOf(archive)),
		"a path twice": "    files: [{source: local.conf, path: etc/x}]\n  - name: more\n    files: " +
			"[{source: local.conf, path: etc/x}]\n",
		"two paths where case does not count": "    files: [{source: local.conf, path: etc/conf}, {source: local.conf, path: etc/Conf}]\n",
		"a file in a file":                    "    files: [{source: local.conf, path: etc/x}, {source: local.conf, path: etc/x/y}]\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			world.Write(t, filepath.Join(dir, "local.conf"), []byte("x"), 0o644)
			world.Write(
				t, filepath.Join(dir, "m.yaml"),
				[]byte(
					strings.ReplaceAll(
						"apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: demo, version: 1.0.0}\ncomponents:\n  - name: all\n"+body,
						"$WEB",
						s.URL,
					),
				),
				0o644,
			)
			m, err := manifests.Read(filepath.Join(dir, "m.yaml"))
			if err == nil {
				o := world.Options(t, m, world.NewKey(t), &world.Registry{Host: s.host()})
				_, err = create.Run(t.Context(), o)
				if _, statErr := os.Stat(o.Output); statErr == nil {
					t.Error("there is a bundle")
				}
			}
			if !errors.Is(err, manifests.ErrInvalid) && !errors.Is(err, bundle.ErrPolicy) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestSignedCharts checks that verifyImages rules also apply to charts from registries.
func TestSignedCharts(t *testing.T) {
	key := world.NewKey(t)
	up := world.NewRegistry(t, nil)
	public, err := os.ReadFile(key.Public)
	if err != nil {
		t.Fatal(err)
	}
	up.Push(t, "charts/demo:1.0.0", world.Artifact([]byte("unsigned")))
	m, err := manifests.Parse(
		fmt.Appendf(nil, `{"apiVersion": "oobbundle.dev/v1", "kind": "Manifest", "metadata": {"name": "demo", "version": "1"},
"keys": {"maker": %q}, "verifyImages": [{"images": "**", "keys": ["maker"]}], `+
			`"components": [{"name": "a", "charts": [{"repository": "oci://%s/charts", "name": "demo", "version": "1.0.0"}]}]}`,
			public, up.Host),
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create.Run(t.Context(), world.Options(t, m, world.NewKey(t), up)); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("got %v", err)
	}
}

// TestURLs checks that a query is sent to the server, and that a path cannot become a host.
func TestURLs(t *testing.T) {
	content := []byte("the right one")
	s := newWeb(t, map[string][]byte{"/dl": content, "//other.example/dl": content})
	var asked atomic.Value
	s.wrap = func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
		asked.Store(r.URL.String())
		return w
	}
	for _, path := range []string{"/dl?id=5&x=%2F", "//other.example/dl"} {
		o := intake(t, s, fmt.Sprintf("    files: [{source: \"$WEB%s\", path: x, sha256: %s}]\n", path, hexOf(content)))
		world.Create(t, o)
		if asked.Load() != path {
			t.Errorf("%s was asked as %v", path, asked.Load())
		}
	}
}

// TestSameURLTwice checks that two items with one URL do not overwrite each other.
func TestSameURLTwice(t *testing.T) {
	archive := world.PluginFacts("com.example.demo", "1.2.3").Archive()
	s := newWeb(t, map[string][]byte{"/a.tar.gz": archive})
	for range 10 {
		o := intake(
			t, s,
			fmt.Sprintf(
				"    plugins: [{url: \"$WEB/a.tar.gz\", sha256: %s}]\n    files: [{source: \"$WEB/a.tar.gz\", path: a, sha256: %[1]s}]\n",
				hexOf(archive),
			),
		)
		world.Create(t, o)
	}
}

// TestBusyReferrers checks that a request is repeated if the registry is busy for a moment.
func TestBusyReferrers(t *testing.T) {
	var asked atomic.Int64
	up := world.NewRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/referrers/") && asked.Add(1) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	ref := up.Push(t, "team/app:1", world.Image("linux/amd64", world.Layer(file("x"))))
	asked.Store(0)
	world.Create(t, world.Options(t, world.Manifest(t, "demo", ref), world.NewKey(t), up))
	if asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// TestLockLeavesNewSignatures checks that a lock still makes the same bundle after upstream
// has received new referrers, and after a cosign tag has received another signature.
func TestLockLeavesNewSignatures(t *testing.T) {
	up := world.NewRegistry(t, nil)
	img := world.Image("linux/amd64", world.Layer(file("x")))
	ref := up.Push(t, "team/app:1", img)
	up.Push(t, "team/app:a", about(world.ArtifactOf("application/spdx+json", []byte("{}"), nil), img))
	up.Push(t, tagOf(digestOf(t, img), ".att"), world.CosignSignature(t, world.NewKey(t), digestOf(t, img)))
	chart := world.HelmChart("demo", "1.0.0")
	up.Push(t, "charts/demo:1.0.0", chart)
	m, err := manifests.Parse(
		fmt.Appendf(nil, `{"apiVersion": "oobbundle.dev/v1", "kind": "Manifest", "metadata": {"name": "demo", "version": "1"},
"components": [{"name": "a", "images": [%q], "charts": [{"repository": "oci://%s/charts", "name": "demo", "version": "1.0.0"}]}]}`,
			ref, up.Host),
	)
	if err != nil {
		t.Fatal(err)
	}
	o := world.Options(t, m, world.NewKey(t), up)
	first, err := create.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	up.Push(t, "charts/demo:signed", about(world.ArtifactOf("application/sarif+json", []byte("{}"), nil), chart))
	up.Push(t, "team/app:b", about(world.ArtifactOf("application/sarif+json", []byte("{}"), nil), img))
	for _, suffix := range []string{".sig", ".att"} {
		up.Push(t, tagOf(digestOf(t, img), suffix), world.CosignSignature(t, world.NewKey(t), digestOf(t, img)))
	}
	o.Lock = first.Lock
	second, err := create.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if second.Identity != first.Identity {
		t.Error("the same lock gave another bundle")
	}
}
