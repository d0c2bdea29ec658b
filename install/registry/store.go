package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/distribution/distribution/v3/registry/storage/driver"
)

// storageRoot is where distribution keeps everything, below the driver's root.
const storageRoot = "/docker/registry/v2"

// store is the storage driver through which distribution writes below a
// directory. It differs from distribution's own in what makes files durable:
// that one syncs each file, of which a bundle has thousands, and no directory it
// makes. This one syncs only what replaces something that readers see, the
// current link of a tag; for all else the owner syncs the file system as a whole
// before it says that anything is there.
//
// It remembers which files came into being, so that a run that met a bad byte
// can take back all it added, and nothing else.
type store struct {
	dir   string
	mu    sync.Mutex
	added []string
}

var _ driver.StorageDriver = (*store)(nil)

// file returns the place of a path on the disk.
func (s *store) file(p string) string { return filepath.Join(s.dir, filepath.FromSlash(p)) }

// Name implements driver.StorageDriver.
func (s *store) Name() string { return "oob-bundle" }

// GetContent implements driver.StorageDriver.
func (s *store) GetContent(_ context.Context, p string) ([]byte, error) {
	data, err := os.ReadFile(s.file(p))
	return data, missing(p, err)
}

// missing words an error as distribution wants it.
func missing(p string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return driver.PathNotFoundError{Path: p, DriverName: "oob-bundle"}
	}
	return err
}

// PutContent replaces a file as a whole. One that is there with the same content
// is left alone.
func (s *store) PutContent(_ context.Context, p string, content []byte) (err error) {
	name := s.file(p)
	old, err := os.ReadFile(name)
	if err == nil && bytes.Equal(old, content) {
		return nil
	}
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return err
	}
	if err := mkdir(filepath.Dir(name)); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), temporary+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil && isTag(p) {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if fresh {
		s.record(p)
	}
	return nil
}

// temporary begins the names of files that are about to be renamed.
const temporary = ".oob-"

// isTag reports whether a file is what a tag points to.
func isTag(p string) bool { return strings.HasSuffix(p, "/current/link") }

// mkdir makes directories that everybody may read, whatever the umask.
func mkdir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err := mkdir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

func (s *store) record(p string) {
	if strings.Contains(p, "/_uploads/") {
		return
	}
	s.mu.Lock()
	s.added = append(s.added, p)
	s.mu.Unlock()
}

// Reader implements driver.StorageDriver.
func (s *store) Reader(_ context.Context, p string, offset int64) (io.ReadCloser, error) {
	f, err := os.Open(s.file(p))
	if err != nil {
		return nil, missing(p, err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Writer implements driver.StorageDriver. Uploads are written once and never
// taken up again.
func (s *store) Writer(_ context.Context, p string, again bool) (driver.FileWriter, error) {
	if again {
		return nil, driver.ErrUnsupportedMethod{DriverName: s.Name()}
	}
	name := s.file(p)
	if err := mkdir(filepath.Dir(name)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o644); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &upload{File: f}, nil
}

// upload is a file that is being written.
type upload struct {
	*os.File
	size   int64
	closed bool
}

func (u *upload) Write(p []byte) (int, error) {
	n, err := u.File.Write(p)
	u.size += int64(n)
	return n, err
}

func (u *upload) Size() int64 { return u.size }

func (u *upload) Commit(context.Context) error { return nil }

func (u *upload) Cancel(context.Context) error { return os.Remove(u.Name()) }

func (u *upload) Close() error {
	if u.closed {
		return nil
	}
	u.closed = true
	return u.File.Close()
}

// Stat implements driver.StorageDriver.
func (s *store) Stat(_ context.Context, p string) (driver.FileInfo, error) {
	fi, err := os.Stat(s.file(p))
	if err != nil {
		return nil, missing(p, err)
	}
	info := driver.FileInfoFields{Path: p, ModTime: fi.ModTime(), IsDir: fi.IsDir()}
	if !fi.IsDir() {
		info.Size = fi.Size()
	}
	return driver.FileInfoInternal{FileInfoFields: info}, nil
}

// List implements driver.StorageDriver.
func (s *store) List(_ context.Context, p string) ([]string, error) {
	entries, err := os.ReadDir(s.file(p))
	if err != nil {
		return nil, missing(p, err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, path.Join(p, e.Name()))
	}
	return list, nil
}

// Move implements driver.StorageDriver.
func (s *store) Move(_ context.Context, from, to string) error {
	_, err := os.Lstat(s.file(to))
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := mkdir(filepath.Dir(s.file(to))); err != nil {
		return err
	}
	if err := os.Rename(s.file(from), s.file(to)); err != nil {
		return missing(from, err)
	}
	if fresh {
		s.record(to)
	}
	return nil
}

// Delete implements driver.StorageDriver.
func (s *store) Delete(_ context.Context, p string) error {
	if _, err := os.Lstat(s.file(p)); err != nil {
		return missing(p, err)
	}
	return os.RemoveAll(s.file(p))
}

// RedirectURL implements driver.StorageDriver: nothing is elsewhere.
func (s *store) RedirectURL(*http.Request, string) (string, error) { return "", nil }

// Walk implements driver.StorageDriver.
func (s *store) Walk(ctx context.Context, p string, f driver.WalkFn, options ...func(*driver.WalkOptions)) error {
	return driver.WalkFallback(ctx, s, p, f, options...)
}

// undo deletes what was recorded, last first.
func (s *store) undo() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var problems []error
	for i := len(s.added) - 1; i >= 0; i-- {
		if err := os.Remove(s.file(s.added[i])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	s.added = nil
	return errors.Join(problems...)
}
