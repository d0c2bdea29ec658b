package disk

import (
	"errors"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestRoom: too little room is an error that names what to do.
func TestRoom(t *testing.T) {
	fat := Room{Bytes: 1 << 40, Files: math.MaxInt64, MaxFile: MaxFAT32}
	for name, test := range map[string]struct {
		room                  Room
		bytes, files, largest int64
		text                  string // of the error; empty means none
	}{
		"enough":        {Room{100, 10, math.MaxInt64}, 100, 10, 100, ""},
		"a byte short":  {Room{100, 10, math.MaxInt64}, 101, 10, 101, "make room for 1 bytes"},
		"a file short":  {Room{100, 10, math.MaxInt64}, 10, 11, 10, "inodes"},
		"FAT32 holds":   {fat, 1 << 32, 1, MaxFAT32, ""},
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
