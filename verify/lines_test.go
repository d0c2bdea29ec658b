package verify_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/hostile"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// withSlot replaces the slot's content with a text and pads it with newlines.
func withSlot(t *testing.T, file []byte, text []byte) []byte {
	t.Helper()
	head, err := bundle.ReadHead(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(file)
	slot := out[head.SlotOffset():][:bundle.SlotSize]
	copy(slot, append(bytes.Clone(text), bytes.Repeat([]byte{'\n'}, bundle.SlotSize)...))
	return out
}

// TestLines checks which lines count as signatures. Where cosign is available, TestCosignLines
// in cmd/oob-bundle gives it the same lines; the table records where the results differ.
func TestLines(t *testing.T) {
	c := world.Rich("x")
	file := c.File(t, world.NewKey(t))
	rows := hostile.Lines(t, c.IndexJSON())
	good := 0
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			err := check(withSlot(t, file, row.Text), verify.Policy{Keys: []verify.Key{row.Key}})
			switch {
			case row.Good && err != nil:
				t.Error(err)
			case !row.Good && !errors.Is(err, bundle.ErrSignature):
				t.Errorf("got %v", err)
			}
		})
		if row.Good {
			good++
		}
	}
	t.Logf("%d signatures, %d of them good", len(rows), good)
}

// TestHostileLines checks that a slot line is decoded as strictly as the other documents of
// the format, and has only one valid spelling.
func TestHostileLines(t *testing.T) {
	key := world.NewKey(t)
	file := world.Rich("x").File(t, key)
	slot := shape(t, file, trusting(key)).Slot
	tried, large := 0, 0
	for _, row := range hostile.Documents(t, bytes.TrimRight(slot, "\n"), "") {
		if len(row.Data) >= bundle.SlotSize {
			large++
			continue
		}
		tried++
		if err := check(withSlot(t, file, row.Data), trusting(key)); !errors.Is(err, bundle.ErrSignature) {
			t.Errorf("%s: %v", row.Name, err)
		}
	}
	t.Logf("%d lines refused; %d do not fit into a slot", tried, large)
}

// TestUnusualRoots checks that unusual values in a signed root are accepted: they are the
// signer's decision.
func TestUnusualRoots(t *testing.T) {
	key := world.NewKey(t)
	for name, change := range map[string]func(*bundle.Info){
		"made in the future":     func(i *bundle.Info) { i.Created = i.Created.AddDate(500, 0, 0) },
		"made before the epoch":  func(i *bundle.Info) { i.Created = i.Created.AddDate(-500, 0, 0) },
		"the largest sequence":   func(i *bundle.Info) { i.Sequence = 1<<63 - 1 },
		"sequence 0":             func(i *bundle.Info) { i.Sequence = 0 },
		"a channel with capital": func(i *bundle.Info) { i.Channel = "Rich" },
	} {
		c := world.Rich("x")
		change(&c.Info)
		if err := check(c.File(t, key), trusting(key)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
