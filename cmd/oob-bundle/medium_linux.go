package main

import "syscall"

// goneErrors are those of a medium or device that is not there any more.
var goneErrors = []syscall.Errno{
	syscall.ENODEV, syscall.ENXIO, syscall.ENOMEDIUM, syscall.ESHUTDOWN, syscall.ENOTCONN, syscall.ESTALE,
	syscall.EHOSTDOWN,
}

// mediumErrors are those of a medium or file system that fails. Which error a failing block
// device gives depends on its driver (Linux, block/blk-core.c, blk_errors), and on the file
// system (EUCLEAN and EBADMSG are bad structures and checksums of ext4, XFS and btrfs).
var mediumErrors = []syscall.Errno{
	syscall.EIO, syscall.EMEDIUMTYPE, syscall.EREMOTEIO, syscall.ENOLINK, syscall.EBADE, syscall.ENODATA, syscall.EILSEQ,
	syscall.ETIMEDOUT, syscall.EUCLEAN, syscall.EBADMSG, syscall.EPROTO, syscall.ECONNABORTED, syscall.EREMCHG,
}

var fullErrors, protectedErrors []syscall.Errno
