package manifests_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/manifests"
)

const good = `apiVersion: oobbundle.dev/v1
kind: Manifest
metadata: {name: demo, version: 1.0.0}
components:
  - name: web
    images: ["nginx:1", "registry.example.com:5001/team/web:2"]
  - name: db
    images: [docker.io/library/nginx:1]
`

func TestManifest(t *testing.T) {
	m, err := manifests.Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	refs, err := m.References()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range refs {
		got = append(got, r.String())
	}
	want := []string{"docker.io/library/nginx:1", "registry.example.com:5001/team/web:2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if m.Metadata.Version != "1.0.0" || m.Digest != bundle.DigestOf([]byte(good)) {
		t.Errorf("%+v", m)
	}
}

// TestManifestProblems: each is named, all of them at once.
func TestManifestProblems(t *testing.T) {
	for name, test := range map[string]struct {
		old, new string
		texts    []string
	}{
		"another kind":       {"kind: Manifest", "kind: Lock", []string{`kind is "Lock"`}},
		"another version":    {"oobbundle.dev/v1", "oobbundle.dev/v9", []string{`apiVersion is "oobbundle.dev/v9"`}},
		"an unknown field":   {"images: [docker.io", "image: [docker.io", []string{"line 8", "field image is not known here"}},
		"a key twice":        {"  - name: db", "  - name: db\n    name: db", []string{"name"}},
		"two documents":      {"apiVersion", "a: b\n---\napiVersion", []string{""}},
		"not YAML":           {"metadata: {", "metadata: {{", []string{""}},
		"a bad reference":    {`"nginx:1"`, `"NGINX:1:2"`, []string{"NGINX:1:2", "registry.example.com/team/app"}},
		"two problems":       {"name: db\n    images: [docker.io/library/nginx:1]", "name: web\n    images: [\"a b\"]", []string{`not "web"`, `"a b"`}},
		"plugins":            {"  - name: db\n", "  - name: db\n    plugins: [{url: x}]\n", []string{"images only, not plugins"}},
		"charts":             {"  - name: db\n", "  - name: db\n    charts: [{name: x}]\n", []string{"images only, not charts"}},
		"nothing in it":      {good, "", []string{""}},
		"a component of air": {"    images: [docker.io/library/nginx:1]\n", "", []string{`"db" has no images`}},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, test.old, test.new, 1)
			if text == good {
				t.Fatal("the test changes nothing")
			}
			_, err := manifests.Parse([]byte(text))
			if !errors.Is(err, manifests.ErrInvalid) {
				t.Fatalf("got %v", err)
			}
			for _, want := range test.texts {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "manifests.") {
				t.Errorf("a Go type in a message for people: %v", err)
			}
		})
	}
}

func TestLockRoundTrip(t *testing.T) {
	digest := bundle.DigestOf([]byte("x"))
	l := &manifests.Lock{
		APIVersion: bundle.APIVersion, Kind: "Lock", Metadata: manifests.Metadata{Name: "demo", Version: "1.10"}, Program: "1.2",
		Manifest: digest, Channel: "demo", Sequence: 1 << 60, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Platforms: []string{"linux/amd64"},
		Images: []manifests.LockedImage{{
			Reference: "docker.io/library/nginx:1.10", MediaType: bundle.TypeOCIIndex, Digest: digest, Size: 7,
			Carried: []manifests.LockedManifest{{Platform: "linux/amd64", Digest: digest, Size: 8}, {Digest: digest, Size: 9}},
		}},
	}
	data, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "lock.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(string(data))
	got, err := manifests.ReadLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l, got); diff != "" {
		t.Error(diff)
	}
	for name, text := range map[string]string{
		"a short reference": strings.Replace(string(data), "docker.io/library/nginx", "nginx", 1),
		"no digest":         strings.Replace(string(data), "digest: sha256", "digest: md5", 1),
		"an unknown field":  string(data) + "more: 1\n",
	} {
		if write(text); text == string(data) {
			t.Fatal("the test changes nothing")
		}
		if _, err := manifests.ReadLock(path); !errors.Is(err, manifests.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := manifests.Parse(data)
		if err != nil {
			return
		}
		if _, err := m.References(); err != nil {
			t.Fatalf("taken, and then: %v", err)
		}
	})
}
