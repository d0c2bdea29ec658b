package service

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/oob-bundle/oob-bundle/install/host"
)

const (
	composeFile = "compose.yaml"
	composeKind = "Docker Compose"
)

// compose is Docker Compose, of either generation.
type compose struct {
	command []string // docker compose, or docker-compose
	root    string
}

func (c *compose) kind() string { return composeKind }

func (c *compose) namesImages(p string) bool { return p == composeFile }

// forget has nothing to do: what Compose has stopped is gone.
func (c *compose) forget(context.Context, *host.About) error { return nil }

func (c *compose) args(a *host.About, args ...string) (dir string, all []string) {
	dir = releaseDir(c.root, a)
	all = append(append([]string{}, c.command...), "--project-name", a.Name, "--project-directory", dir, "--file", dir+"/"+composeFile)
	return dir, append(all, args...)
}

func (c *compose) do(ctx context.Context, a *host.About, args ...string) ([]byte, error) {
	dir, all := c.args(a, args...)
	out, err := run(ctx, dir, all...)
	if err != nil {
		return nil, fmt.Errorf("%s %w", strings.Join(args[:1], " "), err)
	}
	return out, nil
}

func (c *compose) pull(ctx context.Context, images []string) error {
	for _, i := range images {
		if _, err := run(ctx, "", "docker", "image", "inspect", i); err == nil {
			continue
		}
		if _, err := run(ctx, "", "docker", "pull", "--quiet", i); err != nil {
			return err
		}
	}
	return nil
}

func (c *compose) start(ctx context.Context, a *host.About) error {
	_, err := c.do(ctx, a, "up", "--detach", "--remove-orphans")
	return err
}

func (c *compose) startOnly(ctx context.Context, a *host.About, service string) error {
	_, err := c.do(ctx, a, "up", "--detach", "--no-deps", service)
	return err
}

func (c *compose) stop(ctx context.Context, a *host.About, except string) error {
	if except == "" {
		_, err := c.do(ctx, a, "down", "--timeout", "60")
		return err
	}
	out, err := c.do(ctx, a, "config", "--services")
	if err != nil {
		return err
	}
	args := []string{"stop", "--timeout", "60"}
	for _, s := range strings.Fields(string(out)) {
		if s != except {
			args = append(args, s)
		}
	}
	if len(args) > 3 {
		_, err = c.do(ctx, a, args...)
	}
	return err
}

func (c *compose) exec(ctx context.Context, a *host.About, service string, in io.Reader, out io.Writer, args ...string) error {
	dir, all := c.args(a, append([]string{"exec", "-T", service}, args...)...)
	return runTo(ctx, dir, in, out, all...)
}

// unwell asks Docker about each container: running, and healthy if it can say.
func (c *compose) unwell(ctx context.Context, a *host.About) ([]string, error) {
	out, err := c.do(ctx, a, "ps", "--all", "--quiet")
	if err != nil {
		return nil, err
	}
	ids := strings.Fields(string(out))
	if len(ids) == 0 {
		return []string{"no container"}, nil
	}
	format := `{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}} {{.State.ExitCode}} {{.HostConfig.RestartPolicy.Name}}`
	out, err = run(ctx, "", append([]string{"docker", "inspect", "--format", format}, ids...)...)
	if err != nil {
		return nil, err
	}
	var sick []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		done := f[1] == "exited" && f[3] == "0" && (len(f) < 5 || f[4] == "no") // one that had something to do once
		if !done && (f[1] != "running" || f[2] != "healthy") {
			sick = append(sick, strings.TrimPrefix(f[0], "/")+" ("+f[1]+", "+f[2]+")")
		}
	}
	return sick, nil
}

func (c *compose) logs(ctx context.Context, a *host.About, w io.Writer) {
	dir, all := c.args(a, "logs", "--no-color", "--tail", "200")
	if err := runTo(ctx, dir, nil, w, all...); err != nil {
		fmt.Fprintln(w, err)
	}
}
