package install_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
)

var lives = flag.Int("lives", 12, "sequences of changes to deployments that share tags")

// TestSharedTags: whatever changes are made to deployments that share tags, each tag has its
// owner's value. After the last deployment is removed, nothing is left.
func TestSharedTags(t *testing.T) {
	w := newFixture(t)
	names := []string{"aaa", "bbb", "ccc"}
	bundles := map[string][][]byte{}
	for _, text := range []string{"one", "two", "three"} {
		x, y := w.push("team/x:1", text), w.push("team/y:1", text)
		for i, name := range names {
			refs := [][]string{{x}, {x, y}, {y}}[(i+len(text))%3] // some lack one of the two
			bundles[name] = append(bundles[name], w.bundle(name, int64(len(bundles[name])+1), refs...))
		}
	}
	for seed := range uint64(*lives) {
		w.root = filepath.Join(t.TempDir(), "site")
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // must be reproducible
		var done []string
		for range 12 {
			name := names[random.IntN(len(names))]
			n := random.IntN(3)
			switch op := random.IntN(10); {
			case op < 6:
				done = append(done, fmt.Sprintf("install %s %d", name, n))
				w.must(w.install(bundles[name][n], takeOver, allowDowngrade))
			case op < 8:
				done = append(done, "rollback "+name)
				w.change(name, rollback)
			case op < 9:
				done = append(done, "uninstall "+name)
				w.change(name, uninstall)
			default:
				done = append(done, "gc")
				w.collect()
			}
			if t.Failed() || !w.settled() {
				t.Fatalf("seed %d: %q", seed, done)
			}
		}
		random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			w.change(name, uninstall)
			if !w.settled() {
				t.Fatalf("seed %d: %q and uninstall %s of %q", seed, done, name, names)
			}
		}
		w.collect()
		if tags := w.tags(); len(tags) > 0 {
			t.Errorf("seed %d: %q and uninstall %q left %v", seed, done, names, tags)
		}
		if _, err := os.Stat(filepath.Join(w.root, "registry")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("seed %d: %q left blobs: %v", seed, done, err)
		}
	}
}

// change is undo for a deployment that may not be installed.
func (w *fixture) change(name string, do func(context.Context, install.Site, ledger.Deployment) error) {
	w.t.Helper()
	err := w.tryUndo(name, do)
	if err != nil && !errors.Is(err, ledger.ErrNotInstalled) {
		w.t.Error(err)
	}
}

func (w *fixture) collect() {
	w.t.Helper()
	e, err := registry.OpenEmbedded(w.t.Context(), w.root)
	if err == nil {
		_, err = e.Collect(w.t.Context())
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// settled reports whether every tag that a release needs has the value in the ledger, and
// every tag of the registry is needed by a release.
func (w *fixture) settled() bool {
	w.t.Helper()
	l, err := ledger.Read(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	tags := w.tags()
	for p := range l.Claims {
		_, repository, tag, ok := p.Split()
		if !ok {
			continue
		}
		name := repository + ":" + tag
		if at := tags[name]; at != string(l.Value(p)) {
			w.t.Errorf("%s is %s and has to be %s", name, at, l.Value(p))
			return false
		}
		delete(tags, name)
	}
	for name := range tags {
		w.t.Errorf("no release needs %s", name)
	}
	return len(tags) == 0
}

// TestTagBefore: after the last of several deployments is removed, a tag has its value from
// before the first one, however they took the tag over and in whichever order they are
// removed.
func TestTagBefore(t *testing.T) {
	for _, order := range [][]string{{"aaa", "bbb"}, {"bbb", "aaa"}} {
		w := newFixture(t)
		ref := w.push("team/app:1", "mine")
		w.must(w.install(w.bundle("own", 1, ref)))
		mine := w.tags()[w.siteName(ref)]
		// Without its records, the tag looks like one that another client has pushed.
		for _, p := range []string{"state.json", "receipts", "deployments"} {
			if err := os.RemoveAll(filepath.Join(w.root, p)); err != nil {
				t.Fatal(err)
			}
		}
		w.push("team/app:1", "a")
		a := w.bundle("aaa", 1, ref)
		w.push("team/app:1", "b")
		b := w.bundle("bbb", 1, ref)
		for _, file := range [][]byte{a, b, a, b} {
			w.must(w.install(file, takeOver))
		}
		for _, name := range order {
			if got := w.tags()[w.siteName(ref)]; got == mine {
				t.Errorf("%q: it is back too early", order)
			}
			w.undo(name, uninstall)
		}
		if got := w.tags()[w.siteName(ref)]; got != mine {
			t.Errorf("%q: the tag is %q and was %q", order, got, mine)
		}
	}
}

// TestLostState: after the state is lost, installing the bundles again one by one harms no
// other deployment and gives none of their tags to the first.
func TestLostState(t *testing.T) {
	w := newFixture(t)
	a, b := w.bundle("aaa", 1, w.push("team/x:1", "x")), w.bundle("bbb", 1, w.push("team/y:1", "y"))
	w.must(w.install(a))
	w.must(w.install(b))
	before := w.tags()
	if err := os.Remove(filepath.Join(w.root, "state.json")); err != nil {
		t.Fatal(err)
	}
	w.must(w.install(a))
	w.collect()
	if got := w.tags(); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("the other deployment's tags: %v instead of %v", got, before)
	}
	w.must(w.install(b))
	for _, name := range []string{"aaa", "bbb"} {
		w.undo(name, uninstall)
	}
	w.collect()
	if tags := w.tags(); len(tags) > 0 {
		t.Errorf("%v is left", tags)
	}
}

// TestNameTakenOver: taking over a name takes over what it owned.
func TestNameTakenOver(t *testing.T) {
	w := newFixture(t)
	ref := w.push("team/app:1", "one")
	w.must(w.install(w.bundle("demo", 1, ref)))
	other := w.push("team/other:1", "two")
	for n := range int64(4) { // until the first release is dropped
		w.must(
			w.install(
				w.bundleWith("demo", []string{other}, func(o *create.Options) { o.Channel = "foreign"; seq := n + 1; o.Sequence = &seq }),
				takeOver,
			),
		)
	}
	if tags := w.tags(); tags[w.siteName(ref)] != "" {
		t.Fatalf("the tag is still there: %v", tags)
	}
	w.must(w.install(w.bundle("third", 1, ref)))
}

// TestDamagedRecords: an empty record of an earlier release prevents nothing.
func TestDamagedRecords(t *testing.T) {
	for what, current := range map[string]bool{"receipts/*.json": true, "deployments/demo/releases/*/release.json": false} {
		w := newFixture(t)
		var files []string
		for n := range int64(3) {
			w.must(w.install(w.bundle("demo", n+1, w.push("team/app:1", fmt.Sprint(n)))))
			if n == 0 {
				var err error
				if files, err = filepath.Glob(filepath.Join(w.root, what)); err != nil || len(files) != 1 {
					t.Fatal(files, err)
				}
			}
			if n == 0 && current || n == 1 && !current {
				if err := os.Truncate(files[0], 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.undo("demo", rollback)
		w.undo("demo", uninstall)
		if left, err := os.ReadDir(filepath.Join(w.root, "deployments")); err != nil || len(left) > 0 {
			t.Errorf("%s: %v %v", what, left, err)
		}
	}
}
