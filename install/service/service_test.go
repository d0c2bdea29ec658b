//go:build unix

package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// programs is a set of fake programs, the only ones on PATH. They log their calls. The answers
// given to fake are the cases of a shell's case statement over "NAME ARGUMENTS". A call
// without a case prints nothing and succeeds.
type programs struct {
	t   *testing.T
	log string
}

func fake(t *testing.T, names, answers string) *programs {
	t.Helper()
	dir := t.TempDir()
	p := &programs{t, filepath.Join(dir, "log")}
	script := "#!/bin/sh\ncall=\"${0##*/} $*\"\necho \"$call\" >>" + p.log + "\ncase $call in\n" + answers + "\nesac\n"
	for _, name := range strings.Fields(names) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil { //nolint:gosec // the test executes the file
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return p
}

// calls returns the calls since the last calls.
func (p *programs) calls() []string {
	p.t.Helper()
	data, err := os.ReadFile(p.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.Remove(p.log)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func (p *programs) want(calls ...string) {
	p.t.Helper()
	if diff := cmp.Diff(calls, p.calls()); diff != "" {
		p.t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// podmanThere contains the answers of a healthy host with podman and systemd.
const podmanThere = `"systemctl is-system-running") echo degraded; exit 1;;
"podman version"*) echo 5.4.2;;
"systemctl is-failed"*) exit 1;;
"podman ps"*) echo 'app-postgres.service Up 2 minutes (healthy)'; echo 'app-web.service Up 2 minutes';;
`

var quadlets = []bundle.Link{
	{Path: "/etc/containers/systemd/app.network", File: "quadlet/app.network"},
	{Path: "/etc/containers/systemd/app-postgres.container", File: "quadlet/app-postgres.container"},
	{Path: "/etc/containers/systemd/app-web.container", File: "quadlet/app-web.container"},
}

var unitLinks = []bundle.Link{{Path: "/etc/systemd/system/app.service", File: "systemd/app.service"}}

func app(form string, links []bundle.Link) *host.About {
	return &host.About{
		Name:     "app",
		ID:       "1",
		Version:  "1.0.0",
		Form:     form,
		Links:    links,
		Database: &bundle.Database{Service: "postgres", Directory: "postgres", User: "u", Name: "d"},
	}
}

func always(string) bool { return true }

func manager(t *testing.T) *Manager {
	t.Helper()
	return New(t.TempDir(), always, Access{}, time.Minute, func(string, ...any) {})
}

// TestRuntime checks that the deployment's form, the site's values and the host's programs
// decide the engine, and that the error names what is missing.
func TestRuntime(t *testing.T) {
	noDocker := `docker*) exit 1;;` + "\n"
	for name, c := range map[string]struct {
		names, answers, form string
		links                []bundle.Link
		kind, says           string
	}{
		"Docker with its plugin":       {"docker", "", "compose", nil, "Docker Compose", ""},
		"Docker and docker-compose":    {"docker docker-compose", `"docker compose"*) exit 1;;`, "compose", nil, "Docker Compose", ""},
		"Docker alone":                 {"docker", `"docker compose"*) exit 1;;`, "compose", nil, "", "Docker Compose is not"},
		"podman, and not asked for":    {"podman systemctl", podmanThere, "compose", nil, "", "set the value quadlet"},
		"podman that is called docker": {"podman docker systemctl", noDocker + podmanThere, "compose", nil, "", "set the value quadlet"},
		"podman":                       {"podman systemctl", podmanThere, "compose", quadlets, "podman", ""},
		"podman beside Docker":         {"podman docker systemctl", podmanThere, "compose", quadlets, "podman", ""},
		"podman without Quadlet": {
			"podman systemctl", strings.Replace(podmanThere, "5.4.2", "4.3.1", 1), "compose", quadlets, "",
			"podman is 4.3.1 here, and the units need 4.9",
		},
		"podman of another word": {
			"podman systemctl", strings.Replace(podmanThere, "5.4.2", "new", 1), "compose", quadlets, "",
			`podman version "new"`,
		},
		"Docker, and podman asked for": {"docker systemctl", podmanThere, "compose", quadlets, "", "ask for podman and systemd"},
		"podman without systemd": {
			"podman systemctl", `"systemctl is-system-running") echo offline; exit 1;;` + "\n" + podmanThere, "compose",
			quadlets, "", "ask for podman and systemd",
		},
		"systemd that still starts": {
			"systemctl", `"systemctl is-system-running") echo starting; exit 1;;`, "linux", unitLinks, "systemd", "",
		},
		"no systemd": {
			"systemctl", `"systemctl is-system-running") echo offline; exit 1;;`, "linux", unitLinks, "",
			"systemd does not answer",
		},
		"no units":     {"systemctl", podmanThere, "linux", nil, "", "--host-root"},
		"a cluster":    {"", "", "kubernetes", nil, "", "no program kubectl"},
		"nothing said": {"", "", "", nil, "", "does not say"},
	} {
		t.Run(name, func(t *testing.T) {
			fake(t, c.names, c.answers)
			m := manager(t)
			err := m.Check(t.Context(), c.form, c.links)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%v instead of %q", err, c.says)
				}
				if !errors.Is(err, ErrNoRuntime) && name != "podman of another word" {
					t.Errorf("%v is not ErrNoRuntime", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e, err := m.engine(t.Context(), c.form, c.links, nil); err != nil || e.kind() != c.kind {
				t.Errorf("%v %v", e, err)
			}
		})
	}
}

// TestPull checks that podman pulls the images that its units name and that it lacks, and that
// it skips TLS only where plain HTTP is configured.
func TestPull(t *testing.T) {
	p := fake(t, "podman systemctl", podmanThere+`"podman image exists r/a@sha256:1") ;;
"podman image exists"*) exit 1;;
`)
	a := app("compose", quadlets)
	a.Images = []string{"r/a@sha256:1", "r/b@sha256:2", "r/c@sha256:3"}
	a.Files = []host.File{{Path: "compose.yaml"}, {Path: "quadlet/app-web.container"}, {Path: "gone.txt"}}
	for plain, verify := range map[bool]string{true: "false", false: "true"} {
		m := New(t.TempDir(), func(string) bool { return plain }, Access{}, time.Minute, func(string, ...any) {})
		dir := releaseDir(m.root, a)
		for path, text := range map[string]string{
			"compose.yaml":              "r/c@sha256:3",
			"quadlet/app-web.container": "Image=r/a@sha256:1\nImage=r/b@sha256:2\n",
		} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Pull(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		p.want("systemctl is-system-running", "podman version --format {{.Client.Version}}",
			"podman image exists r/a@sha256:1", "podman image exists r/b@sha256:2", "podman pull --quiet --tls-verify="+verify+" r/b@sha256:2")
	}
}

// TestQuadletUnits checks that systemd reloads before it starts units, that failed units are
// reset first, and that a network is stopped only when all of its services are.
func TestQuadletUnits(t *testing.T) {
	p := fake(t, "podman systemctl", strings.Replace(podmanThere, `"systemctl is-failed"*`, `"systemctl is-failed --quiet app-web.service") ;;
"systemctl is-failed"*`, 1))
	s := &systemd{podman: true, timeout: time.Minute}
	a := app("compose", quadlets)
	if err := s.start(t.Context(), a, nil); err != nil {
		t.Fatal(err)
	}
	p.want("systemctl daemon-reload", "systemctl is-failed --quiet app-postgres.service", "systemctl is-failed --quiet app-web.service",
		"systemctl reset-failed app-web.service", "systemctl restart app-postgres.service app-web.service")
	if err := s.startOnly(t.Context(), a, "postgres"); err != nil {
		t.Fatal(err)
	}
	p.want("systemctl daemon-reload", "systemctl is-failed --quiet app-postgres.service", "systemctl start app-postgres.service")
	if err := s.stop(t.Context(), a, "postgres"); err != nil {
		t.Fatal(err)
	}
	show := "systemctl show --property LoadState --property ActiveState --value "
	p.want("systemctl daemon-reload", show+"app-web.service", "systemctl stop app-web.service")
	if err := s.stop(t.Context(), a, ""); err != nil {
		t.Fatal(err)
	}
	p.want(
		"systemctl daemon-reload",
		show+"app-postgres.service", show+"app-web.service", show+"app-network.service",
		"systemctl stop app-postgres.service app-web.service app-network.service",
	)
	if err := s.forget(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	p.want("systemctl daemon-reload")
	gone := fake(t, "podman systemctl", `"systemctl show"*) echo not-found; echo inactive;;`)
	if err := s.stop(t.Context(), a, "postgres"); err != nil {
		t.Fatal(err)
	}
	gone.want("systemctl daemon-reload", show+"app-web.service")
	p = fake(t, "podman systemctl", podmanThere)
	if err := s.exec(t.Context(), a, "postgres", nil, io.Discard, "pg_dump", "d"); err != nil {
		t.Fatal(err)
	}
	p.want("podman exec --interactive app-postgres pg_dump d")
}

// enable creates the link that systemctl enable leaves behind.
func enable(t *testing.T, a *host.About, dir, unit string) {
	t.Helper()
	a.HostRoot = t.TempDir()
	dir = filepath.Join(a.HostRoot, "etc/systemd/system", dir)
	if err := errors.Join(
		os.MkdirAll(dir, 0o755), os.Symlink("/etc/systemd/system/"+unit, filepath.Join(dir, unit)),
	); err != nil { //nolint:gosec // as it is on a host
		t.Fatal(err)
	}
}

// TestUnits checks that a release's own units are enabled, and disabled when they are gone,
// unless the host's own unit is back at the same path.
func TestUnits(t *testing.T) {
	for _, c := range []struct {
		state, dir string
		disabled   bool
	}{
		{"not-found", "multi-user.target.wants", true},
		{"not-found", "x.service.requires", true},
		{"not-found", "x.service.d", false},
		{"loaded", "multi-user.target.wants", false},
	} {
		p := fake(t, "systemctl", podmanThere+`"systemctl show"*) echo `+c.state+`;;`)
		s := &systemd{timeout: time.Minute}
		a := app("linux", unitLinks)
		if err := s.start(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
		p.want(
			"systemctl daemon-reload",
			"systemctl enable app.service",
			"systemctl daemon-reload",
			"systemctl is-failed --quiet app.service",
			"systemctl restart app.service",
		)
		enable(t, a, c.dir, "app.service")
		if err := s.forget(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(p.calls(), "systemctl disable app.service"); got != c.disabled {
			t.Errorf("%v: disabled: %t", c, got)
		}
		if err := s.exec(t.Context(), a, "postgres", nil, io.Discard, "true"); !errors.Is(err, ErrNoRuntime) {
			t.Errorf("a unit is no container: %v", err)
		}
	}
}

// TestUnitLess checks that a unit of an earlier release is disabled when the new release does
// not have it, including a new release that runs in containers.
func TestUnitLess(t *testing.T) {
	was := app(
		"linux",
		append(slices.Clone(unitLinks), bundle.Link{Path: "/etc/systemd/system/app-job.service", File: "systemd/app-job.service"}),
	)
	was.ID = "0"
	for name, c := range map[string]struct {
		next *host.About
		want []string
	}{
		"a unit less": {app("linux", unitLinks), []string{"systemctl disable app-job.service"}},
		"the same":    {app("linux", was.Links), nil},
		"containers":  {app("compose", quadlets), []string{"systemctl disable app-job.service"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := fake(t, "podman systemctl", podmanThere+`"systemctl show"*) echo not-found;;`)
			m := manager(t)
			enable(t, was, "multi-user.target.wants", "app-job.service")
			was.APIVersion, was.Kind = bundle.APIVersion, "Release"
			data, err := bundle.Encode(was)
			if err := errors.Join(
				err, os.MkdirAll(releaseDir(m.root, was), 0o700),
				disk.WriteFile(filepath.Join(releaseDir(m.root, was), bundle.ReleaseFile), data, 0o600),
			); err != nil {
				t.Fatal(err)
			}
			if err := m.Up(t.Context(), c.next); err != nil {
				t.Fatal(err)
			}
			var disabled []string
			for _, call := range p.calls() {
				if strings.HasPrefix(call, "systemctl disable ") {
					disabled = append(disabled, call)
				}
			}
			if diff := cmp.Diff(c.want, disabled); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestUnwell checks that a running unit counts as healthy only if its container runs, and is
// healthy if it has a health check.
func TestUnwell(t *testing.T) {
	for name, c := range map[string]struct{ answers, want string }{
		"all well":          {podmanThere, "[]"},
		"still starting":    {strings.Replace(podmanThere, "healthy", "starting", 1), "[app-postgres.service (starting)]"},
		"unhealthy":         {strings.Replace(podmanThere, "healthy", "unhealthy", 1), "[app-postgres.service (unhealthy)]"},
		"without container": {strings.Replace(podmanThere, "app-web.service", "other.service", 1), "[app-web.service (no container)]"},
		"failed":            {`"systemctl is-active app-web.service") echo failed; exit 3;;` + "\n" + podmanThere, "[app-web.service (failed)]"},
		"none":              {`"podman ps"*) ;;` + "\n" + podmanThere, "[app-postgres.service (no container) app-web.service (no container)]"},
	} {
		t.Run(name, func(t *testing.T) {
			fake(t, "podman systemctl", c.answers)
			sick, err := (&systemd{podman: true}).unwell(t.Context(), app("compose", quadlets))
			if got := fmt.Sprint(sick); err != nil || got != c.want {
				t.Errorf("%s %v instead of %s", got, err, c.want)
			}
		})
	}
}

// TestUp checks that a release is up when its units, containers and addresses are healthy, and
// that otherwise its logs are kept and named in the error.
func TestUp(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer server.Close()
	a := app("compose", quadlets)
	a.Health = []string{server.URL}
	fake(t, "podman systemctl journalctl", podmanThere+`journalctl*"--unit app-"*) echo "the last words of ${call##* }";;`)
	m := manager(t)
	cameUp := func(a *host.About) bool {
		t.Helper()
		up, err := CameUp(m.root, a)
		if err != nil {
			t.Fatal(err)
		}
		return up
	}
	if err := m.Up(t.Context(), a); err != nil || !cameUp(a) {
		t.Fatalf("%v, and it is remembered: %t", err, cameUp(a))
	}
	other := app("compose", quadlets)
	other.ID = "2"
	if err := m.Up(t.Context(), other); err != nil || cameUp(a) || !cameUp(other) {
		t.Fatalf("%v, and of the one before it is remembered: %t", err, cameUp(a))
	}
	status = http.StatusServiceUnavailable
	hasty := New(m.root, always, Access{}, time.Second, m.note)
	err := hasty.Up(t.Context(), a)
	if !errors.Is(err, ErrUnhealthy) || !strings.Contains(err.Error(), "503") || cameUp(a) {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(host.Base(m.root, "app"), "logs", "start-1.log"))
	if err != nil || string(log) != "the last words of app-postgres.service\nthe last words of app-web.service\n" {
		t.Errorf("%q %v", log, err)
	}
}

// TestSlowStart checks that the wait for systemd ends at the start timeout, and that an
// interrupted run does not report an unhealthy release.
func TestSlowStart(t *testing.T) {
	p := fake(t, "podman systemctl journalctl", podmanThere+`"systemctl restart"*) exec /bin/sleep 60;;`)
	m := New(t.TempDir(), always, Access{}, 100*time.Millisecond, func(string, ...any) {})
	err := m.Up(t.Context(), app("compose", quadlets))
	if !errors.Is(err, ErrUnhealthy) ||
		!strings.Contains(err.Error(), "after 100ms systemd is still starting app-postgres.service, app-web.service") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	p.calls()
	go func() {
		for ctx.Err() == nil {
			if data, err := os.ReadFile(p.log); err == nil && strings.Contains(string(data), "systemctl restart") {
				cancel(stopped)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if err := New(
		m.root, always, Access{}, time.Minute, m.note,
	).Up(
		ctx, app("compose", quadlets),
	); errors.Is(err, ErrUnhealthy) ||
		!errors.Is(err, stopped) {
		t.Errorf("a run that is interrupted says %v", err)
	}
}

// TestDump checks that everything but the database is stopped, that a dump is kept only if it
// is complete, and that the services start again after a failed dump.
func TestDump(t *testing.T) {
	current, next := app("compose", quadlets), app("compose", quadlets)
	next.ID = "2"
	p := fake(t, "podman systemctl", podmanThere+`"podman exec --interactive app-postgres pg_dump"*) echo dump;;`)
	m := manager(t)
	if err := m.Dump(t.Context(), current, next); err != nil {
		t.Fatal(err)
	}
	calls := p.calls()
	for _, c := range []string{
		"systemctl stop app-web.service", "systemctl start app-postgres.service",
		"podman exec --interactive app-postgres pg_isready --host 127.0.0.1 --username u --dbname d",
		"podman exec --interactive app-postgres pg_dump --username u --format custom d",
	} {
		i := slices.Index(calls, c)
		if i < 0 {
			t.Fatalf("%q is missing or too early: %q", c, calls)
		}
		calls = calls[i+1:]
	}
	if data, err := os.ReadFile(DumpFile(m.root, next)); err != nil || string(data) != "dump\n" {
		t.Errorf("%q %v", data, err)
	}
	p = fake(t, "podman systemctl", podmanThere+`"podman exec --interactive app-postgres pg_dump"*) echo half; exit 1;;`)
	m = manager(t)
	base := host.Base(m.root, "app")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(base, "releases/1"), 0o700), os.Symlink("releases/1", filepath.Join(base, "current")),
	); err != nil {
		t.Fatal(err)
	}
	if err := m.Dump(t.Context(), current, next); !errors.Is(err, ErrNoDump) {
		t.Errorf("a dump that ends early: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(DumpFile(m.root, next))); err != nil || len(left) > 0 {
		t.Errorf("%v %v is left", left, err)
	}
	if calls := p.calls(); calls[len(calls)-1] != "systemctl restart app-postgres.service app-web.service" {
		t.Errorf("it is not started again: %q", calls)
	}
}

// TestLeave checks that everything is stopped that the next release does not start itself,
// above all another engine's database on the same directory.
func TestLeave(t *testing.T) {
	both := podmanThere + `"docker compose"*"config --services") echo postgres;;`
	compose, podman := app("compose", nil), app("compose", quadlets)
	m := manager(t)
	dir := releaseDir(m.root, compose)
	down := "docker compose --project-name app --project-directory " + dir + " --file " + dir + "/compose.yaml down --timeout 60"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		names         string
		current, next *host.About
		want          string // the call that stops
	}{
		"Compose to podman": {"docker podman systemctl", compose, podman, down},
		"podman to Compose": {"docker podman systemctl", podman, compose, "systemctl stop app-postgres.service " +
			"app-web.service app-network.service"},
		"Compose again":  {"docker podman systemctl", compose, compose, ""},
		"podman again":   {"docker podman systemctl", podman, podman, ""},
		"a unit less":    {"podman systemctl", podman, app("compose", quadlets[:2]), "systemctl stop app-web.service"},
		"Docker is gone": {"podman systemctl", compose, podman, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := fake(t, c.names, both)
			if err := m.Leave(t.Context(), c.current, c.next); err != nil {
				t.Fatal(err)
			}
			var stops []string
			for _, call := range p.calls() {
				if strings.Contains(call, " stop ") || strings.Contains(call, " down ") {
					stops = append(stops, call)
				}
			}
			if got := strings.Join(stops, "\n"); got != c.want {
				t.Errorf("%q instead of %q", got, c.want)
			}
		})
	}
}
