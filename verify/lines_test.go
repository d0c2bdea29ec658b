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

// withSlot puts a text into the slot, and newlines behind it.
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

// TestLines: what counts as a signature. The same lines are shown to cosign where it
// is there (cmd/oob-bundle, TestCosignLines), and the table says where it differs.
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

// TestHostileLines: a line is a document of ours, and has one spelling besides.
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

// TestUnusualRoots: what looks odd and is the signer's to say.
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
