package install_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/internal/testkit/hostile"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify/trust"
)

// onlyFile returns the only file that matches.
func onlyFile(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found[0]
}

// leaveJournal installs until a run fails during the switch and leaves a journal.
func leaveJournal(t *testing.T, w *fixture, file []byte) {
	t.Helper()
	for step := 1; ; step++ {
		ends, _ := pulledAt(step)
		if _, err := w.install(file, ends); errors.Is(err, install.ErrIncomplete) {
			return
		} else if err == nil {
			t.Fatal("no step leaves a journal")
		}
	}
}

// putLarge writes a file of 100 MiB of zeros.
func putLarge(t *testing.T, path string) {
	t.Helper()
	large, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(large.Truncate(100<<20), large.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestHostileRecords damages each document that a host keeps: forms that two parsers could
// read differently, and endless files. Each is refused and nothing changes. With the right
// document restored, the installation works again.
func TestHostileRecords(t *testing.T) {
	w := newFixture(t)
	content := func(what string, sequence int64) *world.Content {
		c := world.Rich(what)
		c.Info.Sequence = sequence
		c.Doc.Host.Secrets = []bundle.Secret{{Name: "password", Length: 16}}
		return c
	}
	first := content("one", 7).File(t, w.key)
	r := w.must(w.install(first))
	next := content("two", 8).File(t, w.key)

	leaveJournal(t, w, next)
	pem, err := os.ReadFile(w.key.Public)
	if err != nil {
		t.Fatal(err)
	}
	store := trust.Open(w.root)
	if _, err := store.Add(pem, "rich*"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.SetPolicy(1, map[string]int64{"rich": 3}); err != nil {
		t.Fatal(err)
	}
	receipt := onlyFile(t, filepath.Join(w.root, "receipts", "rich-"+r.Release.ID+"-*.json"))
	installing := func() error { _, err := w.install(next); return err }
	rebuilt := func() error { // a damaged state is not used at all
		state, err := ledger.Read(w.root)
		if err == nil && (state.Channels["rich"].Sequence != 8 || len(state.Deployments) != 1 || len(state.Channels) != 1) {
			t.Errorf("rebuilt: %+v", state)
		}
		return errors.Join(err, state.Rebuilt)
	}
	documents := []struct {
		name, path, number string
		read               func() error
		// A map of names accepts any field name.
		free []string
	}{
		{"state", filepath.Join(w.root, "state.json"), `"sequence":8`, rebuilt, nil},
		{"receipt", receipt, `"sequence":7`, func() error { _, err := ledger.ReadReceipt(w.root, filepath.Base(receipt)); return err }, nil},
		{"journal", onlyFile(t, filepath.Join(w.root, "journal", "*.json")), `"sequence":8`, installing, nil},
		{"policy", filepath.Join(w.root, "trust", "policy.json"), `"threshold":1`, func() error { _, err := store.Policy(); return err }, nil},
		{
			"secrets",
			filepath.Join(w.root, "deployments", "rich", "secrets.json"),
			"",
			installing,
			[]string{"a key in another case", "a key, and again in another case", "an empty key"},
		},
		{
			"release",
			filepath.Join(w.root, "deployments", "rich", "releases", r.Release.ID, "release.json"),
			"",
			func() error { _, err := host.ReadRelease(w.root, "rich", r.Release.ID); return err },
			nil,
		},
	}
	rows, passed := 0, 0
	for _, d := range documents {
		good, err := os.ReadFile(d.path)
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(d.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range hostile.Documents(t, good, d.number) {
			rows++
			world.Write(t, d.path, row.Data, fi.Mode().Perm())
			before := w.tree()
			err := d.read()
			if free := slices.Contains(d.free, row.Name); free {
				passed++
				continue
			}
			if !errors.Is(err, bundle.ErrFormat) && (d.name != "policy" || !errors.Is(err, trust.ErrUsage)) {
				t.Errorf("%s: %s: %v", d.name, row.Name, err)
			}
			if diff := cmp.Diff(before, w.tree()); diff != "" {
				t.Fatalf("%s: %s: something was changed: %.500s", d.name, row.Name, diff)
			}
		}
		rows++
		putLarge(t, d.path)
		if err := d.read(); !errors.Is(err, bundle.ErrLimit) {
			t.Errorf("%s: 100 MiB: %v", d.name, err)
		}
		world.Write(t, d.path, good, fi.Mode().Perm())
	}
	if err := installing(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	t.Logf("%d documents, %d rows, %d of them names in a map and no harm", len(documents), rows, passed)
}
