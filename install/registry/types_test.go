package registry_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestDockerTypes: a registry that rejects Docker's media types is detected before a blob is
// pushed, and the message names the images. The check leaves nothing behind.
func TestDockerTypes(t *testing.T) {
	up := world.NewRegistry(t, nil)
	layer := world.Layer(world.File{Name: "a", Mode: 0o644, Data: []byte("a")})
	refs := map[string]string{
		"docker": up.Push(t, "team/docker:1", world.DockerImage("linux/amd64", layer)),
		"oci":    up.Push(t, "team/oci:1", world.Image("linux/amd64", layer)),
		"mixed": up.Push(
			t,
			"team/mixed:1",
			world.Index(world.DockerImage("linux/amd64", layer), world.Image("linux/arm64", layer)),
		),
	}
	for name, test := range map[string]struct {
		images  []string
		wrap    func(http.Handler) http.Handler
		refused []string
	}{
		"OCI only":             {[]string{"oci"}, world.OCIOnly, nil},
		"one of Docker's":      {[]string{"docker"}, world.OCIOnly, []string{"docker"}},
		"one of each":          {[]string{"oci", "docker"}, world.OCIOnly, []string{"docker"}},
		"in an index":          {[]string{"mixed"}, world.OCIOnly, []string{"mixed"}},
		"all, and it takes it": {[]string{"docker", "oci", "mixed"}, func(h http.Handler) http.Handler { return h }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var list []string
			for _, i := range test.images {
				list = append(list, refs[i])
			}
			path := world.Create(t, world.Options(t, world.Manifest(t, "demo", list...), world.NewKey(t), up))
			g := geometryOf(t, path)
			var stored atomic.Int64
			site := world.NewRegistry(t, func(next http.Handler) http.Handler {
				next = test.wrap(next)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					rec := &statusOf{ResponseWriter: w, status: http.StatusOK}
					next.ServeHTTP(rec, r)
					if r.Method == http.MethodPut && rec.status < 300 {
						stored.Add(1)
					}
				})
			})
			client, err := remote.New(remote.Options{PlainHTTP: []string{site.Host}, Patience: remote.Patience{Pause: 1}})
			if err != nil {
				t.Fatal(err)
			}
			check := func(what string, err error) {
				t.Helper()
				if len(test.refused) == 0 {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					return
				}
				if !errors.Is(err, bundle.ErrPolicy) || !strings.Contains(err.Error(), "docker2s2") {
					t.Fatalf("%s: got %v", what, err)
				}
				for image, ref := range refs {
					want := strings.Contains(strings.Join(test.refused, " "), image)
					if strings.Contains(err.Error(), ref) != want {
						t.Errorf("%s: %s is named or not: %v", what, image, err)
					}
				}
			}
			known := registry.OpenExternal(client, site.Host+"/prefix", "central/repo")
			known.Expect(g)
			check("Ready", known.Ready(t.Context(), []string{"central/repo", "team/x"}))
			if n := stored.Load(); n > 0 {
				t.Errorf("asking left %d things there", n)
			}
		})
	}
}

// TestDockerTypeRefused: a manifest whose type the registry rejects causes bundle.ErrPolicy.
func TestDockerTypeRefused(t *testing.T) {
	site := world.NewRegistry(t, world.OCIOnly)
	target := external(t, site.Host)
	img := world.DockerImage("linux/amd64")
	m, data := manifestOf(t, img)
	if err := target.PutBlob(t.Context(), "team/app", *m.Config, "", reader(configOf(t, img))); err != nil {
		t.Fatal(err)
	}
	err := target.PutManifest(t.Context(), "team/app", m, data)
	if !errors.Is(err, bundle.ErrPolicy) || !errors.Is(err, install.ErrNotTaken) || !strings.Contains(err.Error(), "docker2s2") {
		t.Errorf("got %v", err)
	}
}

func manifestOf(t *testing.T, img v1.Image) (*bundle.Manifest, []byte) {
	t.Helper()
	data, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	m, err := bundle.ParseManifest(descriptor(bundle.TypeDockerManifest, data), data)
	if err != nil {
		t.Fatal(err)
	}
	return m, data
}

func configOf(t *testing.T, img v1.Image) []byte {
	t.Helper()
	data, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func geometryOf(t *testing.T, path string) *bundle.Geometry {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, err := bundle.ReadHead(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := bundle.NewReader(io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), int64(len(data)), head)
	if err != nil {
		t.Fatal(err)
	}
	return r.Geometry
}

// statusOf records a status.
type statusOf struct {
	http.ResponseWriter
	status int
}

func (s *statusOf) WriteHeader(code int) {
	s.status = code
	s.ResponseWriter.WriteHeader(code)
}
