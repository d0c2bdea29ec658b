package registry

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/distribution/distribution/v3/registry/storage/driver"
)

// storageRoot is where distribution keeps everything, below the driver's root.
const storageRoot = "/docker/registry/v2"

// recorder is the storage driver of the embedded registry. It remembers which
// files came into being, so that a run that met a bad byte can take back all it
// added, and nothing else.
type recorder struct {
	driver.StorageDriver
	mu    sync.Mutex
	added []string
}

func (r *recorder) PutContent(ctx context.Context, path string, content []byte) error {
	return r.create(ctx, path, func() error { return r.StorageDriver.PutContent(ctx, path, content) })
}

func (r *recorder) Move(ctx context.Context, from, to string) error {
	return r.create(ctx, to, func() error { return r.StorageDriver.Move(ctx, from, to) })
}

func (r *recorder) Writer(ctx context.Context, path string, add bool) (driver.FileWriter, error) {
	w, err := r.StorageDriver.Writer(ctx, path, add)
	return w, cause(err)
}

func (r *recorder) Reader(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	f, err := r.StorageDriver.Reader(ctx, path, offset)
	return f, cause(err)
}

func (r *recorder) GetContent(ctx context.Context, path string) ([]byte, error) {
	data, err := r.StorageDriver.GetContent(ctx, path)
	return data, cause(err)
}

func (r *recorder) Stat(ctx context.Context, path string) (driver.FileInfo, error) {
	fi, err := r.StorageDriver.Stat(ctx, path)
	return fi, cause(err)
}

func (r *recorder) Delete(ctx context.Context, path string) error {
	return cause(r.StorageDriver.Delete(ctx, path))
}

// cause returns the file system's own error: distribution's wrapper hides from
// errors.Is that a disk is full or not writable.
func cause(err error) error {
	var wrapped driver.Error
	if errors.As(err, &wrapped) {
		return wrapped.Detail
	}
	return err
}

// create calls make and records the path if it was not there before.
func (r *recorder) create(ctx context.Context, path string, make func() error) error {
	_, err := r.Stat(ctx, path)
	fresh := errors.As(err, new(driver.PathNotFoundError))
	if err != nil && !fresh {
		return err
	}
	if err := make(); err != nil {
		return cause(err)
	}
	if fresh {
		r.mu.Lock()
		r.added = append(r.added, path)
		r.mu.Unlock()
	}
	return nil
}

// undo deletes what was recorded, last first.
func (r *recorder) undo(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var problems []error
	for i := len(r.added) - 1; i >= 0; i-- {
		err := r.Delete(ctx, r.added[i])
		if err != nil && !errors.As(err, new(driver.PathNotFoundError)) {
			problems = append(problems, err)
		}
	}
	r.added = nil
	return errors.Join(problems...)
}
