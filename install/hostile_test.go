package install_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/internal/testkit/hostile"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestHostileTars installs the archives of verify's test of the same name, on an empty site
// and on a site with an earlier bundle. Nothing changes.
func TestHostileTars(t *testing.T) {
	for _, site := range []string{"empty", "installed"} {
		t.Run(site, func(t *testing.T) {
			w := newFixture(t)
			if site == "installed" {
				w.must(w.install(world.Rich("before").File(t, w.key)))
			}
			before := w.tree()
			next := world.Rich("x")
			next.Info.Sequence = 8
			good := next.File(t, w.key)
			rows := hostile.HostileTars(t, good)
			for _, row := range rows {
				if _, err := w.install(row.Data); !errors.Is(err, row.Want) || !strings.Contains(err.Error(), row.Text) {
					t.Errorf("%s: %v", row.Name, err)
				}
				if diff := cmp.Diff(before, w.tree()); diff != "" {
					t.Fatalf("%s left something behind: %s", row.Name, diff)
				}
			}
			w.must(w.install(good))
			t.Logf("%d files, %d paths compared after each", len(rows), len(before))
		})
	}
}

// TestHostileContent: invalid content is refused before anything is written, even if a trusted
// key signed it.
func TestHostileContent(t *testing.T) {
	w := newFixture(t)
	w.must(w.install(world.Rich("before").File(t, w.key)))
	before := w.tree()
	rows := hostile.HostileContent(t, w.key)
	for _, row := range rows {
		if _, err := w.install(row.Data); !errors.Is(err, row.Want) || !strings.Contains(err.Error(), row.Text) {
			t.Errorf("%s: %v", row.Name, err)
		}
		if diff := cmp.Diff(before, w.tree()); diff != "" {
			t.Fatalf("%s left something behind: %s", row.Name, diff)
		}
	}
	next := world.Rich("x")
	next.Info.Sequence = 8
	w.must(w.install(next.File(t, w.key)))
	t.Logf("%d signed bundles, %d paths compared after each", len(rows), len(before))
}
