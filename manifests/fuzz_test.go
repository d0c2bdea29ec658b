package manifests_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestSeeds counts the seeds of each fuzz target, and how many are accepted and refused.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzLock", "FuzzManifest")
	seeds.Count(t, "FuzzLock", lockSeeds(), 3, 14, 0, fuzzLock(t.TempDir()))
	seeds.Count(t, "FuzzManifest", manifestSeeds(), 4, 21, 0, fuzzManifest)
}

// altered returns variants of a document, each with one text replaced.
func altered(doc string, pairs ...string) (list [][]byte) {
	for i := 0; i < len(pairs); i += 2 {
		next := strings.Replace(doc, pairs[i], pairs[i+1], 1)
		if next == doc {
			panic("the seed changes nothing: " + pairs[i])
		}
		list = append(list, []byte(next))
	}
	return list
}

func manifestSeeds() seeds.Of[[]byte] {
	const host = good + `    files: [{source: manifest.go, path: etc/a.conf, mode: "0644", as: template}]
    host:
      - values: [{name: domain, kind: host, required: true, about: Name of the site}]
        secrets: [{name: adminPassword, length: 32}]
        directories: [{path: web, owner: "101:101", mode: "0750"}]
        links: [{path: /etc/nginx/conf.d/a.conf, file: etc/a.conf}]
`
	choices := `apiVersion: oobbundle.dev/v1
kind: Manifest
metadata: {name: demo, version: "${versions.web}"}
deployments: [compose, linux]
platforms: [linux/amd64]
versions: {web: 1.2.3}
settings: {size: small}
rules: [{when: {web: ">=1.0.0"}, require: {web: "<2.0.0"}, because: it is so}]
components:
  - name: web
    images: [{reference: "nginx:${versions.web}", platforms: [linux/amd64]}]
    plugins: [{url: "https://e.example/x-1.2.3.tar.gz", sha256: "` + zeros + `"}]
    charts: [{repository: "https://charts.example.com", name: acme, version: 1.2.3, values: {image: {tag: 1}}}]
  - name: extra
    optional: true
    deployments: [linux]
    needs: [web]
    images: [busybox]
`
	return seeds.Of[[]byte]{
		Taken: [][]byte{
			[]byte(good),
			[]byte(host),
			[]byte(choices),
			[]byte(
				strings.Replace(
					good,
					"components:\n",
					"include: [\"catalogue:components.yaml\"]\ndeployments: [compose]\ncomponents:\n  - use: push-proxy\n",
					1,
				),
			),
		},
		Refused: append(altered(good,
			"kind: Manifest", "kind: Lock",
			"oobbundle.dev/v1", "oobbundle.dev/v9",
			"images: [docker.io", "image: [docker.io",
			"  - name: db", "  - name: db\n    name: db",
			"apiVersion", "a: b\n---\napiVersion",
			"metadata: {", "metadata: {{",
			"[docker.io/library/nginx:1]", "&a [*a]",
			"[docker.io/library/nginx:1]", `["nginx:${versions.x}"]`,
			`"nginx:1"`, `"NGINX:1:2"`,
			"name: db", "name: web",
			"metadata: {name: demo, version: 1.0.0}", "metadata: [demo]",
			"    images: [docker.io/library/nginx:1]\n", "",
			"  - name: db\n", "  - name: db\n    files: [{source: /dev/null, path: x}]\n",
			"  - name: db\n", "  - name: db\n    files: [{source: manifest.go, path: ../x}]\n",
			"  - name: db\n", "  - name: db\n    files: [{source: manifest.go, path: x, mode: \"4755\"}]\n",
			"  - name: db\n", "  - name: db\n    plugins: [{url: \"https://e.example/x.tar.gz\"}]\n",
			"  - name: db\n", "  - name: db\n    files: [{source: \"ftp://e.example/x\", path: x, sha256: first-use}]\n",
			"  - name: db\n", "  - name: db\n    needs: [nobody]\n",
			"components:\n", "include: [manifests_test.go]\ncomponents:\n",
		), nil, []byte("a: &a [*a]")),
	}
}

var zeros = strings.Repeat("0", 64)

// FuzzManifest checks that an accepted manifest can be selected from or is refused with a
// reason, and that a selection contains only full references and safe file paths.
func FuzzManifest(f *testing.F) {
	for i, s := range manifestSeeds().All() {
		f.Add(s, []string{"", "versions.web=1.2.4", "settings.size=", "keys.a=/dev/null", "=", "sha256.web=0"}[i%6])
	}
	f.Fuzz(func(t *testing.T, data []byte, set string) {
		fuzzManifest(t, data)
		fuzzSet(t, data, set)
	})
}

func fuzzManifest(t *testing.T, data []byte) bool {
	m, err := manifests.Parse(data)
	if err != nil {
		if !errors.Is(err, manifests.ErrInvalid) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	s, err := m.Select(manifests.Choice{Platforms: []bundle.Platform{{OS: "linux", Architecture: "amd64"}}})
	if err != nil {
		if !errors.Is(err, manifests.ErrInvalid) && !errors.Is(err, bundle.ErrPolicy) {
			t.Fatalf("taken, and then: %v", err)
		}
		return true
	}
	selected(t, s)
	return true
}

// selected checks the selection of an accepted manifest.
func selected(t *testing.T, s *manifests.Selection) {
	t.Helper()
	if err := (bundle.Info{Name: s.Name, Version: s.Version, Channel: s.Name, Platforms: s.Platforms}).Check(); err != nil {
		t.Fatalf("selected: %v", err)
	}
	for _, i := range s.Images {
		if r, err := bundle.ParseReference(i.Reference.String()); err != nil || r != i.Reference {
			t.Fatalf("selected: %q, %v", i.Reference, err)
		}
	}
	files := []bundle.HostFile{}
	for _, w := range s.Files {
		if !fs.ValidPath(w.Path) || !filepath.IsLocal(w.Path) || w.Mode > 0o777 ||
			w.SHA256 == "" && !w.FirstUse && strings.Contains(w.Source, "://") {
			t.Fatalf("selected: %+v", w)
		}
		files = append(files, bundle.HostFile{Path: w.Path, As: w.As})
	}
	for _, p := range s.Plugins {
		if p.SHA256 == "" && p.Signature == "" {
			t.Fatalf("selected: %+v", p)
		}
	}
	if s.Host != nil {
		if err := s.Host.Check(files, nil); err != nil {
			t.Fatalf("selected, and no bundle can hold it: %v", err)
		}
	}
}

// fuzzSet selects with one --set KEY=VALUE.
func fuzzSet(t *testing.T, data []byte, set string) {
	m, err := manifests.Parse(data)
	key, value, ok := strings.Cut(set, "=")
	if err != nil || !ok {
		return
	}
	s, err := m.Select(
		manifests.Choice{Platforms: []bundle.Platform{{OS: "linux", Architecture: "amd64"}}, Set: map[string]string{key: value}},
	)
	if err != nil {
		if !errors.Is(err, manifests.ErrInvalid) && !errors.Is(err, bundle.ErrPolicy) {
			t.Fatalf("--set %q: %v", set, err)
		}
		return
	}
	selected(t, s)
}

func lockSeeds() seeds.Of[[]byte] {
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
		Deployment: "compose",
		With:       []string{"extra"},
		Set:        map[string]string{"versions.web": "1.10", "settings.on": "yes"},
		Components: []string{"web"},
		Versions:   map[string]string{"web": "1e3"},
		Images: []manifests.LockedImage{{
			Reference: "docker.io/library/nginx:1.10", MediaType: bundle.TypeOCIIndex, Digest: digest, Size: 7, Total: 1 << 40,
			Carried:   []manifests.LockedManifest{{Platform: "linux/amd64", Digest: digest, Size: 8}, {Digest: digest, Size: 9}},
			Referrers: []manifests.LockedReferrer{{Tag: "sha256-0.sig", Digest: digest, Size: 3}}, Checks: []string{"a: b"},
		}},
		Charts: []manifests.LockedChart{
			{
				Name:       "acme",
				Version:    "1.2.3",
				Repository: "https://charts.example.com",
				Reference:  "charts.example.com/acme:1.2.3",
				Digest:     digest,
				Size:       5,
				Check:      "TLS",
			},
		},
		Plugins: []manifests.LockedPlugin{
			{ID: "com.example.demo", Version: "1.2.3", Source: "x.tar.gz", Digest: digest, Size: 5, Checks: []string{"pinned"}},
		},
		Files: []manifests.LockedFile{{Source: "a", Path: "a", Mode: "0644", Digest: digest, Size: 0, Check: "local"}},
	}
	data, err := l.Encode()
	if err != nil {
		panic(err)
	}
	text := string(data)
	minimal := "{apiVersion: oobbundle.dev/v1, kind: Lock}"
	return seeds.Of[[]byte]{
		Taken: [][]byte{data, []byte(minimal), []byte("# a comment\n" + text)},
		Refused: append(altered(text,
			"kind: Lock", "kind: Manifest",
			"oobbundle.dev/v1", "oobbundle.dev/v2",
			"docker.io/library/nginx:1.10", "nginx:1.10",
			"docker.io/library/nginx:1.10", "\"a b\"",
			"digest: sha256:", "digest: md5:",
			"program:", "programme:",
			"sequence: 1152921504606846976", "sequence: 9223372036854775808",
			"sequence: 1152921504606846976", "sequence: 1.5",
			"sequence: 1152921504606846976", "sequence: [1]",
			"created: 2026", "created: yesterday 2026",
			"channel: demo", "channel: demo\nchannel: demo",
		), nil, []byte(text+"\n---\na: b\n"), []byte("a: &a [*a]")),
	}
}

// FuzzLock checks that an accepted lock, once encoded, is accepted again with the same
// content.
func FuzzLock(f *testing.F) {
	for _, s := range lockSeeds().All() {
		f.Add(s)
	}
	check := fuzzLock(f.TempDir())
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}

func fuzzLock(dir string) func(t *testing.T, data []byte) bool {
	path := filepath.Join(dir, "lock.yaml")
	read := func(t *testing.T, data []byte) (*manifests.Lock, error) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return manifests.ReadLock(path)
	}
	return func(t *testing.T, data []byte) bool {
		l, err := read(t, data)
		if err != nil {
			if !errors.Is(err, manifests.ErrInvalid) {
				t.Fatalf("refused without a reason: %v", err)
			}
			return false
		}
		written, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := read(t, written)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", data, written, err)
		}
		twice, err := again.Encode()
		if err != nil || !bytes.Equal(twice, written) {
			t.Fatalf("%q is written as %q and then as %q: %v", data, written, twice, err)
		}
		if len(manifests.Diff(l, again)) > 0 || !reflect.DeepEqual(l.Set, again.Set) && len(l.Set)+len(again.Set) > 0 ||
			l.Sequence != again.Sequence ||
			!l.Created.Equal(again.Created) {
			t.Fatalf("%+v became %+v", l, again)
		}
		return true
	}
}
