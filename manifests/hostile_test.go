package manifests_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestHostileLocks checks that a lock is read as strictly as signed data, although it is YAML:
// a lock decides which content is fetched.
func TestHostileLocks(t *testing.T) {
	digest := bundle.DigestOf([]byte("x"))
	lock := manifests.Lock{
		APIVersion: bundle.APIVersion,
		Kind:       "Lock",
		Metadata:   manifests.LockMetadata{Name: "demo", Version: "1"},
		Program:    "test",
		Manifest:   digest,
		Channel:    "demo",
		Sequence:   7,
		Created:    time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Platforms:  []string{"linux/amd64"},
		Images: []manifests.LockedImage{
			{Reference: "docker.io/library/a:1", MediaType: bundle.TypeOCIManifest, Digest: digest, Size: 1234, Total: 5678},
		},
	}
	data, err := lock.Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	path := filepath.Join(t.TempDir(), "lock.yaml")
	read := func(text string) error {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := manifests.ReadLock(path)
		return err
	}
	if err := read(good); err != nil {
		t.Fatal(err)
	}
	laughs := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'l'; i++ {
		laughs += string(i) + ": &" + string(i) + " [" + strings.Repeat("*"+string(i-1)+",", 8) + "*" + string(i-1) + "]\n"
	}
	tests := map[string]string{
		"nothing":                    "",
		"null":                       "null\n",
		"a list":                     "- " + strings.ReplaceAll(good, "\n", "\n  "),
		"text":                       "hello\n",
		"a doubled key":              good + "kind: Lock\n",
		"a doubled key within":       strings.Replace(good, "size: 1234", "size: 1234\n    size: 1", 1),
		"a key in another case":      strings.Replace(good, "sequence:", "Sequence:", 1),
		"an unknown field":           good + "more: 1\n",
		"an unknown field within":    strings.Replace(good, "size: 1234", "size: 1234\n    more: 1", 1),
		"another kind":               strings.Replace(good, "kind: Lock", "kind: Manifest", 1),
		"a newer version":            strings.Replace(good, "dev/v1", "dev/v2", 1),
		"a second document":          good + "---\n" + good,
		"invalid UTF-8":              strings.Replace(good, "demo", "d\xffmo", 1),
		"NUL":                        strings.Replace(good, "demo", "d\x00mo", 1),
		"an escape sequence":         strings.Replace(good, "demo", "d\x1b[2Jmo", 1),
		"a sequence with a fraction": strings.Replace(good, "sequence: 7", "sequence: 7.5", 1),
		"a sequence 2^63":            strings.Replace(good, "sequence: 7", "sequence: 9223372036854775808", 1),
		"a sequence of text":         strings.Replace(good, "sequence: 7", "sequence: x", 1),
		"a time that is none":        strings.Replace(good, "2026-01-02T03:04:05Z", "yesterday", 1),
		"a short reference":          strings.Replace(good, "docker.io/library/a:1", "a:1", 1),
		"a reference to a parent":    strings.Replace(good, "docker.io/library/a:1", "docker.io/../a:1", 1),
		"a digest in upper case":     strings.Replace(good, "digest: "+string(digest), "digest: sha256:"+strings.ToUpper(digest.Hex()), 1),
		"a digest with a path":       strings.Replace(good, "digest: "+string(digest), "digest: sha256:../../etc/passwd", 1),
		"a digest of SHA-512":        strings.Replace(good, "digest: "+string(digest), "digest: sha512:"+digest.Hex()+digest.Hex(), 1),
		"no digest":                  strings.Replace(good, "digest: "+string(digest), "digest: \"\"", 1),
		"a merge key":                "x: &x {kind: Lock}\n" + good + "<<: *x\n",
		"aliases that multiply":      laughs + good,
		"10^5 lists in each other":   good + "more: " + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "\n",
		"10^5 maps that do not end":  good + "more: " + strings.Repeat("{a: ", 100_000),
		"an unknown tag":             strings.Replace(good, "sequence: 7", "sequence: !!python/object:os.system 7", 1),
		"a list for a map":           strings.Replace(good, "metadata:", "metadata: []\nxmetadata:", 1),
		"more bytes than are read":   good + strings.Repeat("# more\n", 3<<20),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if text == good {
				t.Fatal("the test changes nothing")
			}
			if err := read(text); !errors.Is(err, manifests.ErrInvalid) {
				t.Errorf("got %.300v", err)
			}
		})
	}
	t.Logf("%d locks", len(tests))
}
