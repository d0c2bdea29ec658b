package bundle_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
)

func signatures(n int) []bundle.Signature {
	list := make([]bundle.Signature, n)
	for i := range list {
		list[i] = bundle.Signature{
			Key: bundle.Fingerprint{byte(i), 0xff}, Digest: bundle.DigestOf([]byte("root")), Bytes: bytes.Repeat([]byte{byte(i)}, 70+i%3),
		}
	}
	return list
}

func TestSlotRoundTrip(t *testing.T) {
	for _, n := range []int{1, 2, bundle.MaxSignatures} {
		want := signatures(n)
		slot, err := bundle.EncodeSlot(want)
		if err != nil || len(slot) != bundle.SlotSize {
			t.Fatalf("%d bytes, %v", len(slot), err)
		}
		got, err := bundle.ParseSlot(slot)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := bundle.EncodeSlot(signatures(bundle.MaxSignatures + 1)); !errors.Is(err, bundle.ErrLimit) {
		t.Errorf("too many signatures: %v", err)
	}
	large := signatures(1)
	large[0].Bytes = make([]byte, bundle.SlotSize)
	if _, err := bundle.EncodeSlot(large); !errors.Is(err, bundle.ErrLimit) {
		t.Errorf("a signature larger than the slot: %v", err)
	}
}

// TestSlotSpelling checks that only one spelling of a line is accepted.
func TestSlotSpelling(t *testing.T) {
	slot, err := bundle.EncodeSlot(signatures(1))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(slot), "\n")
	digest := line[strings.Index(line, `"messageDigest"`):strings.Index(line, `,"signature"`)]
	signature := line[strings.Index(line, `"signature"`):strings.LastIndex(line, `}}`)]
	tests := map[string]string{
		"a space":               strings.Replace(line, ":", ": ", 1),
		"a space at the end":    line + " ",
		"a carriage return":     line + "\r",
		"an escape":             strings.Replace(line, "SHA2", `\u0053HA2`, 1),
		"fields exchanged":      strings.NewReplacer(digest, signature, signature, digest).Replace(line),
		"no padding":            strings.Replace(line, `=="}`, `"}`, 1),
		"unused bits":           strings.Replace(line, `AA=="}}`, `AB=="}}`, 1),
		"a field more":          strings.Replace(line, `{"mediaType"`, `{"more":1,"mediaType"`, 1),
		"tlog entries":          strings.Replace(line, `"verificationMaterial":{`, `"verificationMaterial":{"tlogEntries":[],`, 1),
		"an envelope":           strings.Replace(line, "messageSignature", "dsseEnvelope", 1),
		"another algorithm":     strings.Replace(line, "SHA2_256", "SHA2_512", 1),
		"another version":       strings.Replace(line, "v0.3", "v0.2", 1),
		"null":                  strings.Replace(line, `"SHA2_256"`, `null`, 1),
		"two documents":         line + line,
		"a certificate":         strings.Replace(line, `"publicKey":{"hint"`, `"certificate":{"rawBytes"`, 1),
		"a hint of other bytes": strings.Replace(line, `"hint":"`, `"hint":"AAAA`, 1),
		"nothing":               "",
		"only a brace":          "{",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if text == line {
				t.Fatal("the test changes nothing")
			}
			bad := append([]byte(text), bytes.Repeat([]byte{'\n'}, bundle.SlotSize-len(text))...)
			if _, err := bundle.ParseSlot(bad); !errors.Is(err, bundle.ErrSignature) {
				t.Errorf("got %v", err)
			}
		})
	}
	twice := append([]byte(line+"\n"+line+"\n"), slot...)[:bundle.SlotSize]
	if _, err := bundle.ParseSlot(twice); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("one key twice: %v", err)
	}
	if _, err := bundle.ParseSlot(slot[:len(slot)-1]); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("a short slot: %v", err)
	}
}

func TestFingerprint(t *testing.T) {
	f := bundle.Fingerprint{1, 2, 3}
	got, err := bundle.ParseFingerprint(f.String())
	if err != nil || got != f {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "SHA256:", f.String() + "=", strings.ToLower(f.String()), f.String()[:49]} {
		if _, err := bundle.ParseFingerprint(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}
