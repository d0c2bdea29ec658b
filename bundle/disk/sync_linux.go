package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// SyncFilesystem makes all names and contents of the file system that holds dir
// durable (syncfs(2)).
func SyncFilesystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}
