package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// WriteFile replaces the file at path as a whole and durably: after a power cut
// it is the old one or the new one. The mode is set whatever the umask says. The
// new content is first written beside it, under a name that the next run after a
// kill uses again; the caller is the only one that writes the file.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	name := TempName(path)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && runtime.GOOS != "windows" {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(filepath.Dir(path))
}

// TempName returns the name beside path under which its new content is written before it
// is renamed. It fits wherever the name itself fits (255 bytes on most file systems).
func TempName(path string) string {
	dir, base := filepath.Split(path)
	if len(base) > 250 {
		base = DigestOf([]byte(base)).Short()
	}
	return dir + "." + base + ".new"
}

// ReadFile reads a file of at most limit bytes, whatever it says of its size: a
// device may never end. The error wraps ErrLimit or is the file system's.
func ReadFile(path string, limit int64) (data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() <= limit {
		if data, err = io.ReadAll(io.LimitReader(f, limit+1)); err != nil {
			return nil, err
		}
	}
	if fi.Size() > limit || int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrLimit, path, limit)
	}
	return data, nil
}

// SyncDir makes the names in a directory durable. Windows has no such call and
// needs none (NTFS journals its directories).
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RemoveEmpty removes the directories below and including dir that hold nothing.
// One that is not there is in order.
func RemoveEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	left := len(entries)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		sub := filepath.Join(dir, e.Name())
		if err := RemoveEmpty(sub); err != nil {
			return err
		}
		if _, err := os.Lstat(sub); errors.Is(err, fs.ErrNotExist) {
			left--
		} else if err != nil {
			return err
		}
	}
	if left > 0 {
		return nil
	}
	return os.Remove(dir)
}
