package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// Started is ROOT/deployments/NAME/started.json, the record of the release that was started
// last. It need not be the current release: an installation switches releases without starting
// anything. The record is written before a release starts and removed when everything is
// stopped.
type Started struct {
	APIVersion string `json:"apiVersion"` // bundle.APIVersion
	Kind       string `json:"kind"`       // "Started"
	Release    string `json:"release"`    // ID below releases/
	// Before is the release that ran before, to which a failed start can return, or "".
	Before string `json:"before,omitempty"`
	// Up reports whether the release has become healthy once. Its data is then newer than any
	// dump.
	Up bool `json:"up,omitempty"`
	// Dump is the file with the database from before the release was started, or "".
	Dump string `json:"dump,omitempty"`
	// Next is the release for which NextDump was taken from this release's database.
	Next     string `json:"next,omitempty"`
	NextDump string `json:"nextDump,omitempty"`
	// Restoring is the dump that is being restored into the database of this release, or "".
	// Until the restore ends, the database belongs to no release.
	Restoring string `json:"restoring,omitempty"`
	// Starting is set while the release is applied to a cluster: what Helm has left unfinished
	// is then this deployment's.
	Starting bool `json:"starting,omitempty"`
	// Kubeconfig and Context identify the cluster that runs the release; "" leaves the choice
	// to kubectl.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Context    string `json:"context,omitempty"`
}

// StartedFile returns the path of a deployment's record.
func StartedFile(root, name string) string { return filepath.Join(Base(root, name), "started.json") }

// ReadStarted reads the record of a deployment. It returns nil if nothing was started.
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

// ForgetStarted removes the record: nothing of the deployment runs.
func ForgetStarted(root, name string) error {
	err := os.Remove(StartedFile(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, disk.SyncDir(Base(root, name)))
}
