//go:build unix

package service

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/install/host"
)

// failing returns a case of a fake program that prints to standard error and fails.
func failing(pattern, said string) string {
	return pattern + ") echo '" + said + "' >&2; exit 1;;\n"
}

// TestDockerSays checks that the error shows Docker's own message, gives advice, and wraps the
// right sentinels.
func TestDockerSays(t *testing.T) {
	const cannotConnect = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
	const denied = `permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: ` +
		`dial unix /var/run/docker.sock: connect: permission denied`
	const template = `Template parsing error: template: :1:2: executing "" at <.ServerVersion>: nil pointer evaluating ` +
		`*types.Info.ServerVersion`
	for name, c := range map[string]struct {
		answers    string
		env        map[string]string
		socket     bool // whether a rootless Docker's socket exists
		says       []string
		permission bool
		gone       bool
	}{
		"no permission": {failing(`"docker info"*`, denied), nil, false, []string{denied, "group docker", "sudo"}, true, false},
		"no permission, 2020": {
			failing(`"docker info"*`, "Got permission denied while trying to connect to the Docker daemon socket"),
			nil, false, []string{"Got permission denied", "usermod -aG docker"}, true, false,
		},
		"no permission, 2023": {
			`"docker info"*) echo; echo "` + denied + `" >&2;;`, nil, false, []string{denied, "usermod -aG docker"},
			true, false,
		},
		"not running, 2023": {
			`"docker info"*) echo; echo "` + cannotConnect + `" >&2;;`, nil, false,
			[]string{cannotConnect, "systemctl start docker"}, false, false,
		},
		"not running, template": {
			failing(`"docker info"*`, template) + failing(`"docker version"*`, cannotConnect), nil, false,
			[]string{cannotConnect, "systemctl start docker"}, false, false,
		},
		"no permission, template": {
			failing(`"docker info"*`, template) + failing(`"docker version"*`, denied), nil, false,
			[]string{denied, "usermod -aG docker"}, true, false,
		},
		"no permission, and a host": {
			failing(`"docker info"*`, denied), map[string]string{"DOCKER_HOST": "unix:///run/other.sock"}, false,
			[]string{"group docker"}, true, false,
		},
		"not running": {
			failing(`"docker info"*`, cannotConnect), nil, false,
			[]string{cannotConnect, "systemctl start docker", "set the value quadlet"}, false, false,
		},
		"a warning before": {
			failing(`"docker info"*`, "WARNING: Error loading config file: open "+
				"/root/.docker/config.json: permission denied\n"+cannotConnect),
			nil, false, []string{"WARNING", cannotConnect, "systemctl start docker"}, false, false,
		},
		"rootless elsewhere": {
			failing(`"docker info"*`, cannotConnect), nil, true,
			[]string{cannotConnect, "set DOCKER_HOST=unix://", "docker.sock", "127.0.0.1:5000 cannot be reached"},
			false, false,
		},
		"another host": {
			failing(`"docker info"*`, "Cannot connect to the Docker daemon at tcp://192.0.2.1:2375."),
			map[string]string{"DOCKER_HOST": "tcp://192.0.2.1:2375"},
			true, []string{"tcp://192.0.2.1:2375.", "unset DOCKER_HOST"}, false, false,
		},
		"podman's socket": {
			failing(`"docker info"*`, "Cannot connect to the Docker daemon at unix:///run/podman/podman.sock."),
			map[string]string{"DOCKER_HOST": "unix:///run/podman/podman.sock"},
			false, []string{"unset DOCKER_HOST"}, false, false,
		},
		"a context": {
			failing(`"docker info"*`, `unable to resolve docker endpoint: context "x": context not found`),
			nil, false, []string{"context not found", "docker context use"}, false, false,
		},
		"podman's shim": {
			failing(`"docker info"*`, "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg."),
			nil, false, []string{"Emulate Docker CLI", "podman's here", "set the value quadlet"}, false, true,
		},
		"podman, quiet": {
			failing(`"docker info"*`, "Error: template: info:1:2: executing") + `"docker --version") echo podman version 5.4.2;;`,
			nil, false, []string{"template: info", "podman's here"}, false, true,
		},
		"another reason": {
			failing(`"docker info"*`, "something new"), nil, false,
			[]string{"docker info: exit status 1: something new", "make docker info work"}, false, false,
		},
		"silence": {`"docker info"*) exit 7;;`, nil, false, []string{"docker info: exit status 7\n"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []string{"DOCKER_HOST", "DOCKER_CONTEXT"} {
				t.Setenv(v, "")
			}
			t.Setenv("XDG_RUNTIME_DIR", "/nowhere")
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			if c.socket {
				t.Setenv("XDG_RUNTIME_DIR", socketDir(t))
			}
			fake(t, "docker", c.answers)
			err := manager(t).Check(t.Context(), "compose", nil)
			if !errors.Is(err, ErrNoRuntime) || !errors.Is(err, ErrUnusable) || errors.Is(err, fs.ErrPermission) != c.permission ||
				gone(err) != c.gone {
				t.Errorf("%v: gone: %t, permission: %t", err, gone(err), errors.Is(err, fs.ErrPermission))
			}
			for _, want := range append(c.says, "Docker does not answer") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
		})
	}
}

// TestDockerWarns checks that warnings of a working Docker do not count as a failure.
func TestDockerWarns(t *testing.T) {
	for _, answers := range []string{
		`"docker info"*) echo 24.0.7; echo odd >&2;;`, `"docker info"*) echo "WARNING: odd" >&2;;`,
		`"docker info"*) ;;`,
	} {
		fake(t, "docker", answers)
		if err := manager(t).Check(t.Context(), "compose", nil); err != nil {
			t.Errorf("%s: %v", answers, err)
		}
	}
}

// socketDir returns a directory that contains the socket of a rootless Docker.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestEngineSays is TestDockerSays for Docker Compose and systemd.
func TestEngineSays(t *testing.T) {
	for name, c := range map[string]struct {
		names, answers, form string
		says                 []string
		unusable, permission bool
	}{
		"no docker": {"podman", "", "compose", []string{"Docker does not answer", "no program docker", "set the value quadlet"}, false, false},
		"a broken Compose": {
			"docker docker-compose",
			failing(`"docker compose"*`, `docker: "compose" is not a docker command`) +
				failing("docker-compose*", "ModuleNotFoundError: No module named distutils"),
			"compose", []string{"Docker Compose is not", "is not a docker command", "No module named distutils"}, false, false,
		},
		"no systemd": {"docker", "", "linux", []string{"systemd does not answer", "no program systemctl"}, false, false},
		"systemd not PID 1": {
			"systemctl",
			`systemctl*) echo offline; echo "System has not been booted with systemd as init system (PID 1). ` +
				`Cannot operate." >&2; exit 1;;`,
			"linux", []string{"has not been booted with systemd", `its state is "offline"`}, true, false,
		},
		"no bus": {
			"systemctl", failing("systemctl*", "Failed to connect to bus: Permission denied"), "linux",
			[]string{"Failed to connect to bus: Permission denied", "as root"}, true, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			links := unitLinks
			if c.form == "compose" {
				links = nil
			}
			fake(t, c.names, c.answers)
			err := manager(t).Check(t.Context(), c.form, links)
			if !errors.Is(err, ErrNoRuntime) || errors.Is(err, ErrUnusable) != c.unusable || errors.Is(err, fs.ErrPermission) != c.permission {
				t.Errorf("%v: unusable: %t, permission: %t", err, errors.Is(err, ErrUnusable), errors.Is(err, fs.ErrPermission))
			}
			for _, want := range c.says {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
		})
	}
}

// TestSystemctlDenied checks that a refused systemctl is reported as fs.ErrPermission.
func TestSystemctlDenied(t *testing.T) {
	for _, said := range []string{
		"Failed to start app.service: Interactive authentication required.", "Failed to reload daemon: Access denied",
		"Failed to connect to bus: Permission denied",
	} {
		fake(t, "systemctl", failing(`"systemctl daemon-reload"`, said)+podmanThere)
		err := manager(t).Up(t.Context(), app("linux", unitLinks))
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), said) || !strings.Contains(err.Error(), "sudo") {
			t.Error(err)
		}
	}
}

// TestSilentUnit checks that a systemctl that does not answer is an error, not an inactive
// unit.
func TestSilentUnit(t *testing.T) {
	fake(t, "systemctl", failing(`"systemctl is-active"*`, "Failed to connect to bus: No such file or directory"))
	sick, err := (&systemd{}).unwell(t.Context(), app("linux", unitLinks))
	if err == nil || !strings.Contains(err.Error(), "Failed to connect to bus") {
		t.Errorf("%v, %v", sick, err)
	}
}

// TestLeaveUnusable checks that Leave fails if the engine does not answer: that engine may
// still run a database, and a second one must not start on the same directory.
func TestLeaveUnusable(t *testing.T) {
	for said, left := range map[string]bool{
		"permission denied":                   false,
		"Cannot connect to the Docker daemon": false,
		"Emulate Docker CLI using podman.":    true,
	} {
		fake(t, "docker podman systemctl", failing(`"docker info"*`, said)+podmanThere)
		if err := manager(t).Leave(t.Context(), app("compose", nil), app("compose", quadlets)); (err == nil) != left {
			t.Errorf("%s: %v", said, err)
		}
	}
}

// TestRootlessPull checks that a rootless Docker's failed pull from a loopback address is
// explained.
func TestRootlessPull(t *testing.T) {
	refused := "dial tcp 127.0.0.1:5000: connect: connection refused"
	for image, hint := range map[string]bool{
		"127.0.0.1:5000/a@sha256:1":     true,
		"localhost:5000/a@sha256:1":     true,
		"[::1]:5000/a@sha256:1":         true,
		"registry.site:5000/a@sha256:1": false,
		"docker.io/a@sha256:1":          false,
	} {
		for options, rootless := range map[string]bool{"[name=seccomp,profile=builtin name=rootless]": true, "[name=seccomp]": false} {
			fake(
				t,
				"docker",
				`"docker image inspect"*) exit 1;;`+"\n"+failing(
					`"docker pull"*`,
					refused,
				)+`"docker info --format {{.SecurityOptions}}") echo "`+options+`";;`,
			)
			err := (&compose{}).pull(context.WithoutCancel(t.Context()), []string{image})
			if err == nil || !strings.Contains(err.Error(), refused) || strings.Contains(err.Error(), "A rootless Docker") != (hint && rootless) {
				t.Errorf("%s, %s: %v", image, options, err)
			}
		}
	}
}

// TestSaid checks that only the end of a program's output is shown, and that control
// characters do not reach the terminal.
func TestSaid(t *testing.T) {
	fake(t, "docker", `"docker a") i=0; while [ $i -lt 20000 ]; do echo "line $i" >&2; i=$((i+1)); done; exit 1;;
"docker b") printf '\033[31mred\007\r\nbell\tand \342\200\256turned\377\n' >&2; exit 1;;
"docker c") i=0; while [ $i -lt 9999 ]; do printf 'wide' >&2; i=$((i+1)); done; exit 1;;
"docker d") exit 3;;
`)
	for arg, want := range map[string]string{
		"a": "docker a: exit status 1: line 19992\n  line 19993\n  line 19994\n  line 19995\n  line 19996\n  line 19997\n  " +
			"line 19998\n  line 19999",
		"b": `docker b: exit status 1: \x1b[31mred\a` + "\n" + `  bell\tand \u202eturned` + "\ufffd",
		"c": "docker c: exit status 1: " + strings.Repeat("wide", 125) + "w…",
		"d": "docker d: exit status 3",
	} {
		if _, err := run(t.Context(), "docker", arg); err == nil || err.Error() != want {
			t.Errorf("%s: %.300q", arg, err.Error())
		}
	}
}

// TestMaskedWords checks that errors with a program's output contain no password of the site.
func TestMaskedWords(t *testing.T) {
	const secret = "S3cretS3cretS3cret"
	fake(t, "podman systemctl journalctl", strings.Replace(podmanThere, `"systemctl is-failed"*) exit 1;;`, `"systemctl is-failed"*) exit 1;;
"systemctl "*restart*|"systemctl "*start*|"systemctl "*stop*) echo "invalid value `+secret+`" >&2; exit 1;;`, 1))
	m := manager(t)
	a := app("compose", quadlets)
	base := host.Base(m.root, a.Name)
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{`{"pw":"` + secret + `"}`, `damaged`} {
		if err := os.WriteFile(filepath.Join(base, "secrets.json"), []byte(kept), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{"up": m.Up(t.Context(), a), "stop": m.Stop(t.Context(), a)} {
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
