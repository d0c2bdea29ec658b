// Package seeds checks the seeds of fuzz targets: that none is lost, and that a seed meant to
// be accepted is not refused.
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

// Of contains the seeds of a fuzz target.
type Of[T any] struct {
	Taken   []T // accepted inputs
	Refused []T // refused inputs, each for a different reason
}

// All returns every seed.
func (s Of[T]) All() []T { return slices.Concat(s.Taken, s.Refused) }

// Count checks the number of seeds of one target, the number of inputs kept in testdata/fuzz,
// and the result for each seed: take reports whether a seed is accepted.
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

// Targets checks the names of the fuzz targets in the package under test, so that a new target
// is not forgotten.
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

// Gzip wraps data as gzip (RFC 1952) in stored blocks (RFC 1951, 3.2.4). Fuzzing archives
// needs this thousands of times a second, and compress/gzip allocates a megabyte each time.
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
