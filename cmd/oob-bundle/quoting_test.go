package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	goyaml "go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestCatalogueQuotes: a site value reaches the server's settings unchanged and sets nothing
// else, for every program that reads the file.
func TestCatalogueQuotes(t *testing.T) {
	values := []string{`Pa$$w0rd$HOME`, `x", "EnableDeveloper": true, "y":"`, `DOMAIN\host`, `it's 50% #1`, "[a]: {b}", `${HOME} $(HOME)`}
	for name, read := range map[string]func(t *testing.T, release string) string{
		"compose":    func(t *testing.T, release string) string { t.Helper(); return envLine(t, release, composeValue) },
		"quadlet":    func(t *testing.T, release string) string { t.Helper(); return envLine(t, release, podmanValue) },
		"linux":      func(t *testing.T, release string) string { t.Helper(); return envLine(t, release, systemdValue) },
		"kubernetes": podValue,
	} {
		t.Run(name, func(t *testing.T) {
			deployment, more := name, ""
			if name == "quadlet" {
				deployment, more = "compose", "quadlet: \"true\"\n"
			}
			s := newSite(t)
			s.stock("application", manifests.Choice{Deployment: deployment})
			file, create := s.create("application", "--deployment", deployment, "--platform", "linux/amd64")
			if status, _, stderr := s.oob(create...); status != 0 || strings.Contains(stderr, "warning") {
				t.Fatalf("exit status %d: %s", status, stderr)
			}
			root, hostRoot, site := filepath.Join(s.dir, "root"), filepath.Join(s.dir, "host"), filepath.Join(s.dir, "site.yaml")
			for _, value := range values {
				text, err := json.Marshal(value)
				if err != nil {
					t.Fatal(err)
				}
				world.Write(t, site, []byte("domain: chat.site.mil\ninternalHosts: "+string(text)+"\n"+more), 0o600)
				s.must("install", file, "--key", s.key.Public, "--root", root, "--values", site, "--host-root", hostRoot)
				release := filepath.Join(root, "deployments/application/current")
				var settings struct{ ServiceSettings map[string]any }
				data, err := os.ReadFile(filepath.Join(release, "airgap.json"))
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(data, &settings); err != nil {
					t.Fatalf("%q: %v: %s", value, err, data)
				}
				if got := settings.ServiceSettings["AllowedUntrustedInternalConnections"]; got != value ||
					settings.ServiceSettings["EnableDeveloper"] != nil {
					t.Errorf("%q became %q in airgap.json: %v", value, got, settings.ServiceSettings)
				}
				if got := read(t, release); got != value {
					t.Errorf("%q is read as %q", value, got)
				}
			}
		})
	}
}

const internalConnections = "MM_SERVICESETTINGS_ALLOWEDUNTRUSTEDINTERNALCONNECTIONS"

// envLine returns the setting from mattermost.env.
func envLine(t *testing.T, release string, read func(string) string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(release, "mattermost.env"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "ENABLEDEVELOPER=") {
		t.Errorf("a value set something else:\n%s", data)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, internalConnections+"="); ok {
			return read(strings.TrimSuffix(value, "\n"))
		}
	}
	return "nothing"
}

func podmanValue(text string) string { return text }

// composeValue parses a value as Compose does: single-quoted text is literal, other text is
// interpolated.
func composeValue(text string) string {
	if inner, ok := strings.CutPrefix(text, "'"); ok {
		return strings.TrimSuffix(inner, "'")
	}
	inner, ok := strings.CutPrefix(text, `"`)
	if !ok {
		return strings.ReplaceAll(text, "$", "interpolated")
	}
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`, "$$", "$", "$", "interpolated").Replace(strings.TrimSuffix(inner, `"`))
}

func systemdValue(text string) string {
	inner, ok := strings.CutPrefix(text, `"`)
	if !ok {
		return strings.Trim(text, " '")
	}
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\$`, "$", "\\`", "`").Replace(strings.TrimSuffix(inner, `"`))
}

// podValue returns the setting from the server's resource, as Kubernetes expands it.
func podValue(t *testing.T, release string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(release, "kubernetes/mattermost.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var resource struct {
		Spec struct {
			MattermostEnv []struct{ Name, Value string } `yaml:"mattermostEnv"`
		}
	}
	if err := goyaml.Unmarshal(data, &resource); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	i := slices.IndexFunc(resource.Spec.MattermostEnv, func(e struct{ Name, Value string }) bool { return e.Name == internalConnections })
	if i < 0 {
		t.Fatalf("%s is missing: %s", internalConnections, data)
	}
	return strings.NewReplacer("$$", "$", "$(HOME)", "/root").Replace(resource.Spec.MattermostEnv[i].Value)
}

// TestUnquotedWarning: create warns about each unquoted value in a template, with file, line and
// value, and about nothing else.
func TestUnquotedWarning(t *testing.T) {
	s := newSite(t)
	world.Write(t, filepath.Join(s.dir, "a.yaml"), []byte(`apiVersion: oobbundle.dev/v1
kind: Manifest
metadata: {name: a, version: 1.0.0}
deployments: [compose]
components:
  - name: a
    files:
      - {source: compose.yaml, path: compose.yaml, as: template}
      - {source: compose.yaml, path: kept.yaml}
      - {source: a.env, path: etc/a.env, as: template}
    host:
      - values: [{name: words, about: Words}, {name: port, kind: port, about: A port}]
        secrets: [{name: pw, length: 20}]
`), 0o600)
	world.Write(
		t, filepath.Join(s.dir, "compose.yaml"),
		[]byte("# {{ .Name }}\na: {{ json .Values.words }}\nb: {{ compose .Values.words }}\nc: {{ .Values.port }}\n"),
		0o600,
	)
	world.Write(t, filepath.Join(s.dir, "a.env"), []byte("A={{ .Secrets.pw }}\nB={{ env \"compose\" .Secrets.pw }}\n"), 0o600)
	status, _, stderr := s.oob("create", filepath.Join(s.dir, "a.yaml"), "--key", s.key.Private, "-o", filepath.Join(s.dir, "a.oob.tar"))
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	for _, want := range []string{
		"template compose.yaml, line 2: .Values.words is not quoted for this kind of file; print it with the function compose",
		"template etc/a.env, line 1: .Secrets.pw is not quoted for this kind of file; print it with the function env",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is missing:\n%s", want, stderr)
		}
	}
	if n := strings.Count(stderr, "is not quoted"); n != 2 {
		t.Errorf("%d warnings:\n%s", n, stderr)
	}
}
