package verify_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/hostile"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestHostileContent checks that invalid content is refused despite a trusted signature,
// before any payload is read.
func TestHostileContent(t *testing.T) {
	key := world.NewKey(t)
	if err := check(world.Rich("x").File(t, key), trusting(key)); err != nil {
		t.Fatal(err)
	}
	rows := hostile.HostileContent(t, key)
	names := map[string]bool{}
	for _, row := range rows {
		if names[row.Name] {
			t.Errorf("there are two %q", row.Name)
		}
		names[row.Name] = true
		t.Run(row.Name, func(t *testing.T) {
			if err := opens(row.Data, trusting(key)); !errors.Is(err, row.Want) || !strings.Contains(err.Error(), row.Text) {
				t.Errorf("got %.300v, want %v with %q", err, row.Want, row.Text)
			}
		})
	}
	t.Logf("%d signed bundles, all refused", len(rows))
}
