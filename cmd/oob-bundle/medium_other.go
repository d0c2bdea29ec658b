//go:build !linux && !windows

package main

import "syscall"

// The errors of medium_linux.go that every system defines.
var (
	goneErrors   = []syscall.Errno{syscall.ENODEV, syscall.ENXIO, syscall.ESHUTDOWN, syscall.ENOTCONN, syscall.ESTALE, syscall.EHOSTDOWN}
	mediumErrors = []syscall.Errno{syscall.EIO, syscall.EILSEQ, syscall.ETIMEDOUT, syscall.EBADMSG, syscall.EPROTO, syscall.ECONNABORTED}

	fullErrors, protectedErrors []syscall.Errno
)
