package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/verify/trust"
)

// ErrLocked reports that another run is changing the same root.
var ErrLocked = errors.New("another run holds the lock")

// Lock is the exclusive right to change a root. The kernel releases the lock when the process
// ends for any reason.
type Lock struct {
	release func() error
	note    string // file that names the process that holds the lock
	made    string // the outermost directory that Acquire created, or ""
}

// Acquire locks a root and creates its directory if necessary. Errors wrap ErrLocked.
func Acquire(root string) (*Lock, error) {
	l := &Lock{note: filepath.Join(root, "lock")}
	for dir := filepath.Clean(root); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		l.made = dir
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	// A user who can write to these paths can install anything, or an older bundle.
	for _, name := range []string{"", "registry", "deployments", "receipts", "journal", "trust", "state.json", "state.json.old"} {
		if err := trust.RefuseWritable(filepath.Join(root, name)); err != nil {
			return nil, err
		}
	}
	release, err := disk.TryLock(root) // the directory itself, so that no lock file remains
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", root, err)
	}
	l.release = release
	if release == nil {
		who, err := os.ReadFile(l.note)
		if err != nil {
			who = []byte("process unknown")
		}
		return nil, fmt.Errorf("%w on %s (%s); wait until it has ended", ErrLocked, root, strings.TrimSpace(string(who)))
	}
	text := fmt.Sprintf("process %d since %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	if err := os.WriteFile(l.note, []byte(text), 0o644); err != nil {
		// The disk is full. A command that frees space needs the lock but not the note.
		_ = os.Remove(l.note)
	}
	return l, nil
}

// Release releases the lock and removes the directories that Acquire created, if they are
// empty. A note that remains only names the last process that held the lock.
func (l *Lock) Release() error {
	_ = os.Remove(l.note)
	if l.made != "" {
		for dir := filepath.Dir(l.note); ; dir = filepath.Dir(dir) {
			if os.Remove(dir) != nil || dir == l.made { // not empty: something was installed
				break
			}
		}
	}
	return l.release()
}
