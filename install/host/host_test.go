package host

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
)

func TestKinds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "license")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for kind, values := range map[string]struct{ good, bad []string }{
		"": {[]string{"any text", "ü"}, []string{"two\nlines", "a\x00", "tab\tbed"}},
		"host": {
			[]string{"chat.site.mil", "localhost", "192.0.2.1", "2001:db8::1"},
			[]string{"a b", "-a", "a_b", "a..b", "a;rm", "$(x)", "a/b", strings.Repeat("a", 254)},
		},
		"port":      {[]string{"1", "65535"}, []string{"0", "65536", "-1", "080", "x", "1.0"}},
		"number":    {[]string{"0", "3"}, []string{"-1", "1e3", "x", "01", "9999999999"}},
		"name":      {[]string{"mattermost", "20Gi", "a.b-c_d"}, []string{"-a", "a b", "a'b", "a;b", "ü"}},
		"flag":      {[]string{"true", "false"}, []string{"yes", "1", "True"}},
		"email":     {[]string{"a@site.mil"}, []string{"a", "A <a@site.mil>", "a@b, c@d"}},
		"registry":  {[]string{"registry.site:5000", "registry.site/a/b", "localhost"}, []string{"https://a", "a b", "a/B", "a/../b", "a@b"}},
		"directory": {[]string{"/srv/data", "/a b"}, []string{"data", "/a/../b", "/a/", "/a:b", "/a\"b", "/a$b"}},
		"file":      {[]string{file}, []string{"/nowhere/at/all", filepath.Dir(file)}},
	} {
		for _, v := range values.good {
			if err := checkKind(kind, v); err != nil {
				t.Errorf("%s %q: %v", kind, v, err)
			}
		}
		for _, v := range values.bad {
			if err := checkKind(kind, v); err == nil {
				t.Errorf("%s %q is accepted", kind, v)
			}
		}
	}
}

func TestComplete(t *testing.T) {
	asked := []bundle.Value{
		{
			Name:     "domain",
			Kind:     "host",
			Required: true,
			About:    "the name",
		},
		{Name: "port", Kind: "port", Default: "80"},
		{Name: "mail", Kind: "email"},
	}
	got, problems := complete(asked, map[string]string{"domain": "a.site", "port": ""})
	if want := map[string]string{"domain": "a.site", "port": "80", "mail": ""}; !maps.Equal(got, want) || len(problems) > 0 {
		t.Errorf("%v %v", got, problems)
	}
	if _, problems = complete(asked, map[string]string{"prot": "1", "mail": "x", "port": "0"}); len(problems) != 4 {
		t.Errorf("%q", problems)
	}
}

func TestEnviron(t *testing.T) {
	got, err := environ(
		"MM",
		`{"B": {"Key": true, "List": ["a", "b"], "Deep": {"x": 1}, "Big": 262144000, "None": null}, "A": {"Text": "t u"}}`,
	)
	if want := "MM_A_TEXT=t u\nMM_B_BIG=262144000\nMM_B_KEY=true\nMM_B_LIST=a b\n"; err != nil || got != want {
		t.Errorf("%v: %s", err, got)
	}
	for _, bad := range []string{"", "[]", `{"a": 1}`, `{"a": {}`} {
		if _, err := environ("MM", bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestMirrors(t *testing.T) {
	files, err := mirrors([]bundle.Image{
		{
			Reference: "docker.io/library/nginx:1",
		},
		{Reference: "docker.io/library/postgres:17"},
		{Reference: "registry.example.com:5001/team/app:1"},
		{Reference: "[2001:db8::1]:5001/team/app:1"},
	}, "registry.site:5000/mirror", false)
	if err != nil {
		t.Fatal(err)
	}
	for name, wants := range map[string][]string{
		"runtime/containerd/docker.io/hosts.toml": {
			"server = \"https://registry-1.docker.io\"", "[host.\"https://registry.site:5000/v2/mirror/docker.io\"]", "override_path = true",
		},
		"runtime/containerd/registry.example.com_5001/hosts.toml": {
			"/etc/containerd/certs.d/registry.example.com:5001/", "/v2/mirror/registry.example.com_5001\"]",
		},
		"runtime/containerd/2001-0db8-0000-0000-0000-0000-0000-0001_5001/hosts.toml": {
			"/etc/containerd/certs.d/[2001:db8::1]:5001/", "/v2/mirror/2001-0db8-0000-0000-0000-0000-0000-0001_5001\"]",
		},
		"runtime/k3s/registries.yaml": {"\"docker.io\":\n    endpoint: " +
			"[\"https://registry.site:5000\"]\n    rewrite:\n      \"^(.*)$\": \"mirror/docker.io/$1\""},
		"runtime/containers/registries.conf": {"prefix = \"docker.io\"", "location = \"registry.site:5000/mirror/docker.io\"\ninsecure = false"},
	} {
		for _, want := range wants {
			if !strings.Contains(string(files[name]), want) {
				t.Errorf("%s does not say %s:\n%s", name, want, files[name])
			}
		}
	}
	if len(files) != 5 {
		t.Errorf("%d files", len(files))
	}
	// Without TLS podman needs a setting for the registry's own name, too.
	const own = "[[registry]]\nlocation = \"127.0.0.1:5000\"\ninsecure = true\n"
	if strings.Contains(string(files["runtime/containers/registries.conf"]), own) {
		t.Error("a registry with TLS is made insecure")
	}
	files, err = mirrors([]bundle.Image{{Reference: "docker.io/library/nginx:1"}}, "127.0.0.1:5000", true)
	if text := string(
		files["runtime/containers/registries.conf"],
	); err != nil || !strings.Contains(text, own) ||
		!strings.Contains(text, "location = \"127.0.0.1:5000/docker.io\"\ninsecure = true") {
		t.Errorf("%v: %s", err, text)
	}
}

// writeGroup writes a file that its group may read, and its directory.
func writeGroup(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// readSections reads a JSON file that is an object of objects.
func readSections(t *testing.T, path string) (doc map[string]map[string]any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestMerge checks that a patch is merged, that other programs' entries stay, and that undo
// restores the old content unless another program has written since.
func TestMerge(t *testing.T) {
	root := t.TempDir()
	base := Base(root, "app")
	a := &About{
		Name:   "app",
		ID:     "0123456789abcdef",
		Data:   filepath.Join(base, "data"),
		Merges: []bundle.Merge{{File: "conf/config.json", Patch: "patch.json"}},
	}
	config := filepath.Join(a.Data, "conf/config.json")
	write := func(path, text string) { t.Helper(); writeGroup(t, path, text) }
	read := func() map[string]map[string]any { t.Helper(); return readSections(t, config) }
	switches := func(from, to *About, back bool) {
		t.Helper()
		if err := Switch(root, "app", from, to, back); err != nil {
			t.Fatal(err)
		}
	}
	const before = `{"S": {"Keep": 12345678901234567890, "On": true, "Gone": 1}}`
	write(filepath.Join(base, "releases", a.ID, "patch.json"), `{"S": {"On": false, "Gone": null, "New": "x"}}`)
	write(config, before)
	switches(nil, a, false)
	if s := read()["S"]; s["On"] != false || s["New"] != "x" || s["Gone"] != nil || s["Keep"] == nil {
		t.Errorf("%v", s)
	}
	if data, _ := os.ReadFile(config); !strings.Contains(string(data), "12345678901234567890") {
		t.Errorf("a number was written anew: %s", data)
	}
	if fi, err := os.Stat(config); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	switches(nil, a, false) // a repeated run
	// An upgrade merges on top of the older patch without undoing it first.
	b := *a
	b.ID = "fedcba9876543210"
	write(filepath.Join(base, "releases", b.ID, "patch.json"), `{"S": {"New": "y"}}`)
	switches(a, &b, false)
	if s := read()["S"]; s["On"] != false || s["New"] != "y" {
		t.Errorf("after the upgrade: %v", s)
	}
	switches(&b, a, true)
	if s := read()["S"]; s["On"] != false || s["New"] != "x" {
		t.Errorf("after the rollback: %v", s)
	}
	switches(a, nil, true)
	if data, _ := os.ReadFile(config); string(data) != before {
		t.Errorf("taken back: %s", data)
	}
	switches(nil, a, false)
	write(config, `{"S": {"On": true, "Mine": 1}}`)
	switches(a, nil, true)
	if read()["S"]["Mine"] == nil {
		t.Error("what somebody wrote since is gone")
	}
}

// TestMergeFollowsNothing checks that a program with write access to its data cannot redirect
// the installer to another path.
func TestMergeFollowsNothing(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	base := Base(root, "app")
	a := &About{
		Name:   "app",
		ID:     "0123456789abcdef",
		Data:   filepath.Join(base, "data"),
		Merges: []bundle.Merge{{File: "conf/config.json", Patch: "patch.json"}},
	}
	for _, dir := range []string{filepath.Join(base, "releases", a.ID), a.Data} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "releases", a.ID, "patch.json"), []byte(`{"a": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(a.Data, "conf")); err != nil {
		t.Fatal(err)
	}
	if err := Switch(root, "app", nil, a, false); err == nil {
		t.Error("a link to elsewhere was followed")
	}
	if entries, _ := os.ReadDir(elsewhere); len(entries) > 0 {
		t.Errorf("%v was written elsewhere", entries)
	}
}

// TestUnmergeGone checks that replaced or removed data does not prevent reverting a release,
// and is reported before a switch to a release.
func TestUnmergeGone(t *testing.T) {
	for what, change := range map[string]func(data string) error{
		"the directory is gone": os.RemoveAll,
		"a link": func(data string) error {
			return errors.Join(os.Remove(filepath.Join(data, "config.json")), os.Symlink("/etc/passwd", filepath.Join(data, "config.json")))
		},
		"a directory": func(data string) error {
			return errors.Join(os.Remove(filepath.Join(data, "config.json")), os.Mkdir(filepath.Join(data, "config.json"), 0o755))
		},
	} {
		root := t.TempDir()
		base := Base(root, "app")
		merges := []bundle.Merge{{File: "config.json", Patch: "patch.json"}}
		a := &About{Name: "app", ID: "0123456789abcdef", Data: filepath.Join(base, "data"), Merges: merges}
		for path, text := range map[string]string{
			filepath.Join(base, "releases", a.ID, "patch.json"): `{"a": 1}`,
			filepath.Join(a.Data, "config.json"):                `{"b": 2}`,
		} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(a.CheckSwitch(root, nil), Switch(root, "app", nil, a, false)); err != nil {
			t.Fatal(err)
		}
		if err := change(a.Data); err != nil {
			t.Skip(err)
		}
		if err := a.CheckSwitch(
			root, nil,
		); !errors.Is(err, ErrData) && what != "the directory is gone" ||
			err != nil && what == "the directory is gone" {
			t.Errorf("%s, before a switch: %v", what, err)
		}
		if err := Switch(root, "app", a, nil, true); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if left, _ := os.ReadDir(filepath.Join(base, "replaced")); len(left) > 0 {
			t.Errorf("%s: %v is left", what, left)
		}
	}
}

// TestFunctions checks that the functions known when a template is bundled are those available
// on a site.
func TestFunctions(t *testing.T) {
	have := sortedKeys((&renderer{}).functions())
	want := slices.Sorted(slices.Values(bundle.TemplateFunctions))
	if !slices.Equal(have, want) {
		t.Errorf("a site has %v, and templates may call %v", have, want)
	}
}
