package bundle

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestVolumeSeeds is TestSeeds for the target of this file.
func TestVolumeSeeds(t *testing.T) {
	seeds.Count(t, "FuzzVolumes", volumeSeeds(), 6, 7, 1, fuzzVolumes(t.TempDir()))
}

// volumesInput is a bundle in parts: a name, and the size of each part. 255 is a missing part.
type volumesInput struct {
	name  string
	sizes []byte
}

func volumeSeeds() seeds.Of[volumesInput] {
	return seeds.Of[volumesInput]{
		Taken: []volumesInput{
			{"b", []byte{5}},
			{"b", []byte{5, 5, 3}},
			{"b", []byte{0, 255}},
			{`[a-z]*?\`, []byte{5, 5}},
			{"b.001", []byte{5, 2}},
			{"b.002", []byte{7}},
		},
		Refused: []volumesInput{
			{"b", []byte{255, 5}},
			{"b", []byte{5, 255, 5}},
			{"b", []byte{4, 5}},
			{"b", []byte{5, 4, 5}},
			{"b", []byte{5, 5, 6}},
			{"b", []byte{5, 0}},
			{`[a-z]*?\`, []byte{5, 255, 5}},
		},
	}
}

// FuzzVolumes: parts are accepted if and only if they are consecutive and of one size. The
// last of several may be shorter but not empty. Accepted parts read as their joined content.
func FuzzVolumes(f *testing.F) {
	for _, s := range volumeSeeds().All() {
		f.Add(s.name, s.sizes)
	}
	check := fuzzVolumes(f.TempDir())
	f.Fuzz(func(t *testing.T, name string, sizes []byte) { check(t, volumesInput{name, sizes}) })
}

func fuzzVolumes(root string) func(t *testing.T, in volumesInput) bool {
	return func(t *testing.T, in volumesInput) bool {
		if in.name == "" || len(in.name) > 200 || strings.ContainsAny(in.name, "/\x00") || len(in.sizes) > 6 {
			return false
		}
		dir := filepath.Join(root, "d")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		base := dir + "/./" + in.name // filepath.Join would shorten this path
		all, want := writeParts(t, base, in.sizes)
		f, err := OpenFile(base+".001", os.O_RDONLY)
		if (err == nil) != want {
			t.Fatalf("%q in parts of %v: %v", in.name, in.sizes, err)
		}
		if err != nil {
			return false
		}
		defer f.Close()
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil || !bytes.Equal(got, all) || f.Size() != int64(len(all)) {
			t.Fatalf("%q in parts of %v is read as %q: %v", in.name, in.sizes, got, err)
		}
		return true
	}
}

// writeParts writes parts of these sizes. It returns their joined content and whether they are
// a whole bundle.
func writeParts(t *testing.T, base string, sizes []byte) (all []byte, whole bool) {
	t.Helper()
	whole, ended := len(sizes) > 0 && sizes[0] != 255, false
	for i, n := range sizes {
		if n == 255 {
			ended = true
			continue
		}
		whole = whole && !ended && (i == 0 || n > 0 && n <= sizes[0]) && (i < 2 || sizes[i-1] == sizes[0])
		data := bytes.Repeat([]byte{byte('a' + i)}, int(n))
		all = append(all, data...)
		if err := os.WriteFile(VolumeName(base, i+1), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return all, whole
}

// TestVolumesAsGiven: a path need not be in its shortest form.
func TestVolumesAsGiven(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"b.001", "b.002"} {
		if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"b.001", "./b.001", dir + "//b.001", dir + "/../" + filepath.Base(dir) + "/b.001"} {
		f, err := OpenFile(path, os.O_RDONLY)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
