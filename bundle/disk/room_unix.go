//go:build !windows

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// RoomAt returns the room on the file system that contains dir.
func RoomAt(dir string) (Room, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Room{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	// The fields have other types on other systems.
	r := Room{Bytes: int64(s.Bavail) * int64(s.Bsize), Files: int64(s.Ffree), MaxFile: math.MaxInt64} //nolint:unconvert,nolintlint,gosec
	if s.Files == 0 {
		r.Files = math.MaxInt64 // btrfs has no fixed number
	}
	if isFAT(&s) {
		r.MaxFile, r.Files = MaxFAT32, math.MaxInt64
	}
	return r, nil
}

// deviceOf returns a name for the file system that contains a directory.
func deviceOf(dir string) (string, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(s.Dev), nil
	}
	return "", nil
}

// Allocated returns the number of bytes that a file takes on the disk. They may be fewer than
// its size while the file is being written.
func Allocated(path string) (int64, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		return min(s.Blocks*512, fi.Size()), nil
	}
	return 0, nil
}

// linksOf returns how many names a file has.
func linksOf(f *os.File) (uint64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink), nil //nolint:unconvert,nolintlint // the field has other types on other systems
	}
	return 1, nil
}

// OwnerOf returns the user ID of the owner of a file or directory.
func OwnerOf(path string) (uint32, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		return s.Uid, nil
	}
	return 0, nil
}

// Writable returns an error if nothing can be created in dir: this user must not write there,
// or there is no directory and none can be created. Errors are *fs.PathError, or wrap
// ErrNoDirectory.
func Writable(dir string) error {
	for {
		fi, err := os.Stat(dir)
		if errors.Is(err, syscall.ENOTDIR) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
			if _, err := os.Lstat(dir); err == nil {
				return fmt.Errorf("%w: %s is a link to a directory that does not exist; make the directory, or remove the link", ErrNoDirectory, dir)
			}
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			return fmt.Errorf("%w: %s is not a directory, and one is needed there; move it away", ErrNoDirectory, dir)
		}
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			return &fs.PathError{Op: "writing to", Path: dir, Err: err}
		}
		return nil
	}
}
