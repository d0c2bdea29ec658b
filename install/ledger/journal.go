package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// The actions of a Journal.
const (
	ActionInstall   = "install"
	ActionRollback  = "rollback"
	ActionUninstall = "uninstall"
)

// Journal is a file below ROOT/journal, one for each registry. It describes a change that has
// stored everything it needs and is switching from one ledger to the next.
type Journal struct {
	APIVersion string        `json:"apiVersion"` // bundle.APIVersion
	Kind       string        `json:"kind"`       // "Journal"
	Action     string        `json:"action"`     // install, rollback or uninstall
	Identity   bundle.Digest `json:"identity"`
	Name       string        `json:"name"`
	Version    string        `json:"version"`
	Channel    string        `json:"channel"`
	Sequence   int64         `json:"sequence"`
	Registry   string        `json:"registry"` // name of the target
	Started    time.Time     `json:"started"`
	Release    string        `json:"release,omitempty"` // that becomes current, or "" for none
	From       string        `json:"from,omitempty"`    // that was current, or ""
	Tags       []TagMove     `json:"tags"`
	// Others are tags that the change itself does not need. They are set to what other
	// deployments need, or to their value before any deployment.
	Others []TagMove `json:"others,omitempty"`
	Leave  bool      `json:"leave,omitempty"` // the registry is not changed
	// Deployment is only in journals of programs that kept a State instead of a Ledger.
	Deployment *installed `json:"deployment,omitempty"`
}

// NewJournal returns the journal of a change to the target with the given name.
func NewJournal(action, registry string) *Journal {
	return &Journal{
		APIVersion: bundle.APIVersion, Kind: "Journal", Action: action, Registry: registry, Started: time.Now().UTC().Truncate(time.Second),
		Tags: []TagMove{},
	}
}

// Recorded reports whether a ledger already contains the change.
func (j *Journal) Recorded(l *Ledger) bool {
	d, installed := l.Deployments[Key(j.Name, j.Registry)]
	if j.Action == ActionUninstall {
		return !installed
	}
	return installed && d.Current().Identity == j.Identity && d.Current().ID == j.Release
}

// journalPath returns the path of a registry's journal. It hashes the name, which may contain
// any character.
func journalPath(root, registry string) string {
	return filepath.Join(root, "journal", bundle.DigestOf([]byte(registry)).Short()+".json")
}

// Write writes the journal durably.
func (j *Journal) Write(root string) error { return host.WriteRecord(journalPath(root, j.Registry), j) }

// Remove removes the journal after the change has finished.
func (j *Journal) Remove(root string) error {
	path := journalPath(root, j.Registry)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return disk.SyncDir(filepath.Dir(path))
}

// ReadJournal returns the journal of an unfinished change to a registry, or nil. Errors are
// those of host.ReadRecord.
func ReadJournal(root, registry string) (*Journal, error) {
	return readJournal(journalPath(root, registry))
}

func readJournal(path string) (*Journal, error) {
	var j Journal
	err := host.ReadRecord(path, "Journal", &j)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if j.Sequence < 0 {
		return nil, fmt.Errorf("%w: %w: %s has the sequence %d", host.ErrState, bundle.ErrFormat, path, j.Sequence)
	}
	return &j, nil
}

// ReadJournals returns the journals of all unfinished changes.
func ReadJournals(root string) ([]*Journal, error) {
	dir := filepath.Join(root, "journal")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []*Journal
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" || strings.HasPrefix(e.Name(), ".") {
			continue // an incomplete temporary file
		}
		j, err := readJournal(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if j != nil {
			list = append(list, j)
		}
	}
	return list, nil
}
