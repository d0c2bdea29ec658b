package manifests_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/manifests"
)

var update = flag.Bool("update", false, "write testdata/catalogue")

// TestCatalogueListing compares the content of each architecture with a golden file, so that a
// change of the catalogue shows in a diff.
func TestCatalogueListing(t *testing.T) {
	for _, name := range manifests.Architectures() {
		m, err := manifests.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range m.Deployments {
			got := listing(t, m, d)
			path := filepath.Join("testdata", "catalogue", name+"-"+d+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (go test ./manifests -run Listing -update):\n%s", path, diff)
			}
		}
	}
}

func listing(t *testing.T, m *manifests.Manifest, deployment string) string {
	s, err := m.Describe(manifests.Choice{Deployment: deployment})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range s.Components {
		fmt.Fprintf(&b, "%s%s\n", c.Name, map[bool]string{true: " (optional)"}[c.Optional])
		for _, i := range c.Images {
			fmt.Fprintf(&b, "  image %s\n", s.Images[i].Reference)
		}
		for _, i := range c.Plugins {
			p := s.Plugins[i]
			fmt.Fprintf(&b, "  plugin %s %s\n    %s\n    %s\n", p.ID, p.Version, p.URL, p.Signature)
		}
		for _, i := range c.Charts {
			fmt.Fprintf(&b, "  chart %s %s %s\n", s.Charts[i].Repository, s.Charts[i].Name, s.Charts[i].Version)
		}
		for _, i := range c.Files {
			f := s.Files[i]
			fmt.Fprintf(&b, "  file %s %04o %s\n    %s\n", f.Path, f.Mode, f.As, f.Source)
			if f.Pin != "" {
				fmt.Fprintf(&b, "    sha256.%s %s\n", f.Pin, f.SHA256)
			}
		}
	}
	b.WriteString("external\n")
	for _, e := range s.External {
		fmt.Fprintf(&b, "  %s: %s\n", e.Name, e.Why)
	}
	return b.String()
}

// TestESRByDefault checks that the default release is an ESR (extended support release).
func TestESRByDefault(t *testing.T) {
	for _, name := range manifests.Architectures() {
		m, err := manifests.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.Select(manifests.Choice{})
		if err != nil {
			t.Fatal(err)
		}
		note := s.ReleaseNote("mattermost")
		if !strings.HasPrefix(note, "ESR") || s.Version != s.Versions["mattermost"] {
			t.Errorf("%s is of %s (%s)", name, s.Version, note)
		}
	}
}

// TestPluginsFollowTheServer checks that a server release selects its own plugin versions, and
// that a version set by hand takes precedence.
func TestPluginsFollowTheServer(t *testing.T) {
	m, err := manifests.Open("ddil")
	if err != nil {
		t.Fatal(err)
	}
	for release, want := range map[string]string{
		"11.7.9": "9.2.7", "11.8.5": "9.2.7", "11.9.1": "9.3.1", "11.10.0": "9.3.1", "11.10.3": "9.3.1", "11.7.10": "9.2.7",
	} {
		for set, boards := range map[string]string{"": want, "9.9.9": "9.9.9"} {
			c := manifests.Choice{Deployment: "compose", Set: map[string]string{"versions.mattermost": release}}
			if set != "" {
				c.Set["versions.boards"] = set
			}
			s, err := m.Select(c)
			if err != nil {
				t.Fatal(err)
			}
			if s.Versions["boards"] != boards {
				t.Errorf("%s with %q: %s", release, set, s.Versions["boards"])
			}
		}
	}
}

// TestHashesAreOfOneRelease checks that a hash is used only for its own release.
func TestHashesAreOfOneRelease(t *testing.T) {
	m, err := manifests.Open("application")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Select(manifests.Choice{Deployment: "linux"})
	if err != nil || s.Files[0].SHA256 == "" {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err = m.Select(manifests.Choice{Deployment: "linux", Set: map[string]string{"versions.mattermost": "11.7.10"}})
	if err == nil || !strings.Contains(err.Error(), "sha256.server-linux-amd64") {
		t.Errorf("the hash of 11.7.9 passed for 11.7.10: %v", err)
	}
}

func TestMatchImages(t *testing.T) {
	for pattern, want := range map[string]bool{
		"docker.io/library/nginx": true, "docker.io/library/*": true, "docker.io/*": false, "docker.io/**": true, "**": true,
		"docker.io/library/ngin": false, "*/library/nginx": true, "docker.io/library/nginx.": false, "docker.io/library/n*x": true, "": false,
	} {
		if manifests.MatchImages(pattern, "docker.io/library/nginx") != want {
			t.Errorf("%q", pattern)
		}
	}
}
