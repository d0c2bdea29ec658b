// Package disk reads, writes and locks files on this machine. A file that it writes is the
// old one or the new one after a power cut, and durable when the call returns; a file that it
// opens is a regular file, and no call waits without end. It also reports what room a file
// system has and who may write where. It knows nothing of bundles.
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
