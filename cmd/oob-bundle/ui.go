package main

// Output rules:
//   - Results go to stdout, everything else to stderr.
//   - With --json, stdout is one JSON document, and what goes on is told on stderr
//     in lines that begin with a brace, one event each. Errors and warnings stay text.
//   - Progress is a bar on a terminal and a line every few seconds elsewhere.
//   - --quiet leaves errors and warnings, and results on stdout.
//   - Nothing depends on colour, and none is used.
//   - Text that comes out of a bundle that is not verified is quoted.
//   - An error says what failed, where, and what to do; a hint follows on its
//     own line, indented under the text.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
)

type ui struct {
	out, err    io.Writer
	quiet, json bool
}

// note tells what is going on.
func (u *ui) note(format string, args ...any) {
	switch {
	case u.quiet:
	case u.json:
		u.event(struct {
			Event string `json:"event"` // "note"
			Text  string `json:"text"`
		}{"note", fmt.Sprintf(format, args...)})
	default:
		fmt.Fprintf(u.err, format+"\n", args...)
	}
}

// warn tells what the operator should know, also with --quiet.
func (u *ui) warn(format string, args ...any) {
	fmt.Fprintf(u.err, "warning: "+format+"\n", args...)
}

// fail prints an error and its hint.
func (u *ui) fail(err error) {
	text := strings.ReplaceAll(plainText(err), "\n", "\n       ")
	fmt.Fprintf(u.err, "error: %s\n", text)
	if h := hint(err); h != "" {
		fmt.Fprintf(u.err, "       %s\n", h)
	}
}

// plainText words an error without the names of system calls.
func plainText(err error) string {
	text := err.Error()
	var p *fs.PathError
	if !errors.As(err, &p) {
		return text
	}
	why := p.Err.Error()
	switch {
	case errors.Is(p.Err, fs.ErrNotExist):
		why = "there is no such file or directory"
	case errors.Is(p.Err, fs.ErrPermission):
		why = "no permission; run it as another user, or choose another place"
	case errors.Is(p.Err, syscall.ENOSPC):
		why = "the disk is full"
	}
	return strings.Replace(text, p.Error(), p.Path+": "+why, 1)
}

// result prints v as JSON, or calls text.
func (u *ui) result(v any, text func(w io.Writer)) error {
	var b strings.Builder
	if u.json {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			return err
		}
	} else {
		text(&b)
	}
	if _, err := io.WriteString(u.out, b.String()); err != nil {
		return fmt.Errorf("the work is done, and only this report could not be written: %v", err) //nolint:errorlint // a full pipe is not a full disk
	}
	return nil
}

// commas writes a number with thousands separators.
func commas(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// human writes a number of bytes as people say it.
func human(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}

// password returns a function that takes a private key's password from the
// environment, or asks until ctx ends.
func (u *ui) password(ctx context.Context) sign.Password {
	return func(confirm bool) ([]byte, error) {
		return u.secret(ctx, "Password for the private key: ", []string{"OOB_BUNDLE_PASSWORD", "COSIGN_PASSWORD"}, confirm)
	}
}

// secret takes a password from one of the variables, or asks until ctx ends.
func (u *ui) secret(ctx context.Context, prompt string, variables []string, confirm bool) ([]byte, error) {
	for _, name := range variables {
		if p, ok := os.LookupEnv(name); ok {
			return append([]byte{}, p...), nil
		}
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, fmt.Errorf("%w: a password is needed, and there is neither a terminal to ask on nor %s (which may be empty)", errUsage, variables[0])
	}
	ask := func(prompt string) ([]byte, error) {
		before, err := term.GetState(fd)
		if err != nil {
			return nil, err
		}
		fmt.Fprint(u.err, prompt)
		defer fmt.Fprintln(u.err)
		type answer struct {
			p   []byte
			err error
		}
		answers := make(chan answer, 1)
		go func() { // cannot be interrupted; it ends with the process
			p, err := term.ReadPassword(fd)
			answers <- answer{p, err}
		}()
		select {
		case a := <-answers:
			return a.p, a.err
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), term.Restore(fd, before))
		}
	}
	p, err := ask(prompt)
	if err != nil || !confirm {
		return p, err
	}
	again, err := ask("The same again: ")
	if err == nil && string(p) != string(again) {
		err = errors.New("the two passwords differ; nothing was written")
	}
	return p, err
}

// bundleJSON is the part that create, verify and inspect print alike.
type bundleJSON struct {
	Digest    bundle.Digest `json:"digest"`
	Name      string        `json:"name"`
	Version   string        `json:"version"`
	Channel   string        `json:"channel"`
	Sequence  int64         `json:"sequence"`
	Created   string        `json:"created"` // RFC 3339, UTC
	Platforms []string      `json:"platforms"`
}

func describeBundle(identity bundle.Digest, i bundle.Info) bundleJSON {
	return bundleJSON{
		Digest: identity, Name: i.Name, Version: i.Version, Channel: i.Channel, Sequence: i.Sequence,
		Created: i.Created.UTC().Format("2006-01-02T15:04:05Z"), Platforms: i.PlatformNames(),
	}
}

func (b bundleJSON) print(w io.Writer) {
	fmt.Fprintf(w, "  identity  %s\n", b.Digest)
	fmt.Fprintf(w, "  bundle    %s %s for %s\n", b.Name, b.Version, strings.Join(b.Platforms, ", "))
	fmt.Fprintf(w, "  channel   %s, sequence %d, created %s\n", b.Channel, b.Sequence, b.Created)
}
