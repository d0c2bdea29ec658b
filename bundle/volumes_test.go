package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// TestVolumes writes and reads across every boundary.
func TestVolumes(t *testing.T) {
	for _, size := range []int64{1, 9, 10, 11, 25, 30, 31} {
		path := filepath.Join(t.TempDir(), "b.oob.tar")
		f, err := CreateFile(path, size, 10)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i + 1)
		}
		for off := int64(0); off < size; off += 7 { // out of order and across boundaries
			at := (off * 3) % size
			if _, err := f.WriteAt(want[at:], at); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{1}, size); err == nil {
			t.Error("wrote behind the end")
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if f, err = OpenFile(path+".001", os.O_RDONLY); err != nil {
			t.Fatal(err)
		}
		if n := int64(len(f.Parts())); f.Size() != size || n != (size+9)/10 {
			t.Errorf("%d bytes in %d parts", f.Size(), n)
		}
		for off := range size {
			got, err := io.ReadAll(io.NewSectionReader(f, off, size))
			if err != nil || !bytes.Equal(got, want[off:]) {
				t.Errorf("from %d: %v, %v", off, got, err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVolumesRefused checks what OpenFile refuses by names and sizes alone.
func TestVolumesRefused(t *testing.T) {
	for name, test := range map[string]struct {
		sizes map[int]int // of the parts
		open  string
		want  error
		text  string
	}{
		"the first is missing":     {map[int]int{2: 5}, "b.001", os.ErrNotExist, "b.001"},
		"one in the middle":        {map[int]int{1: 5, 2: 5, 4: 5}, "b.001", ErrFormat, "b.003 is missing"},
		"the first is short":       {map[int]int{1: 4, 2: 5, 3: 2}, "b.001", ErrFormat, "b.001 is short: it has 4 of 5"},
		"one in the middle, short": {map[int]int{1: 5, 2: 4, 3: 5}, "b.001", ErrFormat, "b.002 is short"},
		"the last is larger":       {map[int]int{1: 5, 2: 5, 3: 6}, "b.001", ErrFormat, "b.003 has 6 bytes"},
		"not the first":            {map[int]int{1: 5, 2: 5}, "b.002", ErrPart, "b.001"},
		"not the first, alone":     {map[int]int{2: 5}, "b.002", ErrPart, "b.002 looks like part 2, and "},
		"not a part":               {map[int]int{2: 5}, "b.003", os.ErrNotExist, "b.003"},
		"no number":                {map[int]int{1: 5, 2: 5}, "b", disk.ErrNotFile, "b.001"},
		"a name with a pattern":    {map[int]int{1: 5}, "[a-z]*?", os.ErrNotExist, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for n, size := range test.sizes {
				if err := os.WriteFile(VolumeName(filepath.Join(dir, "b"), n), make([]byte, size), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			_, err := OpenFile(filepath.Join(dir, test.open), os.O_RDONLY)
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "b.001"), make([]byte, 5), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b.001", filepath.Join(dir, "b.002")); err != nil {
		t.Skip("no symbolic links here")
	}
	if _, err := OpenFile(filepath.Join(dir, "b.001"), os.O_RDONLY); !errors.Is(err, disk.ErrNotFile) {
		t.Errorf("a link as the second part: %v", err)
	}
}

// TestCopyAt copies between volumes of different sizes, in the kernel and through a buffer.
func TestCopyAt(t *testing.T) {
	from, err := CreateFile(filepath.Join(t.TempDir(), "from"), 1000, 300)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 1000)
	for i := range want {
		want[i] = byte(i * 7)
	}
	if _, err := from.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	dirs := []string{t.TempDir()}
	if _, err := os.Stat("/dev/shm"); err == nil { // another file system
		dir, err := os.MkdirTemp("/dev/shm", "oob-")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}()
		dirs = append(dirs, dir)
	}
	for _, dir := range dirs {
		to, err := CreateFile(filepath.Join(dir, "to"), 1010, 170)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		for off := int64(0); off < 1000; {
			n, err := CopyAt(to, off+10, from, off, 1000-off, buf)
			if err != nil || n < 1 || !bytes.Equal(buf[:n], want[off:off+int64(n)]) {
				t.Fatalf("%s at %d: %d, %v", dir, off, n, err)
			}
			off += int64(n)
		}
		got := make([]byte, 1000)
		if _, err := to.ReadAt(got, 10); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: other bytes, %v", dir, err)
		}
		if _, err := CopyAt(to, 10, from, 1000, 1, buf); err == nil {
			t.Error("copied what is not there")
		}
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Close(); err != nil {
		t.Fatal(err)
	}
}
