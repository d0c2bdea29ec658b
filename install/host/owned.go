package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// writeIn atomically replaces a file below root, in a directory that no link leads to.
func writeIn(root *os.Root, name string, data []byte, mode fs.FileMode, owner string) error {
	dir, err := descend(root, path.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(writeOwned(dir, path.Base(name), data, mode, owner), dir.Close())
}

// writeOwned atomically replaces a file and sets its owner.
func writeOwned(root *os.Root, name string, data []byte, mode fs.FileMode, owner string) (err error) {
	fresh := disk.TempName(name)
	if err := root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && runtime.GOOS != "windows" {
		err = f.Chmod(mode)
	}
	if err == nil && owner != "" && os.Geteuid() == 0 {
		var uid, gid int
		if _, err = fmt.Sscanf(owner, "%d:%d", &uid, &gid); err == nil {
			err = f.Chown(uid, gid)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(fresh, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(fresh))
	}
	return disk.SyncDir(filepath.Dir(filepath.Join(root.Name(), filepath.FromSlash(name))))
}
