package install_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// watching records the journal after the switch.
type watching struct {
	install.Store
	root    string
	journal map[string][]byte
}

func (w watching) Sync() error {
	list, err := filepath.Glob(filepath.Join(w.root, "journal", "*.json"))
	for _, name := range list {
		var data []byte
		if data, err = os.ReadFile(name); err == nil {
			w.journal[name] = data
		}
	}
	return errors.Join(err, w.Store.Sync())
}

// TestKilledAtItsEnd: a run is killed just before it removes its journal. The next command
// reverts nothing: the state, the tags and the current release agree.
func TestKilledAtItsEnd(t *testing.T) {
	w := newFixture(t)
	w.must(w.install(w.bundle("demo", 1, w.push("team/app:1", "one"))))
	two := w.bundle("demo", 2, w.push("team/app:1", "two"))
	three := w.bundle("demo", 3, w.push("team/app:1", "three"))
	journal := map[string][]byte{}
	w.must(w.install(two, func(s *site) {
		s.target = func(ctx context.Context, root string) (install.Registry, error) {
			r, err := embedded(ctx, root)
			r.Store = watching{r.Store, w.root, journal}
			return r, err
		}
	}))
	want := w.tags()
	if len(journal) != 1 {
		t.Fatalf("%d journals", len(journal))
	}
	for name, data := range journal {
		world.Write(t, name, data, 0o600)
	}
	fails := errors.New("no room for that")
	if _, err := w.install(three, func(s *site) {
		s.Before = func(context.Context, *host.About) error { return fails }
	}); !errors.Is(err, fails) {
		t.Fatal(err)
	}
	state, err := ledger.Read(w.root)
	if err != nil {
		t.Fatal(err)
	}
	d, err := state.Find("demo", "")
	if err != nil {
		t.Fatal(err)
	}
	if current, err := host.Current(w.root, "demo"); err != nil || d.Current().Version == "" || current != d.Current().ID {
		t.Errorf("current is %q, and the state says %q: %v", current, d.Current().ID, err)
	}
	for tag, digest := range want {
		if got := w.tags()[tag]; got != digest {
			t.Errorf("%s is %q, not %q", tag, got, digest)
		}
	}
	if j, err := ledger.ReadJournals(w.root); len(j) > 0 || err != nil {
		t.Errorf("the journal is still there: %v, %v", j, err)
	}
	w.must(w.install(three))
}

// TestCollectAfterKill stops an upgrade at each step before the switch, and then collects. The
// installed release is complete, the started upgrade is removed, and Storing reports false.
func TestCollectAfterKill(t *testing.T) {
	w := newFixture(t)
	app := world.Image("linux/amd64", world.Layer(world.File{Name: "app", Mode: 0o755, Data: []byte("app")}))
	arm := world.Image("linux/arm64", world.Layer(world.File{Name: "app", Mode: 0o755, Data: []byte("arm")}))
	ref := w.up.Push(t, "team/app:1", world.Index(app, arm))
	one := w.bundle("demo", 1, ref)
	d, err := partial.Descriptor(app)
	if err != nil {
		t.Fatal(err)
	}
	w.up.Push(t, "team/app:about", mutate.Subject(world.ArtifactOf("application/vnd.example.about", []byte("about"), nil), *d).(v1.Image))
	two := w.bundle("demo", 2, ref)
	for step := 0; ; step++ {
		w.root = filepath.Join(t.TempDir(), "site")
		w.must(w.install(one))
		want := w.tags()
		pulled, plug := pulledAt(step)
		_, err := w.install(two, pulled)
		if !plug.fired {
			t.Fatalf("it never came to switching: %v", err)
		}
		if j, err := ledger.ReadJournals(w.root); err != nil {
			t.Fatal(err)
		} else if len(j) > 0 {
			t.Logf("%d steps before it switches", step)
			return
		}
		e, err := registry.OpenEmbedded(t.Context(), w.root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Collect(t.Context()); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		if damaged, err := registry.Check(t.Context(), w.root); err != nil || len(damaged) > 0 {
			t.Fatalf("step %d: %v, %v", step, damaged, err)
		}
		if storing, err := registry.Storing(w.root); err != nil || storing {
			t.Fatalf("step %d: storing: %v, %v", step, storing, err)
		}
		for tag, digest := range want {
			if got := w.tags()[tag]; got != digest {
				t.Fatalf("step %d: %s is %q, not %q", step, tag, got, digest)
			}
		}
		if !registry.HasBelow(
			w.root, install.CentralRepository("demo"),
			bundle.Digest(want[install.CentralRepository("demo")+":oob-"+tagged(t, w.root)]),
		) {
			t.Fatalf("step %d: the root is gone", step)
		}
	}
}

// tagged returns the short identity of the installed bundle.
func tagged(t *testing.T, root string) string {
	t.Helper()
	state, err := ledger.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	d, err := state.Find("demo", "")
	if err != nil {
		t.Fatal(err)
	}
	return d.Current().Identity.Short()
}
