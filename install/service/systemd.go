package service

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// systemd runs units: those of a release itself, or those that podman's Quadlet
// makes of its .container files.
type systemd struct {
	podman    bool
	plainHTTP bool
}

// units returns the services that the links of a release make known.
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
	case path.Dir(l.Path) == "/etc/containers/systemd" && strings.HasSuffix(name, ".container"):
		return []string{strings.TrimSuffix(name, ".container") + ".service"}
	case path.Dir(l.Path) == "/etc/systemd/system" && strings.HasSuffix(name, ".service"):
		return []string{name}
	}
	return nil
}

func (s *systemd) pull(ctx context.Context, images []string) error {
	if !s.podman {
		return nil
	}
	for _, i := range images {
		if _, err := run(ctx, "", "podman", "image", "exists", i); err == nil {
			continue
		}
		if _, err := run(ctx, "", "podman", "pull", "--quiet", fmt.Sprintf("--tls-verify=%t", !s.plainHTTP), i); err != nil {
			return err
		}
	}
	return nil
}

func (s *systemd) start(ctx context.Context, a *host.About) error {
	if _, err := run(ctx, "", "systemctl", "daemon-reload"); err != nil {
		return err
	}
	units := s.units(a)
	if !s.podman { // Quadlet's units are enabled by what they say
		if _, err := run(ctx, "", append([]string{"systemctl", "enable"}, units...)...); err != nil {
			return err
		}
	}
	_, err := run(ctx, "", append([]string{"systemctl", "restart"}, units...)...)
	return err
}

func (s *systemd) startOnly(ctx context.Context, a *host.About, service string) error {
	_, err := run(ctx, "", "systemctl", "start", a.Name+"-"+service+".service")
	return err
}

func (s *systemd) stop(ctx context.Context, a *host.About, except string) error {
	units := slices.DeleteFunc(s.units(a), func(u string) bool { return except != "" && u == a.Name+"-"+except+".service" })
	if len(units) == 0 {
		return nil
	}
	_, err := run(ctx, "", append([]string{"systemctl", "stop"}, units...)...)
	return err
}

func (s *systemd) exec(ctx context.Context, a *host.About, service string, in io.Reader, out io.Writer, args ...string) error {
	if !s.podman {
		return fmt.Errorf("%w: %s is not a container here", ErrNoRuntime, service)
	}
	return runTo(ctx, "", in, out, append([]string{"podman", "exec", "--interactive", a.Name + "-" + service}, args...)...)
}

func (s *systemd) unwell(ctx context.Context, a *host.About) ([]string, error) {
	var sick []string
	for _, u := range s.units(a) {
		if out, err := run(ctx, "", "systemctl", "is-active", u); err != nil {
			sick = append(sick, u+" ("+strings.TrimSpace(string(out))+")")
		}
	}
	return sick, ctx.Err()
}

func (s *systemd) logs(ctx context.Context, a *host.About, w io.Writer) {
	args := []string{"journalctl", "--no-pager", "--lines", "200"}
	for _, u := range s.units(a) {
		args = append(args, "--unit", u)
	}
	if err := runTo(ctx, "", nil, w, args...); err != nil {
		fmt.Fprintln(w, err)
	}
}
