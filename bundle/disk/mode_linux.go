package disk

import "golang.org/x/sys/unix"

// fileSystemOf returns the number of the file system that holds path, or 0.
func fileSystemOf(path string) uint32 {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil {
		return 0
	}
	return uint32(s.Type) //nolint:gosec // the number has 32 bits, even if the field has more
}
