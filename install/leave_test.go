package install_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// refusing is a registry that accepts only a given number of tags.
type refusing struct {
	install.Target
	left, asked *int
}

func (r refusing) Tag(ctx context.Context, repo, tag string, to bundle.Digest) error {
	if *r.asked++; *r.left <= 0 {
		return errors.New("denied")
	}
	*r.left--
	return r.Target.Tag(ctx, repo, tag, to)
}

// refused returns the site of an installed deployment whose registry accepts left tags.
func (w *fixture) refused(name string, left int) (s install.Site, d ledger.Deployment, asked *int) {
	w.t.Helper()
	asked = new(int)
	r, err := embedded(w.t.Context(), w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	state, err := ledger.Read(w.root)
	if err == nil {
		d, err = state.Find(name, "")
	}
	if err != nil {
		w.t.Fatal(err)
	}
	r.Target = refusing{r.Target, &left, asked}
	return install.Site{Root: w.root, Target: r, Warn: w.t.Logf}, d, asked
}

// TestLeave: with Leave, an uninstallation sends no request to the registry, even if it was
// started or is finished without Leave.
func TestLeave(t *testing.T) {
	w := newFixture(t)
	w.must(w.install(w.bundle("aaa", 1, w.push("team/app:1", "one"))))
	s, d, _ := w.refused("aaa", 1)
	if _, err := install.Uninstall(t.Context(), s, d); !errors.Is(err, install.ErrIncomplete) {
		t.Fatal(err)
	}
	s, _, asked := w.refused("aaa", 0)
	s.Leave = true
	if _, err := install.Uninstall(t.Context(), s, d); err != nil || *asked > 0 {
		t.Errorf("%v after %d tags", err, *asked)
	}
	w.must(w.install(w.bundle("bbb", 1, w.push("team/y:1", "one"))))

	s, d, asked = w.refused("bbb", 0)
	s.Leave = true
	s.Switched = func(context.Context) error { return errors.New("killed") }
	if _, err := install.Uninstall(t.Context(), s, d); !errors.Is(err, install.ErrIncomplete) {
		t.Fatal(err)
	}
	journals, err := ledger.ReadJournals(w.root)
	if err != nil || len(journals) != 1 || install.Command(install.DefaultRoot, journals[0]) != "oob-bundle uninstall bbb --leave-registry" {
		t.Errorf("%v %v", journals, err)
	}
	s.Leave, s.Switched = false, nil
	if _, err := install.Uninstall(t.Context(), s, d); err != nil || *asked > 0 {
		t.Errorf("%v after %d tags", err, *asked)
	}
}

// TestTagOfNobody: a tag that its owner drops belongs to the next deployment that claims it.
func TestTagOfNobody(t *testing.T) {
	w := newFixture(t)
	ref := w.push("team/app:1", "one")
	w.must(w.install(w.bundle("aaa", 1, ref)))
	w.must(w.install(w.bundle("bbb", 1, ref)))
	w.must(w.install(w.bundle("aaa", 2, w.push("team/y:1", "y"))))
	if _, err := w.install(w.bundle("ccc", 1, w.push("team/app:1", "two"))); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("bbb's tag is anybody's: %v", err)
	}
}

// TestOthersReceipt: a lost or damaged receipt of another deployment does not prevent an
// upgrade.
func TestOthersReceipt(t *testing.T) {
	for name, harm := range map[string]func(string) error{"lost": os.Remove, "damaged": func(p string) error { return os.Truncate(p, 0) }} {
		w := newFixture(t)
		w.must(w.install(w.bundle("aaa", 1, w.push("team/app:1", "one"))))
		other := w.bundle("bbb", 1, w.push("team/other:1", "x"))
		w.must(w.install(other))
		files, err := filepath.Glob(filepath.Join(w.root, "receipts/bbb*.json"))
		if err != nil || len(files) != 1 || harm(files[0]) != nil {
			t.Fatal(files, err)
		}
		if _, err := w.install(w.bundle("aaa", 2, w.push("team/app:1", "two"))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		w.must(w.install(other)) // writes the receipt again
		w.undo("aaa", uninstall)
		w.undo("bbb", uninstall)
	}
}

// TestNeededAndGone: a tag is removed if its next owner's image is lost from the registry.
func TestNeededAndGone(t *testing.T) {
	w := newFixture(t)
	ref := w.push("team/app:1", "one")
	w.must(w.install(w.bundle("bbb", 1, ref)))
	hex := bundle.Digest(w.tags()[w.siteName(ref)]).Hex()
	w.push("team/app:1", "two")
	w.must(w.install(w.bundle("aaa", 1, ref), takeOver))
	if err := os.Remove(filepath.Join(w.root, "registry/docker/registry/v2/blobs/sha256", hex[:2], hex, "data")); err != nil {
		t.Fatal(err)
	}
	w.must(w.install(w.bundle("aaa", 2, w.push("team/y:1", "y"))))
	if at := w.tags()[w.siteName(ref)]; at != "" {
		t.Errorf("the tag is %s", at)
	}
}

// TestFinishedInPlace: the receipt contains the tags that an interrupted run set, even if the
// next run installs in place.
func TestFinishedInPlace(t *testing.T) {
	w := newFixture(t)
	file := w.bundle("aaa", 1, w.push("team/app:1", "one"))
	left := 3
	if _, err := w.install(
		file,
		wrapped(func(x install.Target) install.Target { return refusing{x, &left, new(int)} }),
	); !errors.Is(
		err, install.ErrIncomplete,
	) {
		t.Fatal(err)
	}
	w.must(w.install(file, func(s *site) { s.InPlace = true }))
	w.undo("aaa", uninstall)
	if tags := w.tags(); len(tags) > 0 {
		t.Errorf("%v is left", tags)
	}
}

// TestDroppedAndStopped stops an upgrade that drops a tag at each of its tags. Then the
// upgrade is finished, or another bundle is installed first.
func TestDroppedAndStopped(t *testing.T) {
	for stop := range 8 {
		w := newFixture(t)
		x, y := w.push("team/x:1", "one"), w.push("team/y:1", "y")
		a1 := w.bundle("aaa", 1, x, y)
		w.push("team/x:1", "two")
		b1 := w.bundle("bbb", 1, x)
		w.push("team/y:1", "y2")
		a2 := w.bundle("aaa", 2, y)
		w.must(w.install(b1))
		w.must(w.install(a1, takeOver))
		left := stop
		if _, err := w.install(
			a2,
			wrapped(func(x install.Target) install.Target { return refusing{x, &left, new(int)} }),
		); err != nil &&
			stop%2 == 0 {
			w.must(w.install(b1, takeOver))
		}
		w.must(w.install(a2, takeOver))
		w.change("aaa", rollback)
		if !w.settled() {
			t.Errorf("stopped after %d", stop)
		}
		w.undo("aaa", uninstall)
		w.undo("bbb", uninstall)
		if tags := w.tags(); len(tags) > 0 {
			t.Errorf("stopped after %d: %v is left", stop, tags)
		}
	}
}

// TestEarlierLost: a rollback skips a release whose files are lost, and needs no receipt.
func TestEarlierLost(t *testing.T) {
	w := newFixture(t)
	for n := range int64(3) {
		w.must(w.install(w.bundle("demo", n+1, w.push("team/app:1", fmt.Sprint(n)))))
	}
	l, err := ledger.Read(w.root)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Find("demo", "")
	if err != nil || len(d.Releases) != 3 || os.RemoveAll(filepath.Join(w.root, "receipts")) != nil {
		t.Fatal(d, err)
	}
	if err := os.Truncate(filepath.Join(w.root, "deployments/demo/releases", d.Releases[1].ID, "release.json"), 0); err != nil {
		t.Fatal(err)
	}
	w.undo("demo", rollback)
	if l, err = ledger.Read(w.root); err != nil {
		t.Fatal(err)
	}
	if now, err := l.Find("demo", ""); err != nil || now.Current().ID != d.Releases[2].ID {
		t.Errorf("%+v %v", now, err)
	}
}
