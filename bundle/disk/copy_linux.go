package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// CopyRange copies at most n bytes between two files in the kernel (copy_file_range(2)) and
// returns how many. If the file system can, the files then share these bytes. CopyRange
// returns ErrNoCopy if the kernel cannot copy.
func CopyRange(to *os.File, toOff int64, from *os.File, fromOff, n int64) (int64, error) {
	done, err := unix.CopyFileRange(int(from.Fd()), &fromOff, int(to.Fd()), &toOff, int(n), 0)
	switch {
	case errors.Is(err, unix.EXDEV),
		errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP),
		errors.Is(err, unix.EPERM):
		return 0, ErrNoCopy
	case err != nil:
		return 0, &os.PathError{Op: "copy", Path: to.Name(), Err: err}
	case done == 0:
		return 0, ErrNoCopy // some file systems return 0 instead of an error
	}
	return int64(done), nil
}
