// Package service starts and stops what a deployment consists of, by means of the
// programs that the host has for that: Docker Compose, or systemd, with podman's
// Quadlet or without containers. It knows when all is well, and it dumps a
// PostgreSQL before an upgrade and puts the dump back after a failed one.
package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

var (
	// ErrNoRuntime says that the host has nothing that could start the deployment.
	ErrNoRuntime = errors.New("nothing here can start it")
	// ErrUnhealthy says that it was started and did not come up.
	ErrUnhealthy = errors.New("it did not come up")
	// ErrNoDump says that the database could not be dumped.
	ErrNoDump = errors.New("the database was not dumped")
)

// Manager starts deployments, each by the engine that its release is made for.
type Manager struct {
	root      string
	plainHTTP bool
	timeout   time.Duration
	note      func(format string, args ...any)
}

// New returns a manager of the deployments below root. PlainHTTP says that the
// registry speaks no TLS; timeout is how long services get to come up.
func New(root string, plainHTTP bool, timeout time.Duration, note func(string, ...any)) *Manager {
	return &Manager{root, plainHTTP, timeout, note}
}

// engine is a program that runs services.
type engine interface {
	// pull makes images available that are not there.
	pull(ctx context.Context, images []string) error
	start(ctx context.Context, a *host.About) error
	// startOnly starts one service.
	startOnly(ctx context.Context, a *host.About, service string) error
	// stop stops all services, except one if that is not "".
	stop(ctx context.Context, a *host.About, except string) error
	// exec runs a program where a service runs.
	exec(ctx context.Context, a *host.About, service string, in io.Reader, out io.Writer, args ...string) error
	// unwell names the services that do not run, or say that they are not healthy.
	unwell(ctx context.Context, a *host.About) ([]string, error)
	logs(ctx context.Context, a *host.About, w io.Writer)
}

// Check reports whether the host has what starts a deployment of a form with these
// links. The error wraps ErrNoRuntime and says what is missing.
func (m *Manager) Check(ctx context.Context, form string, links []bundle.Link) error {
	_, err := m.engine(ctx, form, links)
	return err
}

func (m *Manager) of(ctx context.Context, a *host.About) (engine, error) {
	return m.engine(ctx, a.Form, a.Links)
}

func (m *Manager) engine(ctx context.Context, form string, links []bundle.Link) (engine, error) {
	units := slices.ContainsFunc(links, func(l bundle.Link) bool { return unit(l) != nil })
	switch {
	case form == "compose" && units: // the site has chosen podman
		if !has("podman") || !hasSystemd(ctx) {
			return nil, fmt.Errorf("%w: the site's values ask for podman and systemd, and not both are here", ErrNoRuntime)
		}
		return &systemd{podman: true, plainHTTP: m.plainHTTP}, nil
	case form == "compose":
		if _, err := run(ctx, "", "docker", "info", "--format", "{{.ServerVersion}}"); err != nil {
			return nil, fmt.Errorf("%w: Docker does not answer (docker info); on a host with podman and systemd set the value quadlet, if the bundle has it", ErrNoRuntime)
		}
		for _, c := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
			if _, err := run(ctx, "", append(c, "version")...); err == nil {
				return &compose{command: c, root: m.root}, nil
			}
		}
		return nil, fmt.Errorf("%w: Docker is here, and Docker Compose is not; install the package docker-compose-plugin or docker-compose", ErrNoRuntime)
	case form == "linux" && !units:
		return nil, fmt.Errorf("%w: no units are linked; with another --root than the default, --host-root says where /etc is", ErrNoRuntime)
	case form == "linux":
		if !hasSystemd(ctx) {
			return nil, fmt.Errorf("%w: systemd does not answer (systemctl is-system-running)", ErrNoRuntime)
		}
		return &systemd{}, nil
	case form == "kubernetes":
		return nil, fmt.Errorf("%w: a cluster is not started from here; apply what is in the release with kubectl and helm, as its READ-ME-FIRST.txt says", ErrNoRuntime)
	}
	return nil, fmt.Errorf("%w: the bundle does not say what it is a deployment for", ErrNoRuntime)
}

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

func hasSystemd(ctx context.Context) bool {
	out, err := run(ctx, "", "systemctl", "is-system-running")
	state := strings.TrimSpace(string(out))
	return err == nil || state == "degraded" || state == "starting" || state == "maintenance"
}

// run runs a program and returns what it prints. The error has the last lines of
// what it says.
func run(ctx context.Context, dir string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := runTo(ctx, dir, nil, &out, args...)
	return out.Bytes(), err
}

func runTo(ctx context.Context, dir string, in io.Reader, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout = dir, in, out
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		if len(lines) > 8 {
			lines = lines[len(lines)-8:]
		}
		return fmt.Errorf("%s: %w: %s", strings.Join(args[:min(len(args), 2)], " "), err, strings.Join(lines, "\n  "))
	}
	return nil
}

// Pull makes the images of a release available to the engine.
func (m *Manager) Pull(ctx context.Context, a *host.About) error {
	text, err := m.text(a)
	if err != nil {
		return err
	}
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	images := slices.DeleteFunc(slices.Clone(a.Images), func(i string) bool { return !strings.Contains(text, i) })
	return e.pull(ctx, images)
}

// text returns the files of a release that name images.
func (m *Manager) text(a *host.About) (string, error) {
	var b strings.Builder
	for _, f := range a.Files {
		if f.Path != composeFile && !strings.HasPrefix(f.Path, "quadlet/") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(releaseDir(m.root, a), filepath.FromSlash(f.Path)))
		if err != nil {
			return "", err
		}
		b.Write(data)
	}
	return b.String(), nil
}

func releaseDir(root string, a *host.About) string {
	return filepath.Join(host.Base(root, a.Name), "releases", a.ID)
}

// Up starts a release and waits until all is well. The error wraps ErrUnhealthy;
// what the services have said is then in a file that it names.
func (m *Manager) Up(ctx context.Context, a *host.About) error {
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	if err = e.start(ctx, a); err == nil {
		err = m.wait(ctx, e, a)
	}
	if err == nil {
		return m.remember(a)
	}
	if ctx.Err() != nil {
		return err
	}
	file, logErr := m.keepLogs(ctx, e, a)
	if logErr != nil {
		return fmt.Errorf("%w: %w", ErrUnhealthy, errors.Join(err, logErr))
	}
	return fmt.Errorf("%w: %w; what the services said is in %s", ErrUnhealthy, err, file)
}

// remember notes that a release has come up once. From then on its data is newer
// than any dump.
func (m *Manager) remember(a *host.About) error {
	p := cameUp(m.root, a)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		return err
	}
	return bundle.WriteFile(p, nil, 0o600)
}

func cameUp(root string, a *host.About) string {
	return filepath.Join(host.Base(root, a.Name), "logs", "up-"+a.ID)
}

// CameUp reports whether a release has come up once.
func CameUp(root string, a *host.About) bool {
	_, err := os.Stat(cameUp(root, a))
	return err == nil
}

// Begin forgets what an earlier life of a release has left: that it came up, and
// the dump from before it.
func (m *Manager) Begin(next *host.About) error {
	for _, p := range []string{cameUp(m.root, next), DumpFile(m.root, next)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// wait asks until everything is well twice in a row.
func (m *Manager) wait(ctx context.Context, e engine, a *host.About) error {
	deadline := time.Now().Add(m.timeout)
	for well := 0; ; {
		why, err := unwell(ctx, e, a)
		if err != nil {
			return err
		}
		if why == "" {
			if well++; well == 2 {
				return nil
			}
		} else {
			well = 0
		}
		if why != "" && time.Now().After(deadline) {
			return fmt.Errorf("after %s %s", m.timeout, why)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Second):
		}
	}
}

// unwell says what is wrong with a running release, or "".
func unwell(ctx context.Context, e engine, a *host.About) (string, error) {
	sick, err := e.unwell(ctx, a)
	if err != nil {
		return "", err
	}
	if len(sick) > 0 {
		return strings.Join(sick, ", ") + " is not up", nil
	}
	client := &http.Client{Timeout: 10 * time.Second}
	for _, u := range a.Health {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		if err != nil {
			return "", err
		}
		res, err := client.Do(req)
		if err != nil {
			return u + " does not answer", nil //nolint:nilerr // that is what was asked
		}
		if err := res.Body.Close(); err != nil {
			return "", err
		}
		if res.StatusCode != http.StatusOK {
			return fmt.Sprintf("%s answers %s", u, res.Status), nil
		}
	}
	return "", nil
}

// Stop stops everything.
func (m *Manager) Stop(ctx context.Context, a *host.About) error {
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	return e.stop(ctx, a, "")
}

func (m *Manager) keepLogs(ctx context.Context, e engine, a *host.About) (string, error) {
	var b bytes.Buffer
	e.logs(ctx, a, &b)
	dir := filepath.Join(host.Base(m.root, a.Name), "logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "start-"+a.ID+".log")
	return file, bundle.WriteFile(file, b.Bytes(), 0o600)
}

// DumpFile is where the dump is kept that was taken before a release started.
func DumpFile(root string, next *host.About) string {
	return filepath.Join(host.Base(root, next.Name), "backups", "before-"+next.ID+".dump")
}

// HasDatabase reports whether a release has a database with something in it.
func HasDatabase(a *host.About) bool {
	if a == nil || a.Database == nil {
		return false
	}
	_, err := os.Stat(filepath.Join(a.Data, filepath.FromSlash(a.Database.Directory), "PG_VERSION"))
	return err == nil || !errors.Is(err, fs.ErrNotExist)
}

// Dump stops everything but the database of the current release and dumps it, for
// the case that the next one does not come up. The error wraps ErrNoDump; then
// the current release has been started again.
func (m *Manager) Dump(ctx context.Context, current, next *host.About) error {
	e, err := m.of(ctx, current)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoDump, err)
	}
	file := DumpFile(m.root, next)
	m.note("Stopping %s %s, and dumping its database to %s", current.Name, current.Version, file)
	if err = m.dump(ctx, e, current, file); err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w\nnothing was switched; %s %s is started again", ErrNoDump, errors.Join(err, e.start(context.WithoutCancel(ctx), current)), current.Name, current.Version)
}

func (m *Manager) dump(ctx context.Context, e engine, a *host.About, file string) (err error) {
	if err := m.alone(ctx, e, a); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	d := a.Database
	err = e.exec(ctx, a, d.Service, nil, f, "pg_dump", "--username", d.User, "--format", "custom", d.Name)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(file+".new"))
	}
	return errors.Join(os.Rename(file+".new", file), bundle.SyncDir(filepath.Dir(file)))
}

// alone leaves nothing running but the database, and waits until that answers.
func (m *Manager) alone(ctx context.Context, e engine, a *host.About) error {
	d := a.Database
	if err := e.stop(ctx, a, d.Service); err != nil {
		return err
	}
	if err := e.startOnly(ctx, a, d.Service); err != nil {
		return err
	}
	deadline := time.Now().Add(m.timeout)
	for {
		// By the network, where it answers only when it is not being made.
		err := e.exec(ctx, a, d.Service, nil, io.Discard, "pg_isready", "--host", "127.0.0.1", "--username", d.User, "--dbname", d.Name)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// Restore puts a dump back, with the database of the given release. Everything
// but the database is stopped then.
func (m *Manager) Restore(ctx context.Context, a *host.About, file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	if err := m.alone(ctx, e, a); err != nil {
		return err
	}
	d := a.Database
	// The database as a whole: a migration may have made what the dump does not know.
	return e.exec(ctx, a, d.Service, f, io.Discard, "pg_restore", "--username", d.User, "--dbname", "postgres", "--clean", "--create", "--if-exists", "--exit-on-error")
}
