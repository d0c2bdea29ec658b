//go:build !linux && !windows

package main

import "syscall"

// As on Linux, as far as every system has them.
var (
	goneErrors   = []syscall.Errno{syscall.ENODEV, syscall.ENXIO, syscall.ESHUTDOWN, syscall.ENOTCONN, syscall.ESTALE, syscall.EHOSTDOWN}
	mediumErrors = []syscall.Errno{syscall.EIO, syscall.EILSEQ, syscall.ETIMEDOUT, syscall.EBADMSG, syscall.EPROTO, syscall.ECONNABORTED}

	fullErrors, protectedErrors []syscall.Errno
)
