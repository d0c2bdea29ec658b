package main

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// diskFailure reports whether a disk or medium failed, is gone, full or protected. Some of
// these errors are a network's too, so only those of a file count.
func diskFailure(err error) bool {
	errno, ok := fileErrno(err)
	return ok && slices.Contains(slices.Concat(goneErrors, mediumErrors, fullErrors, protectedErrors), errno)
}

// fileErrno returns the number of an error about a file.
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

// isErrno reports whether an error is one of a list.
func isErrno(err error, list []syscall.Errno) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains(list, errno)
}
