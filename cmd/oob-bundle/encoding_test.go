package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

func inUTF16(text string) []byte {
	data := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(text)) {
		data = append(data, byte(u), byte(u>>8))
	}
	return data
}

// TestEncodings: keys and documents with a byte order mark or in UTF-16, as Windows programs
// write them, are read, or refused with an error that names the encoding.
func TestEncodings(t *testing.T) {
	key := world.NewKey(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "b.oob.tar")
	world.Write(t, file, world.Small(t, key), 0o644)
	read := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	const manifest = "apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: a, version: \"1\"}\ncomponents:\n- " +
		"name: a\n  files: [{source: a.txt, path: a.txt}]\n"
	world.Write(t, filepath.Join(dir, "a.txt"), []byte("a"), 0o644)
	written := filepath.Join(dir, "written")
	for name, x := range map[string]struct {
		text string
		args []string
		wide int // the exit status for UTF-16
	}{
		"public key":  {read(key.Public), []string{"verify", file, "--key", written}, 2},
		"private key": {read(key.Private), []string{"sign", file, "--key", written}, 2},
		"manifest":    {manifest, []string{"lock", written}, 0},
		"values": {
			"domain: chat.site\n",
			[]string{"install", file, "--key", key.Public, "--root", dir + "/root", "--values", written, "--dry-run"},
			-1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OOB_BUNDLE_PASSWORD", "")
			try := func(data []byte) (int, string) {
				world.Write(t, written, data, 0o600)
				status, _, stderr := invoke(t, x.args...)
				t.Setenv("OOB_BUNDLE_PASSWORD", "")
				return status, stderr
			}
			plain, _ := try([]byte(x.text))
			if status, stderr := try([]byte("\ufeff" + x.text)); status != plain {
				t.Errorf("with a mark: %d and not %d: %s", status, plain, stderr)
			}
			if status, stderr := try(inUTF16(x.text)); status == 2 && x.wide == 2 {
				if !strings.Contains(stderr, "UTF-16") {
					t.Errorf("UTF-16: %s", stderr)
				}
			} else if status != plain || x.wide == 2 {
				t.Errorf("UTF-16: %d and not %d: %s", status, plain, stderr)
			}
		})
	}
}
