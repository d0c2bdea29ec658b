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

// Unwrap makes it both.
func (e *Incomplete) Unwrap() []error { return []error{ErrIncomplete, e.Err} }

// unfinished marks a change that has begun to switch and has to be finished.
func unfinished(action string, err error) error {
	if err == nil || errors.Is(err, ErrIncomplete) {
		return err
	}
	return &Incomplete{err, action}
}

// Unfinished is the error for a change that has to be finished before another one.
func Unfinished(root string, j *ledger.Journal) error {
	more := ""
	if j.Action == ledger.ActionInstall {
		more = fmt.Sprintf(", or take it back with oob-bundle rollback %s%s", j.Name, RootFlag(root))
	}
	return fmt.Errorf("%w: the %s of %s %s, begun %s, did not finish; run %s again first%s",
		ErrIncomplete, j.Action, j.Name, j.Version, j.Started.Format(time.RFC3339), Command(root, j), more)
}

// Command is what finishes a change. For a rollback that was to start the release again, or
// to restore its database, it includes the flags for that: without them the release would
// get the data that another one left.
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

// DefaultRoot is the root of a host if no other is given.
const DefaultRoot = "/var/lib/oob-bundle"

// RootFlag is the flag that a command needs for a root, with a space before it, or "".
func RootFlag(root string) string {
	if filepath.Clean(root) == DefaultRoot {
		return ""
	}
	return " --root " + root
}
