package disk

import "golang.org/x/sys/unix"

func isFAT(s *unix.Statfs_t) bool { return s.Type == unix.MSDOS_SUPER_MAGIC }
