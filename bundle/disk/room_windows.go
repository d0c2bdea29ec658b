package disk

import (
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// RoomAt returns the room on the file system that contains dir.
func RoomAt(dir string) (Room, error) {
	r := Room{Files: math.MaxInt64, MaxFile: math.MaxInt64}
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return r, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return r, &os.PathError{Op: "free space", Path: dir, Err: err}
	}
	r.Bytes = int64(min(free, math.MaxInt64))
	abs, err := filepath.Abs(dir)
	if err != nil {
		return r, err
	}
	volume, err := windows.UTF16PtrFromString(filepath.VolumeName(abs) + `\`)
	if err != nil {
		return r, err
	}
	name := make([]uint16, windows.MAX_PATH+1)
	err = windows.GetVolumeInformation(volume, nil, 0, nil, nil, nil, &name[0], uint32(len(name)))
	if err == nil && strings.HasPrefix(windows.UTF16ToString(name), "FAT") {
		r.MaxFile = MaxFAT32
	}
	return r, nil // a share may not report its file system
}

// Allocated returns 0: it does not ask Windows how much of a file is on the disk.
func Allocated(string) (int64, error) { return 0, nil }

// Writable returns nil: on Windows the error comes when something is created.
func Writable(string) error { return nil }

// linksOf returns 1: on Windows, a hard link to another user's file requires rights to that
// file.
func linksOf(*os.File) (uint64, error) { return 1, nil }

// OwnerOf returns 0: on Windows, access lists decide.
func OwnerOf(string) (uint32, error) { return 0, nil }

// deviceOf returns the name of the volume that contains dir. Dir must be absolute.
func deviceOf(dir string) (string, error) { return filepath.VolumeName(dir), nil }
