//go:build linux && amd64 && !race

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/trace"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// each runs a test for every command, each in a separate world in the state before the command.
func each(t *testing.T, test func(t *testing.T, w *faultWorld, c faultCommand)) {
	for i := range faultCommands(newFaultWorld(t)) {
		w := newFaultWorld(t)
		c := faultCommands(w)[i]
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			w.prepare(c)
			w.restore()
			test(t, w, c)
		})
	}
}

// traced runs the program in the world's directory under trace.
func (w *faultWorld) traced(o trace.Options, args ...string) *trace.Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	o.Dir, o.Env, o.Below = w.dir, append(os.Environ(), "OOB_BUNDLE_PASSWORD="), []string{w.dir}
	r, err := trace.Run(ctx, o, w.program, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// same checks that the world is as after an undisturbed run.
func (w *faultWorld) same(when string) {
	w.t.Helper()
	if diff := gocmp.Diff(strings.Split(w.wants, "\n"), strings.Split(w.tree(), "\n")); diff != "" {
		w.t.Errorf("%s: something else than an undisturbed run leaves: %s", when, diff)
	}
}

// TestNowhere: commands of the isolated side open no network connection, not even for a DNS
// query. Commands of the connected side connect only to the given registry.
func TestNowhere(t *testing.T) {
	each(t, func(t *testing.T, w *faultWorld, c faultCommand) {
		var reached []string
		r := w.traced(trace.Options{Reached: func(a string) { reached = append(reached, a) }}, c.args...)
		if r.Code != 0 {
			t.Fatalf("exit status %d\n%s", r.Code, r.Stderr)
		}
		upstream := ""
		if i := slices.Index(c.args, "--plain-http"); i >= 0 {
			upstream = c.args[i+1]
			if !slices.Contains(reached, upstream) {
				t.Errorf("it reached %v, which shows that a connection would not be seen", reached)
			}
		}
		for _, a := range reached {
			if a != upstream {
				t.Errorf("it reached %s", a)
			}
		}
	})
}

// TestClocks: the results of commands, except displayed times, do not depend on the clock.
func TestClocks(t *testing.T) {
	each(t, func(t *testing.T, w *faultWorld, c faultCommand) {
		for _, year := range []int{1970, 2099} {
			w.restore()
			r := w.traced(trace.Options{Clock: time.Date(year, 1, 1, 0, 0, 1, 0, time.UTC)}, c.args...)
			if r.Code != 0 {
				t.Fatalf("in %d: exit status %d\n%s", year, r.Code, r.Stderr)
			}
			w.same(fmt.Sprintf("in %d", year))
		}
	})
}

// TestOddHosts runs commands in unusual environments.
func TestOddHosts(t *testing.T) {
	w := newFaultWorld(t)
	commands := faultCommands(w)
	for _, name := range []string{"create", "verify", "install"} {
		c := commands[slices.IndexFunc(commands, func(c faultCommand) bool { return c.name == name })]
		for _, dir := range faultDirs {
			if err := os.RemoveAll(filepath.Join(w.dir, dir)); err != nil {
				t.Fatal(err)
			}
		}
		w.prepare(c)
		for _, odd := range []struct {
			name, shell string
			code        int // expected exit status; -1 means any
		}{
			{"umask 000", `umask 000; exec "$@"`, 0},
			{"umask 077", `umask 077; exec "$@"`, 0},
			{"no HOME", `unset HOME; exec "$@"`, 0},
			{"nothing in the environment", `exec env -i OOB_BUNDLE_PASSWORD= "$@"`, 0},
			{"no directory for temporary files", `TMPDIR=/nowhere exec "$@"`, 0},
			{"32 files", `ulimit -n 32; exec "$@"`, 0},
			{"stdout is closed", `("$@" >&-); code=$?; "$@" && exit $code`, 1}, // refused before any work; the second run does the work
			{"stdout is full", `exec "$@" >/dev/full`, 1},
			{"stderr is closed", `exec "$@" 2>&-`, 0},
			{"stdin is closed", `exec "$@" <&-`, 0},
			{"nobody reads", `"$@" | true; exit ${PIPESTATUS[0]}`, -1},
			{"one processor", `GOMAXPROCS=1 exec "$@"`, 0},
			{"another language", `LC_ALL=tr_TR.UTF-8 TZ=Pacific/Kiritimati exec "$@"`, 0},
		} {
			w.restore()
			cmd := exec.Command("bash", slices.Concat([]string{"-c", odd.shell, "bash", w.program}, c.args)...)
			cmd.Dir, cmd.Env = w.dir, append(os.Environ(), "OOB_BUNDLE_PASSWORD=")
			out, err := cmd.CombinedOutput()
			code := 0
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != odd.code && odd.code >= 0 {
				t.Errorf("%s, %s: exit status %d\n%s", name, odd.name, code, out)
			}
			w.t = t
			w.same(name + ", " + odd.name)
		}
	}
}

// TestHands: during an installation, another process changes the bundle's payload, truncates
// the file, or replaces it with another bundle, between any two calls on the file. Install must
// install exactly what it verified, or nothing.
func TestHands(t *testing.T) {
	hands := map[string]func(path string, good, other []byte) error{
		"other payload": func(path string, good, _ []byte) error {
			bad := slices.Clone(good)
			for i := payloadOffset(good); i < len(bad); i++ {
				bad[i] ^= 0x20
			}
			return overwrite(path, bad)
		},
		"cut": func(path string, good, _ []byte) error { return os.Truncate(path, int64(len(good)/2)) },
		"another bundle": func(path string, _, other []byte) error {
			if err := os.WriteFile(path+".other", other, 0o644); err != nil {
				return err
			}
			return os.Rename(path+".other", path)
		},
		"another bundle's bytes": func(path string, _, other []byte) error { return overwrite(path, other) },
	}
	w := newFaultWorld(t)
	commands := faultCommands(w)
	c := commands[slices.IndexFunc(commands, func(c faultCommand) bool { return c.name == "install" })]
	w.prepare(c)
	path := filepath.Join(w.dir, "in/one.oob.tar")
	good, other := readFile(t, path), readFile(t, filepath.Join(w.dir, "in/two.oob.tar"))
	step := (stride(t) + 1) / 2
	tried, refused, unharmed := 0, 0, 0
	for _, name := range sortedHands(hands) {
		for k := 1; ; k += step {
			w.restore()
			n, done := 0, false
			r := w.traced(trace.Options{Decide: func(call trace.Call) trace.Verdict {
				if call.Path == path {
					if n++; n == k {
						done = true
						if err := hands[name](path, good, other); err != nil {
							t.Error(err)
						}
					}
				}
				return trace.Verdict{}
			}}, c.args...)
			if !done {
				break
			}
			tried++
			bad := func(format string, args ...any) {
				t.Helper()
				t.Errorf("%s before call %d: %s\nexit status %d\n%s", name, k, fmt.Sprintf(format, args...), r.Code, r.Stderr)
			}
			switch r.Code {
			case 0:
				unharmed++
				// If the file was replaced before it was opened, the other bundle is installed.
				if !strings.Contains(r.Stdout, "app 2.0.0") {
					w.same(fmt.Sprintf("%s before call %d", name, k))
				}
			case 3, 4, 8:
				refused++
			default:
				bad("not an answer to a changed bundle")
			}
			w.intactRegistry(false, bad)
			w.intactHost(bad)
			if err := os.WriteFile(path, good, 0o644); err != nil {
				t.Fatal(err)
			}
			if r.Code != 0 {
				if out, err := w.run(c.args); err != nil {
					bad("with the bundle as it was: %v\n%s", err, out)
				}
				w.same(fmt.Sprintf("%s before call %d, then again", name, k))
			}
		}
	}
	t.Logf("%d changes: %d refused, %d too late to matter", tried, refused, unharmed)
	if refused == 0 || unharmed == 0 {
		t.Error("the changes did not come while the bundle was read")
	}
}

func sortedHands[V any](m map[string]V) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// payloadOffset returns the offset at which the blobs of a bundle start.
func payloadOffset(data []byte) int {
	head, err := bundle.ReadHead(strings.NewReader(string(data)), int64(len(data)))
	if err != nil {
		return 0
	}
	return int(head.SlotOffset()) + bundle.SlotSize
}

// overwrite changes a file in place, visible to processes that have it open.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	return errors.Join(err, f.Close())
}

// TestLinksInData: the owner of a data directory can create symbolic links there at any time.
// Install must not follow them out of the directory.
func TestLinksInData(t *testing.T) {
	w := newFaultWorld(t)
	commands := faultCommands(w)
	c := commands[slices.IndexFunc(commands, func(c faultCommand) bool { return c.name == "install" })]
	w.prepare(c)
	data := filepath.Join(w.dir, "site/deployments/app/data")
	outside := filepath.Join(w.dir, "outside")
	world.Write(t, filepath.Join(makeDir(t, outside), "config.json"), []byte(`{"victim": true}`), 0o600)
	world.Write(t, filepath.Join(makeDir(t, filepath.Join(outside, "app")), "victim"), nil, 0o600)
	before := owners(t, outside)
	planted, step := 0, (stride(t)+3)/4
	for k := 1; ; k += step {
		w.restore()
		n, done := 0, false
		w.traced(trace.Options{Decide: func(call trace.Call) trace.Verdict {
			if strings.HasPrefix(call.Path, data) {
				if n++; n == k {
					done = true
					for _, name := range []string{"conf", "app", ".app.new"} {
						if os.RemoveAll(filepath.Join(data, name)) == nil && os.Symlink(outside, filepath.Join(data, name)) == nil {
							planted++
						}
					}
				}
			}
			return trace.Verdict{}
		}}, c.args...)
		if !done {
			break
		}
		if after := owners(t, outside); after != before {
			t.Fatalf("links before call %d: something outside of the data directory was changed: %s", k, gocmp.Diff(before, after))
		}
	}
	t.Logf("%d links planted", planted)
	if planted == 0 {
		t.Error("no link was planted")
	}
}

// owners returns mode, owner and content of everything below a directory.
func owners(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		var data []byte
		if !d.IsDir() {
			data, err = os.ReadFile(path)
		}
		fmt.Fprintf(&b, "%s %s %d:%d %q\n", path, fi.Mode(), st.Uid, st.Gid, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func makeDir(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
