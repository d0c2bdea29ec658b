package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Open opens a regular file with the flag of os.OpenFile. It refuses a link, and a file that
// was replaced during the call. Errors wrap ErrNotFile, or are the file system's.
func Open(path string, flag int) (*os.File, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is %s: %w; give the path of the bundle itself", path, kindOf(before.Mode()), ErrNotFile)
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s was replaced while it was opened: %w", path, ErrNotFile)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// OpenOrCreate opens a file for reading and writing, and creates it if it is missing. Other
// users may be able to create names in its directory. OpenOrCreate therefore refuses a link,
// and a file with further names: writing to it would change another file. Errors wrap
// ErrNotFile, or are the file system's.
func OpenOrCreate(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	f, err = Open(path, os.O_RDWR)
	if errors.Is(err, ErrNotFile) {
		return nil, fmt.Errorf(
			"%w: something else than a file is at %s, which this program makes itself; remove it, or choose another name with -o",
			ErrNotFile, path,
		)
	}
	if err != nil {
		return nil, err
	}
	if names, err := linksOf(f); err != nil || names > 1 {
		return nil, errors.Join(
			fmt.Errorf("%w: %s is a file that has other names too; remove it, or choose another name with -o", ErrNotFile, path),
			err, f.Close(),
		)
	}
	return f, nil
}

func kindOf(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&os.ModeSymlink != 0:
		return "a symbolic link"
	case m&os.ModeNamedPipe != 0:
		return "a pipe"
	case m&os.ModeDevice != 0:
		return "a device"
	case m&os.ModeSocket != 0:
		return "a socket"
	}
	return "something special"
}
