package main

import "syscall"

// goneErrors are the errors of a medium or device that was removed.
var goneErrors = []syscall.Errno{
	syscall.ENODEV, syscall.ENXIO, syscall.ENOMEDIUM, syscall.ESHUTDOWN, syscall.ENOTCONN, syscall.ESTALE,
	syscall.EHOSTDOWN,
}

// mediumErrors are the errors of a failing medium or file system. The error depends on the
// driver of the block device (Linux, block/blk-core.c, blk_errors) and on the file system
// (EUCLEAN and EBADMSG are bad structures and checksums of ext4, XFS and btrfs).
var mediumErrors = []syscall.Errno{
	syscall.EIO, syscall.EMEDIUMTYPE, syscall.EREMOTEIO, syscall.ENOLINK, syscall.EBADE, syscall.ENODATA, syscall.EILSEQ,
	syscall.ETIMEDOUT, syscall.EUCLEAN, syscall.EBADMSG, syscall.EPROTO, syscall.ECONNABORTED, syscall.EREMCHG,
}

var fullErrors, protectedErrors []syscall.Errno
