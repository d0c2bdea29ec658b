package main

// Output rules:
//   - Results go to stdout, everything else to stderr.
//   - With --json, stdout is one JSON document, and notes and progress are events on stderr:
//     one line each, starting with a brace. Errors and warnings stay text.
//   - Progress is a bar on a terminal and a line every few seconds elsewhere.
//   - --quiet prints only errors and warnings, and results on stdout.
//   - The output uses no color.
//   - Text from an unverified bundle is quoted. Control characters that a terminal would obey
//     are never printed, from any source.
//   - An error names the failure, the place and the remedy. A hint follows on a separate line,
//     indented under the text.

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
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/record"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
)

type ui struct {
	out, err    io.Writer
	quiet, json bool
	patience    atomic.Int64 // nanoseconds for cleaning up after a signal
	passwords   map[string]string
}

// Environment variables that contain passwords.
const (
	keyPassword     = "OOB_BUNDLE_PASSWORD"
	cosignPassword  = "COSIGN_PASSWORD"
	accountPassword = "OOB_BUNDLE_ACCOUNT_PASSWORD"
)

// takePasswords reads the passwords and removes them from the environment, so that child
// processes (container engines, credential helpers) do not get them.
func takePasswords() map[string]string {
	taken := map[string]string{}
	for _, name := range []string{keyPassword, cosignPassword, accountPassword} {
		if p, ok := os.LookupEnv(name); ok {
			taken[name] = p
			_ = os.Unsetenv(name)
		}
	}
	return taken
}

// needsTime sets how long an interrupted command may take to clean up. A second signal ends the
// program immediately.
func (u *ui) needsTime(d time.Duration) { u.patience.Store(int64(d)) }

// note prints a message about the work in progress, unless --quiet is given.
func (u *ui) note(format string, args ...any) {
	switch {
	case u.quiet:
	case u.json:
		u.event(struct {
			Event string `json:"event"` // "note"
			Text  string `json:"text"`
		}{"note", fmt.Sprintf(format, args...)})
	default:
		fmt.Fprintln(u.err, printable(fmt.Sprintf(format, args...)))
	}
}

// warn prints a warning, also with --quiet.
func (u *ui) warn(format string, args ...any) {
	fmt.Fprintln(u.err, "warning: "+printable(fmt.Sprintf(format, args...)))
}

// fail prints an error and its hint.
func (u *ui) fail(err error) {
	text := plainText(err)
	if len(text) > maxMessage {
		text = text[:maxMessage/2] + " [...] " + text[len(text)-maxMessage/2:]
	}
	text = strings.ReplaceAll(printable(text), "\n", "\n       ")
	fmt.Fprintf(u.err, "error: %s\n", text)
	if h := hint(err); h != "" {
		fmt.Fprintf(u.err, "       %s\n", printable(h))
	}
}

// maxMessage is the maximum length of an error's text, in bytes: the text may quote long input.
const maxMessage = 16 << 10

// obeyed reports whether a terminal would interpret r instead of showing it.
func obeyed(r rune) bool {
	return r != '\n' && r != '\t' && bundle.Unseen(r)
}

// printable escapes characters that a terminal would obey, and bytes that are not UTF-8, as in
// a Go string: \x1b, \u202e.
func printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, obeyed) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 || obeyed(r) {
			quoted := strconv.QuoteToASCII(s[:n])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// printableJSON does the same for a JSON document without changing its value: except for \r,
// such characters occur only in strings (RFC 8259 section 7).
func printableJSON(s string) string {
	if !strings.ContainsFunc(s, obeyed) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !obeyed(r):
			b.WriteRune(r)
		case r == '\r': // between values
			b.WriteByte(' ')
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// plainText returns the text of an error without the names of system calls.
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
	case errors.Is(p.Err, syscall.EDQUOT):
		why = "this user's quota is used up"
	case errors.Is(p.Err, syscall.EROFS):
		why = "the file system is read-only"
	case isErrno(p.Err, fullErrors):
		why = "the disk is full"
	case isErrno(p.Err, goneErrors):
		why = fmt.Sprintf("the disk or medium is gone (%v); connect it again, then run the same command again", p.Err)
	case isErrno(p.Err, mediumErrors):
		why = fmt.Sprintf("the disk or medium fails (%v); copy it to another one", p.Err)
	case errors.Is(p.Err, syscall.ENOTDIR):
		why = "there is a file where a directory is needed"
	case errors.Is(p.Err, syscall.EISDIR):
		why = "it is a directory, and a file is needed"
	case errors.Is(p.Err, syscall.EMFILE), errors.Is(p.Err, syscall.ENFILE):
		why = "too many files are open; allow more with ulimit -n"
	}
	said := p.Path + ": " + why
	return strings.Replace(strings.Replace(text, p.Error(), said, 1), p.Path+": "+said, said, 1) // no repeated path
}

// result prints v as JSON with --json, and the output of text otherwise.
func (u *ui) result(v any, text func(w io.Writer)) error {
	var b strings.Builder
	show := printable
	if u.json {
		show = printableJSON
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			return err
		}
	} else {
		text(&b)
	}
	if _, err := io.WriteString(u.out, show(b.String())); err != nil {
		// Not wrapped: ENOSPC from stdout must not get exit status 8.
		return errors.New("the work is done, and only this report could not be written: " + err.Error())
	}
	return nil
}

// commas formats a number with thousands separators.
func commas(n int64) string { return record.Commas(n) }

// count formats a number with a noun: 1 file, 2 files.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// human formats a number of bytes with a unit.
func human(n int64) string { return record.Human(n) }

// password returns a function that reads a private key's password from the environment, or asks
// for it until ctx ends.
func (u *ui) password(ctx context.Context) sign.Password {
	return func(confirm bool) ([]byte, error) {
		return u.secret(ctx, "Password for the private key: ", []string{keyPassword, cosignPassword}, confirm)
	}
}

// secret reads a password from the first of the variables that is set, or asks for it until ctx
// ends. With confirm, it asks twice.
func (u *ui) secret(ctx context.Context, prompt string, variables []string, confirm bool) ([]byte, error) {
	for _, name := range variables {
		if p, ok := u.passwords[name]; ok {
			return append([]byte{}, p...), nil
		}
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		empty := ""
		if variables[0] == keyPassword {
			empty = " (which may be empty)"
		}
		return nil, wrongUsage("a password is needed, and there is neither a terminal to ask on nor %s%s", variables[0], empty)
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
		go func() { // ReadPassword cannot be interrupted; it ends with the process
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
	if err == nil && len(p) == 0 && variables[0] == keyPassword {
		u.warn("without a password the private key is not encrypted: whoever reads the file can sign")
	}
	return p, err
}

// bundleJSON is the description of a bundle that create and verify print.
type bundleJSON struct{ record.About }

func describeBundle(identity bundle.Digest, i bundle.Info) bundleJSON {
	return bundleJSON{record.AboutOf(identity, i)}
}

func (b bundleJSON) print(w io.Writer) {
	fmt.Fprintf(w, "  identity  %s\n", b.Digest)
	fmt.Fprintf(w, "  bundle    %s %s for %s\n", b.Name, b.Version, strings.Join(b.Platforms, ", "))
	fmt.Fprintf(w, "  channel   %s, sequence %d, created %s\n", b.Channel, b.Sequence, b.Created)
}
