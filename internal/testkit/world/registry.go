// Package world provides what tests need: registries with real images, a stand-in upstream
// with plugins and charts, keys, and finished bundles. Only tests, the demonstration and the
// benchmark import it.
package world

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // storage of the demonstration
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"   // storage of tests
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sirupsen/logrus"
)

// NewHandler returns a CNCF distribution v3 registry that keeps its content below dir, or in
// memory if dir is empty.
func NewHandler(ctx context.Context, dir string) http.Handler {
	logrus.SetOutput(io.Discard)
	c := &configuration.Configuration{}
	c.Version = configuration.MajorMinorVersion(0, 1)
	c.Storage = configuration.Storage{
		"inmemory":    configuration.Parameters{},
		"delete":      configuration.Parameters{"enabled": true},
		"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
	}
	if dir != "" {
		delete(c.Storage, "inmemory")
		c.Storage["filesystem"] = configuration.Parameters{"rootdirectory": dir}
	}
	c.Catalog.MaxEntries = 1000
	c.HTTP.Secret = "a registry for tests"
	return handlers.NewApp(ctx, c)
}

// Registry is a registry on loopback, without TLS.
type Registry struct {
	Host string // HOST:PORT
}

// NewRegistry starts a registry that ends with the test. Wrap, if not nil, wraps its handler,
// so that a test can inject faults or count requests.
func NewRegistry(tb testing.TB, wrap func(http.Handler) http.Handler) *Registry {
	tb.Helper()
	return NewRegistryAt(tb, "", wrap)
}

// NewRegistryAt is NewRegistry with its content below dir, for content that is too large for
// memory.
func NewRegistryAt(tb testing.TB, dir string, wrap func(http.Handler) http.Handler) *Registry {
	tb.Helper()
	h := NewHandler(context.WithoutCancel(tb.Context()), dir)
	if wrap != nil {
		h = wrap(h)
	}
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // distribution writes the header twice when a body breaks off
	s.Start()
	tb.Cleanup(s.Close)
	return &Registry{strings.TrimPrefix(s.URL, "http://")}
}

// Tags lists the tags of a repository.
func (r *Registry) Tags(tb testing.TB, repository string) []string {
	tb.Helper()
	repo, err := name.NewRepository(r.Host+"/"+repository, name.Insecure)
	if err != nil {
		tb.Fatal(err)
	}
	tags, err := ggcr.List(repo)
	if err != nil {
		tb.Fatal(err)
	}
	return tags
}

// OCIOnly refuses manifests with Docker's media types, as zot does by default.
func OCIOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		manifest := r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
		if manifest && strings.HasPrefix(r.Header.Get("Content-Type"), "application/vnd.docker.") {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Push pushes an image or index to REPOSITORY:TAG and returns the full reference.
func (r *Registry) Push(tb testing.TB, ref string, what ggcr.Taggable) string {
	tb.Helper()
	if err := Push(tb.Context(), r.Host+"/"+ref, what); err != nil {
		tb.Fatal(err)
	}
	return r.Host + "/" + ref
}

// Push pushes an image or index to a registry without TLS.
func Push(ctx context.Context, ref string, what ggcr.Taggable) error {
	to, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return err
	}
	switch x := what.(type) {
	case v1.ImageIndex:
		return ggcr.WriteIndex(to, x, ggcr.WithContext(ctx))
	case v1.Image:
		return ggcr.Write(to, x, ggcr.WithContext(ctx))
	}
	return ggcr.Put(to, what, ggcr.WithContext(ctx))
}

// Digest returns the digest of a reference, resolved by an independent client.
func Digest(tb testing.TB, ref string) string {
	tb.Helper()
	to, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		tb.Fatal(err)
	}
	d, err := ggcr.Get(to)
	if err != nil {
		tb.Fatal(err)
	}
	return d.Digest.String()
}
