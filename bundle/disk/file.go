package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// WriteFile replaces the file at path as a whole and durably: after a power cut it is the old
// one or the new one. It sets the mode regardless of the umask, except on Windows. It first
// writes the new content beside the file, under a name that the next run after a kill uses
// again. The caller must be the only writer of the file.
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

// TempName returns the name beside path for new content that is renamed to path later. The
// name has at most 255 bytes if the name of path has (the limit of most file systems).
func TempName(path string) string {
	dir, base := filepath.Split(path)
	if len(base) > 250 {
		sum := sha256.Sum256([]byte(base))
		base = hex.EncodeToString(sum[:8])
	}
	return dir + "." + base + ".new"
}

// ReadFile reads a file of at most limit bytes, or a pipe that a program writes to. It
// never waits without end, and never opens a device. Errors wrap ErrTooLong, ErrNotFile, or
// are the file system's.
func ReadFile(path string, limit int64) ([]byte, error) {
	return readFile(path, limit, pipeWait)
}

// pipeWait is the time that a program has for writing to a pipe: it may ask for a password.
const pipeWait = 2 * time.Minute

// OpenRegular opens a regular file for reading. It follows links, and does not wait for the
// other end of a pipe. Errors wrap ErrNotFile, or are the file system's.
func OpenRegular(path string) (*os.File, error) {
	f, mode, err := openReadable(path)
	if err == nil && !mode.IsRegular() {
		return nil, errors.Join(notFile(path, mode), f.Close())
	}
	return f, err
}

// openReadable opens a regular file or a pipe for reading, without waiting. Opening a
// device can change its state, so the kind of file is checked before and after.
func openReadable(path string) (*os.File, fs.FileMode, error) {
	fi, err := os.Stat(path)
	if err == nil {
		err = checkReadable(path, fi.Mode())
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	if fi, err = f.Stat(); err == nil {
		err = checkReadable(path, fi.Mode())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, fi.Mode(), nil
}

func checkReadable(path string, mode fs.FileMode) error {
	if mode.IsRegular() || mode&fs.ModeType == fs.ModeNamedPipe {
		return nil
	}
	return notFile(path, mode)
}

func notFile(path string, mode fs.FileMode) error {
	return fmt.Errorf("%s is %s: %w", path, kindOf(mode), ErrNotFile)
}

func readFile(path string, limit int64, wait time.Duration) (data []byte, err error) {
	f, mode, err := openReadable(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	tooLong := fmt.Errorf("%w: %s has more than %d bytes", ErrTooLong, path, limit)
	if fi.Size() > limit {
		return nil, tooLong
	}
	var r io.Reader = f
	if !mode.IsRegular() {
		r = newPipe(f, wait)
	}
	data, err = io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, tooLong
	}
	return data, err
}

// pipe reads a pipe that was opened without waiting. Until a program opens the other end,
// reading such a pipe returns io.EOF.
type pipe struct {
	*os.File
	opened time.Time // deadline for a program to open the other end
	end    time.Time // deadline for reading everything
	begun  bool      // something was read
}

// writerWait is the time that a program has for opening the other end of a pipe.
const writerWait = time.Second

func newPipe(f *os.File, wait time.Duration) *pipe {
	now := time.Now()
	return &pipe{File: f, opened: now.Add(min(wait, writerWait)), end: now.Add(wait)}
}

func (p *pipe) Read(data []byte) (int, error) {
	// Where pipes have no deadlines, Read returns EAGAIN.
	if err := p.SetReadDeadline(p.end); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return 0, err
	}
	for {
		n, err := p.File.Read(data)
		waiting := errors.Is(err, syscall.EAGAIN)
		unopened := errors.Is(err, io.EOF) && !p.begun
		switch now := time.Now(); {
		case n > 0:
			p.begun = true
			return n, nil
		case unopened && now.After(p.opened):
			return 0, fmt.Errorf("%s is a pipe that no program writes to: %w", p.Name(), ErrNotFile)
		case errors.Is(err, os.ErrDeadlineExceeded), waiting && now.After(p.end):
			return 0, fmt.Errorf("%s is a pipe that its writer did not close within %s: %w", p.Name(), pipeWait, ErrNotFile)
		case !waiting && !unopened:
			return n, err
		}
		time.Sleep(10 * time.Millisecond)
	}
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

// RemoveEmpty removes the empty directories below dir, deepest first, and dir itself if
// nothing is left in it. A missing dir is not an error.
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
