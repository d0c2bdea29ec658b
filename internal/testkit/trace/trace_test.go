//go:build linux && amd64

package trace_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/internal/testkit/trace"
)

// TestMain is also the traced program: it prints the year, writes a file, renames it, and
// prints an error if one of these fails.
func TestMain(m *testing.M) {
	dir := os.Getenv("TRACED_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	fmt.Println(time.Now().UTC().Year())
	if address := os.Getenv("TRACED_ADDRESS"); address != "" {
		_, _ = (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("text"), 0o644); err != nil {
		fmt.Println(err)
		os.Exit(7)
	}
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		fmt.Println(err)
		os.Exit(8)
	}
	os.Exit(0)
}

func run(t *testing.T, dir string, o trace.Options) *trace.Result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.Env = append(os.Environ(), append(o.Env, "TRACED_DIR="+dir)...)
	o.Below = []string{dir}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := trace.Run(ctx, o, self)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCalls checks that each call is seen and ends as decided.
func TestCalls(t *testing.T) {
	dir := t.TempDir()
	var names []string
	r := run(t, dir, trace.Options{Decide: func(c trace.Call) trace.Verdict {
		names = append(names, c.Name)
		if c.Name == "renameat" && (c.Path != filepath.Join(dir, "a") || c.To != filepath.Join(dir, "b")) {
			t.Errorf("a rename of %q to %q", c.Path, c.To)
		}
		return trace.Verdict{}
	}})
	if want := []string{
		"openat",
		"write",
		"close",
		"renameat",
	}; r.Code != 0 || r.Calls != len(names) ||
		!slices.Equal(slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(want, n) }), want) {
		t.Errorf("exit status %d, %d calls: %v", r.Code, r.Calls, names)
	}
	for _, c := range []struct {
		name    string
		verdict trace.Verdict
		code    int
		says    string
	}{
		{"write", trace.Verdict{Errno: syscall.ENOSPC}, 7, "no space left"},
		{"renameat", trace.Verdict{Errno: syscall.EIO}, 8, "input/output error"},
		{"write", trace.Verdict{Short: true}, 0, ""}, // the program writes the rest
		{"write", trace.Verdict{Kill: true}, -1, ""},
	} {
		done := false
		r := run(t, t.TempDir(), trace.Options{Decide: func(call trace.Call) trace.Verdict {
			if call.Name != c.name || done {
				return trace.Verdict{}
			}
			done = true
			return c.verdict
		}})
		if r.Code != c.code || !strings.Contains(r.Stdout, c.says) {
			t.Errorf("%s, %+v: exit status %d\n%s", c.name, c.verdict, r.Code, r.Stdout)
		}
	}
}

// TestClock checks that the program sees another time.
func TestClock(t *testing.T) {
	r := run(t, t.TempDir(), trace.Options{Clock: time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC)})
	if !strings.HasPrefix(r.Stdout, "2099\n") {
		t.Errorf("it says %q", r.Stdout)
	}
}

// TestReached checks that a connection is reported.
func TestReached(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var to []string
	run(t, t.TempDir(), trace.Options{Env: []string{"TRACED_ADDRESS=" + l.Addr().String()}, Reached: func(a string) { to = append(to, a) }})
	if !slices.Equal(to, []string{l.Addr().String()}) {
		t.Errorf("it went to %v, not only to %s", to, l.Addr())
	}
}
