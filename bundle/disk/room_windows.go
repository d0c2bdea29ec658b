package disk

import (
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// RoomAt asks the file system that holds dir.
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
	return r, nil // a share may not say what it is
}

// Allocated returns 0: how much of a file is on the disk is not asked.
func Allocated(string) (int64, error) { return 0, nil }

// Writable asks nothing here: Windows says it where something is made.
func Writable(string) error { return nil }

// linksOf returns 1: hard links to files of others need rights to these on Windows.
func linksOf(*os.File) (uint64, error) { return 1, nil }

// OwnerOf returns 0: access lists decide on Windows.
func OwnerOf(string) (uint32, error) { return 0, nil }

// deviceOf names the volume that holds a directory, which is absolute.
func deviceOf(dir string) (string, error) { return filepath.VolumeName(dir), nil }
