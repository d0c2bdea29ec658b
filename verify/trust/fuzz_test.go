package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
	"github.com/oob-bundle/oob-bundle/verify"
)

// TestSeeds counts the seeds of the fuzz target, and how many are accepted and refused.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzPolicy")
	seeds.Count(t, "FuzzPolicy", policySeeds(t), 5, 14, 0, fuzzPolicy(t))
}

// testKey returns the nth of a fixed series of public keys.
func testKey(tb testing.TB, n byte) ([]byte, verify.Key) {
	tb.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		tb.Fatal(err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	k, err := publickey.Parse(data)
	if err != nil {
		tb.Fatal(err)
	}
	return data, verify.Key{Key: k}
}

func policySeeds(tb testing.TB) seeds.Of[[]byte] {
	_, one := testKey(tb, 1)
	data, err := bundle.Encode(policyFile{
		APIVersion: bundle.APIVersion, Kind: "TrustPolicy", Threshold: 2, MinSequence: map[string]int64{"app/linux/amd64": 1 << 62},
		Channels: map[string][]string{one.Fingerprint.String(): {"app/**", "b"}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	text := string(data)
	with := func(old, new string) []byte {
		if !strings.Contains(text, old) {
			tb.Fatalf("the seed has no %q", old)
		}
		return []byte(strings.Replace(text, old, new, 1))
	}
	return seeds.Of[[]byte]{
		Taken: [][]byte{
			data, append(bytes.Clone(data), '\n'),
			[]byte(`{}`),
			with(`"threshold":2`, `"threshold":0`),
			with(`"app/**"`, `"[","\u00fc"`),
		},
		Refused: [][]byte{
			nil,
			[]byte(`[]`),
			[]byte(`null`),
			[]byte(text + "{}"),
			[]byte(text[:20]),
			with(`"threshold":2`, `"threshold":-1`),
			with(`"threshold":2`, `"threshold":3`),
			with(`"threshold":2`, `"threshold":2.0`),
			with(
				`"threshold":2`,
				`"threshold":2,"Threshold":0`,
			),
			with(`"threshold":2`, `"threshold":2,"threshold":0`),
			with(`"threshold":2`, `"threshold":null`),
			with(
				`"TrustPolicy"`,
				`"Policy"`,
			),
			with(`oobbundle.dev/v1"`, `oobbundle.dev/v2","more":1`),
			with(`4611686018427387904`, `9223372036854775808`),
		},
	}
}

// FuzzPolicy checks that encoding/json reads an accepted policy in the same way, that its
// threshold is at most the number of keys, and that a change keeps everything else.
func FuzzPolicy(f *testing.F) {
	for _, s := range policySeeds(f).All() {
		f.Add(s)
	}
	check := fuzzPolicy(f)
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}

func fuzzPolicy(tb testing.TB) func(t *testing.T, data []byte) bool {
	s := Open(tb.TempDir())
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	for n := range byte(2) {
		data, _ := testKey(tb, n+1)
		if err := os.WriteFile(filepath.Join(s.dir, string('a'+rune(n))+".pub"), data, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return func(t *testing.T, data []byte) bool {
		if err := os.WriteFile(s.policyPath(), data, 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := s.Policy()
		if err != nil {
			if !errors.Is(err, bundle.ErrFormat) && !errors.Is(err, bundle.ErrNewer) && !errors.Is(err, ErrUsage) {
				t.Fatalf("refused without a reason: %v", err)
			}
			return false
		}
		if len(p.Keys) != 2 || p.Threshold < 0 || p.Threshold > 2 {
			t.Fatalf("%+v of %q", p, data)
		}
		other := policyFile{MinSequence: map[string]int64{}, Channels: map[string][]string{}}
		if err := json.Unmarshal(data, &other); err != nil || other.Threshold != p.Threshold || !maps.Equal(other.MinSequence, p.MinSequence) {
			t.Fatalf("%q is %+v, and by encoding/json %+v: %v", data, p, other, err)
		}
		for _, k := range p.Keys {
			if !slices.Equal(k.Channels, other.Channels[k.Fingerprint.String()]) {
				t.Fatalf("%q limits %s to %q", data, k.Fingerprint, k.Channels)
			}
		}
		checkChanges(t, s, p)
		return true
	}
}

// checkChanges fails if a change of the policy changes anything else, or if Tighten loosens
// the policy.
func checkChanges(t *testing.T, s Store, p verify.Policy) {
	t.Helper()
	changed, err := s.SetPolicy(0, map[string]int64{"another": 5})
	if err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(p.MinSequence)
	want["another"] = 5
	if changed.Threshold != p.Threshold || !maps.Equal(changed.MinSequence, want) || !reflect.DeepEqual(changed.Keys, p.Keys) {
		t.Fatalf("%+v was changed to %+v", p, changed)
	}
	tight := Tighten(p, nil, 1)
	if tight.Threshold < p.Threshold || !maps.Equal(tight.MinSequence, p.MinSequence) {
		t.Fatalf("%+v was loosened to %+v", p, tight)
	}
}
