//go:build !linux

package disk

import "os"

// CopyRange returns ErrNoCopy.
func CopyRange(*os.File, int64, *os.File, int64, int64) (int64, error) { return 0, ErrNoCopy }
