package verify_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// shape opens a valid bundle.
func shape(t *testing.T, file []byte, policy verify.Policy) *verify.Verified {
	t.Helper()
	v, err := verify.Open(t.Context(), bytes.NewReader(file), int64(len(file)), policy)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var exhaustive = flag.Bool("exhaustive", false, "change every byte in every way, and cut everywhere")

// TestRichEveryByte changes every byte of a bundle with every kind of content and two
// signatures: each bit outside the slot, every other value of each byte of the two lines, and
// one value of their padding (TestEveryByte tries the others). Without -exhaustive, it changes
// one bit per byte in 8 of every 24 bytes, single bits in the lines, and every 16th byte of the
// padding.
func TestRichEveryByte(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	file := world.Rich("x").File(t, a, b)
	policy := trusting(a, b)
	v := shape(t, file, policy)
	slot := v.Members[2]
	lines := int(slot.Data) + len(bytes.TrimRight(v.Slot, "\n")) + 1
	var changed atomic.Int64
	each(t, file, len(file), func(mine []byte, at int) error {
		switch inSlot := int64(at) >= slot.Data && int64(at) < slot.Data+slot.Size; {
		case inSlot && at < lines:
			for x := 1; x < 256; x++ {
				if !*exhaustive && x&(x-1) != 0 {
					continue
				}
				changed.Add(1)
				if err := change(mine, at, mine[at]^byte(x), policy); err != nil {
					return err
				}
			}
			return nil
		case inSlot:
			if !*exhaustive && at%16 != 0 {
				return nil
			}
			changed.Add(1)
			return change(mine, at, mine[at]^0x20, policy)
		}
		for bit := range 8 {
			if !*exhaustive && bit != at%24 {
				continue
			}
			changed.Add(1)
			if err := change(mine, at, mine[at]^1<<bit, policy); err != nil {
				return err
			}
		}
		return nil
	})
	if err := check(file, policy); err != nil {
		t.Fatalf("the unchanged file: %v", err)
	}
	t.Logf("%d changes in %d bytes, %d members, 2 signatures: all refused", changed.Load(), len(file), len(v.Members))
}

// TestRichEveryCut cuts the same bundle at every 13th offset, or with -exhaustive at every
// offset.
func TestRichEveryCut(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	file := world.Rich("x").File(t, a, b)
	policy := trusting(a, b)
	step := 1
	if !*exhaustive {
		step = 13
	}
	each(t, file, len(file)/step, func(mine []byte, n int) error {
		n *= step
		if err := check(mine[:n], policy); !errors.Is(err, bundle.ErrFormat) {
			return fmt.Errorf("cut to %d bytes: %w", n, err)
		}
		return nil
	})
	t.Logf("%d cuts, all refused", len(file)/step)
}

// TestUnknownSigner changes every byte of a line whose key the verifier does not know. The
// verifier cannot check whose key it is (any 32 bytes are a fingerprint) or whether the
// signature is valid (any bytes may be). It checks everything else: the spelling, the digest,
// and that no two lines have the same key. A change therefore passes exactly if the line is
// still the canonical spelling of another fingerprint or signature. Such a line counts as no
// signature.
func TestUnknownSigner(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	file := world.Rich("x").File(t, a, b)
	knowing := trusting(a)
	v := shape(t, file, knowing)
	slot := int(v.Members[2].Data)
	first := bytes.IndexByte(v.Slot, '\n') + 1
	second := first + bytes.IndexByte(v.Slot[first:], '\n') + 1
	hint := slot + first + strings.Index(string(v.Slot[first:]), `"hint":"`) + len(`"hint":"`)
	signature := slot + first + strings.Index(string(v.Slot[first:]), `"signature":"`) + len(`"signature":"`)
	values := differences()
	known := first * 8
	var passed, refused, inHint, inSignature atomic.Int64
	each(t, file, second, func(mine []byte, i int) error {
		at := slot + i
		for _, x := range values {
			if i < first && x&(x-1) != 0 {
				continue
			}
			was := mine[at]
			mine[at] ^= byte(x)
			got, err := verify.Open(t.Context(), bytes.NewReader(mine), int64(len(mine)), knowing)
			list, parseErr := bundle.ParseSlot(mine[slot : slot+bundle.SlotSize])
			mine[at] = was
			if err != nil {
				refused.Add(1)
				if !refusedAsDamaged(err) {
					return fmt.Errorf("byte %d of the slot: %w", i, err)
				}
				continue
			}
			passed.Add(1)
			switch {
			case i < first:
				return fmt.Errorf("byte %d of the line by a known key, changed by %#02x, passes", i, x)
			case parseErr != nil || len(list) != 2 || list[1].Digest != got.Identity:
				return fmt.Errorf("byte %d of the slot, changed by %#02x: %+v, %w", i, x, list, parseErr)
			case got.Signatures[1].Trusted || got.Signatures[1].Valid || !got.Signatures[0].Valid:
				return fmt.Errorf("byte %d of the slot, changed by %#02x: %+v", i, x, got.Signatures)
			case at >= hint && at < hint+44:
				inHint.Add(1)
			case at >= signature && at < slot+second-len(`"}}`)-1:
				inSignature.Add(1)
			default:
				return fmt.Errorf("byte %d of the slot, changed by %#02x, passes: it is neither in the fingerprint nor in the signature", i, x)
			}
		}
		return nil
	})
	checkSpellings(t, mustParse(t, v.Slot)[1], inHint.Load(), inSignature.Load())
	// The unchanged file is valid for a verifier that knows both keys. TestRichEveryByte
	// checks that such a verifier accepts no change.
	if err := check(file, trusting(a, b)); err != nil {
		t.Fatal(err)
	}
	t.Logf(
		"%d changes of the line by a known key: none passes; %d of the line by an unknown one: %d pass, %d in the "+
			"fingerprint and %d in the signature; all else (%d) is refused",
		known, (second-first)*len(values), passed.Load(), inHint.Load(), inSignature.Load(),
		refused.Load()-int64(known),
	)
}

// differences returns the values to XOR into a byte: single bits, or with -exhaustive all.
func differences() []int {
	if !*exhaustive {
		return []int{1, 2, 4, 8, 16, 32, 64, 128}
	}
	var all []int
	for x := 1; x < 256; x++ {
		all = append(all, x)
	}
	return all
}

// checkSpellings compares, with -exhaustive, the number of accepted changes with the number of
// other spellings that the line's fingerprint and signature have.
func checkSpellings(t *testing.T, theirs bundle.Signature, inHint, inSignature int64) {
	t.Helper()
	// The expected number follows from base64: count the changes that yield the canonical
	// spelling of other bytes. A fingerprint must still have 32 of them.
	for _, part := range []struct {
		name  string
		bytes []byte
		size  int // required number of decoded bytes; 0 means any
		got   int64
	}{{"fingerprint", theirs.Key[:], 32, inHint}, {"signature", theirs.Bytes, 0, inSignature}} {
		if want := otherSpellings(part.bytes, part.size); *exhaustive && part.got != want {
			t.Errorf("%d changes of the %s pass, want %d", part.got, part.name, want)
		}
	}
}

// otherSpellings counts the single-byte changes of a base64 text that yield the canonical
// spelling of other bytes.
func otherSpellings(data []byte, size int) int64 {
	text := []byte(base64.StdEncoding.EncodeToString(data))
	n := int64(0)
	for i, was := range text {
		for x := 1; x < 256; x++ {
			text[i] = was ^ byte(x)
			got, err := base64.StdEncoding.Strict().DecodeString(string(text))
			if err == nil && base64.StdEncoding.EncodeToString(got) == string(text) && (size == 0 || len(got) == size) {
				n++
			}
		}
		text[i] = was
	}
	return n
}

func mustParse(t *testing.T, slot []byte) []bundle.Signature {
	t.Helper()
	list, err := bundle.ParseSlot(slot)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestOnlyTheUnknownLineGoes checks that a bundle stays valid without its unknown line or with
// another unknown one, but not without its known line.
func TestOnlyTheUnknownLineGoes(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	file := world.Rich("x").File(t, a, b)
	at := shape(t, file, trusting(a)).Members[2].Data
	both := mustParse(t, file[at:at+bundle.SlotSize])
	nobody := bundle.Signature{Key: bundle.Fingerprint{1}, Digest: both[0].Digest, Bytes: []byte("no signature at all")}
	empty := bundle.Signature{Key: bundle.Fingerprint{2}, Digest: both[0].Digest}
	other := bundle.Signature{Key: bundle.Fingerprint{3}, Digest: bundle.DigestOf([]byte("another root")), Bytes: both[1].Bytes}
	for _, test := range []struct {
		name string
		list []bundle.Signature
		want error
	}{
		{"the unknown one is gone", both[:1], nil},
		{"the known one is gone", both[1:], bundle.ErrSignature},
		{"the order is turned", []bundle.Signature{both[1], both[0]}, nil},
		{"one by nobody", []bundle.Signature{nobody, both[0], both[1]}, nil},
		{"one without a signature", []bundle.Signature{empty, both[0]}, nil},
		{"one over another root", []bundle.Signature{both[0], other}, bundle.ErrSignature},
		{"only one by nobody", []bundle.Signature{nobody}, bundle.ErrSignature},
	} {
		t.Run(test.name, func(t *testing.T) {
			slot, err := bundle.EncodeSlot(test.list)
			if err != nil {
				t.Fatal(err)
			}
			changed := slices.Concat(file[:at], slot, file[at+bundle.SlotSize:])
			if err := check(changed, trusting(a)); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// members splits a file into its members, each with header and padding, and the end blocks.
func members(v *verify.Verified, file []byte) [][]byte {
	var list [][]byte
	for i, m := range v.Members {
		end := int64(len(file)) - 1024
		if i+1 < len(v.Members) {
			end = v.Members[i+1].Offset
		}
		list = append(list, file[m.Offset:end])
	}
	return append(list, file[len(file)-1024:])
}

// TestMixAndMatch puts every member of one validly signed bundle into another on the same
// channel, signed by the same or another trusted key. It also exchanges, repeats and removes
// members, and joins parts of both files.
func TestMixAndMatch(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	policy := trusting(a, b)
	tried := 0
	for _, pair := range []struct {
		name     string
		one, two []byte
	}{
		{"the same key", world.Rich("x").File(t, a), world.Rich("y").File(t, a)},
		{"another key", world.Rich("x").File(t, a), world.Rich("y").File(t, b)},
		{"two keys each", world.Rich("x").File(t, a, b), world.Rich("y").File(t, b, a)},
	} {
		t.Run(pair.name, func(t *testing.T) {
			v, w := shape(t, pair.one, policy), shape(t, pair.two, policy)
			if v.Info.Channel != w.Info.Channel || len(v.Members) != len(w.Members) {
				t.Fatal("the two are not of a kind")
			}
			one, two := members(v, pair.one), members(w, pair.two)
			try := func(what string, parts ...[]byte) {
				file := bytes.Join(parts, nil)
				if bytes.Equal(file, pair.one) || bytes.Equal(file, pair.two) {
					return // a part that both have in common
				}
				tried++
				if err := check(file, policy); !refusedAsDamaged(err) {
					t.Errorf("%s: %v", what, err)
				}
			}
			for i := range one {
				for j := range two {
					try(fmt.Sprintf("member %d of the second in the place of %d", j, i), slices.Concat(one[:i], [][]byte{two[j]}, one[i+1:])...)
				}
				try(fmt.Sprintf("from member %d on the second", i), slices.Concat(one[:i], two[i:])...)
				try(fmt.Sprintf("member %d left out", i), slices.Concat(one[:i], one[i+1:])...)
				try(fmt.Sprintf("member %d twice", i), slices.Concat(one[:i+1], one[i:])...)
				try(fmt.Sprintf("member %d of the second behind that of the first", i), slices.Concat(one[:i+1], [][]byte{two[i]}, one[i+1:])...)
				if i+1 < len(one) {
					try(fmt.Sprintf("members %d and %d exchanged", i, i+1), slices.Concat(one[:i], [][]byte{one[i+1], one[i]}, one[i+2:])...)
				}
			}
			for n := 512; n < min(len(pair.one), len(pair.two)); n += 512 {
				try(fmt.Sprintf("cut at %d, continued with the second", n), pair.one[:n], pair.two[n:])
				if n > len(pair.one)-70000 {
					try(fmt.Sprintf("cut at %d, and the whole second", n), pair.one[:n], pair.two)
				}
			}
			try("both, one behind the other", pair.one, pair.two)
			try("both, without the end between", pair.one[:len(pair.one)-1024], pair.two)
		})
	}
	t.Logf("%d mixtures, all refused", tried)
}

// TestOtherSpellingsOfASignature checks that only two spellings of a signature are accepted.
// ECDSA has two signatures for each nonce, (r, s) and (r, n-s), and anyone can compute one
// from the other. Both sign the same identity, so this changes nothing.
func TestOtherSpellingsOfASignature(t *testing.T) {
	a := world.NewKey(t)
	file := world.Rich("x").File(t, a)
	v := shape(t, file, trusting(a))
	r, s := readDER(t, mustParse(t, v.Slot)[0].Bytes)
	n := elliptic.P256().Params().N
	tests := signatureSpellings(r, s, n)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			list := mustParse(t, v.Slot)
			list[0].Bytes = test.bytes
			slot, err := bundle.EncodeSlot(list)
			if err != nil {
				t.Fatal(err)
			}
			changed := bytes.Clone(file)
			copy(changed[v.Members[2].Data:], slot)
			got, err := verify.Open(t.Context(), bytes.NewReader(changed), int64(len(changed)), trusting(a))
			switch {
			case !test.good && !errors.Is(err, bundle.ErrSignature):
				t.Errorf("got %v", err)
			case test.good && (err != nil || got.Identity != v.Identity):
				t.Errorf("got %v", err)
			}
		})
	}
	t.Logf("%d spellings", len(tests))
}
