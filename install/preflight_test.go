package install_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// crowded is a store that needs more space than exists.
type crowded struct{ install.Store }

func (crowded) Space([]bundle.Descriptor, int) (disk.Demand, error) {
	return disk.Demand{Dir: os.TempDir(), Bytes: 1 << 60, Files: 1}, nil
}

// TestPreflight: all problems are reported at once, before anything is written: values, space,
// and each repository that the registry refuses.
func TestPreflight(t *testing.T) {
	w := newFixture(t)
	pushed := 0
	shared := world.NewRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/team/") { // as Harbor does if the project does not exist
				rw.WriteHeader(http.StatusForbidden)
				return
			}
			if r.Method == http.MethodPut {
				pushed++
			}
			next.ServeHTTP(rw, r)
		})
	})
	client, err := remote.New(remote.Options{PlainHTTP: []string{shared.Host}})
	if err != nil {
		t.Fatal(err)
	}
	refs := []string{w.push("team/app:1", "app"), w.push("team/web:1", "web"), w.push("other/tool:1", "tool")}
	text := "apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: demo, version: 1.0.0}\ncomponents:\n  - name: " +
		"all\n    images: [" + strings.Join(
		refs,
		", ",
	) + "]\n" +
		"    host: [{values: [{name: domain, kind: host, required: true, about: Name of the site}]}]\n"
	m, err := manifests.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	file := w.bundleWith("demo", refs, func(o *create.Options) { o.Manifest = m })
	_, err = w.install(file, func(s *site) {
		s.target = func(context.Context, string) (install.Registry, error) {
			r := registry.OpenExternal(client, shared.Host, install.CentralRepository("demo")).Registry()
			r.Store = crowded{}
			return r, nil
		}
	})
	for _, class := range []error{host.ErrValues, disk.ErrSpace, remote.ErrRegistry} {
		if !errors.Is(err, class) {
			t.Errorf("it is not %v", class)
		}
	}
	for _, says := range []string{"domain is needed", "more bytes are needed", "/team/app", "/team/web"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("it does not say %q: %v", says, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "other/tool") {
		t.Errorf("it names a repository that may be filled: %v", err)
	}
	if _, err := os.Lstat(w.root); err == nil || pushed > 0 {
		t.Errorf("something was written: %v, %d pushes", err, pushed)
	}
}
