package service

import (
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// systemd runs systemd units: those of the release, or those that podman's Quadlet generates
// from its .container files.
type systemd struct {
	podman    bool
	plainHTTP bool
	timeout   time.Duration // how long systemctl may wait for units to start
}

func (s *systemd) kind() string {
	if s.podman {
		return "podman"
	}
	return "systemd"
}

func (s *systemd) namesImages(p string) bool { return s.podman && strings.HasPrefix(p, "quadlet/") }

// units returns the names of the services that a release's links define.
func (s *systemd) units(a *host.About) []string {
	var list []string
	for _, l := range a.Links {
		list = append(list, unit(l)...)
	}
	return list
}

func unit(l bundle.Link) []string {
	name := path.Base(l.Path)
	switch {
	case quadlet(l) && strings.HasSuffix(name, ".container"):
		return []string{strings.TrimSuffix(name, ".container") + ".service"}
	case path.Dir(l.Path) == "/etc/systemd/system" && strings.HasSuffix(name, ".service"):
		return []string{name}
	}
	return nil
}

// quadlet reports whether a link is to a file from which Quadlet generates a unit.
func quadlet(l bundle.Link) bool { return path.Dir(l.Path) == "/etc/containers/systemd" }

// networks returns the services that create the networks of a release.
func networks(a *host.About) []string {
	var list []string
	for _, l := range a.Links {
		if name, ok := strings.CutSuffix(path.Base(l.Path), ".network"); ok && quadlet(l) {
			list = append(list, name+"-network.service")
		}
	}
	return list
}

func (s *systemd) pull(ctx context.Context, images []string) error {
	if !s.podman {
		return nil
	}
	for _, i := range images {
		if _, err := run(ctx, "podman", "image", "exists", i); err == nil {
			continue
		}
		if _, err := run(ctx, "podman", "pull", "--quiet", fmt.Sprintf("--tls-verify=%t", !s.plainHTTP), i); err != nil {
			return err
		}
	}
	return nil
}

func systemctl(ctx context.Context, verb string, units ...string) error {
	_, err := run(ctx, append([]string{"systemctl", verb}, units...)...)
	return err
}

// reload makes systemd read the linked units and Quadlet generate its own. Until then systemd
// uses the units of an earlier release.
func (s *systemd) reload(ctx context.Context) error { return systemctl(ctx, "daemon-reload") }

// bring reloads systemd and starts or restarts units. It resets units that have failed, so
// that systemd does not refuse them for failing too often.
func (s *systemd) bring(ctx context.Context, verb string, units ...string) error {
	if err := s.reload(ctx); err != nil {
		return err
	}
	for _, u := range units {
		if _, err := run(ctx, "systemctl", "is-failed", "--quiet", u); err != nil {
			continue
		}
		if err := systemctl(ctx, "reset-failed", u); err != nil {
			return err
		}
	}
	bounded, cancel := context.WithTimeoutCause(
		ctx, s.timeout, fmt.Errorf("after %s systemd is still starting %s", s.timeout, strings.Join(units, ", ")),
	)
	defer cancel()
	return systemctl(bounded, verb, units...)
}

func (s *systemd) start(ctx context.Context, a, _ *host.About) error {
	units := s.units(a)
	if !s.podman { // Quadlet enables its units by their [Install] sections
		if err := s.reload(ctx); err != nil {
			return err
		}
		if err := systemctl(ctx, "enable", units...); err != nil {
			return err
		}
	}
	return s.bring(ctx, "restart", units...)
}

func (s *systemd) startOnly(ctx context.Context, a *host.About, service string) error {
	return s.bring(ctx, "start", a.Name+"-"+service+".service")
}

func (s *systemd) stop(ctx context.Context, a *host.About, except string) error {
	units := s.units(a)
	if except == "" {
		units = append(units, networks(a)...)
	} else {
		units = slices.DeleteFunc(units, func(u string) bool { return u == a.Name+"-"+except+".service" })
	}
	if len(units) == 0 {
		return nil
	}
	// systemd does not know a unit that was linked and never loaded, and could not stop it.
	if err := s.reload(ctx); err != nil {
		return err
	}
	// Skip units that systemd does not know and that are not active: an interrupted run has
	// stopped them and removed their links.
	var known []string
	for _, u := range units {
		out, err := run(ctx, "systemctl", "show", "--property", "LoadState", "--property", "ActiveState", "--value", u)
		if err != nil {
			return err
		}
		if state := strings.Fields(string(out)); !slices.Contains(state, "not-found") || slices.Contains(state, "active") {
			known = append(known, u)
		}
	}
	if len(known) == 0 {
		return nil
	}
	return systemctl(ctx, "stop", known...)
}

func (s *systemd) forget(ctx context.Context, a *host.About) error {
	if err := s.reload(ctx); err != nil || s.podman {
		return err
	}
	for _, u := range s.units(a) {
		if !enabled(a, u) {
			continue
		}
		out, err := run(ctx, "systemctl", "show", "--property", "LoadState", "--value", u)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(out)) != "not-found" {
			continue // the host's own unit is back
		}
		if err := systemctl(ctx, "disable", u); err != nil {
			return err
		}
	}
	return nil
}

// enabled reports whether enabling a unit has left a link to it.
func enabled(a *host.About, unit string) bool {
	for _, dir := range []string{"*.wants", "*.requires"} {
		left, err := filepath.Glob(filepath.Join(a.HostRoot, "etc/systemd/system", dir, unit))
		if err != nil || len(left) > 0 {
			return true
		}
	}
	return false
}

func (s *systemd) exec(ctx context.Context, a *host.About, service string, in io.Reader, out io.Writer, args ...string) error {
	if !s.podman {
		return fmt.Errorf("%w: %s is not a container here", ErrNoRuntime, service)
	}
	return runTo(ctx, "", in, out, append([]string{"podman", "exec", "--interactive", a.Name + "-" + service}, args...)...)
}

// unwell asks systemd about each unit. With podman it also asks about each container's health,
// if the container has a health check.
func (s *systemd) unwell(ctx context.Context, a *host.About) ([]string, error) {
	health := map[string]string{}
	if s.podman {
		var err error
		if health, err = s.health(ctx); err != nil {
			return nil, err
		}
	}
	var sick []string
	for _, u := range s.units(a) {
		out, err := run(ctx, "systemctl", "is-active", u)
		state := strings.TrimSpace(string(out))
		switch h, ok := health[u]; {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil && state == "": // systemctl has not answered
			return nil, err
		case err != nil:
			sick = append(sick, u+" ("+state+")")
		case s.podman && !ok:
			sick = append(sick, u+" (no container)")
		case s.podman && h != "":
			sick = append(sick, u+" ("+h+")")
		}
	}
	return sick, nil
}

// health maps the unit of each running container to "starting", "unhealthy" or "".
func (s *systemd) health(ctx context.Context) (map[string]string, error) {
	// podman sets this label from the environment that Quadlet gives each unit.
	out, err := run(
		ctx,
		"podman",
		"ps",
		"--filter",
		"label=PODMAN_SYSTEMD_UNIT",
		"--format",
		`{{index .Labels "PODMAN_SYSTEMD_UNIT"}} {{.Status}}`,
	)
	if err != nil {
		return nil, err
	}
	health := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		name, status, _ := strings.Cut(line, " ")
		state := ""
		for _, s := range []string{"starting", "unhealthy"} {
			if strings.HasSuffix(status, "("+s+")") {
				state = s
			}
		}
		health[name] = state
	}
	return health, nil
}

func (s *systemd) logs(ctx context.Context, a *host.About, w io.Writer) {
	for _, u := range s.units(a) { // one query per unit: podman writes its own messages about a unit there, too
		if err := runTo(ctx, "", nil, w, "journalctl", "--no-pager", "--lines", "200", "--unit", u); err != nil {
			fmt.Fprintln(w, err)
		}
	}
}
