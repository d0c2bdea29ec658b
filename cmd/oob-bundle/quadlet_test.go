//go:build e2e

package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	goyaml "go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// podmanMachine is a Debian 13 machine with systemd as its first process and podman, without
// Docker.
type podmanMachine struct {
	*machine
	boots *exec.Cmd
}

func newPodmanMachine(s side, name string) *podmanMachine {
	s.Helper()
	dir := filepath.Join(s.dir, name)
	p := &podmanMachine{
		machine: &machine{side: s, name: name, root: filepath.Join(dir, "root"), psql: "podman exec application-postgres psql"},
	}
	s.isolate(name)
	s.Cleanup(func() {
		if s.Failed() && p.enter != nil {
			out, _ := s.try(
				p.enter(
					"podman ps --all; systemctl --no-pager --no-legend list-units '*application*'; journalctl --no-pager --lines 80 " +
						"--unit 'application-*'",
				),
			)
			s.Log(out)
		}
		_ = p.boots.Process.Kill() // kills all processes of the machine
		_ = p.boots.Wait()
		_, _ = s.try(
			"ip netns del " + name + "; find $(awk '$3 == \"cgroup2\" {print $2; exit}' /proc/mounts)/" + name + " -depth -type d -exec rmdir {} +",
		)
	})
	p.boot()
	return p
}

// boot starts the machine and waits until systemd has started everything.
func (p *podmanMachine) boot() {
	p.Helper()
	wd, err := os.Getwd()
	if err != nil {
		p.Fatal(err)
	}
	p.boots = exec.Command("nsenter", "--net=/var/run/netns/"+p.name, filepath.Join(wd, "../../.ci/e2e.d/boot"),
		p.name, filepath.Join(os.Getenv("OOB_E2E"), "trixie"), filepath.Join(p.dir, p.name))
	log, err := os.Create(filepath.Join(p.dir, p.name+".log"))
	if err != nil {
		p.Fatal(err)
	}
	defer log.Close()
	p.boots.Stdout, p.boots.Stderr = log, log
	if err := p.boots.Start(); err != nil {
		p.Fatal(err)
	}
	// Match by name, because the programs that prepare the machine are children too.
	init := p.sh(
		fmt.Sprintf(
			"for _ in $(seq 300); do pgrep -P %d -x 'init|systemd' && exit 0; sleep 0.1; done; cat %s.log >&2; exit 1",
			p.boots.Process.Pid, p.name,
		),
	)
	inside := "nsenter --target " + init + " --all env -i PATH=/usr/sbin:/usr/bin "
	p.enter = func(line string) string {
		return "exec " + inside + "systemd-run --pipe --wait --quiet --collect --working-directory=" + p.dir +
			" --setenv=PATH=" + p.dir + ":/usr/sbin:/usr/bin bash -euo pipefail -c " + quote(line)
	}
	// A unit of Debian may fail here, and the state is then degraded.
	p.sh(
		"for _ in $(seq 300); do s=$(" + inside + "systemctl is-system-running 2>/dev/null) || true; case $s in " +
			"running|degraded) exit 0;; esac; sleep 0.2; done; cat " + p.name + ".log >&2; exit 1",
	)
}

// reboot shuts the machine down as an operator would, and starts it again.
func (p *podmanMachine) reboot() {
	p.Helper()
	_, _ = p.try(p.enter("systemctl reboot"))
	_ = p.boots.Wait()
	p.boot()
}

// answers waits until the server answers through NGINX.
func (p *podmanMachine) answers() {
	p.Helper()
	p.run(
		"for _ in $(seq 120); do curl -sS -m 10 -f -H 'Host: chat.site.mil' http://127.0.0.1:8080/api/v4/system/ping && exit " +
			"0; sleep 1; done; exit 1",
	)
}

// TestQuadlet carries the application architecture to a machine with podman and systemd, starts
// it there as Quadlet units, and tests reboot, upgrade, rollback and uninstall.
func TestQuadlet(t *testing.T) {
	s, _ := carried(t)
	m := newPodmanMachine(s, "oob-e2e-q")
	sent := m.sent()
	flags := " --key oob.pub --values site.yaml"
	s.write("site.yaml", "domain: chat.site.mil\nhttpPort: 8080\n")
	if code, stderr := m.exits(
		"install one.oob.tar" + flags + " --start",
	); code != 2 || !strings.Contains(stderr, "Docker does not answer") ||
		!strings.Contains(stderr, "set the value quadlet") {
		t.Errorf("without the value: exit status %d: %s", code, stderr)
	}
	s.write("site.yaml", "domain: chat.site.mil\nhttpPort: 8080\nquadlet: true\n")
	m.run("oob-bundle install one.oob.tar" + flags + " --start")
	m.answers()
	m.wantsUnits("active")
	m.checkOwners()
	before := m.migrations()
	m.wants(201, "", "POST", "/api/v4/users", `{"email":"a@site.mil","username":"admin","password":"Correct-horse-1"}`)
	token := m.login()
	m.wants(201, token, "POST", "/api/v4/teams", `{"name":"team","display_name":"Team","type":"O"}`)
	m.checkSettings(token)
	m.checkPlugins(token)

	// A manual podman pull finds images by either name.
	m.run(
		"cp /var/lib/oob-bundle/deployments/application/current/runtime/containers/registries.conf " +
			"/etc/containers/registries.conf.d/oob-bundle.conf; " +
			"oob-bundle registry serve 2>/dev/null & p=$!; trap 'kill $p' EXIT; until curl -sf -m 2 http://127.0.0.1:5000/v2/; " +
			"do sleep 0.2; done; " +
			"podman pull --quiet docker.io/library/nginx:1.30.4; podman pull --quiet 127.0.0.1:5000/docker.io/library/nginx:1.30.4",
	)

	// The deployment survives a restart, a killed container and a reboot.
	m.run("systemctl restart application-postgres.service")
	m.answers()
	m.run("podman kill application-mattermost")
	m.answers()
	m.reboot()
	m.answers()
	m.wantsUnits("active")
	m.wants(200, m.login(), "GET", "/api/v4/teams/name/team", "")

	// An upgrade that does not start is rolled back automatically, with the database.
	code, stderr := m.exits("install broken.oob.tar" + flags + " --start --start-timeout 45s")
	if code != 1 || !strings.Contains(stderr, "did not come up") || !strings.Contains(stderr, "application 11.7.9 runs again") {
		t.Fatalf("the broken release: exit status %d: %s", code, stderr)
	}
	if now := m.migrations(); now != before {
		t.Errorf("%d migrations instead of %d: the dump was not put back", now, before)
	}
	m.run("grep -h application-mattermost /var/lib/oob-bundle/deployments/application/logs/start-*.log | grep migrat >/dev/null")
	m.answers()
	m.wants(200, m.login(), "GET", "/api/v4/teams/name/team", "")

	// An upgrade that starts migrates the database, and can be rolled back.
	m.run("oob-bundle install two.oob.tar" + flags + " --start")
	if now := m.migrations(); now != before+1 {
		t.Errorf("%d migrations instead of %d: the upgrade did not migrate", now, before+1)
	}
	m.answers()
	m.checkPlugins(m.login())
	m.run("oob-bundle rollback --start --restore-database")
	if now := m.migrations(); now != before {
		t.Errorf("%d migrations instead of %d after the rollback", now, before)
	}
	m.answers()
	m.wants(200, m.login(), "GET", "/api/v4/teams/name/team", "")
	m.run("oob-bundle status --check")

	// Uninstall leaves only the data.
	m.run("oob-bundle uninstall application")
	m.wantsUnits("not-found")
	for what, line := range map[string]string{"containers": "podman ps --all --quiet", "networks": "podman network ls " +
		"--quiet --filter name=application", "links": "find /etc/containers/systemd /etc/systemd/system -name 'application*'"} {
		if left := m.run(line); left != "" {
			t.Errorf("%s are left: %s", what, left)
		}
	}
	m.run(
		"test -s /var/lib/oob-bundle/deployments/application/data/postgres/PG_VERSION && test ! -e " +
			"/var/lib/oob-bundle/deployments/application/current",
	)
	m.secretsStayed()
	if now := m.sent(); now != sent {
		t.Errorf("%d packets left for elsewhere", now-sent)
	}
	m.run("bash -c 'echo >/dev/udp/198.51.100.1/9'")
	if m.sent() == sent {
		t.Error("the counter does not see what the machine sends")
	}
}

// wantsUnits checks that each unit has the state want. "not-found" means unknown to systemd.
func (p *podmanMachine) wantsUnits(want string) {
	p.Helper()
	property := "ActiveState"
	if want == "not-found" {
		property = "LoadState"
	}
	for _, u := range []string{"application-postgres", "application-mattermost", "application-nginx", "application-network"} {
		if got := p.run("systemctl show --property " + property + " --value " + u + ".service"); got != want {
			p.Errorf("%s.service is %s instead of %s", u, got, want)
		}
	}
}

// checkOwners checks that data belongs to the users that run in the containers.
func (p *podmanMachine) checkOwners() {
	p.Helper()
	postgres := p.run("podman exec application-postgres id -u postgres")
	data := "/var/lib/oob-bundle/deployments/application/data/"
	for path, want := range map[string]string{
		"postgres":                      "700 " + postgres,
		"mattermost/data":               "750 2000",
		"mattermost/config/config.json": "600 2000",
	} {
		if got := p.run("stat -c '%a %u' " + data + path); got != want {
			p.Errorf("%s is %q instead of %q", path, got, want)
		}
	}
}

// TestQuadletUnits: Quadlet generates units from the files of each architecture without a
// message, each volume has an SELinux label, and systemd-analyze accepts the units.
func TestQuadletUnits(t *testing.T) {
	for _, name := range manifests.Architectures() {
		t.Run(name, func(t *testing.T) { quadletUnits(t, name) })
	}
}

func quadletUnits(t *testing.T, name string) {
	s := newSite(t)
	s.stock(name, manifests.Choice{Deployment: "compose"})
	m, err := manifests.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--deployment", "compose"}
	for _, c := range m.Everything("compose") {
		if c != "calls-offloader" { // starts its jobs with Docker
			args = append(args, "--with", c)
		}
	}
	file, create := s.create(name, args...)
	s.must(create...)
	root, hostRoot, values, pem := filepath.Join(
		s.dir,
		"root",
	), filepath.Join(
		s.dir,
		"host",
	), filepath.Join(
		s.dir,
		"site.yaml",
	), filepath.Join(
		s.dir,
		"site.pem",
	)
	world.Write(t, pem, []byte("x"), 0o600)
	world.Write(
		t, values,
		[]byte(
			"domain: chat.site.mil\nquadlet: true\ntlsCertificate: "+pem+"\ntlsKey: "+pem+"\nlicenseFile: "+pem+"\ndataDirectory: /srv/my data\n",
		),
		0o600,
	)
	s.must("install", file, "--key", s.key.Public, "--root", root, "--values", values, "--host-root", hostRoot)
	units, err := filepath.Glob(filepath.Join(hostRoot, "etc/containers/systemd/*"))
	if err != nil {
		t.Fatal(err)
	}
	// One unit for each service of Docker Compose, and one for the network.
	text, err := os.ReadFile(filepath.Join(root, "deployments", name, "current/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct{ Services map[string]any }
	if err := goyaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	if len(units) != len(compose.Services)+1 || len(units) < 4 {
		t.Fatalf("units: %q\nservices: %q", units, slices.Collect(maps.Keys(compose.Services)))
	}
	// Run Quadlet in the Debian 13 tree, in which this test writes only one directory.
	run := side{t, s.dir}
	inside := run.sh("mktemp -d " + filepath.Join(os.Getenv("OOB_E2E"), "trixie/root/units.XXXXXX"))
	t.Cleanup(func() { run.sh("rm -rf " + inside) })
	run.sh("cp -L " + strings.Join(units, " ") + " " + inside)
	dir := "/root/" + filepath.Base(inside)
	chroot := "chroot " + filepath.Join(os.Getenv("OOB_E2E"), "trixie") + " env QUADLET_UNIT_DIRS=" + dir + " "
	if said := run.sh(chroot + "/usr/libexec/podman/quadlet -no-kmsg-log " + dir + "/made 2>&1"); said != "" {
		t.Errorf("quadlet says: %s", said)
	}
	var made []string
	for _, u := range append(slices.Sorted(maps.Keys(compose.Services)), "network") {
		made = append(made, dir+"/made/"+name+"-"+u+".service")
	}
	// Quadlet does not escape a space in RequiresMountsFor=, so ignore that message.
	if said := run.sh(
		chroot + "systemd-analyze verify --man=no " + strings.Join(
			made,
			" ",
		) + " 2>&1 | grep -v 'RequiresMountsFor= path is not absolute, ignoring' || true",
	); said != "" {
		t.Errorf("systemd says: %s", said)
	}
	volumes := strings.Split(run.sh("grep -h ^Volume= "+inside+"/*.container"), "\n")
	if len(volumes) < 10 {
		t.Errorf("%d volumes", len(volumes))
	}
	for _, v := range volumes {
		options := strings.Split(v[strings.LastIndex(v, ":")+1:], ",")
		if !slices.Contains(options, "Z") && !slices.Contains(options, "z") {
			t.Errorf("%s has no label", v)
		}
	}
}
