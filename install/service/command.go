package service

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

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
