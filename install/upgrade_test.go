package install_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

var program = flag.String(
	"program",
	"",
	"make testdata/state.tar.gz anew with this program, which has to be of commit e87f49c; needs root and chattr",
)

// stateAt is the path at which the host of testdata/state.tar.gz was made.
const stateAt = "/srv/oob-state"

// version returns a bundle whose tags, file and link depend on its version.
func (w *fixture) version(name string, n int) []byte {
	c := world.NewContent(name)
	c.Info.Version, c.Info.Sequence = fmt.Sprintf("%d.0.0", n), int64(n)
	c.Doc.Version = c.Info.Version
	c.Add("docker.io/library/shared:1", c.Image("linux/amd64", fmt.Sprint(name, n)))
	c.Add(fmt.Sprintf("docker.io/library/%s:%d", name, n), c.Image("linux/amd64", fmt.Sprint(name, n, "own")))
	c.HostFile(name+".conf", fmt.Sprintf("%s %d\n", name, n))
	c.Doc.Host = &bundle.Host{Links: []bundle.Link{{Path: "/etc/nginx/conf.d/" + name + ".conf", File: name + ".conf"}}}
	return c.File(w.t, w.key)
}

// TestHostWithState takes over a host whose program kept a State and owners instead of a
// ledger: two releases of one deployment, and another deployment that took over a tag. The
// host can be upgraded, rolled back and uninstalled like any other.
func TestHostWithState(t *testing.T) {
	if *program != "" {
		makeState(t)
	}
	for name, run := range map[string]func(t *testing.T, w *fixture){
		"read":              readWithState,
		"upgrade, and back": upgradeAndBack,
		"remove": func(t *testing.T, w *fixture) {
			w.undo("other", uninstall)
			if !w.settled() {
				t.Errorf("%v", w.tags())
			}
			w.undo("demo", uninstall)
			w.collect()
			if tags := w.tags(); len(tags) > 0 {
				t.Errorf("%v is left", tags)
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(w.root), "host/etc/nginx/conf.d/*")); err != nil || len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		},
		"state.json lost": func(t *testing.T, w *fixture) {
			remove(t, w.root, "state.json", "state.json.old")
			if _, err := w.install(w.version("demo", 1)); !errors.Is(err, bundle.ErrPolicy) {
				t.Errorf("an older one: %v", err)
			}
			w.undo("demo", rollback)
			w.undo("demo", uninstall)
			w.undo("other", uninstall)
			w.collect()
			if tags := w.tags(); len(tags) > 0 {
				t.Errorf("%v is left", tags)
			}
		},
		"a rollback that it had begun": func(t *testing.T, w *fixture) {
			unfinished(t, w, "rollback")
			w.undo("demo", rollback)
			l, err := ledger.Read(w.root)
			if err != nil {
				t.Fatal(err)
			}
			if demo, err := l.Find("demo", ""); err != nil || demo.Current().Version != "1.0.0" || !w.settled() {
				t.Errorf("%+v %v", demo, err)
			}
		},
		"an uninstallation that it had begun": func(t *testing.T, w *fixture) {
			unfinished(t, w, "uninstall")
			w.undo("demo", uninstall)
			w.undo("other", uninstall)
			w.collect()
			if tags := w.tags(); len(tags) > 0 {
				t.Errorf("%v is left", tags)
			}
		},
		"an installation that it had begun": func(t *testing.T, w *fixture) {
			unfinished(t, w, "install")
			target, err := embedded(t.Context(), w.root)
			if err != nil {
				t.Fatal(err)
			}
			if j, err := install.TakeBack(t.Context(), install.Site{Root: w.root, Target: target}, "demo"); err != nil || j == nil {
				t.Fatal(j, err)
			}
			if !w.settled() {
				t.Error("taken back, its tags are not what the ledger says")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t)
			w.root = filepath.Join(t.TempDir(), "site")
			unpackState(t, filepath.Dir(w.root))
			run(t, w)
		})
	}
}

// readWithState reads the ledger of a host with a State.
func readWithState(t *testing.T, w *fixture) {
	t.Helper()
	l, err := ledger.Read(w.root)
	if err != nil || l.Rebuilt != nil || len(l.Unknown) > 0 {
		t.Fatal(err, l)
	}
	demo, err := l.Find("demo", "")
	if err != nil || len(demo.Releases) != 2 || demo.Current().Version != "2.0.0" || demo.Releases[1].Version != "1.0.0" {
		t.Errorf("%+v %v", demo, err)
	}
	if owner, _ := l.Owner(ledger.Tag("embedded", "docker.io/library/shared", "1")); owner.Name != "other" {
		t.Errorf("the shared tag is %s's", owner.Name)
	}
	if !w.settled() {
		t.Error("its tags are not what the ledger says")
	}
}

// upgradeAndBack upgrades a host with a State and rolls back to a release before the State's.
func upgradeAndBack(t *testing.T, w *fixture) {
	t.Helper()
	shared := func() string { return w.tags()["docker.io/library/shared:1"] }
	taken := shared()
	if _, err := w.install(w.version("demo", 3)); !errors.Is(err, bundle.ErrPolicy) {
		t.Fatalf("the shared tag is the other one's: %v", err)
	}
	w.must(w.install(w.version("demo", 3), takeOver))
	if w.tags()["docker.io/library/demo:3"] == "" || shared() == taken || !w.settled() {
		t.Errorf("upgraded: %v", w.tags())
	}
	w.undo("demo", rollback)
	if shared() != taken || !w.settled() {
		t.Errorf("rolled back: %v", w.tags())
	}
	w.undo("demo", rollback)
	if w.tags()["docker.io/library/demo:1"] == "" || !w.settled() {
		t.Errorf("rolled back once more: %v", w.tags())
	}
}

// unfinished replaces the root with one that has a journal of the given action.
func unfinished(t *testing.T, w *fixture, action string) {
	t.Helper()
	begun := filepath.Join(filepath.Dir(w.root), "begun-"+action)
	if err := os.RemoveAll(w.root); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(begun, w.root); err != nil {
		t.Fatal(err)
	}
}

// unpackState unpacks testdata/state.tar.gz and changes the root in its paths.
func unpackState(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open("testdata/state.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(z)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, filepath.FromSlash(h.Name)) //nolint:gosec // the archive is part of this project
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(at, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(strings.ReplaceAll(h.Linkname, stateAt, dir), at)
		default:
			var data []byte
			if data, err = io.ReadAll(archive); err == nil && strings.HasSuffix(at, ".json") {
				data = bytes.ReplaceAll(data, []byte(stateAt), []byte(dir))
			}
			err = errors.Join(err, os.WriteFile(at, data, h.FileInfo().Mode().Perm()))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// makeState creates testdata/state.tar.gz. Immutable files (chattr +i) stop a change in the
// middle.
func makeState(t *testing.T) {
	t.Helper()
	w := newFixture(t)
	for _, dir := range []string{stateAt + "/host/etc/nginx/conf.d", "testdata"} {
		mkdir(t, dir)
	}
	key := filepath.Join(t.TempDir(), "key.pub")
	pem, err := os.ReadFile(w.key.Public)
	if err != nil {
		t.Fatal(err)
	}
	world.Write(t, key, pem, 0o644)
	run := func(fails bool, args ...string) {
		t.Helper()
		out, err := exec.Command(*program, args...).CombinedOutput() //nolint:gosec // the tester chooses the program
		if t.Logf("%q\n%s", args, out); (err != nil) != fails {
			t.Fatal(err)
		}
	}
	site := func(root string) []string { return []string{"--root", root} }
	in := func(root, name string, n int, more ...string) []string {
		file := filepath.Join(t.TempDir(), name+".oob.tar")
		world.Write(t, file, w.version(name, n), 0o644)
		return append(append([]string{"install", file, "--key", key, "--host-root", stateAt + "/host"}, site(root)...), more...)
	}
	root := stateAt + "/site"
	run(false, in(root, "demo", 1)...)
	run(false, in(root, "demo", 2)...)
	for action, args := range map[string][]string{
		"rollback":  append([]string{"rollback", "demo"}, site(root)...),
		"uninstall": append([]string{"uninstall", "demo"}, site(root)...),
		"install":   in(root, "demo", 3),
	} {
		kept, fixed := stateAt+"/kept", root+"/registry/docker/registry/v2/repositories/docker.io/library/shared/_manifests/tags/1/current"
		sh(t, "cp", "-a", root, kept)
		if action == "uninstall" {
			run(false, in(root, "other", 1, "--take-over")...)
			fixed = root + "/registry/docker/registry/v2/repositories/oob-bundle/demo/_manifests/tags"
		}
		sh(t, "chattr", "-R", "+i", fixed)
		run(true, args...)
		sh(t, "chattr", "-R", "-i", fixed)
		sh(t, "mv", root, stateAt+"/begun-"+action)
		sh(t, "mv", kept, root)
	}
	run(false, in(root, "other", 1, "--take-over")...)
	sh(
		t,
		"tar",
		"-C",
		stateAt,
		"--sort=name",
		"--mtime=2026-01-02",
		"--owner=0",
		"--group=0",
		"--exclude=lock",
		"-czf",
		"testdata/state.tar.gz",
		".",
	)
	if err := os.RemoveAll(stateAt); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func sh(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}
