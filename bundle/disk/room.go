package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"syscall"
)

// Room is the free space of a file system.
type Room struct {
	Bytes   int64 // free for this user
	Files   int64 // that can still be created; math.MaxInt64 if the file system does not count them
	MaxFile int64 // the largest possible file, bytes
}

// MaxFAT32 is the largest file on FAT32, bytes: its size field has 32 bits.
const MaxFAT32 = math.MaxUint32

// Need checks that dir has room for so many more bytes and files, and for a file of largest
// bytes. Errors wrap ErrSpace, or are the file system's.
func Need(dir string, bytes, files, largest int64) error {
	room, err := RoomAt(dir)
	if err != nil {
		return err
	}
	return room.need(dir, bytes, files, largest)
}

// Demand is the room that is needed in a directory. The directory may not exist yet.
type Demand struct {
	Dir          string
	Bytes, Files int64
}

// NeedAll checks that there is room for all demands together. It adds up the demands on each
// file system. Errors wrap ErrSpace, or are the file system's.
func NeedAll(demands ...Demand) error {
	var systems []string
	sums := map[string]Demand{}
	for _, d := range demands {
		dir, err := existing(d.Dir)
		if err != nil {
			return err
		}
		system, err := deviceOf(dir)
		if err != nil {
			return err
		}
		sum, known := sums[system]
		if !known {
			systems, sum.Dir = append(systems, system), dir
		}
		sum.Bytes, sum.Files = sum.Bytes+d.Bytes, sum.Files+d.Files
		sums[system] = sum
	}
	var problems []error
	for _, system := range systems {
		d := sums[system]
		problems = append(problems, Need(d.Dir, d.Bytes, d.Files, 0))
	}
	return errors.Join(problems...)
}

// existing returns dir, or the nearest directory above it that exists.
func existing(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	for err == nil {
		if _, err = os.Stat(dir); err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir, err = filepath.Dir(dir), nil
	}
	return dir, err
}

func (r Room) need(dir string, bytes, files, largest int64) error {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	switch {
	case largest > r.MaxFile:
		return fmt.Errorf(
			"%w: the file has %d bytes, and the file system of %s holds files of at most %d bytes (it is FAT32); write volumes "+
				"with --volume-size %d, or choose another place",
			ErrSpace, largest, dir, r.MaxFile, r.MaxFile/4096*4096,
		)
	case bytes > r.Bytes:
		return fmt.Errorf("%w: %d more bytes are needed in %s and %d are free; make room for %d bytes, or choose another place",
			ErrSpace, bytes, dir, r.Bytes, bytes-r.Bytes)
	case files > r.Files:
		return fmt.Errorf("%w: %d more files are needed in %s and its file system can take %d (inodes)", ErrSpace, files, dir, r.Files)
	}
	return nil
}

// Resize sets the size of a file. Errors wrap ErrSpace, or are the file system's.
func Resize(f *os.File, size int64) error {
	err := f.Truncate(size)
	if errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf(
			"%w: %s would have %d bytes, more than its file system or this user's limit (ulimit -f) allows; write volumes with --volume-size",
			ErrSpace, f.Name(), size,
		)
	}
	return err
}
