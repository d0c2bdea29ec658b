package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	goyaml "go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestExamples carries each example of docs/examples from the stand-in upstream to a site and
// checks the installed files.
func TestExamples(t *testing.T) {
	hello := world.PluginFacts("hello", "1.0.0").Archive()
	wanted := map[string]struct {
		create []string // flags of create
		values string
		files  map[string]string // path below the release → text that the file contains; empty for any
	}{
		"web.yaml": {
			create: []string{"--platform", "linux/amd64"},
			values: "domain: intranet.site\n",
			files: map[string]string{
				"compose.yaml":      "image: 127.0.0.1:5000/registry.example.com/team/intranet@sha256:",
				"etc/intranet.conf": "# intranet 2.3.0\npublic_url = https://intranet.site\n",
				"database.env":      "POSTGRES_PASSWORD=",
			},
		},
		"chart.yaml": {
			values: "domain: wiki.site\n",
			files: map[string]string{
				"values.yaml":       "repository: 127.0.0.1:5000/docker.io/example/wiki\n",
				"READ-ME-FIRST.txt": "helm upgrade --install wiki oci://127.0.0.1:5000/charts.example.com/wiki --version 1.4.2 ",
			},
		},
		"plugins.yaml": {
			create: []string{"--with", "ours", "--set", "sha256.hello=" + bundle.DigestOf(hello).Hex()},
			files: map[string]string{
				"prepackaged_plugins/mattermost-plugin-playbooks-v2.9.4.tar.gz":     "",
				"prepackaged_plugins/mattermost-plugin-playbooks-v2.9.4.tar.gz.sig": "",
				"prepackaged_plugins/mattermost-plugin-boards-v9.2.7.tar.gz":        "",
				"prepackaged_plugins/mattermost-plugin-boards-v9.2.7.tar.gz.sig":    "",
				"prepackaged_plugins/hello-1.0.0.tar.gz":                            string(hello),
			},
		},
	}
	found, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil || len(found) != len(wanted) {
		t.Fatalf("%v: examples are %v, and %d are known here", err, found, len(wanted))
	}
	for _, manifest := range found {
		w := wanted[filepath.Base(manifest)]
		t.Run(filepath.Base(manifest), func(t *testing.T) {
			s := newSite(t)
			s.stock(manifest, manifests.Choice{})
			s.up.Page("https://dl.example.com/hello-1.0.0.tar.gz", hello)
			file, create := s.create(manifest, w.create...)
			status, _, stderr := s.oob(create...)
			if status != 0 || strings.Contains(stderr, "warning") {
				t.Fatalf("exit status %d: %s", status, stderr)
			}
			root, values := filepath.Join(s.dir, "root"), filepath.Join(s.dir, "site.yaml")
			world.Write(t, values, []byte(w.values), 0o600)
			s.must("verify", file, "--key", s.key.Public, "--root", root)
			s.must("install", file, "--key", s.key.Public, "--root", root, "--values", values)
			s.must("status", "--check", "--root", root)
			checkExample(t, root, manifest, w.files)
		})
	}
}

// checkExample compares the installed files with the expected ones.
func checkExample(t *testing.T, root, manifest string, files map[string]string) {
	t.Helper()
	m, err := manifests.Open(manifest)
	if err != nil {
		t.Fatal(err)
	}
	current := filepath.Join(root, "deployments", m.Metadata.Name, "current")
	for path, text := range files {
		data, err := os.ReadFile(filepath.Join(current, path))
		if err != nil || !strings.Contains(string(data), text) {
			t.Errorf("%s: %v%s", path, err, cmp.Diff(text, string(data)))
		}
		if strings.HasSuffix(path, ".yaml") {
			var doc map[string]any
			if err := goyaml.Unmarshal(data, &doc); err != nil || len(doc) == 0 {
				t.Errorf("%s: %v\n%s", path, err, data)
			}
		}
	}
}
