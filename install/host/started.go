package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Started is ROOT/deployments/NAME/started.json: which release was started last. What
// runs need not be what is current, as an installation switches and starts nothing.
// It is written before anything of a release is started, and goes when all is stopped.
type Started struct {
	APIVersion string `json:"apiVersion"` // bundle.APIVersion
	Kind       string `json:"kind"`       // "Started"
	Release    string `json:"release"`    // ID below releases/
	// Before is the release that ran before it, or "": going back is for that.
	Before string `json:"before,omitempty"`
	// Up says that it has come up once: its data is newer than any dump.
	Up bool `json:"up,omitempty"`
	// Dump is the file with the database from before it was started, or "".
	Dump string `json:"dump,omitempty"`
	// Next is the release for which NextDump has been taken from this one.
	Next     string `json:"next,omitempty"`
	NextDump string `json:"nextDump,omitempty"`
	// Restoring is the dump that is being put back into the database of this release,
	// or "". Until that is done the database is of no release.
	Restoring string `json:"restoring,omitempty"`
}

// ErrState says that what this host knows of itself is damaged, and no bundle.
var ErrState = errors.New("the state of this host")

// StartedFile returns the path of the record of a deployment.
func StartedFile(root, name string) string { return filepath.Join(Base(root, name), "started.json") }

// ReadStarted reads the record of a deployment; nil means that nothing was started.
func ReadStarted(root, name string) (*Started, error) {
	var s Started
	data, err := bundle.ReadFile(StartedFile(root, name), bundle.MaxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := bundle.DecodeRecord(data, &s); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrState, StartedFile(root, name), err)
	}
	if s.APIVersion != bundle.APIVersion || s.Kind != "Started" {
		return nil, fmt.Errorf("%w: %s is a %q of %q", bundle.ErrNewer, StartedFile(root, name), s.Kind, s.APIVersion)
	}
	return &s, nil
}

// Write replaces the record of a deployment.
func (s Started) Write(root, name string) error {
	s.APIVersion, s.Kind = bundle.APIVersion, "Started"
	data, err := bundle.Encode(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(Base(root, name), 0o755); err != nil {
		return err
	}
	return bundle.WriteFile(StartedFile(root, name), append(data, '\n'), 0o644)
}

// ForgetStarted says that nothing of a deployment runs.
func ForgetStarted(root, name string) error {
	err := os.Remove(StartedFile(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, bundle.SyncDir(Base(root, name)))
}
