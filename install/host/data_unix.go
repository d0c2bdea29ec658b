//go:build unix

package host

import (
	"fmt"
	"io/fs"
	"syscall"
)

// nonblock is the flag for opening a file that may have been replaced by a pipe.
const nonblock = syscall.O_NONBLOCK

// ownerOf returns the owner of a file as UID:GID.
func ownerOf(fi fs.FileInfo) string {
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", s.Uid, s.Gid)
	}
	return ""
}
