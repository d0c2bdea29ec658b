package registry

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncFilesystem makes all names and contents of the file system that holds dir
// durable (syncfs(2)); distribution's storage does not sync directories.
func syncFilesystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}
