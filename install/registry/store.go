package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/distribution/distribution/v3/registry/storage/driver"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// storageRoot is distribution's directory below the driver's root.
const storageRoot = "/docker/registry/v2"

// store is the storage driver through which distribution reads and writes a directory. putBlob
// writes blobs without distribution, whose uploads create and remove six files and directories
// per blob. store differs from distribution's own driver in what it makes durable. That driver
// syncs each file, of which a bundle has thousands, but no directory that it creates. store
// syncs only a file that replaces one that readers see: the current link of a tag. For all
// other files, the owner syncs the complete file system before it reports that anything is
// stored.
//
// store records which files were created, so that a run that met a bad byte can remove exactly
// what it added.
type store struct {
	dir   string
	mu    sync.Mutex
	added []addition
}

// addition is a created file: the content of a blob, a repository's link to a blob, or any
// other file, by path. A run has many additions.
type addition struct {
	path string
	repo string
	blob bundle.Digest
}

func (a addition) file() string {
	switch {
	case a.path != "":
		return a.path
	case a.repo != "":
		return linkPath(a.repo, a.blob)
	}
	return blobPath(a.blob)
}

var _ driver.StorageDriver = (*store)(nil)

// tidy removes empty directories. If the store's own directory is a mount or a link to another
// disk, it stays.
func (s *store) tidy() error {
	for _, sub := range []string{"docker", "referrers"} {
		if err := disk.RemoveEmpty(filepath.Join(s.dir, sub)); err != nil {
			return err
		}
	}
	fi, err := os.Lstat(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && fi.IsDir() {
		_ = os.Remove(s.dir) // fails if it is not empty
	}
	return err
}

// file returns the path on the disk.
func (s *store) file(p string) string { return filepath.Join(s.dir, filepath.FromSlash(p)) }

// Name implements driver.StorageDriver.
func (s *store) Name() string { return "oob-bundle" }

// GetContent implements driver.StorageDriver.
func (s *store) GetContent(_ context.Context, p string) ([]byte, error) {
	data, err := os.ReadFile(s.file(p))
	return data, missing(p, err)
}

// missing converts an error to the type that distribution expects.
func missing(p string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return driver.PathNotFoundError{Path: p, DriverName: "oob-bundle"}
	}
	return err
}

// PutContent writes a file, or replaces it atomically. A file with the same content is left
// unchanged.
func (s *store) PutContent(_ context.Context, p string, content []byte) error {
	return s.put(p, content, addition{path: p})
}

// link adds a blob to a repository.
func (s *store) link(repo string, d bundle.Digest) error {
	return s.put(linkPath(repo, d), []byte(d), addition{repo: repo, blob: d})
}

func (s *store) put(p string, content []byte, what addition) error {
	name := s.file(p)
	if err := mkdir(filepath.Dir(name)); err != nil {
		return err
	}
	// After a crash, recover finds an unfinished new file. A tag is different: it must have
	// its old or its new value at every moment.
	if !isTag(p) {
		err := writeNew(name, content)
		if err == nil {
			s.record(what)
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	old, err := os.ReadFile(name)
	if err == nil && bytes.Equal(old, content) {
		return nil
	}
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return err
	}
	if err := disk.WriteFile(name, content, 0o644); err != nil {
		return err
	}
	if fresh {
		s.record(what)
	}
	return nil
}

func writeNew(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// isTag reports whether a path is the current link of a tag.
func isTag(p string) bool { return strings.HasSuffix(p, "/current/link") }

// mkdir creates a directory and its parents.
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
	return err
}

func (s *store) record(a addition) {
	s.mu.Lock()
	s.added = append(s.added, a)
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

// Writer implements driver.StorageDriver. It is not supported, because putBlob stores blobs.
func (s *store) Writer(context.Context, string, bool) (driver.FileWriter, error) {
	return nil, driver.ErrUnsupportedMethod{DriverName: s.Name()}
}

// blobPath returns the path of a blob's content, and linkPath that of the link that makes a
// blob part of a repository (distribution's registry/storage/paths.go).
func blobPath(d bundle.Digest) string {
	return storageRoot + "/blobs/sha256/" + d.Hex()[:2] + "/" + d.Hex() + "/data"
}

func linkPath(repo string, d bundle.Digest) string {
	return storageRoot + "/repositories/" + repo + "/_layers/sha256/" + d.Hex() + "/link"
}

// putBlob writes a blob to its place and hashes it while writing. The file has a temporary
// name until it is complete and verified. If the store already has the blob, the input is only
// hashed. If the input does not match d, nothing is kept and the error wraps bundle.ErrDigest
// or ErrFormat.
func (s *store) putBlob(ctx context.Context, d bundle.Descriptor, r io.Reader, buf []byte) error {
	name := s.file(blobPath(d.Digest))
	fi, err := os.Stat(name)
	if err == nil && fi.Size() == d.Size {
		return pour(ctx, io.Discard, d, r, buf)
	}
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return err
	}
	dir := filepath.Dir(name)
	if err := mkdir(dir); err != nil {
		return err
	}
	staged := filepath.Join(dir, ".data")
	err = writeBlob(ctx, staged, d, r, buf)
	if err == nil {
		err = os.Rename(staged, name)
	}
	if err != nil {
		err = errors.Join(err, removeIfThere(staged))
		if rest, listErr := os.ReadDir(dir); listErr == nil && len(rest) == 0 {
			err = errors.Join(err, os.Remove(dir))
		}
		return err
	}
	if fresh {
		s.record(addition{blob: d.Digest})
	}
	return nil
}

func writeBlob(ctx context.Context, name string, d bundle.Descriptor, r io.Reader, buf []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(pour(ctx, f, d, r, buf), f.Close())
}

// pour copies r to w and verifies that it matches d.
func pour(ctx context.Context, w io.Writer, d bundle.Descriptor, r io.Reader, buf []byte) error {
	digest, total, err := bundle.Copy(ctx, w, r, buf)
	if err != nil {
		return err
	}
	if total != d.Size {
		return fmt.Errorf("%w: %s has %d bytes instead of %d", bundle.ErrFormat, d.Digest, total, d.Size)
	}
	if digest != d.Digest {
		return fmt.Errorf("%w: %s", bundle.ErrDigest, d.Digest)
	}
	return nil
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
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
		s.record(addition{path: to})
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

// RedirectURL implements driver.StorageDriver. It never redirects.
func (s *store) RedirectURL(*http.Request, string) (string, error) { return "", nil }

// Walk implements driver.StorageDriver.
func (s *store) Walk(ctx context.Context, p string, f driver.WalkFn, options ...func(*driver.WalkOptions)) error {
	return driver.WalkFallback(ctx, s, p, f, options...)
}

// undo deletes the recorded files, last first.
func (s *store) undo() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var problems []error
	for i := len(s.added) - 1; i >= 0; i-- {
		if err := os.Remove(s.file(s.added[i].file())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	s.added = nil
	return errors.Join(problems...)
}
