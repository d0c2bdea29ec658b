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
	selected, err := m.Select(manifests.Choice{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range selected.Images {
		got = append(got, i.Reference.String())
	}
	want := []string{"docker.io/library/nginx:1", "registry.example.com:5001/team/web:2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if m.Metadata.Version != "1.0.0" || m.Digest != bundle.DigestOf([]byte(good)) {
		t.Errorf("%+v", m)
	}
}

// TestManifestProblems checks that all problems are reported at once, each with its line.
func TestManifestProblems(t *testing.T) {
	for name, test := range map[string]struct {
		old, new string
		texts    []string
	}{
		"another kind":     {"kind: Manifest", "kind: Lock", []string{`kind is "Lock"`}},
		"another version":  {"oobbundle.dev/v1", "oobbundle.dev/v9", []string{`apiVersion is "oobbundle.dev/v9"`}},
		"an unknown field": {"images: [docker.io", "image: [docker.io", []string{"line 8: the field image is not known here"}},
		"an unknown field deep": {"    images: [docker.io/library/nginx:1]", "    images: [{reference: nginx, " +
			"plattform: [x]}]", []string{"line 8: the field plattform is not known here"}},
		"a key twice":     {"  - name: db", "  - name: db\n    name: db", []string{"name"}},
		"two documents":   {"apiVersion", "a: b\n---\napiVersion", []string{""}},
		"not YAML":        {"metadata: {", "metadata: {{", []string{""}},
		"an alias":        {"images: [docker.io/library/nginx:1]", "images: &a [*a]", []string{""}},
		"a bad reference": {`"nginx:1"`, `"NGINX:1:2"`, []string{"line 6", "NGINX:1:2", "registry.example.com/team/app"}},
		"two problems": {"name: db\n    images: [docker.io/library/nginx:1]", "name: web\n    images: [7, \"a b\"]\n    " +
			"what: ever", []string{"line 9: the field what", `line 7: there are two components "web"`, `line 8: component "web": "a b"`}},
		"two of our problems": {"name: db\n    images: [docker.io/library/nginx:1]", "name: db\n    images: [\"a b\"]\n    " +
			"files: [{source: /dev/null, path: ../x}]",
			[]string{"has 3 problems", `line 8: component "db": "a b"`, `line 9: "../x"`, "line 9: /dev/null is not a file"}},
		"a name twice": {"name: db", "name: web", []string{`line 7: there are two components "web"`}},
		"a list for a map": {"metadata: {name: demo, version: 1.0.0}", "metadata: [demo]", []string{"line 3: a map is " +
			"expected here, and this is a list"}},
		"nothing in it":      {good, "", []string{""}},
		"a component of air": {"    images: [docker.io/library/nginx:1]\n", "", []string{`line 7: component "db" has nothing in it`}},
		"an unpinned file": {"  - name: db\n", "  - name: db\n    files: [{source: \"https://e.example/x\", " +
			"path: x}]\n", []string{"line 8", "needs sha256"}},
		"an unsigned plugin": {"  - name: db\n", "  - name: db\n    plugins: [{url: " +
			"\"https://e.example/x.tar.gz\"}]\n", []string{"line 8", "neither a signature nor sha256"}},
		"no such file": {"  - name: db\n", "  - name: db\n    files: [{source: nowhere.txt, " +
			"path: x}]\n", []string{"line 8: there is no file nowhere.txt"}},
		"an unknown name": {"[docker.io/library/nginx:1]", "[\"nginx:${versions.x}\"]", []string{"line 8: ${versions.x}"}},
		"an unknown component": {"  - name: db\n", "  - use: nobody\n  - name: db\n", []string{`line 7: no included ` +
			`document has a component "nobody"`}},
		"a login in a URL": {"  - name: db\n", "  - name: db\n    files: [{source: " +
			"\"https://me:canary@e.example/x\", path: x, sha256: first-use}]\n", []string{"line 8: a login in a URL"}},
		"a login in a repository": {"  - name: db\n", "  - name: db\n    charts: [{repository: " +
			"\"https://me:canary@e.example/x\", name: a, version: 1.0.0}]\n", []string{"line 8: a login in a URL"}},
		"another scheme": {"  - name: db\n", "  - name: db\n    files: [{source: \"ftp://e.example/x\", " +
			"path: x, sha256: first-use}]\n", []string{"line 8: it is not a URL"}},
		"a component for one deployment": {"components:\n", "include: [\"catalogue:components.yaml\"]\ncomponents:\n  - use: " +
			"postgres\n", []string{`line 6: "postgres" is for --deployment compose`}},
		"a need of a need": {"  - name: db\n", "  - name: db\n    needs: [none-such]\n", []string{"none-such"}},
		"a rule for no host": {"components:", "keys: {k: \"-----BEGIN PUBLIC KEY-----\"}\nverifyImages: [{images: nginx, " +
			"keys: [k]}]\ncomponents:", []string{`line 5: "nginx" names no host`}},
		"an unknown need": {"  - name: db\n", "  - name: db\n    needs: [nobody]\n", []string{`line 8: "db" needs "nobody"`}},
		"an unknown key": {
			"components:", "verifyImages: [{images: \"**\", keys: [nobody]}]\ncomponents:", []string{`line 4: there is no key "nobody"`},
		},
		"both use and name": {"  - name: db\n", "  - name: db\n    use: web\n", []string{"line 7: a component has either a name, or use"}},
		"two files at a path": {"  - name: db\n", "  - name: db\n    files: [{source: manifest.go, path: x}, {source: lock.go, path: x}]\n",
			[]string{"line 8: two files would be x"}},
		"a mode that sets uids": {"  - name: db\n", "  - name: db\n    files: [{source: manifest.go, path: x, mode: " +
			"\"4755\"}]\n", []string{`line 8: "4755"`}},
		"no YAML":            {"components:", "components: {", []string{"invalid document: line ", ": it is no YAML: "}},
		"a name in capitals": {"name: demo", "name: Demo", []string{`line 3: "Demo" cannot stand here; it has to be lower-case letters`}},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, test.old, test.new, 1)
			if text == good {
				t.Fatal("the test changes nothing")
			}
			m, err := manifests.Parse([]byte(text))
			if err == nil {
				_, err = m.Select(manifests.Choice{})
			}
			if !errors.Is(err, manifests.ErrInvalid) {
				t.Fatalf("got %v", err)
			}
			for _, want := range test.texts {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("a password in a message: %v", err)
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
		APIVersion: bundle.APIVersion,
		Kind:       "Lock",
		Metadata:   manifests.LockMetadata{Name: "demo", Version: "1.10"},
		Program:    "1.2",
		Manifest:   digest,
		Channel:    "demo",
		Sequence:   1 << 60,
		Created:    time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Platforms:  []string{"linux/amd64"},
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
