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

// each runs a test with every command, in a world of its own that is where the
// command begins.
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

// traced runs a command of a world.
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

// same wants the world to be as after an undisturbed run.
func (w *faultWorld) same(when string) {
	w.t.Helper()
	if diff := gocmp.Diff(strings.Split(w.wants, "\n"), strings.Split(w.tree(), "\n")); diff != "" {
		w.t.Errorf("%s: something else than an undisturbed run leaves: %s", when, diff)
	}
}

// TestNowhere: the isolated side speaks to nobody, not even to ask for a name, and
// the connected one to the registry that it was told.
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

// TestClocks: nothing but what people are shown depends on the time of day.
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

// TestOddHosts: surroundings that programs tend to take for granted.
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
			code        int // 0, or that of a report that nobody could read
		}{
			{"umask 000", `umask 000; exec "$@"`, 0},
			{"umask 077", `umask 077; exec "$@"`, 0},
			{"no HOME", `unset HOME; exec "$@"`, 0},
			{"nothing in the environment", `exec env -i OOB_BUNDLE_PASSWORD= "$@"`, 0},
			{"no directory for temporary files", `TMPDIR=/nowhere exec "$@"`, 0},
			{"32 files", `ulimit -n 32; exec "$@"`, 0},
			{"stdout is closed", `("$@" >&-); code=$?; "$@" && exit $code`, 1}, // found before any work, so the same command then does it
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

// TestHands: while a bundle is installed somebody who may write to it changes all
// of its payload, cuts it, or puts another one in its place, between any two calls
// on it. What is installed is what was verified, or nothing is.
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
				// The whole bundle in another's place before it was opened is that bundle.
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

// payloadOffset returns where the blobs of a bundle begin.
func payloadOffset(data []byte) int {
	head, err := bundle.ReadHead(strings.NewReader(string(data)), int64(len(data)))
	if err != nil {
		return 0
	}
	return int(head.SlotOffset()) + bundle.SlotSize
}

// overwrite changes a file in place: who has it open sees it.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	return errors.Join(err, f.Close())
}

// TestLinksInData: whoever runs as the program that a data directory belongs to can
// put links there at any moment. Install follows none of them out of it.
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

// owners describes everything below a directory, directories included.
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
