// Package disk reads, writes and locks files on this machine. After a power cut, a file that
// WriteFile writes is the old one or the new one, and it is durable when the call returns. The
// package opens only regular files, and pipes in ReadFile. No call waits without end. It also
// reports the free space of a file system and who may write where. It does not know about
// bundles.
package disk

import "errors"

// Errors of this package that are not the file system's wrap one of these.
var (
	// ErrNotFile reports a path that does not name a regular file.
	ErrNotFile = errors.New("not a regular file")
	// ErrTooLong reports a file with more bytes than the caller accepts.
	ErrTooLong = errors.New("over a limit")
	// ErrSpace reports a disk with too little room, or a file system that cannot hold a file
	// of the size.
	ErrSpace = errors.New("not enough space")
	// ErrNoDirectory reports a path at which a directory is needed and cannot be made.
	ErrNoDirectory = errors.New("no directory")
	// ErrNoCopy reports that the kernel cannot copy between two files.
	ErrNoCopy = errors.New("not copied by the kernel")
)
