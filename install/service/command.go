package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// askSystemd returns why systemd cannot be used, or nil.
func askSystemd(ctx context.Context) error {
	out, err := run(ctx, "systemctl", "is-system-running")
	switch state := strings.TrimSpace(string(out)); state {
	case "degraded", "starting", "maintenance":
		return nil
	default:
		if err != nil && state != "" {
			return fmt.Errorf("%w: its state is %q", err, state)
		}
		return err
	}
}

// run runs a program and returns its output. The error contains the last lines of its standard
// error.
func run(ctx context.Context, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := runTo(ctx, "", nil, &out, args...)
	return out.Bytes(), err
}

func runTo(ctx context.Context, dir string, in io.Reader, out io.Writer, args ...string) error {
	return runAs(ctx, strings.Join(args[:min(len(args), 2)], " "), dir, in, out, args...)
}

// runAs is runTo with a name for the command in messages.
func runAs(ctx context.Context, name, dir string, in io.Reader, out io.Writer, args ...string) error {
	_, err := runSaid(ctx, name, dir, in, out, args...)
	return err
}

// runSaid is runAs, and also returns the last lines of standard error.
func runSaid(ctx context.Context, name, dir string, in io.Reader, out io.Writer, args ...string) ([]string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout = dir, in, out
	var said tail
	cmd.Stderr = &said
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err == nil {
		return said.lines(), nil
	}
	failed := &failure{name: name, said: said.lines(), err: err}
	if mask, ok := ctx.Value(maskKey{}).(func(string) string); ok {
		for i, line := range failed.said {
			failed.said[i] = mask(line)
		}
	}
	denied := containsAny(failed.said, "access denied", "interactive authentication required", "permission denied")
	if args[0] == "systemctl" && denied {
		return nil, fmt.Errorf("%w: %w\nrun it as root, such as with sudo", fs.ErrPermission, failed)
	}
	return nil, failed
}

// maskKey is the context key of the function that masks passwords in the output of programs:
// Docker Compose quotes values that it cannot use.
type maskKey struct{}

// masking returns a context in which errors do not contain the passwords of a deployment.
func (m *Manager) masking(ctx context.Context, a *host.About) context.Context {
	return context.WithValue(ctx, maskKey{}, host.Mask(m.root, a.Name))
}

// failure is the error of a program that failed.
type failure struct {
	name string
	said []string // the last lines of its standard error
	err  error
}

func (f *failure) Error() string {
	text := f.name + ": " + f.err.Error()
	if len(f.said) > 0 {
		text += ": " + strings.Join(f.said, "\n  ")
	}
	return text
}

func (f *failure) Unwrap() error { return f.err }

// saidBy returns the last lines of standard error from a failure, or nil for another error.
func saidBy(err error) []string {
	var f *failure
	if errors.As(err, &f) {
		return f.said
	}
	return nil
}

// containsAny reports whether a line contains one of the words, ignoring the line's case. The
// words must be in lower case.
func containsAny(lines []string, words ...string) bool {
	for _, line := range lines {
		for _, w := range words {
			if strings.Contains(strings.ToLower(line), w) {
				return true
			}
		}
	}
	return false
}

// Limits of the standard error that is kept.
const (
	maxSaid  = 16 << 10 // bytes
	maxLines = 8
	maxLine  = 500 // bytes
)

// tail keeps the last maxSaid bytes written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p[max(0, len(p)-maxSaid):]...)
	if extra := len(t.data) - maxSaid; extra > 0 {
		t.data = append(t.data[:0], t.data[extra:]...)
	}
	return len(p), nil
}

// lines returns the last lines with control characters quoted. CR ends a line, too: programs
// that show progress use it.
func (t *tail) lines() []string {
	var lines []string
	for _, line := range strings.FieldsFunc(string(t.data), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, visible(line))
		}
	}
	return lines[max(0, len(lines)-maxLines):]
}

// visible returns a line with its control characters quoted, cut off at maxLine.
func visible(line string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(line, "\ufffd") {
		if b.Len() > maxLine {
			return b.String() + "…"
		}
		if bundle.Unseen(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
