package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// What a change is.
const (
	actionInstall   = "install"
	actionRollback  = "rollback"
	actionUninstall = "uninstall"
)

// Journal is a file below ROOT/journal, one for each target: a change that has
// everything it needs in place and is switching.
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
	// Others are tags that the release before had, this one has not, and others need.
	Others []TagMove `json:"others,omitempty"`
	Leave  bool      `json:"leave,omitempty"` // the target is left alone (Site.Leave)
	// Deployment is what a rollback or uninstallation found.
	Deployment *Installed `json:"deployment,omitempty"`
}

// TagMove is one tag before and after.
type TagMove struct {
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"`
	From       bundle.Digest `json:"from,omitempty"` // "" if the tag is new
	To         bundle.Digest `json:"to"`
}

// indexTag returns where the tag of a move stands in a list, or -1.
func indexTag(list []TagMove, t TagMove) int {
	return slices.IndexFunc(list, func(x TagMove) bool { return x.Repository == t.Repository && x.Tag == t.Tag })
}

// journalPath names the journal of a target, whose name may hold anything.
func journalPath(root, target string) string {
	return filepath.Join(root, "journal", bundle.DigestOf([]byte(target)).Short()+".json")
}

// readJournal returns the journal of an unfinished installation into a target,
// or nil.
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
		return nil, fmt.Errorf("%w: %w: %s has the sequence %d", ErrState, bundle.ErrFormat, path, j.Sequence)
	}
	return &j, nil
}

// ReadJournals returns the journals of all unfinished installations.
func ReadJournals(root string) ([]*Journal, error) {
	dir := filepath.Join(root, "journal")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []*Journal
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" || strings.HasPrefix(e.Name(), ".") {
			continue // one that was never finished
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

func removeJournal(root, target string) error {
	path := journalPath(root, target)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return bundle.SyncDir(filepath.Dir(path))
}

func newJournal(action, target string) *Journal {
	return &Journal{APIVersion: bundle.APIVersion, Kind: "Journal", Action: action, Registry: target, Started: time.Now().UTC().Truncate(time.Second)}
}

// Incomplete is an ErrIncomplete with its cause.
type Incomplete struct {
	Err    error
	action string
}

func (e *Incomplete) Error() string {
	more := ""
	if e.action == actionInstall {
		more = ", or oob-bundle rollback to take it back"
	}
	return fmt.Sprintf("%v: %v; run the same command again to finish it%s", ErrIncomplete, e.Err, more)
}

// Unwrap makes it both.
func (e *Incomplete) Unwrap() []error { return []error{ErrIncomplete, e.Err} }

// unfinished marks a change that has begun to switch and has to be finished.
func unfinished(action string, err error) error { return &Incomplete{err, action} }

// Unfinished is the error for a change that has to be finished first.
func (j *Journal) Unfinished(root string) error {
	more := ""
	if j.Action == actionInstall {
		more = fmt.Sprintf(", or take it back with oob-bundle rollback %s%s", j.Name, RootFlag(root))
	}
	return fmt.Errorf("%w: the %s of %s %s, begun %s, did not finish; run %s again first%s", ErrIncomplete, j.Action, j.Name, j.Version, j.Started.Format(time.RFC3339), j.Command(root), more)
}

// Command is what finishes a change. A rollback that was to start the release again, or
// to put its database back, says so: without that the release would get what another
// one has left.
func (j *Journal) Command(root string) string {
	if j.Action == actionInstall {
		return "the same oob-bundle install"
	}
	command := "oob-bundle " + j.Action + " " + j.Name
	if j.Leave {
		command += " --leave-registry"
	}
	rec, err := host.ReadStarted(root, j.Name)
	switch {
	case j.Action != actionRollback || err != nil || rec == nil:
	case rec.Release == j.Release && (rec.Restoring != "" || !rec.Up):
		command += " --start"
	case rec.Release != j.Release && rec.Dump != "" && !rec.Up:
		command += " --start --restore-database"
	}
	return command + RootFlag(root)
}

// DefaultRoot is where a host keeps everything unless it is told otherwise.
const DefaultRoot = "/var/lib/oob-bundle"

// RootFlag is what a command has to have for a root, with a space before it, or "".
func RootFlag(root string) string {
	if filepath.Clean(root) == DefaultRoot {
		return ""
	}
	return " --root " + root
}

// Pending returns the deployment that an unfinished rollback or uninstallation was
// about, as it found it, or nil. An empty name or registry means any.
func Pending(root, action, name, registry string) (*Installed, error) {
	journals, err := ReadJournals(root)
	if err != nil {
		return nil, err
	}
	for _, j := range journals {
		if j.Action == action && j.Deployment != nil && (name == "" || name == j.Name) && (registry == "" || registry == j.Registry) {
			return j.Deployment, nil
		}
	}
	return nil, nil
}
