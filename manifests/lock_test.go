package manifests_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestUnseenText checks that invisible characters are escaped in an encoded lock, and that
// ReadLock restores them.
func TestUnseenText(t *testing.T) {
	const joined = "\u0645\u06cc\u200c\u062e\u0648" // Persian, with a zero-width non-joiner
	l := &manifests.Lock{APIVersion: bundle.APIVersion, Kind: "Lock", Platforms: []string{"linux/amd64"}, Settings: map[string]string{
		"joined":     joined,
		"soft":       "a\u00adb",
		"turned":     "a\u202eb",
		"lines":      "a\u2028b\nc\u200bd",
		"tag":        "a\U000e0001b",
		"bell":       "a\x07\x7fb\u009b",
		"long":       string(bytes.Repeat([]byte("word \u200b "), 50)),
		"a\u200bkey": "x",
		"seen":       "Grüße, 東京",
	}}
	data, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if i := bytes.IndexFunc(data, func(r rune) bool { return r != '\n' && unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) }); i >= 0 {
		t.Errorf("%q", data[i:min(i+20, len(data))])
	}
	path := filepath.Join(t.TempDir(), "lock.yaml")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := manifests.ReadLock(path)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if diff := cmp.Diff(l.Settings, again.Settings); diff != "" {
		t.Error(diff)
	}
}

// TestDiff checks that Diff reports every difference that create --lock would refuse.
func TestDiff(t *testing.T) {
	lock := func() *manifests.Lock {
		return &manifests.Lock{
			Manifest:  "sha256:m",
			Channel:   "c",
			Platforms: []string{"linux/amd64"},
			Metadata:  manifests.LockMetadata{Name: "n", Version: "1"},
			Images: []manifests.LockedImage{
				{Reference: "example.com/a:1", Digest: "sha256:a", Referrers: []manifests.LockedReferrer{{Digest: "sha256:r"}}},
			},
			Plugins: []manifests.LockedPlugin{{ID: "p", Version: "1", Digest: "sha256:p", Checks: []string{"pinned"}}},
			Charts:  []manifests.LockedChart{{Name: "h", Repository: "https://example.com", Version: "1", Digest: "sha256:h", Check: "x"}},
			Files:   []manifests.LockedFile{{Path: "f", Mode: "0644", Digest: "sha256:f", Source: "a"}},
		}
	}
	for want, change := range map[string]func(*manifests.Lock){
		"[]":                             func(*manifests.Lock) {},
		"[{changed choice version 1 2}]": func(l *manifests.Lock) { l.Metadata.Version = "2" },
		"[{changed choice manifest sha256:m sha256:n}]": func(l *manifests.Lock) { l.Manifest = "sha256:n" },
		"[{changed choice platforms linux/amd64 linux/amd64,linux/arm64}]": func(l *manifests.Lock) {
			l.Platforms = append(l.Platforms, "linux/arm64")
		},
		"[{added choice referrers  left out}]": func(l *manifests.Lock) { l.WithoutReferrers = true },
		"[{added choice set  a=b}]":            func(l *manifests.Lock) { l.Set = map[string]string{"a": "b"} },
		"[{changed image example.com/a - digest: sha256:r - digest: sha256:s}]": func(l *manifests.Lock) {
			l.Images[0].Referrers[0].Digest = "sha256:s"
		},
		"[{changed image example.com/a without what the other one has checks:, - signed}]": func(l *manifests.Lock) {
			l.Images[0].Checks = []string{"signed"}
		},
		"[{changed plugin p without what the other one has signature: sha256:x}]": func(l *manifests.Lock) {
			l.Plugins[0].Signature = "sha256:x"
		},
		"[{changed plugin p - pinned - by somebody}]":               func(l *manifests.Lock) { l.Plugins[0].Checks[0] = "by somebody" },
		"[{changed chart https://example.com/h check: x check: z}]": func(l *manifests.Lock) { l.Charts[0].Check = "z" },
		"[{changed file f source: a source: b}]":                    func(l *manifests.Lock) { l.Files[0].Source = "b" },
		"[{changed file f 0644 sha256:f 0600 sha256:f}]":            func(l *manifests.Lock) { l.Files[0].Mode = "0600" },
		"[{added component x  }]":                                   func(l *manifests.Lock) { l.Components = []string{"x"} },
		"[{changed image example.com/a 1 sha256:a (1 signatures and the like) 1 sha256:b (1 signatures and the " +
			"like)}]": func(l *manifests.Lock) { l.Images[0].Digest = "sha256:b" },
	} {
		to := lock()
		change(to)
		if got := fmt.Sprint(manifests.Diff(lock(), to)); got != want {
			t.Errorf("%s instead of %s", got, want)
		}
	}
}
