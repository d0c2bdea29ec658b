package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
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

// TestVolumesRefused: what OpenFile can tell from names and sizes alone.
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
		"no number":                {map[int]int{1: 5, 2: 5}, "b", ErrNotFile, "b.001"},
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
	if _, err := OpenFile(filepath.Join(dir, "b.001"), os.O_RDONLY); !errors.Is(err, ErrNotFile) {
		t.Errorf("a link as the second part: %v", err)
	}
}

// TestRoom: what a disk has is compared with what is needed, in words that say
// what to do.
func TestRoom(t *testing.T) {
	fat := Room{Bytes: 1 << 40, Files: math.MaxInt64, MaxFile: fat32Max}
	for name, test := range map[string]struct {
		room                  Room
		bytes, files, largest int64
		text                  string // of the error; empty means none
	}{
		"enough":        {Room{100, 10, math.MaxInt64}, 100, 10, 100, ""},
		"a byte short":  {Room{100, 10, math.MaxInt64}, 101, 10, 101, "make room for 1 bytes"},
		"a file short":  {Room{100, 10, math.MaxInt64}, 10, 11, 10, "inodes"},
		"FAT32 holds":   {fat, 1 << 32, 1, fat32Max, ""},
		"FAT32 refuses": {fat, 1 << 32, 1, 1 << 32, "--volume-size 4294963200"},
	} {
		err := test.room.need(".", test.bytes, test.files, test.largest)
		if (err == nil) != (test.text == "") || err != nil && (!errors.Is(err, ErrSpace) || !strings.Contains(err.Error(), test.text)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	room, err := RoomAt(t.TempDir())
	if err != nil || room.Bytes <= 0 || room.Files <= 0 || room.MaxFile <= 0 {
		t.Errorf("%+v, %v", room, err)
	}
	dir := t.TempDir()
	space, err := RoomAt(dir)
	if err != nil {
		t.Fatal(err)
	}
	most := Demand{Dir: filepath.Join(dir, "not", "there"), Bytes: space.Bytes / 3 * 2, Files: 1}
	if err := NeedAll(most); err != nil {
		t.Errorf("two thirds: %v", err)
	}
	if err := NeedAll(most, Demand{Dir: dir, Bytes: most.Bytes}); !errors.Is(err, ErrSpace) {
		t.Errorf("two thirds twice, on one disk: %v", err)
	}
	if other, err := RoomAt("/dev/shm"); err == nil && other.Bytes > 1<<20 && runtime.GOOS == "linux" {
		if err := NeedAll(most, Demand{Dir: "/dev/shm", Bytes: 1 << 20}); err != nil {
			t.Errorf("on two disks: %v", err)
		}
		if err := NeedAll(Demand{Dir: dir, Bytes: 1}, Demand{Dir: "/dev/shm", Bytes: math.MaxInt64}); !errors.Is(err, ErrSpace) {
			t.Errorf("the other disk is full: %v", err)
		}
	}
	if err := Need(t.TempDir(), math.MaxInt64, 1, 1); !errors.Is(err, ErrSpace) {
		t.Error(err)
	}
}

// TestCopyAt copies between volumes of different sizes, in the kernel and by hand.
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
