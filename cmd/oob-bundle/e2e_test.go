//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/santhosh-tekuri/jsonschema/v6"
	goyaml "go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/operate"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// machine is an isolated host with its own container engine. Its network namespace has a
// loopback device and a default route that leads nowhere and counts packets.
type machine struct {
	side
	name  string
	root  string                   // ROOT of oob-bundle
	enter func(line string) string // wraps a shell line to run it on the machine
	psql  string                   // command that runs psql in the database's container
}

// isolate creates the network namespace of a machine.
func (s side) isolate(name string) {
	s.Helper()
	_, _ = s.try("ip netns del " + name + " 2>/dev/null")
	s.sh("ip netns add " + name + " && ip -n " + name + " link set lo up && ip -n " + name + " link add out type veth peer name nowhere")
	s.sh("nsenter --net=/var/run/netns/" + name + " sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6'")
	s.sh("ip -n " + name + " link set nowhere up && ip -n " + name + " link set out up && ip -n " + name + " addr add 203.0.113.2/24 dev out")
	s.sh("ip -n " + name + " neigh add 203.0.113.1 lladdr 02:00:00:00:00:01 dev out && ip -n " + name + " route add default via 203.0.113.1")
}

// newMachine returns a machine with a Docker engine.
func newMachine(s side, name string) *machine {
	dir := filepath.Join(s.dir, name)
	socket := filepath.Join(dir, "docker.sock")
	m := &machine{
		side: s,
		name: name,
		root: filepath.Join(dir, "root"),
		psql: "docker exec $(docker ps -q --filter label=com.docker.compose.service=postgres) psql",
	}
	m.enter = func(line string) string {
		return "export DOCKER_HOST=unix://" + socket + "; exec nsenter --net=/var/run/netns/" + name + " bash -euo pipefail -c " + quote(line)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.Fatal(err)
	}
	s.isolate(name)
	s.write(
		name+"/daemon.json",
		fmt.Sprintf(`{"data-root": "%[1]s/data", "exec-root": "%[1]s/run", "pidfile": "%[1]s/pid", "storage-driver": %[2]q}`,
			dir, s.sh("docker info --format '{{.Driver}}'")),
	)
	cmd := exec.Command("nsenter", "--net=/var/run/netns/"+name, "dockerd", "--config-file", dir+"/daemon.json", "--host", "unix://"+socket)
	log, err := os.Create(dir + "/dockerd.log")
	if err != nil {
		s.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if s.Failed() {
			out, _ := s.try(
				m.enter(
					"for c in $(docker ps -aq); do docker inspect --format '{{.Name}} {{.State.Status}}' $c; docker logs --tail 400 " +
						"$c 2>&1 | grep -iE 'plugin|error|fatal|signature' | tail -25 || true; done; grep -hiE " +
						"'plugin|signature|error' " + m.root + "/deployments/*/data/mattermost/logs/mattermost.log | tail -40",
				),
			)
			s.Log(out)
		}
		_, _ = m.try(m.enter("docker ps -aq | xargs -r docker rm -f"))
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		_ = log.Close()
		_, _ = s.try("ip netns del " + name)
	})
	m.sh(m.enter("for _ in $(seq 60); do docker info >/dev/null 2>&1 && exit 0; sleep 0.5; done; tail -5 " + dir + "/dockerd.log >&2; exit 1"))
	return m
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// run runs a shell line on the machine and returns its stdout.
func (m *machine) run(line string) string {
	m.Helper()
	return m.sh(m.enter(line))
}

// exits runs oob-bundle on the machine and returns its exit status and stderr.
func (m *machine) exits(args string) (int, string) {
	m.Helper()
	out, _ := m.try(m.enter("oob-bundle " + args + " 2>&1 >/dev/null && echo exit 0 || echo exit $?"))
	i := strings.LastIndex(out, "exit ")
	if i < 0 {
		m.Fatalf("oob-bundle %s: %s", args, out)
	}
	code, err := strconv.Atoi(strings.TrimSpace(out[i+5:]))
	if err != nil {
		m.Fatal(err)
	}
	return code, out[:i]
}

// sent returns the number of packets sent to the default route.
func (m *machine) sent() int {
	m.Helper()
	n, err := strconv.Atoi(m.run("cat /proc/net/dev | awk '$1==\"out:\" {print $11}'"))
	if err != nil {
		m.Fatal(err)
	}
	return n
}

// api sends a request to the server's port on the machine.
func (m *machine) api(token, method, path, body string) (status int, answer string) {
	m.Helper()
	out := m.run(
		fmt.Sprintf(
			"curl -sS -m 20 -o answer.%[1]s -w '%%{http_code}' -X %[2]s -H 'Authorization: Bearer %[3]s' -d %[4]s "+
				"http://127.0.0.1:8065%[5]s; echo; cat answer.%[1]s",
			m.name, method, token, quote(body), path,
		),
	)
	code, rest, _ := strings.Cut(out, "\n")
	status, err := strconv.Atoi(code)
	if err != nil {
		m.Fatal(err, out)
	}
	return status, rest
}

func (m *machine) wants(status int, token, method, path, body string) string {
	m.Helper()
	got, answer := m.api(token, method, path, body)
	if got != status {
		m.Fatalf("%s %s: %d instead of %d: %s", method, path, got, status, answer)
	}
	return answer
}

// migrations returns the number of migrations recorded in the database.
func (m *machine) migrations() int {
	m.Helper()
	n, err := strconv.Atoi(m.run(m.psql + " -U mmuser -d mattermost -tAc 'select count(*) from db_migrations'"))
	if err != nil {
		m.Fatal(err)
	}
	return n
}

func layerOf(t *testing.T, path string) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t *testing.T, c v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := world.Image("linux/amd64")
	img, err := mutate.AppendLayers(img, layers...)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file.Config = c
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

// serverLayer returns a layer with a server, in the layout of its published image.
func (s side) serverLayer(built, binary string) v1.Layer {
	s.Helper()
	name := "layer-" + binary
	s.sh(
		fmt.Sprintf(
			`rm -rf %[1]s && mkdir -p `+
				`%[1]s/mattermost/{bin,config,data,logs,plugins,client/plugins,prepackaged_plugins,bleve-indexes} `+
				`%[1]s/{tmp,etc,var/tmp}
		cp %[2]s/%[3]s %[1]s/mattermost/bin/mattermost && cp %[2]s/mmctl %[1]s/mattermost/bin/ && cp -r %[2]s/share/* %[1]s/mattermost/
		echo 'mattermost:x:2000:2000::/mattermost:/none' >%[1]s/etc/passwd && chmod 1777 %[1]s/tmp %[1]s/var/tmp
		echo '<html></html>' >%[1]s/mattermost/client/root.html
		tar -C %[1]s --owner=2000 --group=2000 --numeric-owner -cf %[1]s.tar . && rm -rf %[1]s`,
			name,
			built,
			binary,
		),
	)
	return layerOf(s.T, filepath.Join(s.dir, name+".tar"))
}

// prepare builds the program into the directory and adds the directory and the tools to PATH.
// It returns the output directory of .ci/e2e-build.
func (s side) prepare() (built string) {
	s.Helper()
	if built = os.Getenv("OOB_E2E"); built == "" {
		s.Fatal("OOB_E2E names the directory that .ci/e2e-build has filled")
	}
	wd, err := os.Getwd()
	if err != nil {
		s.Fatal(err)
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		s.Fatal(err)
	}
	s.Setenv("PATH", filepath.Join(wd, "../../bin/tools")+":"+s.dir+":"+os.Getenv("PATH"))
	s.Setenv("OOB_BUNDLE_PASSWORD", "")
	if out, err := exec.Command(
		"env",
		"CGO_ENABLED=0",
		"go",
		"build",
		"-trimpath",
		"-o",
		filepath.Join(s.dir, "oob-bundle"),
		".",
	).CombinedOutput(); err != nil {
		s.Fatalf("%v %s", err, out)
	}
	return built
}

// Image configurations, as in the published images.
var (
	postgresConfig = v1.Config{
		Env: []string{
			"PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
			"PG_MAJOR=15",
			"PGDATA=/var/lib/postgresql/data",
		},
		Entrypoint: []string{"docker-entrypoint"},
		Cmd:        []string{"postgres"},
		StopSignal: "SIGINT",
	}
	nginxConfig  = v1.Config{Entrypoint: []string{"/usr/sbin/nginx"}, Cmd: []string{"-g", "daemon off;"}, StopSignal: "SIGQUIT"}
	serverConfig = v1.Config{
		User: "2000:2000", WorkingDir: "/mattermost", Cmd: []string{"/mattermost/bin/mattermost"},
		Env: []string{"PATH=/mattermost/bin", "MM_SERVICESETTINGS_ENABLELOCALMODE=true", "MM_INSTALL_TYPE=docker"},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/mattermost/bin/mmctl", "system", "status", "--local"},
			Interval: 5 * time.Second, Timeout: 10 * time.Second, Retries: 3, StartPeriod: 60 * time.Second},
	}
)

// carried makes bundles of the application architecture from the output of .ci/e2e-build:
// one.oob.tar, broken.oob.tar, which does not start, two.oob.tar, and other.oob.tar of another
// channel. It also makes hello.oob.tar of a small manifest. It returns the directory of the
// bundles and the upstream's address.
func carried(t *testing.T) (s side, up string) {
	t.Helper()
	s = side{t, t.TempDir()}
	built := s.prepare()
	l, err := net.Listen("tcp", "127.0.0.1:0") // several of these tests may run in parallel
	if err != nil {
		t.Fatal(err)
	}
	up = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.serve(up)
	push := func(ref string, img v1.Image) {
		if err := world.Push(t.Context(), up+"/docker.io/"+ref, img); err != nil {
			t.Fatal(err)
		}
	}
	debian := layerOf(t, filepath.Join(built, "rootfs.tar"))
	push("library/postgres:15", imageOf(t, postgresConfig, debian))
	push("library/nginx:1.30.4", imageOf(t, nginxConfig, debian))
	older, newer := s.serverLayer(built, "server-1"), s.serverLayer(built, "server-2")
	push("mattermost/mattermost-enterprise-edition:11.7.9", imageOf(t, serverConfig, older))
	push("mattermost/mattermost-enterprise-edition:11.9.1", imageOf(t, serverConfig, newer))
	broken := serverConfig
	broken.Cmd = []string{"/mattermost/bin/mattermost", "db", "migrate"} // migrates, but never serves
	push("mattermost/mattermost-enterprise-edition:11.8.5", imageOf(t, broken, newer))
	other := world.Image("linux/amd64", world.Layer(world.File{Name: "hello", Mode: 0o644, Data: []byte("hello")}))
	push("library/hello:1", other)
	// The signature of the first plugin is carried; the second plugin is carried without one.
	program, err := os.ReadFile(filepath.Join(built, "plugin-linux-amd64"))
	if err != nil {
		t.Fatal(err)
	}
	pgp := world.NewPGP(t)
	s.sh("cp " + world.WritePGP(t, pgp) + " own.asc")
	for _, id := range []string{"mil.example.carried", "mil.example.unsigned"} {
		f := world.Facts{ID: id, Name: id, Version: "1.0.0", MinServer: "10.0.0"}
		f.Server = &struct {
			Executables map[string]string `json:"executables"`
		}{map[string]string{"linux-amd64": "server/plugin"}}
		archive := f.ArchiveOf(program)
		s.write(id+".tar.gz", string(archive))
		s.write(id+".tar.gz.sig", string(world.SignPGP(t, pgp, archive)))
	}
	s.write("application.yaml", `apiVersion: oobbundle.dev/v1
kind: Manifest
metadata: {name: application, version: "${versions.mattermost}"}
include: ["catalogue:components.yaml"]
deployments: [compose]
platforms: [linux/amd64]
keys: {own: own.asc}
components:
  - use: mattermost
  - use: postgres
  - use: nginx
  - name: ours
    plugins:
      - {url: mil.example.carried.tar.gz, signature: mil.example.carried.tar.gz.sig, keys: [own], id: mil.example.carried}
      - {url: mil.example.unsigned.tar.gz, sha256: "`+s.sh("sha256sum mil.example.unsigned.tar.gz | cut "+
		"-d' ' -f1")+`", id: mil.example.unsigned}
`)
	s.write(
		"hello.yaml",
		"apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: hello, version: 1.0.0}\ncomponents:\n  - name: "+
			"hello\n    images: [docker.io/library/hello:1]\n",
	)
	s.sh("oob-bundle key generate")
	create := func(file, manifest, args string) {
		s.sh(
			"oob-bundle create " + manifest + " --key oob.key -o " + file + " --mirror docker.io=" + up + "/docker.io " +
				"--plain-http " + up + " " + args,
		)
	}
	create("one.oob.tar", "application.yaml", "--set versions.postgres=15 --sequence 1")
	create("broken.oob.tar", "application.yaml", "--set versions.postgres=15 --set versions.mattermost=11.8.5 --sequence 2")
	create("two.oob.tar", "application.yaml", "--set versions.postgres=15 --set versions.mattermost=11.9.1 --sequence 3")
	create("other.oob.tar", "application.yaml", "--set versions.postgres=15 --channel another --sequence 9")
	create("hello.oob.tar", "hello.yaml", "")
	return s, up
}

// TestEndToEnd carries the application architecture to an isolated machine, starts it there
// with real PostgreSQL, NGINX and Mattermost, and tests upgrade, rollback, repair and uninstall.
func TestEndToEnd(t *testing.T) {
	s, up := carried(t)
	m := newMachine(s, "oob-e2e-1")
	m.run("! curl -sS -m 3 http://" + up + "/v2/")
	sent := m.sent()
	if template := m.run("oob-bundle values one.oob.tar --key oob.pub"); !strings.Contains(template, "\ndomain:   # needed\n") {
		t.Errorf("the template of values: %s", template)
	}
	flags := " --key oob.pub --root " + m.root + " --host-root " + m.dir + "/etc-of-1 --values site.yaml"
	if code, stderr := m.exits(
		"install one.oob.tar --key oob.pub --root " + m.root,
	); code != 2 ||
		!strings.Contains(stderr, "domain is needed") {
		t.Errorf("without values: exit status %d: %s", code, stderr)
	}
	s.write("site.yaml", "domain: chat.site.mil\nhttpPort: 8080\n")
	if plan := m.run(
		"oob-bundle install one.oob.tar" + flags + " --dry-run",
	); !strings.Contains(plan, "compose.yaml") ||
		!strings.Contains(plan, "mattermost, nginx, postgres") {
		t.Errorf("the plan: %s", plan)
	}
	m.run("test ! -e " + m.root)

	started := time.Now()
	m.run("oob-bundle install one.oob.tar" + flags + " --start")
	t.Logf("installed and started in %s", time.Since(started).Round(time.Second))
	m.run("curl -sS -m 10 -f -H 'Host: chat.site.mil' http://127.0.0.1:8080/api/v4/system/ping")
	m.run("grep -x MM_SERVICESETTINGS_SITEURL=http://chat.site.mil:8080 " + m.root + "/deployments/application/current/mattermost.env")
	before := m.migrations()

	// The server's API reports its settings and plugins.
	m.wants(201, "", "POST", "/api/v4/users", `{"email":"a@site.mil","username":"admin","password":"Correct-horse-1"}`)
	token := m.login()
	m.wants(201, token, "POST", "/api/v4/teams", `{"name":"team","display_name":"Team","type":"O"}`)
	m.checkSettings(token)
	m.checkPlugins(token)

	// An upgrade that does not start is rolled back automatically, with the database.
	code, stderr := m.exits("install broken.oob.tar" + flags + " --start --start-timeout 45s")
	if code != 1 || !strings.Contains(stderr, "did not come up") || !strings.Contains(stderr, "application 11.7.9 runs again") {
		t.Fatalf("the broken release: exit status %d: %s", code, stderr)
	}
	if now := m.migrations(); now != before {
		t.Errorf("%d migrations instead of %d: the dump was not put back", now, before)
	}
	m.wants(200, m.login(), "GET", "/api/v4/teams/name/team", "")

	// An upgrade that starts migrates the database.
	m.run("oob-bundle install two.oob.tar" + flags + " --start")
	if now := m.migrations(); now != before+1 {
		t.Errorf("%d migrations instead of %d: the upgrade did not migrate", now, before+1)
	}
	m.wants(200, m.login(), "GET", "/api/v4/teams/name/team", "")
	m.checkPlugins(m.login())

	// Roll back, and restore the database.
	m.run("oob-bundle rollback --root " + m.root + " --start --restore-database")
	if now := m.migrations(); now != before {
		t.Errorf("%d migrations instead of %d after the rollback", now, before)
	}
	m.wants(200, m.login(), "GET", "/api/v4/teams/name/team", "")
	m.run("oob-bundle install two.oob.tar" + flags + " --start")

	// A bundle of another channel is refused.
	if code, stderr := m.exits("install other.oob.tar" + flags); code != 5 || !strings.Contains(stderr, "belongs to") {
		t.Errorf("another channel's: exit status %d: %s", code, stderr)
	}
	// Drift is detected and repaired.
	m.run("echo '# by hand' >>" + m.root + "/deployments/application/current/nginx/conf.d/default.conf")
	m.run(
		"f=$(find " + m.root + "/registry -name data -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2) && printf x | " +
			"dd of=$f conv=notrunc bs=1 seek=1000 2>/dev/null",
	)
	if code, stderr := m.exits("status --check --root " + m.root); code != 1 || !strings.Contains(stderr, "not as it was installed") {
		t.Errorf("status --check: exit status %d: %s", code, stderr)
	}
	m.run("oob-bundle repair two.oob.tar" + flags)
	m.run("oob-bundle status --check --root " + m.root)

	m.installFromFirst()

	// No packet left the machine. The counter also counts packets of containers.
	if now := m.sent(); now != sent {
		t.Errorf("%d packets left for elsewhere", now-sent)
	}
	m.run("docker exec $(docker ps -q --filter label=com.docker.compose.service=postgres) bash -c 'echo >/dev/udp/198.51.100.1/9'")
	if m.sent() == sent {
		t.Error("the counter does not see what a container sends")
	}
	m.uninstallBesideAnother()
}

// installFromFirst installs the application on a second host from the registry of the first.
func (m *machine) installFromFirst() {
	m.Helper()
	second := m.root + "-of-2"
	m.run(
		"oob-bundle registry serve --root " + m.root + " 2>serve.log & p=$!; trap 'kill $p' EXIT; until curl -sf -m 2 " +
			"http://127.0.0.1:5000/v2/; do sleep 0.2; done; " +
			"oob-bundle install oci://127.0.0.1:5000/oob-bundle/application --plain-http 127.0.0.1:5000 --key oob.pub --values " +
			"site.yaml --root " + second,
	)
	m.run(
		"diff <(sed '1,2d' " + m.root + "/deployments/application/current/airgap.json) " +
			"<(sed '1,2d' " + second + "/deployments/application/current/airgap.json)",
	)
	m.run("oob-bundle status --check --root " + second + " && test ! -e " + second + "/registry")
}

// uninstallBesideAnother installs a second bundle and removes the first one.
func (m *machine) uninstallBesideAnother() {
	m.Helper()
	m.run("oob-bundle install hello.oob.tar --key oob.pub --root " + m.root)
	left := m.run("oob-bundle uninstall application --root " + m.root + " --json")
	var removed operate.UninstallResult
	if err := json.Unmarshal([]byte(left), &removed); err != nil || removed.Removed.Blobs == 0 {
		m.Errorf("%v: %s", err, left)
	}
	m.run(
		"test -s " + m.root + "/deployments/application/data/postgres/PG_VERSION && test ! -e " + m.root + "/deployments/application/current",
	)
	if n := m.run("docker ps -q | wc -l"); n != "0" {
		m.Errorf("%s containers are left", n)
	}
	m.run("oob-bundle status --check --root " + m.root)
	m.secretsStayed()
}

// login logs in and returns a token.
func (m *machine) login() string {
	m.Helper()
	out := m.run(
		`curl -sS -m 20 -D - -o /dev/null -X POST -d '{"login_id":"admin","password":"Correct-horse-1"}' ` +
			`http://127.0.0.1:8065/api/v4/users/login`,
	)
	match := regexp.MustCompile(`(?im)^token: (\S+)`).FindStringSubmatch(out)
	if match == nil {
		m.Fatalf("no token: %s", out)
	}
	return match[1]
}

// checkSettings compares the settings of the running server with all settings in airgap.json.
func (m *machine) checkSettings(token string) {
	m.Helper()
	var config, want map[string]map[string]any
	if err := json.Unmarshal([]byte(m.wants(200, token, "GET", "/api/v4/config", "")), &config); err != nil {
		m.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(m.root, "deployments/application/current/airgap.json"))
	if err != nil {
		m.Fatal(err)
	}
	if err := json.Unmarshal(data, &want); err != nil {
		m.Fatal(err)
	}
	n := 0
	for section, keys := range want {
		for key, value := range keys {
			if key == "PluginStates" {
				continue // the server adds entries
			}
			got, ok := config[section][key]
			if section+"."+key == "ServiceSettings.SplitKey" && strings.Trim(fmt.Sprint(got), "*") == "" {
				continue // the server hides the value
			}
			if fmt.Sprint(got) != fmt.Sprint(value) {
				m.Errorf("%s.%s is %v (%t) instead of %v", section, key, got, ok, value)
			}
			n++
		}
	}
	m.Logf("%d settings read back", n)
}

// checkPlugins checks that only the signed plugin runs and answers, and that uploads are refused.
func (m *machine) checkPlugins(token string) {
	m.Helper()
	var list struct {
		Active []struct{ ID string } `json:"active"`
	}
	if err := json.Unmarshal([]byte(m.wants(200, token, "GET", "/api/v4/plugins", "")), &list); err != nil {
		m.Fatal(err)
	}
	var ids []string
	for _, p := range list.Active {
		ids = append(ids, p.ID)
	}
	if fmt.Sprint(ids) != "[mil.example.carried]" {
		m.Errorf("active plugins: %v", ids)
	}
	if answer := m.wants(200, token, "GET", "/plugins/mil.example.carried/", ""); answer != "carried across" {
		m.Errorf("the plugin says %q", answer)
	}
	if status, answer := m.api(token, "POST", "/api/v4/plugins", ""); status == http.StatusCreated {
		m.Errorf("a plugin can be uploaded: %s", answer)
	}
}

// secretsStayed checks that secrets.json has mode 0600 and that receipts and state.json contain
// no password.
func (m *machine) secretsStayed() {
	m.Helper()
	f, err := os.Open(filepath.Join(m.root, "deployments/application/secrets.json"))
	if err != nil {
		m.Fatal(err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || fi.Mode().Perm() != 0o600 {
		m.Errorf("secrets.json: %v %v", fi.Mode(), err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		m.Fatal(err)
	}
	var list map[string]string
	if err := json.Unmarshal(data, &list); err != nil {
		m.Fatal(err)
	}
	for _, password := range list {
		m.run("! grep -rl " + password + " " + m.root + "/receipts " + m.root + "/state.json")
	}
}

// TestUnits checks that systemd-analyze accepts the units of a linux deployment and of the
// registry, without a running systemd.
func TestUnits(t *testing.T) {
	s := newSite(t)
	c := manifests.Choice{Deployment: "linux", With: []string{"rtcd"}}
	s.stock("application", c)
	file, create := s.create("application", "--deployment", "linux", "--with", "rtcd")
	s.must(create...)
	root, hostRoot := filepath.Join(s.dir, "root"), filepath.Join(s.dir, "host")
	values := filepath.Join(s.dir, "site.yaml")
	world.Write(t, values, []byte("domain: chat.site.mil\n"), 0o600)
	s.must("install", file, "--key", s.key.Public, "--root", root, "--values", values, "--host-root", hostRoot)
	units := filepath.Join(hostRoot, "etc/systemd/system")
	world.Write(t, filepath.Join(units, "oob-bundle-registry.service"), []byte(s.must("registry", "unit", "--root", root)), 0o644)
	for _, unit := range []string{"mattermost.service", "rtcd.service", "oob-bundle-registry.service"} {
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(units, unit)).CombinedOutput()
		if err != nil || strings.Contains(string(out), filepath.Join(units, unit)) {
			t.Errorf("%s: %v: %s", unit, err, out)
		}
	}
}

// TestCRD checks that the rendered resource of a kubernetes deployment is valid for the
// operator's resource definition and has no unknown fields. OOB_CRD names the definition
// (config/crd/bases of the operator's repository). OOB_OPERATOR names the operator's manifest;
// its image must be replaced by the site's.
func TestCRD(t *testing.T) {
	crd, operator := os.Getenv("OOB_CRD"), os.Getenv("OOB_OPERATOR")
	if crd == "" || operator == "" {
		t.Fatal("OOB_CRD and OOB_OPERATOR name files of the operator's repository")
	}
	var definition struct {
		Spec struct {
			Versions []struct {
				Name   string `yaml:"name"`
				Schema struct {
					OpenAPI map[string]any `yaml:"openAPIV3Schema"`
				} `yaml:"schema"`
			} `yaml:"versions"`
		} `yaml:"spec"`
	}
	readYAML(t, crd, &definition)
	for _, readiness := range []string{"none", "external"} {
		s := newSite(t)
		c := manifests.Choice{
			Deployment: "kubernetes",
			With:       []string{"operator-manifest", "object-storage", "push-proxy"},
			Set:        map[string]string{"settings.readiness": readiness},
		}
		all := s.stock("application", c)
		data, err := os.ReadFile(operator)
		if err != nil {
			t.Fatal(err)
		}
		pin := ""
		for _, f := range all.Files {
			if f.As == bundle.AsImages {
				s.up.Page(f.Source, data)
				pin = f.Pin
			}
		}
		file, create := s.create("application", "--deployment", "kubernetes", "--set", "settings.readiness="+readiness,
			"--with", "operator-manifest", "--with", "object-storage", "--with", "push-proxy")
		create = append(create, "--set", "sha256."+pin+"="+bundle.DigestOf(data).Hex())
		s.must(create...)
		root, values := filepath.Join(s.dir, "root"), filepath.Join(s.dir, "site.yaml")
		world.Write(
			t, values,
			[]byte("domain: chat.site.mil\nlicenseSecret: license\ntlsSecret: tls\npullSecret: regcred\nregistry: registry.site:5000\n"),
			0o600,
		)
		s.must("install", file, "--key", s.key.Public, "--root", root, "--values", values)
		current := filepath.Join(root, "deployments/application/current")
		var resource map[string]any
		readYAML(t, filepath.Join(current, "kubernetes/mattermost.yaml"), &resource)
		for _, v := range definition.Spec.Versions {
			closed(v.Schema.OpenAPI)
			c := jsonschema.NewCompiler()
			if err := c.AddResource("crd.json", throughJSON(t, v.Schema.OpenAPI)); err != nil {
				t.Fatal(err)
			}
			schema, err := c.Compile("crd.json")
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(throughJSON(t, resource)); err != nil {
				t.Errorf("%s: %v", v.Name, err)
			}
		}
		rendered, err := os.ReadFile(filepath.Join(current, "kubernetes/mattermost-operator.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`image: mattermost/`).Match(rendered) ||
			!strings.Contains(string(rendered), "image: registry.site:5000/docker.io/mattermost/mattermost-operator@sha256:") {
			t.Errorf("the operator's image: %s", regexp.MustCompile(`.*image: .*`).FindAll(rendered, -1))
		}
	}
}

func readYAML(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := goyaml.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

func throughJSON(t *testing.T, v any) any {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// closed makes every object schema with properties refuse unknown fields. A cluster would drop
// such fields silently.
func closed(schema map[string]any) {
	if p, ok := schema["properties"].(map[string]any); ok {
		if _, says := schema["additionalProperties"]; !says && schema["x-kubernetes-preserve-unknown-fields"] == nil && p["apiVersion"] == nil {
			schema["additionalProperties"] = false
		}
		for _, sub := range p {
			if m, ok := sub.(map[string]any); ok {
				closed(m)
			}
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if m, ok := schema[key].(map[string]any); ok {
			closed(m)
		}
	}
}
