package disk

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gofrs/flock"
)

// TryLock takes an exclusive lock on an existing file or directory, without waiting. Release
// is nil if another process has the lock. The kernel releases the lock when the process ends.
// On Windows, where a locked file cannot be written through another handle, TryLock locks a
// .lock file instead, beside the file or in the directory.
func TryLock(path string) (release func() error, err error) {
	if runtime.GOOS == "windows" {
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			path = filepath.Join(path, ".lock")
		} else {
			path += ".lock"
		}
		l := flock.New(path)
		if ok, err := l.TryLock(); err != nil || !ok {
			return nil, err
		}
		return func() error { return errors.Join(l.Unlock(), os.Remove(path)) }, nil
	}
	l := flock.New(path, flock.SetFlag(os.O_RDONLY))
	if ok, err := l.TryLock(); err != nil || !ok {
		return nil, err
	}
	return l.Unlock, nil
}
