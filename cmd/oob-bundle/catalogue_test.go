package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/bundletest"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// amd64Only are the images that exist for linux/amd64 alone.
func amd64Only(ref string) bool {
	return strings.Contains(ref, "/mattermost-enterprise-edition:") || strings.Contains(ref, "/vllm/")
}

// site is one machine of each side.
type site struct {
	t   *testing.T
	up  *bundletest.Upstream
	key *bundletest.Key
	dir string
}

func newSite(t *testing.T) *site {
	return &site{t, bundletest.NewUpstream(t), bundletest.NewKey(t), t.TempDir()}
}

// stock makes everything of an architecture that there is for the choice.
func (s *site) stock(name string, c manifests.Choice) *manifests.Selection {
	s.t.Helper()
	m, err := manifests.Open(name)
	if err != nil {
		s.t.Fatal(err)
	}
	all, err := m.Describe(c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.up.Add(all, amd64Only)
	return all
}

// oob runs the program and returns its exit status and what it said.
func (s *site) oob(args ...string) (status int, stdout, stderr string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	status = run(args, &out, &errs)
	return status, out.String(), errs.String()
}

func (s *site) must(args ...string) string {
	s.t.Helper()
	status, stdout, stderr := s.oob(args...)
	if status != 0 {
		s.t.Fatalf("oob-bundle %s\nexit status %d\n%s", strings.Join(args, " "), status, stderr)
	}
	return stdout
}

func (s *site) create(name string, args ...string) (file string, all []string) {
	file = filepath.Join(s.dir, "b.oob.tar")
	return file, slices.Concat([]string{"create", name, "--key", s.key.Private, "-o", file}, s.up.Flags(), args)
}

// TestCatalogue carries every name of every architecture, for every deployment
// and platform, with everything that is optional, from the stand-in upstream to
// a site's registry.
func TestCatalogue(t *testing.T) {
	for _, name := range manifests.Architectures() {
		m, err := manifests.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range m.Deployments {
			for _, p := range m.Platforms {
				t.Run(strings.Join([]string{name, d, strings.ReplaceAll(p, "/", "-")}, " "), func(t *testing.T) {
					carryArchitecture(t, m, name, d, p)
				})
			}
		}
	}
}

func carryArchitecture(t *testing.T, m *manifests.Manifest, name, deployment, platform string) {
	p, err := bundle.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	all := s.stock(name, manifests.Choice{Deployment: deployment, Platforms: []bundle.Platform{p}, Set: map[string]string{"settings.readiness": "external"}})
	args := []string{"--deployment", deployment, "--platform", platform, "--set", "settings.readiness=external"}
	for _, c := range m.Everything(deployment) {
		args = append(args, "--with", c)
	}
	file, create := s.create(name, args...)
	status, _, stderr := s.oob(create...)
	if platform == "linux/arm64" && deployment != "linux" { // the server has no image for it
		if status != 5 || !strings.Contains(stderr, "mattermost-enterprise-edition:11.7.9, of component mattermost, exists for linux/amd64 only, not for linux/arm64") ||
			!strings.Contains(stderr, "--deployment linux") {
			t.Errorf("exit status %d: %s", status, stderr)
		}
		return
	}
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	if strings.Contains(stderr, "warning") {
		t.Errorf("a chart names what is not carried: %s", stderr)
	}
	s.must("verify", file, "--key", s.key.Public, "--root", s.dir)
	root := filepath.Join(s.dir, "root")
	s.must("install", file, "--key", s.key.Public, "--root", root)
	var seen inspectJSON
	if err := json.Unmarshal([]byte(s.must("inspect", file, "--json")), &seen); err != nil {
		t.Fatal(err)
	}
	if len(seen.Images) != 2*len(all.Images)+len(all.Charts) || // each with its signature
		len(seen.Plugins) != len(all.Plugins) || len(seen.Charts) != len(all.Charts) || len(seen.Files) != len(all.Files) {
		t.Errorf("%d images, %d plugins, %d charts, %d files; the catalogue has %d, %d, %d, %d", len(seen.Images), len(seen.Plugins), len(seen.Charts), len(seen.Files),
			len(all.Images), len(all.Plugins), len(all.Charts), len(all.Files))
	}
	// The lock gives the same bundle again, outside of the signature.
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.must(slices.Concat([]string{"create", name, "--key", s.key.Private, "-o", file, "--lock", file + ".lock.yaml"}, s.up.Flags())...)
	second, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, err := bundle.ReadHead(bytes.NewReader(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	from, to := head.SlotOffset(), head.SlotOffset()+bundle.SlotSize
	if !bytes.Equal(first[:from], second[:from]) || !bytes.Equal(first[to:], second[to:]) {
		t.Error("the same lock gave other bytes")
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "*.partial*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestCatalogueRules breaks each rule; the error names both sides and, where
// there is one, a version that would fit.
func TestCatalogueRules(t *testing.T) {
	s := newSite(t)
	for _, d := range []string{"compose", "kubernetes"} {
		for _, set := range []map[string]string{
			{}, {"versions.mattermost": "11.9.1"}, {"versions.boards": "9.3.1"}, {"versions.recorder": "v0.9.0"}, {"versions.transcriber": "v0.3.0"},
			{"versions.rtcd": "v0.16.0"}, {"versions.offloader": "v0.8.0"}, {"versions.postgres": "13"}, {"versions.rtcd": "v0.17.0"}, {"settings.readiness": "external"},
		} {
			s.stock("ddil", manifests.Choice{Deployment: d, Set: set})
		}
	}
	for name, test := range map[string]struct {
		args   []string
		status int
		texts  []string
	}{
		"as it comes":           {nil, 0, nil},
		"a newer server":        {[]string{"--set", "versions.mattermost=11.9.1"}, 0, nil},
		"a plugin that is new":  {[]string{"--set", "versions.boards=9.3.1"}, 5, []string{"focalboard 9.3.1", "11.9.0 or newer", "for 11.7.9", "versions.boards=9.2.7 would fit this server", "versions.mattermost=11.9.1 would fit this plugin"}},
		"another recorder":      {[]string{"--with", "calls-offloader", "--set", "versions.recorder=v0.9.0"}, 5, []string{"calls-recorder:v0.9.0 does not fit", "com.mattermost.calls 1.11.6 asks for exactly v0.8.13", "versions.recorder=v0.8.13 would fit"}},
		"another transcriber":   {[]string{"--with", "calls-offloader", "--set", "versions.transcriber=v0.3.0"}, 5, []string{"calls-transcriber:v0.3.0 does not fit", "versions.transcriber=v0.7.2 would fit"}},
		"an old rtcd":           {[]string{"--with", "rtcd", "--set", "versions.rtcd=v0.16.0"}, 5, []string{"rtcd:v0.16.0 does not fit", "v0.17.0 or newer", "versions.rtcd=v0.17.0 would fit"}},
		"the oldest rtcd":       {[]string{"--with", "rtcd", "--set", "versions.rtcd=v0.17.0"}, 0, nil},
		"an old offloader":      {[]string{"--with", "calls-offloader", "--set", "versions.offloader=v0.8.0"}, 5, []string{"v0.9.0 or newer"}},
		"an old PostgreSQL":     {[]string{"--set", "versions.postgres=13"}, 5, []string{"postgres is 13 and has to be >=14", "Mattermost 11 needs", "versions.postgres=14 would fit"}},
		"an old server":         {[]string{"--set", "versions.mattermost=10.11.23"}, 5, []string{"mattermost is 10.11.23"}},
		"no image for arm64":    {[]string{"--platform", "linux/arm64"}, 5, []string{"exists for linux/amd64 only", "--deployment linux"}},
		"builtin on the ESR":    {[]string{"--deployment", "kubernetes", "--set", "settings.readiness=builtin"}, 5, []string{"mattermost is 11.7.9 and has to be >=11.9.0 with readiness=builtin", "versions.mattermost=11.9.1 would fit"}},
		"builtin, new enough":   {[]string{"--deployment", "kubernetes", "--set", "settings.readiness=builtin", "--set", "versions.mattermost=11.9.1"}, 0, nil},
		"an old operator":       {[]string{"--deployment", "kubernetes", "--set", "settings.readiness=builtin", "--set", "versions.mattermost=11.9.1", "--set", "versions.operator=v1.25.4"}, 5, []string{"operator is v1.25.4", "versions.operator=1.25.8 would fit"}},
		"unknown component":     {[]string{"--with", "ai"}, 2, []string{`"ai": there is no such component; optional ones are`, "ollama"}},
		"not for this one":      {[]string{"--with", "operator-manifest"}, 2, []string{"it is for --deployment kubernetes"}},
		"an unknown version":    {[]string{"--set", "versions.matermost=11.9.1"}, 2, []string{`there is no "matermost" among the versions`}},
		"an unknown hash":       {[]string{"--set", "sha256.tow=first-use"}, 2, []string{"sha256.tow: nothing asks for that hash", "server-linux-amd64"}},
		"no value":              {[]string{"--set", "versions.mattermost"}, 2, []string{"KEY=VALUE"}},
		"needed by another":     {[]string{"--with", "rtcd", "--without", "calls"}, 2, []string{`"rtcd" needs it`}},
		"without what is there": {[]string{"--without", "object-storage"}, 0, nil},
		"an unknown deployment": {[]string{"--deployment", "windows"}, 2, []string{"compose, linux, kubernetes"}},
		"an unpinned file":      {[]string{"--deployment", "linux", "--platform", "linux/arm64"}, 5, []string{"--set sha256.server-linux-arm64=HEX", "first-use"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"lock", "ddil"}
			if !slices.Contains(test.args, "--deployment") {
				args = append(args, "--deployment", "compose")
			}
			args = slices.Concat(args, s.up.Flags(), test.args, []string{"-o", filepath.Join(t.TempDir(), "lock.yaml")})
			status, _, stderr := s.oob(args...)
			if status != test.status {
				t.Errorf("exit status %d: %s", status, stderr)
			}
			for _, text := range test.texts {
				if !strings.Contains(stderr, text) {
					t.Errorf("%s\nlacks %q", stderr, text)
				}
			}
		})
	}
}

// TestRulesReadTheArchive: what a plugin dictates is read from its archive, not
// from what the catalogue thinks of it.
func TestRulesReadTheArchive(t *testing.T) {
	s := newSite(t)
	all := s.stock("ddil", manifests.Choice{Deployment: "compose"})
	args := slices.Concat([]string{"lock", "ddil", "--deployment", "compose", "--with", "calls-offloader", "-o", filepath.Join(s.dir, "l.yaml")}, s.up.Flags())
	s.must(args...)
	for _, p := range all.Plugins {
		if p.ID == "com.mattermost.calls" {
			f := bundletest.PluginFacts(p.ID, p.Version)
			f.Props["calls_recorder_version"] = "v0.8.99"
			s.up.Plugin(p.URL, f)
		}
	}
	if status, _, stderr := s.oob(args...); status != 5 || !strings.Contains(stderr, "v0.8.99") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	for _, p := range all.Plugins {
		if p.ID == "com.mattermost.calls" {
			f := bundletest.PluginFacts(p.ID, p.Version)
			f.MinServer = "11.8.0"
			s.up.Plugin(p.URL, f)
		}
	}
	if status, _, stderr := s.oob(args...); status != 5 || !strings.Contains(stderr, "needs a server of version 11.8.0 or newer") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
}

// TestPluginSignatures: a plugin that is not signed by the right key does not
// get in, and nothing of it is kept.
func TestPluginSignatures(t *testing.T) {
	s := newSite(t)
	all := s.stock("ddil", manifests.Choice{Deployment: "compose"})
	i := slices.IndexFunc(all.Plugins, func(p manifests.WantedPlugin) bool { return p.ID == "playbooks" })
	p := all.Plugins[i]
	good := bundletest.PluginFacts(p.ID, p.Version)
	file, create := s.create("ddil", "--deployment", "compose")
	for name, test := range map[string]struct {
		do     func()
		status int
		text   string
	}{
		"signed by somebody else": {func() {
			data := good.Archive()
			s.up.Page(p.URL, data)
			s.up.Page(p.Signature, bundletest.SignPGP(t, bundletest.NewPGP(t), data))
		}, 4, "it is not signed by mattermost-plugins"},
		"changed after it was signed": {func() { s.up.Page(p.URL, good.Archive(bundletest.File{Name: "playbooks/more", Mode: 0o644})) }, 4, "not signed"},
		"a signature of air":          {func() { s.up.Page(p.Signature, nil) }, 4, "not signed"},
		"a web page as signature":     {func() { s.up.Page(p.Signature, []byte("<html>")) }, 4, "not signed"},
		"another plugin": {func() {
			f := good
			f.ID = "acme"
			s.up.Plugin(p.URL, f)
		}, 5, `"acme"`},
		"another version": {func() {
			f := good
			f.Version = "2.9.5"
			s.up.Plugin(p.URL, f)
		}, 5, "2.9.5"},
	} {
		t.Run(name, func(t *testing.T) {
			s.up.Plugin(p.URL, good)
			test.do()
			status, _, stderr := s.oob(create...)
			if status != test.status || !strings.Contains(stderr, test.text) {
				t.Errorf("exit status %d: %s", status, stderr)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("there is a bundle")
			}
		})
	}
	// And with the right one it goes on, whatever the runs before left.
	s.up.Plugin(p.URL, good)
	s.must(create...)
}
