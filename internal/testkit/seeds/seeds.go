// Package seeds keeps the seeds of fuzz targets from vanishing, and from becoming
// inputs that are refused at the door without anybody noticing.
package seeds

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// Of are the inputs that a fuzz target begins with.
type Of[T any] struct {
	Taken   []T // are accepted
	Refused []T // are not, each for a reason of its own
}

// All returns every seed.
func (s Of[T]) All() []T { return slices.Concat(s.Taken, s.Refused) }

// Count asserts the number of seeds of one target, of inputs that were found and
// kept in testdata/fuzz, and what becomes of each seed: take reports whether it
// is accepted.
func Count[T any](t *testing.T, target string, s Of[T], taken, refused, found int, take func(t *testing.T, in T) bool) {
	t.Helper()
	if len(s.Taken) != taken || len(s.Refused) != refused {
		t.Errorf("%s has %d and %d seeds, not %d and %d", target, len(s.Taken), len(s.Refused), taken, refused)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "fuzz", target, "*"))
	if err != nil || len(files) != found {
		t.Errorf("%s has %d files in testdata/fuzz, not %d (%v)", target, len(files), found, err)
	}
	for i, in := range s.All() {
		if got := take(t, in); got != (i < len(s.Taken)) {
			t.Errorf("%s: seed %d: taken is %v: %.200q", target, i, got, fmt.Sprint(in))
		}
	}
}

var declaration = regexp.MustCompile(`(?m)^func (Fuzz[A-Za-z]+)\(`)

// Targets asserts which fuzz targets the package under test has, so that a new one
// is counted too.
func Targets(t *testing.T, want ...string) {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declaration.FindAllSubmatch(text, -1) {
			have = append(have, string(m[1]))
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("the fuzz targets are %q, and the seeds of %q are counted", have, want)
	}
}

// Gzip wraps data as gzip (RFC 1952) in stored blocks (RFC 1951, 3.2.4): fuzzing
// archives means to do it thousands of times a second, and compress/gzip takes a
// megabyte each time.
func Gzip(data []byte) []byte {
	const most = 1<<16 - 1
	out := append(make([]byte, 0, len(data)+64), 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff)
	for rest := data; ; {
		block := rest[:min(len(rest), most)]
		rest = rest[len(block):]
		last := byte(0)
		if len(rest) == 0 {
			last = 1
		}
		out = append(out, last)
		out = binary.LittleEndian.AppendUint16(out, uint16(len(block)))
		out = binary.LittleEndian.AppendUint16(out, ^uint16(len(block)))
		out = append(out, block...)
		if last == 1 {
			break
		}
	}
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(data))
	return binary.LittleEndian.AppendUint32(out, uint32(len(data)))
}
