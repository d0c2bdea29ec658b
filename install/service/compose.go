package service

import (
	"bytes"
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

// compose is Docker Compose, as the plugin of docker or as the program docker-compose.
type compose struct {
	command []string // docker compose, or docker-compose
	root    string
}

func (c *compose) kind() string { return composeKind }

func (c *compose) namesImages(p string) bool { return p == composeFile }

// forget does nothing: Compose keeps no records of what it stopped.
func (c *compose) forget(context.Context, *host.About) error { return nil }

func (c *compose) args(a *host.About, args ...string) (dir string, all []string) {
	dir = releaseDir(c.root, a)
	all = append(append([]string{}, c.command...), "--project-name", a.Name, "--project-directory", dir, "--file", dir+"/"+composeFile)
	return dir, append(all, args...)
}

func (c *compose) do(ctx context.Context, a *host.About, args ...string) ([]byte, error) {
	dir, all := c.args(a, args...)
	var out bytes.Buffer
	err := runAs(ctx, c.name(args[0]), dir, nil, &out, all...)
	return out.Bytes(), err
}

// name returns the name of a Compose command for messages.
func (c *compose) name(command string) string { return strings.Join(c.command, " ") + " " + command }

func (c *compose) pull(ctx context.Context, images []string) error {
	for _, i := range images {
		if _, err := run(ctx, "docker", "image", "inspect", i); err == nil {
			continue
		}
		if _, err := run(ctx, "docker", "pull", "--quiet", i); err != nil {
			return pullFailed(ctx, i, err)
		}
	}
	return nil
}

func (c *compose) start(ctx context.Context, a, _ *host.About) error {
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
	return runAs(ctx, c.name("exec"), dir, in, out, all...)
}

// unwell asks Docker whether each container runs, and is healthy if it has a health check.
func (c *compose) unwell(ctx context.Context, a *host.About) ([]string, error) {
	out, err := c.do(ctx, a, "ps", "--all", "--quiet")
	if err != nil {
		return nil, err
	}
	ids := strings.Fields(string(out))
	if len(ids) == 0 {
		return []string{"no container"}, nil
	}
	format := `{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}-{{end}} ` +
		`{{.State.ExitCode}} {{.HostConfig.RestartPolicy.Name}}`
	out, err = run(ctx, append([]string{"docker", "inspect", "--format", format}, ids...)...)
	if err != nil {
		return nil, err
	}
	var sick []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		done := f[1] == "exited" && f[3] == "0" && (len(f) < 5 || f[4] == "no") // a one-shot container
		well := f[1] == "running" && (f[2] == "healthy" || f[2] == "-")
		if done || well {
			continue
		}
		why := f[1]
		if f[1] == "exited" {
			why += " with status " + f[3]
		} else if f[2] != "-" {
			why += ", " + f[2]
		}
		sick = append(sick, strings.TrimPrefix(f[0], "/")+" ("+why+")")
	}
	return sick, nil
}

func (c *compose) logs(ctx context.Context, a *host.About, w io.Writer) {
	dir, all := c.args(a, "logs", "--no-color", "--tail", "200")
	if err := runAs(ctx, c.name("logs"), dir, nil, w, all...); err != nil {
		fmt.Fprintln(w, err)
	}
}
