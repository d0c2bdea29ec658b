//go:build !linux

package registry

import (
	"io/fs"
	"path/filepath"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// syncFilesystem makes the names below dir durable, one directory at a time;
// the contents were synced when they were written.
func syncFilesystem(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return bundle.SyncDir(path)
	})
}
