package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// ErrState reports a damaged or lost record of this host, not of a bundle.
var ErrState = errors.New("the state of this host")

// ReadRecord reads a record that this program keeps on a host. kind is the kind of the
// document, or "" for a document without one. Errors wrap ErrState and bundle.ErrFormat or
// bundle.ErrLimit if the record is damaged, or ErrState and bundle.ErrNewer if a newer program
// wrote it; others come from the file system.
func ReadRecord(path, kind string, v any) error {
	data, err := disk.ReadFile(path, bundle.MaxRecord)
	if err != nil && !errors.Is(err, bundle.ErrLimit) {
		return err
	}
	if err == nil {
		err = bundle.DecodeRecord(data, v)
	}
	if err == nil && kind != "" {
		err = checkRecord(data, kind)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrState, path, err)
	}
	return nil
}

// checkRecord refuses a document of another kind or version.
func checkRecord(data []byte, want string) error {
	switch version, kind := bundle.KindOf(data); {
	case version == bundle.APIVersion && kind == want:
		return nil
	case version == "" || kind == "":
		return fmt.Errorf("%w: it has no apiVersion or kind", bundle.ErrFormat)
	default:
		return fmt.Errorf("%w: it is a %q of %q", bundle.ErrNewer, kind, version)
	}
}

// WriteRecord replaces a record durably.
func WriteRecord(path string, v any) error {
	data, err := bundle.Encode(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return disk.WriteFile(path, append(data, '\n'), 0o644)
}
