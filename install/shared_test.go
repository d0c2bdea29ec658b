package install_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// undo rolls back or uninstalls a deployment, and collects garbage.
func (w *fixture) undo(name string, do func(context.Context, install.Site, ledger.Deployment) error) {
	w.t.Helper()
	if err := w.tryUndo(name, do); err != nil {
		w.t.Fatal(err)
	}
}

func (w *fixture) tryUndo(name string, do func(context.Context, install.Site, ledger.Deployment) error) error {
	state, err := ledger.Read(w.root)
	if err != nil {
		return err
	}
	d, err := state.Find(name, "")
	if err != nil {
		return err
	}
	e, err := registry.OpenEmbedded(w.t.Context(), w.root)
	if err != nil {
		return err
	}
	return do(w.t.Context(), install.Site{Root: w.root, Target: e.Registry(), Warn: w.t.Logf}, d)
}

func uninstall(ctx context.Context, s install.Site, d ledger.Deployment) error {
	_, err := install.Uninstall(ctx, s, d)
	return err
}

func rollback(ctx context.Context, s install.Site, d ledger.Deployment) error {
	_, err := install.Rollback(ctx, s, d)
	return err
}

// TestTakenOverTag: when a deployment that took over a tag is removed, the tag gets the first
// owner's value again. If that content is gone from the registry, the tag is removed. Later
// installations still work.
func TestTakenOverTag(t *testing.T) {
	for _, lost := range []bool{false, true} {
		w := newFixture(t)
		ref := w.push("team/app:1", "one")
		w.must(w.install(w.bundle("aaa", 1, ref)))
		first := w.tags()[w.siteName(ref)]
		ref = w.push("team/app:1", "two")
		w.must(w.install(w.bundle("bbb", 1, ref), takeOver))
		if w.tags()[w.siteName(ref)] == first {
			t.Fatal("the tag was not taken over")
		}
		want := first
		if lost {
			hex := bundle.Digest(first).Hex()
			if err := os.Remove(filepath.Join(w.root, "registry/docker/registry/v2/blobs/sha256", hex[:2], hex, "data")); err != nil {
				t.Fatal(err)
			}
			want = ""
		}
		w.undo("bbb", uninstall)
		if got := w.tags()[w.siteName(ref)]; got != want {
			t.Errorf("lost: %t: the tag is %q instead of %q", lost, got, want)
		}
		if !lost {
			w.must(w.install(w.bundle("aaa", 2, w.push("team/app:1", "three"))))
		}
	}
}

// TestRollbackAcrossChannels: a restored release belongs to its original channel.
func TestRollbackAcrossChannels(t *testing.T) {
	w := newFixture(t)
	w.must(w.install(w.bundle("demo", 1, w.push("team/app:1", "one"))))
	foreign := w.bundleWith("demo", []string{w.push("team/app:1", "two")}, func(o *create.Options) { o.Channel = "foreign" })
	w.must(w.install(foreign, takeOver))
	w.undo("demo", rollback)
	w.must(w.install(w.bundle("demo", 2, w.push("team/app:1", "three"))))
	if _, err := w.install(foreign); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("the other channel again: %v", err)
	}
}

// TestOwnersThatGo: a shared tag stays with the remaining deployment, and is free after the
// last one is removed.
func TestOwnersThatGo(t *testing.T) {
	w := newFixture(t)
	ref := w.push("team/app:1", "one")
	w.must(w.install(w.bundle("aaa", 1, ref)))
	w.must(w.install(w.bundle("bbb", 1, ref)))
	w.undo("aaa", uninstall)
	other := w.bundle("ccc", 1, w.push("team/app:1", "two"))
	if _, err := w.install(other); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("a tag of bbb's: %v", err)
	}
	w.undo("bbb", uninstall)
	w.must(w.install(other))
}

// TestNameWithPasswords: another channel may not use the name of a deployment that has left
// data or passwords.
func TestNameWithPasswords(t *testing.T) {
	w := newFixture(t)
	w.must(w.install(w.bundle("demo", 1, w.push("team/app:1", "one"))))
	if err := os.WriteFile(filepath.Join(w.root, "deployments/demo/secrets.json"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.undo("demo", uninstall)
	foreign := w.bundleWith("demo", []string{w.push("team/app:1", "two")}, func(o *create.Options) { o.Channel = "foreign" })
	if _, err := w.install(foreign); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("another channel: %v", err)
	}
	w.must(w.install(w.bundle("demo", 2, w.push("team/app:1", "three"))))
}

// TestPartialIndex: a partial index is kept as long as a rollback can return to its release,
// even if no tag of the site points to it (one platform) or points to it any more (several).
func TestPartialIndex(t *testing.T) {
	for _, carried := range []int{1, 2} {
		w := newFixture(t)
		platforms := []bundle.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}[:carried]
		push := func(text string) string {
			var images []v1.Image
			for _, platform := range []string{"linux/amd64", "linux/arm64", "linux/s390x"} {
				images = append(
					images,
					world.Image(platform, world.Layer(world.File{Name: "app", Mode: 0o755, Data: []byte(platform + text)})),
				)
			}
			return w.up.Push(t, "team/app:stable", world.Index(images...))
		}
		next := func(sequence int64, text string) map[string]string {
			ref := push(text)
			w.must(w.install(w.bundleWith("demo", []string{ref}, func(o *create.Options) { o.Sequence, o.Platforms = &sequence, platforms })))
			return w.tags()
		}
		first := next(1, "one")
		index := world.Digest(t, w.up.Host+"/team/app:stable")
		next(2, "two")
		e, err := registry.OpenEmbedded(t.Context(), w.root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(w.siteName(w.up.Host+"/team/app:stable"), ":stable")
		if !registry.HasBelow(w.root, name, bundle.Digest(index)) {
			t.Errorf("%d of 3 platforms: the collector took the index of the release before", carried)
		}
		w.undo("demo", rollback)
		if got, want := w.tags()[name+":stable"], first[name+":stable"]; got != want {
			t.Errorf("%d of 3 platforms: after the rollback the tag is %q, not %q", carried, got, want)
		}
	}
}
