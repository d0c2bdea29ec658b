package install

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// Incomplete is an ErrIncomplete with its cause.
type Incomplete struct {
	Err    error
	action string
}

func (e *Incomplete) Error() string {
	more := ""
	if e.action == ledger.ActionInstall {
		more = ", or oob-bundle rollback to take it back"
	}
	return fmt.Sprintf("%v: %v; run the same command again to finish it%s", ErrIncomplete, e.Err, more)
}

// Unwrap returns both errors.
func (e *Incomplete) Unwrap() []error { return []error{ErrIncomplete, e.Err} }

// unfinished wraps the error of a change that has started to switch and must be finished.
func unfinished(action string, err error) error {
	if err == nil || errors.Is(err, ErrIncomplete) {
		return err
	}
	return &Incomplete{err, action}
}

// Unfinished returns the error for a change that must be finished before another one starts.
func Unfinished(root string, j *ledger.Journal) error {
	more := ""
	if j.Action == ledger.ActionInstall {
		more = fmt.Sprintf(", or take it back with oob-bundle rollback %s%s", j.Name, RootFlag(root))
	}
	return fmt.Errorf("%w: the %s of %s %s, begun %s, did not finish; run %s again first%s",
		ErrIncomplete, j.Action, j.Name, j.Version, j.Started.Format(time.RFC3339), Command(root, j), more)
}

// Command returns the command that finishes a change. If a rollback was to start the release
// or to restore its database, the command includes those flags. Without them the release would
// run with the data of another release.
func Command(root string, j *ledger.Journal) string {
	if j.Action == ledger.ActionInstall {
		return "the same oob-bundle install"
	}
	command := "oob-bundle " + j.Action + " " + j.Name
	if j.Leave {
		command += " --leave-registry"
	}
	rec, err := host.ReadStarted(root, j.Name)
	switch {
	case j.Action != ledger.ActionRollback || err != nil || rec == nil:
	case rec.Release == j.Release && (rec.Restoring != "" || !rec.Up):
		command += " --start"
	case rec.Release != j.Release && rec.Dump != "" && !rec.Up:
		command += " --start --restore-database"
	}
	return command + RootFlag(root)
}

// DefaultRoot is the root directory if no other is given.
const DefaultRoot = "/var/lib/oob-bundle"

// RootFlag returns the flag that a command needs for a root, with a leading space, or "".
func RootFlag(root string) string {
	if filepath.Clean(root) == DefaultRoot {
		return ""
	}
	return " --root " + root
}
