package main

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// diskFailure reports whether a disk or medium failed, is gone, full or protected. Only errors
// about files count, because networks use some of the same numbers.
func diskFailure(err error) bool {
	errno, ok := fileErrno(err)
	return ok && slices.Contains(slices.Concat(goneErrors, mediumErrors, fullErrors, protectedErrors), errno)
}

// fileErrno returns the error number of an fs.PathError or os.LinkError in err.
func fileErrno(err error) (errno syscall.Errno, ok bool) {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		err = path.Err
	case errors.As(err, &link):
		err = link.Err
	default:
		return 0, false
	}
	return errno, errors.As(err, &errno)
}

// isErrno reports whether err wraps an error number in list.
func isErrno(err error, list []syscall.Errno) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains(list, errno)
}
