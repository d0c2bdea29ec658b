package verify_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// check verifies a bundle as the command does, including its payload.
func check(file []byte, policy verify.Policy) error {
	v, err := verify.Open(context.Background(), bytes.NewReader(file), int64(len(file)), policy)
	if err != nil {
		return err
	}
	return v.Payload(context.Background(), bundle.Watch{})
}

// opens verifies everything except the payload.
func opens(file []byte, policy verify.Policy) error {
	_, err := verify.Open(context.Background(), bytes.NewReader(file), int64(len(file)), policy)
	return err
}

func trusting(keys ...*world.Key) verify.Policy {
	var p verify.Policy
	for _, k := range keys {
		p.Keys = append(p.Keys, k.Trusted)
	}
	return p
}

// addSignatures returns the file with signatures of exactly the given keys.
func addSignatures(t *testing.T, file []byte, keys ...*world.Key) []byte {
	t.Helper()
	head, err := bundle.ReadHead(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return world.Resign(t, file, head.Root, keys...)
}

func TestPolicy(t *testing.T) {
	a, b, c := world.NewKey(t), world.NewKey(t), world.NewKey(t)
	byA := world.Small(t, a)
	byAB := addSignatures(t, byA, a, b)
	channel := "small/linux/amd64"
	limited := func(k *world.Key, globs ...string) verify.Key {
		key := k.Trusted
		key.Channels = globs
		return key
	}
	tests := []struct {
		name   string
		file   []byte
		policy verify.Policy
		want   error
	}{
		{"the key", byA, trusting(a), nil},
		{"one of two trusted keys", byA, trusting(a, b), nil},
		{"no key", byA, verify.Policy{}, verify.ErrNoKeys},
		{"another key", byA, trusting(b), bundle.ErrSignature},
		{"two of two", byAB, verify.Policy{Keys: trusting(a, b).Keys, Threshold: 2}, nil},
		{"one of two needed", byA, verify.Policy{Keys: trusting(a, b).Keys, Threshold: 2}, bundle.ErrPolicy},
		{"the same key twice", byAB, verify.Policy{Keys: trusting(a, a).Keys, Threshold: 2}, bundle.ErrPolicy},
		{"an unknown signer in addition", byAB, trusting(a), nil},
		{"only unknown signers", byAB, trusting(c), bundle.ErrSignature},
		{"the channel by name", byA, verify.Policy{Keys: []verify.Key{limited(a, channel)}}, nil},
		{"the channel by glob", byA, verify.Policy{Keys: []verify.Key{limited(a, "other", "small/*")}}, nil},
		{"a question mark", byA, verify.Policy{Keys: []verify.Key{limited(a, "smal?/linux/amd64")}}, nil},
		{"a dot is a dot", byA, verify.Policy{Keys: []verify.Key{limited(a, "smal./linux/amd64")}}, bundle.ErrPolicy},
		{"another channel", byA, verify.Policy{Keys: []verify.Key{limited(a, "other/*")}}, bundle.ErrPolicy},
		{
			"one key for the channel, two needed",
			byAB,
			verify.Policy{Keys: []verify.Key{a.Trusted, limited(b, "other")}, Threshold: 2},
			bundle.ErrPolicy,
		},
		{"the lowest sequence", byA, verify.Policy{Keys: trusting(a).Keys, MinSequence: map[string]int64{channel: 1767323045}}, nil},
		{
			"below the lowest sequence",
			byA,
			verify.Policy{Keys: trusting(a).Keys, MinSequence: map[string]int64{channel: 1767323046}},
			bundle.ErrPolicy,
		},
		{"another channel's lowest sequence", byA, verify.Policy{Keys: trusting(a).Keys, MinSequence: map[string]int64{"other": 1 << 60}}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := check(test.file, test.policy); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// TestKnownKeyWrongSignature checks that a valid line does not outweigh a wrong one.
func TestKnownKeyWrongSignature(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	file := addSignatures(t, world.Small(t, a), a, b)
	head, err := bundle.ReadHead(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	list, err := bundle.ParseSlot(head.Slot)
	if err != nil {
		t.Fatal(err)
	}
	list[1].Bytes = list[0].Bytes // a's signature under b's fingerprint
	slot, err := bundle.EncodeSlot(list)
	if err != nil {
		t.Fatal(err)
	}
	copy(file[head.SlotOffset():], slot)
	if err := check(file, trusting(a, b)); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("both known: %v", err)
	}
	if err := check(
		file, trusting(a),
	); !errors.Is(err, bundle.ErrSignature) ||
		!strings.Contains(err.Error(), "and it is by the trusted key") {
		t.Errorf("b unknown: %v", err)
	}
	list[1].Bytes = []byte("whatever")
	if slot, err = bundle.EncodeSlot(list); err != nil {
		t.Fatal(err)
	}
	copy(file[head.SlotOffset():], slot)
	if err := check(file, trusting(a)); err != nil {
		t.Errorf("by nobody that is known: %v", err)
	}
}

// TestNothingIsParsedBeforeTrust checks that a malformed root with a wrong signature is
// refused because of the signature.
func TestNothingIsParsedBeforeTrust(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	file := world.Resign(t, world.Small(t, a), []byte("{{{ rubbish"), b)
	if err := check(file, trusting(a)); !errors.Is(err, bundle.ErrSignature) || errors.Is(err, bundle.ErrFormat) {
		t.Errorf("got %v", err)
	}
	file = world.Resign(t, file, []byte("{{{ rubbish"), a)
	if err := check(file, trusting(a)); !errors.Is(err, bundle.ErrFormat) {
		t.Errorf("signed rubbish: %v", err)
	}
}

func TestAlgorithms(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]*world.Key{"Ed25519": world.KeyOf(t, ed), "RSA": world.KeyOf(t, rsaKey)} {
		if err := check(world.Small(t, k), trusting(k)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
