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
	out, err := run(ctx, "systemctl", "is-system-running")
	state := strings.TrimSpace(string(out))
	return err == nil || state == "degraded" || state == "starting" || state == "maintenance"
}

// run runs a program and returns what it prints. The error has the last lines of
// what it says.
func run(ctx context.Context, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := runTo(ctx, "", nil, &out, args...)
	return out.Bytes(), err
}

func runTo(ctx context.Context, dir string, in io.Reader, out io.Writer, args ...string) error {
	return runAs(ctx, strings.Join(args[:min(len(args), 2)], " "), dir, in, out, args...)
}

// runAs is runTo of a command that messages call by a name.
func runAs(ctx context.Context, name, dir string, in io.Reader, out io.Writer, args ...string) error {
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
		// Who shows progress ends lines with CR, too.
		lines := strings.FieldsFunc(said.String(), func(r rune) bool { return r == '\n' || r == '\r' })
		if len(lines) > 8 {
			lines = lines[len(lines)-8:]
		}
		return fmt.Errorf("%s: %w: %s", name, err, strings.Join(lines, "\n  "))
	}
	return nil
}
