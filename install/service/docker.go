package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// docker returns the command that runs Docker Compose on this host. The error wraps
// ErrNoRuntime; also ErrUnusable if the programs are installed but do not work, and
// fs.ErrPermission if this user may not use them.
func docker(ctx context.Context) (command []string, err error) {
	if err := askDocker(ctx); err != nil {
		return nil, noDocker(ctx, err)
	}
	var problems []error
	for _, c := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		_, err := run(ctx, append(c, "version")...)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, exec.ErrNotFound) {
			problems = append(problems, err)
		}
	}
	return nil, fmt.Errorf("%w: Docker is here, and Docker Compose is not; "+
		"install the package docker-compose-plugin or docker-compose\n%w", ErrNoRuntime, errors.Join(problems...))
}

// askDocker returns why Docker cannot be used, or nil. Without a server, docker info with a
// format fails in Docker 27 and newer. Docker 23 to 26 succeeds and prints the reason to
// standard error. Docker 20.10 and older fails in the template and hides the reason; docker
// version prints it.
func askDocker(ctx context.Context) error {
	var out bytes.Buffer
	args := []string{"docker", "info", "--format", "{{.ServerVersion}}"}
	said, err := runSaid(ctx, "docker info", "", nil, &out, args...)
	if err == nil && len(bytes.TrimSpace(out.Bytes())) == 0 && len(withoutWarnings(said)) > 0 {
		return &failure{name: "docker info", said: said, err: errors.New("no version of a server")}
	}
	if containsAny(saidBy(err), "template") {
		if _, reason := run(ctx, "docker", "version", "--format", "{{.Server.Version}}"); reason != nil {
			return reason
		}
	}
	return err
}

const orQuadlet = "on a host with podman and systemd set the value quadlet, if the bundle has it"

// noDocker returns the error for a failed docker info, with advice.
func noDocker(ctx context.Context, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: Docker does not answer: there is no program docker on this host; install it, or %s",
			ErrNoRuntime, orQuadlet)
	}
	said := withoutWarnings(saidBy(err))
	var advice string
	kinds := []error{ErrNoRuntime, ErrUnusable, err}
	switch {
	case isPodman(ctx, said):
		kinds = append(kinds, errGone)
		advice = "the program docker is podman's here, which Docker Compose deployments are not made for; " +
			"install Docker, or set the value quadlet, if the bundle has it"
	case containsAny(said, "permission denied", "access is denied", "operation not permitted"):
		kinds = append(kinds, fs.ErrPermission)
		advice = "this user may not use Docker; add the user to the group docker " +
			"(usermod -aG docker USER, then log in again), or run the same command with sudo"
	case os.Getenv("DOCKER_HOST") != "":
		advice = fmt.Sprintf("DOCKER_HOST is %q; start the Docker that listens there, "+
			"or unset DOCKER_HOST to use this host's", os.Getenv("DOCKER_HOST"))
	case containsAny(said, "context not found"):
		advice = "choose a context that exists with docker context use, or unset DOCKER_CONTEXT"
	case rootlessSocket() != "":
		advice = fmt.Sprintf("a rootless Docker listens elsewhere: set DOCKER_HOST=unix://%s. %s",
			rootlessSocket(), aboutRootless)
	case containsAny(said, "cannot connect", "is the docker daemon running", "connection refused", "no such file"):
		advice = "start it, such as with systemctl start docker; a rootless Docker with systemctl --user start docker " +
			"and DOCKER_HOST; or " + orQuadlet
	default:
		advice = "make docker info work for this user first; or " + orQuadlet
	}
	return &unusable{fmt.Sprintf("%v: Docker does not answer: %v\n%s", ErrUnusable, err, advice), kinds}
}

// aboutRootless explains why a rootless Docker cannot reach the local registry.
const aboutRootless = "A rootless Docker has its own network, from which the registry at 127.0.0.1:5000 cannot be reached: " +
	"serve it on an address of this host (oob-bundle registry serve --listen), and give that as the value registry"

// unusable is the error for an engine that is installed but does not work.
type unusable struct {
	text  string
	kinds []error
}

func (u *unusable) Error() string   { return u.text }
func (u *unusable) Unwrap() []error { return u.kinds }

// withoutWarnings drops the warnings that a program prints before it fails for another reason.
func withoutWarnings(lines []string) []string {
	var rest []string
	for _, line := range lines {
		if !strings.HasPrefix(strings.ToLower(line), "warning") {
			rest = append(rest, line)
		}
	}
	return rest
}

// isPodman reports whether the program named docker is podman.
func isPodman(ctx context.Context, said []string) bool {
	if containsAny(said, "emulate docker cli using podman") {
		return true
	}
	out, err := run(ctx, "docker", "--version")
	return err == nil && strings.Contains(strings.ToLower(string(out)), "podman")
}

// rootlessSocket returns the socket of this user's rootless Docker, or "".
func rootlessSocket() string {
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", os.Getuid())} {
		socket := filepath.Join(dir, "docker.sock")
		if fi, err := os.Stat(socket); err == nil && dir != "" && fi.Mode()&fs.ModeSocket != 0 {
			return socket
		}
	}
	return ""
}

// pullFailed adds an explanation to an error of docker pull: a rootless Docker cannot reach a
// registry on a loopback address.
func pullFailed(ctx context.Context, image string, err error) error {
	host, _, _ := strings.Cut(image, "/")
	if name, _, splitErr := net.SplitHostPort(host); splitErr == nil {
		host = name
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return err
	}
	out, infoErr := run(ctx, "docker", "info", "--format", "{{.SecurityOptions}}")
	if infoErr != nil || !strings.Contains(string(out), "name=rootless") {
		return err
	}
	return fmt.Errorf("%w\n%s", err, aboutRootless)
}
