package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	goyaml "go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/record"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// amd64Only reports whether the image ref exists only for linux/amd64.
func amd64Only(ref string) bool {
	return strings.Contains(ref, "/mattermost-enterprise-edition:") || strings.Contains(ref, "/vllm/")
}

// site is an upstream and a directory for the connected and the isolated side.
type site struct {
	t   *testing.T
	up  *world.Upstream
	key *world.Key
	dir string
}

func newSite(t *testing.T) *site {
	return &site{t, world.NewUpstream(t), world.NewKey(t), t.TempDir()}
}

// stock adds all content of an architecture for the choice to the upstream.
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

// oob runs the program and returns its exit status and output.
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

// TestCatalogue carries every architecture, for every deployment and platform and with all
// optional components, from the stand-in upstream to a site's registry.
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

// siteValues are the values that a site must provide.
const siteValues = "domain: chat.site.mil\ncallsHost: 192.0.2.7\nsmtpServer: mail.site.mil\n"

func carryArchitecture(t *testing.T, m *manifests.Manifest, name, deployment, platform string) {
	p, err := bundle.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	all := s.stock(
		name,
		manifests.Choice{Deployment: deployment, Platforms: []bundle.Platform{p}, Set: map[string]string{"settings.readiness": "external"}},
	)
	args := []string{"--deployment", deployment, "--platform", platform, "--set", "settings.readiness=external"}
	for _, c := range m.Everything(deployment) {
		args = append(args, "--with", c)
	}
	file, create := s.create(name, args...)
	status, _, stderr := s.oob(create...)
	if platform == "linux/arm64" && deployment != "linux" { // there is no arm64 image of the server
		if status != 5 ||
			!strings.Contains(
				stderr,
				"mattermost-enterprise-edition:11.7.9, of component mattermost, exists for linux/amd64 only, not for linux/arm64",
			) ||
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
	values := filepath.Join(s.dir, "site.yaml")
	world.Write(t, values, []byte(siteValues), 0o600)
	hostRoot := filepath.Join(s.dir, "host")
	s.must("install", file, "--key", s.key.Public, "--root", root, "--values", values, "--host-root", hostRoot)
	checkLaidOut(t, root, hostRoot, name, deployment)
	checkNamed(t, root, name)
	if deployment == "compose" {
		checkServices(t, filepath.Join(root, "deployments", name, "current/compose.yaml"), all, configured)
		world.Write(t, values, []byte(siteValues+configuredValues(m)), 0o600)
		s.must("install", file, "--key", s.key.Public, "--root", root, "--values", values, "--host-root", hostRoot)
		checkServices(t, filepath.Join(root, "deployments", name, "current/compose.yaml"), all, nil)
	}
	s.must("status", "--check", "--root", root)
	var seen record.Summary
	if err := json.Unmarshal([]byte(s.must("inspect", file, "--json")), &seen); err != nil {
		t.Fatal(err)
	}
	if len(seen.Images) != 2*len(all.Images)+len(all.Charts) || // each with its signature
		len(seen.Plugins) != len(all.Plugins) || len(seen.Charts) != len(all.Charts) || len(seen.Files) != len(all.Files) {
		t.Errorf(
			"%d images, %d plugins, %d charts, %d files; the catalogue has %d, %d, %d, %d",
			len(seen.Images), len(seen.Plugins), len(seen.Charts), len(seen.Files), len(all.Images), len(all.Plugins),
			len(all.Charts), len(all.Files),
		)
	}
	checkLock(t, s, name, file)
	if left, _ := filepath.Glob(filepath.Join(s.dir, "*.partial*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// checkNamed requires that every image of a release is named in a file that says what runs, or
// in READ-ME-FIRST.txt, which says what does not.
func checkNamed(t *testing.T, root, name string) {
	t.Helper()
	current, err := host.Current(root, name)
	if err != nil {
		t.Fatal(err)
	}
	about, err := host.ReadRelease(root, name, current)
	if err != nil {
		t.Fatal(err)
	}
	text := whatRuns(t, root, about)
	receipts, err := filepath.Glob(filepath.Join(root, "receipts", name+"-*.json"))
	if err != nil || len(receipts) != 1 {
		t.Fatal(receipts, err)
	}
	receipt, err := ledger.ReadReceipt(root, filepath.Base(receipts[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range receipt.Images {
		ref, err := bundle.ParseReference(i.Upstream)
		if err != nil {
			t.Fatal(err)
		}
		names := []string{string(i.Digest), ref.Name + ":" + ref.Tag, ref.Name + "\n"}
		for _, d := range i.Manifests {
			names = append(names, string(d))
		}
		if i.Index != "" {
			names = append(names, string(i.Index))
		}
		named := slices.ContainsFunc(names, func(n string) bool { return strings.Contains(text, n) })
		if !named && !strings.HasSuffix(i.Upstream, ".sig") && !isChart(about, ref) {
			t.Errorf("nothing that runs, and no text, names %s", i.Upstream)
		}
	}
}

// whatRuns returns the files of a release that say what runs, or what does not.
func whatRuns(t *testing.T, root string, about *host.About) string {
	t.Helper()
	files := []string{"compose.yaml", "READ-ME-FIRST.txt"}
	for _, s := range about.Cluster {
		files = append(files, s.Apply, s.Values)
	}
	var text strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(host.Base(root, about.Name), "current", f))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && f != "" {
			t.Fatal(err)
		}
		text.Write(data)
	}
	return text.String()
}

// isChart reports whether a reference is that of a chart that the release applies.
func isChart(a *host.About, ref bundle.Reference) bool {
	return slices.ContainsFunc(a.Cluster, func(s host.Step) bool {
		return s.Chart == "charts/"+path.Base(ref.Name)+"-"+ref.Tag+".tgz"
	})
}

// checkLock wants the lock to give the same bundle again, outside of the signature.
func checkLock(t *testing.T, s *site, name, file string) {
	t.Helper()
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
}

// configured maps components that run only if the site enables them to the value that does so.
var configured = map[string]string{
	"push-proxy": "pushProxy: true", "synapse": "synapse: true", "libretranslate": "libretranslate: true", "vllm": "vllmModel: models/x",
}

// configuredValues returns the values that enable all such components of an architecture.
func configuredValues(m *manifests.Manifest) string {
	text := ""
	for _, c := range m.Everything("compose") {
		if line := configured[c]; line != "" {
			text += line + "\n"
		}
	}
	return text
}

// checkServices checks that a service runs each carried image, except images that another
// service starts and images of the components in without. Those must not run.
func checkServices(t *testing.T, file string, all *manifests.Selection, without map[string]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var services struct {
		Services map[string]struct{ Image string }
	}
	if err := goyaml.Unmarshal(text, &services); err != nil {
		t.Fatal(err)
	}
	run := map[string]bool{}
	for name, s := range services.Services {
		if without[name] != "" {
			t.Errorf("%s runs, and the site has not configured it", name)
		}
		repository, _, _ := strings.Cut(strings.TrimPrefix(s.Image, "127.0.0.1:5000/"), "@")
		run[repository] = true
	}
	for _, i := range all.Images {
		name := i.Reference.Repository()
		component := path.Base(name)
		switch component {
		case "calls-recorder", "calls-transcriber": // calls-offloader starts them
			continue
		case "postgres": // pgvector's image is PostgreSQL too
			name = strings.Replace(name, "library/postgres", "pgvector/pgvector", 1)
			if !run[name] {
				name = i.Reference.Repository()
			}
		case "mattermost-push-proxy":
			component = "push-proxy"
		case "vllm-openai":
			component = "vllm"
		}
		if run[name] != (without[component] == "") {
			t.Errorf("%s is run: %t", name, run[name])
		}
	}
}

// checkLaidOut checks the files of a deployment on the host.
func checkLaidOut(t *testing.T, root, hostRoot, name, deployment string) {
	t.Helper()
	current := filepath.Join(root, "deployments", name, "current")
	release, err := filepath.EvalSymlinks(current)
	if err != nil {
		t.Fatal(err)
	}
	passwords := secretsOf(t, root, name)
	if len(passwords["databasePassword"]) != 32 {
		t.Errorf("the password of the database is %q", passwords["databasePassword"])
	}
	secret := func(data []byte) bool {
		return slices.ContainsFunc(slices.Collect(maps.Values(passwords)), func(p string) bool {
			return bytes.Contains(data, []byte(p))
		})
	}
	err = filepath.WalkDir(release, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(p, release+"/")
		if fi, err := d.Info(); err != nil {
			return err
		} else if secret(data) != (fi.Mode().Perm() == 0o600) {
			t.Errorf("%s has the mode %v", rel, fi.Mode())
		}
		if strings.HasPrefix(rel, "runtime/") {
			return nil // these files contain upstream names
		}
		checkText(t, rel, data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range map[string][]string{
		"compose": {
			"compose.yaml", "mattermost.env", "postgres.env", "nginx/conf.d/default.conf", "airgap.json",
			"READ-ME-FIRST.txt", "runtime/k3s/registries.yaml",
		},
		"linux": {
			"mattermost-*/bin/mattermost", "systemd/mattermost.service", "nginx/mattermost.conf", "mattermost.env",
			"create-database.sql",
		},
		"kubernetes": {
			"kubernetes/mattermost.yaml", "kubernetes/secrets.yaml", "kubernetes/database.yaml",
			"values/cloudnative-pg.yaml", "runtime/containerd/docker.io/hosts.toml",
			"runtime/containers/registries.conf",
		},
	}[deployment] {
		if found, _ := filepath.Glob(filepath.Join(release, want)); len(found) == 0 {
			t.Errorf("there is no %s", want)
		}
	}
	if deployment == "linux" {
		unit, err := os.ReadFile(filepath.Join(hostRoot, "etc/systemd/system/mattermost.service"))
		if err != nil || !bytes.Contains(unit, []byte(current+"/mattermost-")) {
			t.Errorf("%v: %s", err, unit)
		}
	}
	if deployment != "kubernetes" {
		checkEnvironment(t, filepath.Join(release, "mattermost.env"))
	}
}

// checkText checks that a file of a release names only images of the site's registry, and that
// a .yaml file contains valid YAML.
func checkText(t *testing.T, rel string, data []byte) {
	t.Helper()
	for _, line := range strings.Split(string(data), "\n") {
		_, image, ok := strings.Cut(strings.ToLower(line), "image: ")
		image = strings.Trim(image, `" `)
		if ok && image != "" && !strings.HasPrefix(image, "127.0.0.1:5000/") &&
			!strings.HasPrefix(image, "registry.k8s.io/ingress-nginx/") {
			t.Errorf("%s names another image than the site's: %s", rel, line)
		}
	}
	if strings.HasSuffix(rel, ".yaml") {
		var doc any
		for dec := goyaml.NewDecoder(bytes.NewReader(data)); ; {
			if err := dec.Decode(&doc); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("%s: %v\n%s", rel, err, data)
				}
				break
			}
		}
	}
}

// checkEnvironment checks the air-gap settings in the server's environment file.
func checkEnvironment(t *testing.T, file string) {
	t.Helper()
	env, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"MM_CLOUDSETTINGS_DISABLE=true", "MM_PLUGINSETTINGS_REQUIREPLUGINSIGNATURE=true",
		"MM_LOGSETTINGS_ENABLEDIAGNOSTICS=false", "MM_SERVICESETTINGS_ENABLESECURITYFIXALERT=false",
		"MM_EMAILSETTINGS_SMTPSERVER=mail.site.mil", "MM_EMAILSETTINGS_SENDEMAILNOTIFICATIONS=true",
	} {
		if !strings.Contains(string(env), line+"\n") {
			t.Errorf("mattermost.env does not say %s:\n%s", line, env)
		}
	}
}

// secretsOf reads the passwords that were generated on a site.
func secretsOf(t *testing.T, root, name string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "deployments", name, "secrets.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list map[string]string
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestCatalogueRules breaks each compatibility rule. The error must name both components and,
// if one exists, a version that fits.
func TestCatalogueRules(t *testing.T) {
	s := newSite(t)
	for _, d := range []string{"compose", "kubernetes"} {
		for _, set := range []map[string]string{
			{}, {"versions.mattermost": "11.9.1"}, {"versions.boards": "9.3.1"}, {"versions.recorder": "v0.9.0"}, {"versions.transcriber": "v0.3.0"},
			{"versions.rtcd": "v0.16.0"}, {"versions.offloader": "v0.8.0"}, {"versions.postgres": "13"},
			{"versions.rtcd": "v0.17.0"}, {"settings.readiness": "external"},
		} {
			s.stock("ddil", manifests.Choice{Deployment: d, Set: set})
		}
	}
	for name, test := range map[string]struct {
		args   []string
		status int
		texts  []string
	}{
		"as it comes":    {nil, 0, nil},
		"a newer server": {[]string{"--set", "versions.mattermost=11.9.1"}, 0, nil},
		"a plugin that is new": {
			[]string{"--set", "versions.boards=9.3.1"}, 5,
			[]string{
				"focalboard 9.3.1", "11.9.0 or newer", "for 11.7.9", "versions.boards=9.2.7 would fit this server",
				"versions.mattermost=11.9.1 would fit this plugin",
			},
		},
		"another recorder": {
			[]string{"--with", "calls-offloader", "--set", "versions.recorder=v0.9.0"}, 5,
			[]string{
				"calls-recorder:v0.9.0 does not fit", "com.mattermost.calls 1.11.6 asks for exactly v0.8.13",
				"versions.recorder=v0.8.13 would fit",
			},
		},
		"another transcriber": {
			[]string{"--with", "calls-offloader", "--set", "versions.transcriber=v0.3.0"}, 5,
			[]string{"calls-transcriber:v0.3.0 does not fit", "versions.transcriber=v0.7.2 would fit"},
		},
		"an old rtcd": {
			[]string{"--with", "rtcd", "--set", "versions.rtcd=v0.16.0"}, 5,
			[]string{"rtcd:v0.16.0 does not fit", "v0.17.0 or newer", "versions.rtcd=v0.17.0 would fit"},
		},
		"the oldest rtcd":  {[]string{"--with", "rtcd", "--set", "versions.rtcd=v0.17.0"}, 0, nil},
		"an old offloader": {[]string{"--with", "calls-offloader", "--set", "versions.offloader=v0.8.0"}, 5, []string{"v0.9.0 or newer"}},
		"an old PostgreSQL": {
			[]string{"--set", "versions.postgres=13"}, 5,
			[]string{"postgres is 13 and has to be >=14", "Mattermost 11 needs", "versions.postgres=14 would fit"},
		},
		"an old server":      {[]string{"--set", "versions.mattermost=10.11.23"}, 5, []string{"mattermost is 10.11.23"}},
		"no image for arm64": {[]string{"--platform", "linux/arm64"}, 5, []string{"exists for linux/amd64 only", "--deployment linux"}},
		"builtin on the ESR": {
			[]string{"--deployment", "kubernetes", "--set", "settings.readiness=builtin"}, 5, []string{
				"mattermost is 11.7.9 and has to be >=11.9.0 with readiness=builtin", "versions.mattermost=11.9.1 would fit",
			},
		},
		"builtin, new enough": {
			[]string{
				"--deployment", "kubernetes", "--set", "settings.readiness=builtin", "--set",
				"versions.mattermost=11.9.1", "--with", "operator-manifest",
			},
			0, nil,
		},
		"builtin, by the chart": {
			[]string{"--deployment", "kubernetes", "--set", "settings.readiness=builtin", "--set", "versions.mattermost=11.9.1"},
			5, []string{
				"operator-manifest has to be carried with readiness=builtin: the chart", "--with operator-manifest would fit",
			},
		},
		"an old operator": {
			[]string{
				"--deployment", "kubernetes", "--set", "settings.readiness=builtin", "--set",
				"versions.mattermost=11.9.1", "--set", "versions.operator=v1.25.4",
			},
			5, []string{"operator is v1.25.4", "versions.operator=1.25.8 would fit"},
		},
		"unknown component":  {[]string{"--with", "ai"}, 2, []string{`"ai": there is no such component; optional ones are`, "ollama"}},
		"not for this one":   {[]string{"--with", "operator-manifest"}, 2, []string{"it is for --deployment kubernetes"}},
		"an unknown version": {[]string{"--set", "versions.matermost=11.9.1"}, 2, []string{`there is no "matermost" among the versions`}},
		"an unknown hash": {
			[]string{"--set", "sha256.tow=first-use"}, 2,
			[]string{"sha256.tow: nothing asks for that hash", "server-linux-amd64"},
		},
		"no value":              {[]string{"--set", "versions.mattermost"}, 2, []string{"KEY=VALUE"}},
		"needed by another":     {[]string{"--with", "rtcd", "--without", "calls"}, 2, []string{`"rtcd" needs it`}},
		"without what is there": {[]string{"--without", "object-storage"}, 0, nil},
		"an unknown deployment": {[]string{"--deployment", "windows"}, 2, []string{"compose, linux, kubernetes"}},
		"an unpinned file": {
			[]string{"--deployment", "linux", "--platform", "linux/arm64"}, 5,
			[]string{"--set sha256.server-linux-arm64=HEX", "first-use"},
		},
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

// TestRulesReadTheArchive checks that a plugin's requirements are read from its archive, not
// from the catalogue.
func TestRulesReadTheArchive(t *testing.T) {
	s := newSite(t)
	all := s.stock("ddil", manifests.Choice{Deployment: "compose"})
	args := slices.Concat(
		[]string{"lock", "ddil", "--deployment", "compose", "--with", "calls-offloader", "-o", filepath.Join(s.dir, "l.yaml")},
		s.up.Flags(),
	)
	s.must(args...)
	for _, p := range all.Plugins {
		if p.ID == "com.mattermost.calls" {
			f := world.PluginFacts(p.ID, p.Version)
			f.Props["calls_recorder_version"] = "v0.8.99"
			s.up.Plugin(p.URL, f)
		}
	}
	if status, _, stderr := s.oob(args...); status != 5 || !strings.Contains(stderr, "v0.8.99") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	for _, p := range all.Plugins {
		if p.ID == "com.mattermost.calls" {
			f := world.PluginFacts(p.ID, p.Version)
			f.MinServer = "11.8.0"
			s.up.Plugin(p.URL, f)
		}
	}
	if status, _, stderr := s.oob(args...); status != 5 || !strings.Contains(stderr, "needs a server of version 11.8.0 or newer") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
}

// TestPluginSignatures: a plugin without a valid signature by the right key, or with another ID
// or version, is refused, and no bundle is written.
func TestPluginSignatures(t *testing.T) {
	s := newSite(t)
	all := s.stock("ddil", manifests.Choice{Deployment: "compose"})
	i := slices.IndexFunc(all.Plugins, func(p manifests.WantedPlugin) bool { return p.ID == "playbooks" })
	p := all.Plugins[i]
	good := world.PluginFacts(p.ID, p.Version)
	file, create := s.create("ddil", "--deployment", "compose")
	for name, test := range map[string]struct {
		do     func()
		status int
		text   string
	}{
		"signed by somebody else": {func() {
			data := good.Archive()
			s.up.Page(p.URL, data)
			s.up.Page(p.Signature, world.SignPGP(t, world.NewPGP(t), data))
		}, 4, "it is not signed by mattermost-plugins"},
		"changed after it was signed": {func() {
			s.up.Page(p.URL, good.Archive(world.File{Name: "playbooks/more", Mode: 0o644}))
		}, 4, "not signed"},
		"a signature of air":      {func() { s.up.Page(p.Signature, nil) }, 4, "not signed"},
		"a web page as signature": {func() { s.up.Page(p.Signature, []byte("<html>")) }, 4, "not signed"},
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
	// The correct plugin is accepted after the failed runs.
	s.up.Plugin(p.URL, good)
	s.must(create...)
}
