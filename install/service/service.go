// Package service starts and stops the services of a deployment. It runs them with the
// programs of the host: Docker Compose, podman Quadlet with systemd, systemd units, or kubectl
// and Helm. It records which release was started last (host.Started), which need not be the
// current release, and checks whether its services are healthy. It dumps a PostgreSQL database
// before an upgrade and restores the dump after a failed one.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	// ErrNoRuntime reports that the host cannot start the deployment.
	ErrNoRuntime = errors.New("nothing here can start it")
	// ErrUnusable reports, together with ErrNoRuntime, an engine that is installed but does
	// not work. The engine may still be running services.
	ErrUnusable = errors.New("what would start it does not work")
	// ErrUnhealthy reports a deployment that was started and did not become healthy.
	ErrUnhealthy = errors.New("it did not come up")
	// ErrNoDump reports that the database could not be dumped.
	ErrNoDump = errors.New("the database was not dumped")
)

// Manager starts deployments, each with the engine that its release requires.
type Manager struct {
	root      string
	plainHTTP func(address string) bool
	timeout   time.Duration
	access    Access
	note      func(format string, args ...any)
}

// New returns a manager of the deployments below root. plainHTTP reports whether the registry
// at an address speaks no TLS. timeout is how long services may take to become healthy.
func New(root string, plainHTTP func(address string) bool, access Access, timeout time.Duration, note func(string, ...any)) *Manager {
	if abs, err := filepath.Abs(root); err == nil { // engines run in other directories
		root = abs
	}
	return &Manager{root, plainHTTP, timeout, access, note}
}

// engine is a program that runs services.
type engine interface {
	// pull pulls the images that the engine does not have.
	pull(ctx context.Context, images []string) error
	// start starts a release. before is the release that ran before, or nil.
	start(ctx context.Context, a, before *host.About) error
	// startOnly starts one service.
	startOnly(ctx context.Context, a *host.About, service string) error
	// stop stops all services except the named one; "" stops all.
	stop(ctx context.Context, a *host.About, except string) error
	// exec runs a program in the container or pod of a service.
	exec(ctx context.Context, a *host.About, service string, in io.Reader, out io.Writer, args ...string) error
	// unwell names the services that are not running or report that they are unhealthy.
	unwell(ctx context.Context, a *host.About) ([]string, error)
	logs(ctx context.Context, a *host.About, w io.Writer)
	// forget removes the engine's records of a stopped release whose links are removed.
	forget(ctx context.Context, a *host.About) error
	// kind returns the name of the engine. An engine does not see what another one runs.
	kind() string
	// namesImages reports whether the release file at path names the images that run.
	namesImages(path string) bool
}

// Check reports whether the host can start a deployment of this form with these links. The
// error wraps ErrNoRuntime and names what is missing.
func (m *Manager) Check(ctx context.Context, form string, links []bundle.Link) error {
	_, err := m.engine(ctx, form, links, nil)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (m *Manager) of(ctx context.Context, a *host.About) (engine, error) {
	rec, err := host.ReadStarted(m.root, a.Name)
	if err != nil {
		return nil, err
	}
	e, err := m.engine(ctx, a.Form, a.Links, rec)
	if err != nil && ctx.Err() != nil { // the check was interrupted; nothing is known to be missing
		return nil, context.Cause(ctx)
	}
	if s, ok := e.(*systemd); ok {
		s.plainHTTP = m.plainHTTP(a.Registry)
	}
	return e, err
}

func (m *Manager) engine(ctx context.Context, form string, links []bundle.Link, rec *host.Started) (engine, error) {
	units := slices.ContainsFunc(links, func(l bundle.Link) bool { return unit(l) != nil })
	switch {
	case form == "compose" && units: // the site has chosen podman
		if !has("podman") {
			return nil, fmt.Errorf("%w: the site's values ask for podman and systemd, and there is no program podman on this host", ErrNoRuntime)
		}
		if err := askSystemd(ctx); err != nil {
			return nil, noSystemd("the site's values ask for podman and systemd, and systemd does not answer", err)
		}
		if err := knowsQuadlet(ctx); err != nil {
			return nil, err
		}
		return &systemd{podman: true, timeout: m.timeout}, nil
	case form == "compose":
		command, err := docker(ctx)
		if err != nil {
			return nil, err
		}
		return &compose{command: command, root: m.root}, nil
	case form == "linux" && !units:
		return nil, fmt.Errorf("%w: no units are linked; with another --root than the default, --host-root says where /etc is", ErrNoRuntime)
	case form == "linux":
		if err := askSystemd(ctx); err != nil {
			return nil, noSystemd("systemd does not answer", err)
		}
		return &systemd{timeout: m.timeout}, nil
	case form == "kubernetes":
		c, err := m.cluster(ctx, rec)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	return nil, fmt.Errorf("%w: the bundle does not say what it is a deployment for", ErrNoRuntime)
}

// noSystemd returns the error for a systemd that is missing or cannot be used.
func noSystemd(what string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: %s: there is no program systemctl on this host", ErrNoRuntime, what)
	}
	return &unusable{fmt.Sprintf("%v: %s: %v", ErrUnusable, what, err), []error{ErrNoRuntime, ErrUnusable, err}}
}

// errGone, together with ErrUnusable, reports that the program is another engine.
var errGone = errors.New("another engine is here")

// gone reports whether an error shows that the engine is not on this host. Nothing of that
// engine runs then.
func gone(err error) bool {
	return errors.Is(err, errGone) || errors.Is(err, ErrNoRuntime) && !errors.Is(err, ErrUnusable)
}

// knowsQuadlet checks that podman is new enough: the catalogue's Quadlet units use keys of
// podman 4.9.
func knowsQuadlet(ctx context.Context) error {
	out, err := run(ctx, "podman", "version", "--format", "{{.Client.Version}}")
	if err != nil {
		return err
	}
	var major, minor int
	version := strings.TrimSpace(string(out))
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("podman version %q: %w", version, err)
	}
	if major < 4 || major == 4 && minor < 9 {
		return fmt.Errorf("%w: podman is %s here, and the units need 4.9 or newer (Quadlet)", ErrNoRuntime, version)
	}
	return nil
}

// Pull makes the images of a release available to the engine.
func (m *Manager) Pull(ctx context.Context, a *host.About) error {
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	text, err := m.text(e, a)
	if err != nil {
		return err
	}
	images := slices.DeleteFunc(slices.Clone(a.Images), func(i string) bool { return !strings.Contains(text, i) })
	return e.pull(ctx, images)
}

// text returns the contents of the release files that name the images to run.
func (m *Manager) text(e engine, a *host.About) (string, error) {
	var b strings.Builder
	for _, f := range a.Files {
		if !e.namesImages(f.Path) {
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

// Running returns the release that was started last and has not been stopped since, or nil.
func (m *Manager) Running(name string) (*host.About, error) {
	rec, err := host.ReadStarted(m.root, name)
	if err != nil || rec == nil {
		return nil, err
	}
	a, err := host.ReadRelease(m.root, name, rec.Release)
	if err != nil {
		return nil, fmt.Errorf(
			"release %s was started, and what it consists of cannot be read: %w; put that back with repair, or stop by hand "+
				"what runs of it and remove %s",
			rec.Release, err, host.StartedFile(m.root, name),
		)
	}
	return a, nil
}

// started returns the record of a release that is started or about to be started. From the
// record of another release it takes only that release's ID, as Before, and the dump that was
// taken for this one. It fails while a dump is being restored for another release.
func (m *Manager) started(a *host.About) (host.Started, error) {
	rec, err := host.ReadStarted(m.root, a.Name)
	switch {
	case err != nil:
		return host.Started{}, err
	case rec == nil:
		return host.Started{Release: a.ID}, nil
	case rec.Release == a.ID:
		return *rec, nil
	case rec.Restoring != "":
		return host.Started{}, fmt.Errorf(
			"the database is being put back for release %s, which did not come to its end: oob-bundle rollback %s --start "+
				"--restore-database goes on",
			rec.Release, a.Name,
		)
	case rec.Next == a.ID:
		return host.Started{Release: a.ID, Before: rec.Release, Dump: rec.NextDump}, nil
	}
	return host.Started{Release: a.ID, Before: rec.Release}, nil
}

// Up starts a release and waits until all services are healthy. It first completes an
// interrupted restore. If the services fail, the error wraps ErrUnhealthy and names the file
// with their logs.
func (m *Manager) Up(ctx context.Context, a *host.About) error {
	ctx = m.masking(ctx, a)
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	if err := m.Finish(ctx, a); err != nil {
		return err
	}
	rec, err := m.started(a)
	if err != nil {
		return err
	}
	if c, ok := e.(*cluster); ok { // so that later commands reach the same cluster
		rec.Kubeconfig, rec.Context, rec.Starting = c.access.Kubeconfig, c.access.Context, true
	}
	if err := rec.Write(m.root, a.Name); err != nil {
		return err
	}
	before, err := m.earlier(rec, a)
	if err != nil {
		return err
	}
	if err = e.start(ctx, a, before); err == nil {
		err = m.wait(ctx, e, a)
	}
	if err == nil {
		rec.Up, rec.Starting = true, false
		if err := m.forgetOthers(ctx, a); err != nil {
			m.note("Units that %s %s has not got may still be enabled: %v", a.Name, a.Version, err)
		}
		return rec.Write(m.root, a.Name)
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

// earlier returns the release that ran before the one being started. It returns nil if there
// was none or its record is lost.
func (m *Manager) earlier(rec host.Started, a *host.About) (*host.About, error) {
	if rec.Before == "" {
		return nil, nil
	}
	before, err := host.ReadRelease(m.root, a.Name, rec.Before)
	if err != nil && host.Lost(err) {
		m.note("Release %s, which ran before, is not here any more; what only it had may be left", rec.Before)
		return nil, nil
	}
	return before, err
}

// RanBefore reports whether another release ran before this one was started.
func RanBefore(root string, a *host.About) (bool, error) {
	rec, err := host.ReadStarted(root, a.Name)
	return rec != nil && rec.Release == a.ID && rec.Before != "", err
}

// CameUp reports whether a release has become healthy since it was started last. From then on
// its data is newer than any dump.
func CameUp(root string, a *host.About) (bool, error) {
	rec, err := host.ReadStarted(root, a.Name)
	return rec != nil && rec.Release == a.ID && rec.Up, err
}
