//go:build !linux

package disk

// fileSystemOf returns 0: modeless has the numbers of Linux.
func fileSystemOf(string) uint32 { return 0 }
