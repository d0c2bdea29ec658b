package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
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
	// Kubeconfig and Context say which cluster has it; "" leaves that to kubectl.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Context    string `json:"context,omitempty"`
}

// StartedFile returns the path of the record of a deployment.
func StartedFile(root, name string) string { return filepath.Join(Base(root, name), "started.json") }

// ReadStarted reads the record of a deployment; nil means that nothing was started.
func ReadStarted(root, name string) (*Started, error) {
	var s Started
	err := ReadRecord(StartedFile(root, name), "Started", &s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// Write replaces the record of a deployment.
func (s Started) Write(root, name string) error {
	s.APIVersion, s.Kind = bundle.APIVersion, "Started"
	return WriteRecord(StartedFile(root, name), s)
}

// ForgetStarted says that nothing of a deployment runs.
func ForgetStarted(root, name string) error {
	err := os.Remove(StartedFile(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, disk.SyncDir(Base(root, name)))
}
