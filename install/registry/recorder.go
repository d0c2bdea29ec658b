package registry

import (
	"context"
	"errors"
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

// create calls make and records the path if it was not there before.
func (r *recorder) create(ctx context.Context, path string, make func() error) error {
	_, err := r.Stat(ctx, path)
	fresh := errors.As(err, new(driver.PathNotFoundError))
	if err != nil && !fresh {
		return err
	}
	if err := make(); err != nil {
		return err
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
