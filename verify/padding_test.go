package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// TestPadding checks that a bundle followed by zeros is refused, and that the message names
// the repair command if and only if the signature is valid. Other trailing bytes do not count
// as padding.
func TestPadding(t *testing.T) {
	key, other := world.NewKey(t), world.NewKey(t)
	good := world.Small(t, key)
	whole := []int{len(good)}
	half := (len(good) + 512) / 2
	command := func(keep int, name string) string { return fmt.Sprintf("run truncate -s %d ", keep) + name }
	for name, x := range map[string]struct {
		sizes []int // of the parts
		tail  []byte
		keys  []verify.Key
		want  string
		not   string
	}{
		"a byte":            {whole, make([]byte, 1), []verify.Key{key.Trusted}, command(len(good), ""), ""},
		"a DVD":             {whole, make([]byte, 2048-len(good)%2048+150*2048), []verify.Key{key.Trusted}, command(len(good), ""), ""},
		"a tape":            {whole, make([]byte, 1<<20), []verify.Key{key.Trusted}, command(len(good), ""), ""},
		"the last part":     {[]int{half, len(good) - half}, make([]byte, 512), []verify.Key{key.Trusted}, command(len(good)-half, "'"), ""},
		"an unknown key":    {whole, make([]byte, 512), []verify.Key{other.Trusted}, "signature not accepted", "truncate"},
		"something else":    {whole, append(make([]byte, 511), 1), []verify.Key{key.Trusted}, "512 bytes follow", "truncate"},
		"0xff":              {whole, bytes.Repeat([]byte{0xff}, 512), []verify.Key{key.Trusted}, "512 bytes follow", "truncate"},
		"something in part": {[]int{half, len(good) - half}, []byte{1}, []verify.Key{key.Trusted}, "1 too many", "truncate"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "it's a.oob.tar")
			rest := good
			for i, size := range x.sizes {
				part := rest[:size]
				rest = rest[size:]
				if i == len(x.sizes)-1 {
					part = append(bytes.Clone(part), x.tail...)
				}
				name := path
				if len(x.sizes) > 1 {
					name = bundle.VolumeName(path, i+1)
				}
				world.Write(t, name, part, 0o644)
			}
			if len(x.sizes) > 1 {
				path = bundle.VolumeName(path, 1)
			}
			f, err := bundle.OpenFile(path, os.O_RDONLY)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			_, err = verify.Open(t.Context(), f, f.Size(), verify.Policy{Keys: x.keys})
			if err == nil || !strings.Contains(err.Error(), x.want) || x.not != "" && strings.Contains(err.Error(), x.not) {
				t.Errorf("%v", err)
			}
			head, err := bundle.ReadHead(f, f.Size())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bundle.NewReader(f, f.Size(), head); !errors.Is(err, bundle.ErrFormat) || strings.Contains(err.Error(), "truncate") {
				t.Errorf("without the signature: %v", err)
			}
		})
	}
}
