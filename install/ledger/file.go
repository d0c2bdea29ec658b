package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// ErrNotInstalled marks a deployment or release that is not installed.
var ErrNotInstalled = errors.New("nothing is installed")

// path returns the path of the ledger below a root; earlierPath returns that of the previous
// one.
func path(root string) string        { return filepath.Join(root, "state.json") }
func earlierPath(root string) string { return path(root) + ".old" }

// Read reads the ledger of a root. A host on which nothing was ever installed has an empty
// ledger. If state.json is lost, damaged or does not describe what is installed, Read rebuilds
// the ledger from state.json.old and from releases, receipts and journals, and sets
// Ledger.Rebuilt to the reason. Errors wrap host.ErrState or bundle.ErrNewer, or are the file
// system's.
func Read(root string) (*Ledger, error) {
	on, err := readEvidence(root)
	if err != nil {
		return nil, err
	}
	l, err := read(root, path(root))
	if err == nil {
		if err = on.unknownTo(l); err == nil {
			return l, nil
		}
	}
	if errors.Is(err, bundle.ErrNewer) || !host.Lost(err) {
		return nil, err
	}
	lost := errors.Is(err, fs.ErrNotExist)
	if l == nil {
		var earlier error
		if l, earlier = read(root, earlierPath(root)); lost && errors.Is(earlier, fs.ErrNotExist) && on.empty() {
			return New(), nil
		}
	}
	if lost {
		err = fmt.Errorf("%w: %s is lost", host.ErrState, path(root))
	}
	return on.rebuild(l, err)
}

// read reads one file. Errors are those of Read, or wrap fs.ErrNotExist.
func read(root, file string) (*Ledger, error) {
	var l Ledger
	err := host.ReadRecord(file, "Ledger", &l)
	if errors.Is(err, host.ErrState) { // may be a State, the format before Ledger
		var s state
		if host.ReadRecord(file, "State", &s) == nil {
			return s.ledger(root, file)
		}
	}
	if err != nil {
		return nil, err
	}
	if l.Channels == nil || l.Names == nil || l.Deployments == nil || l.Claims == nil || l.Before == nil {
		return nil, incomplete(file, "it has not all its parts")
	}
	for key, d := range l.Deployments {
		if key != d.Key() || len(d.Releases) == 0 {
			return nil, incomplete(file, fmt.Sprintf("deployment %q has no release", key))
		}
	}
	return &l, checkSequences(file, l.Channels)
}

func incomplete(file, why string) error {
	return fmt.Errorf("%w: %w: %s: %s", host.ErrState, bundle.ErrFormat, file, why)
}

func checkSequences(file string, channels map[string]Channel) error {
	for name, c := range channels {
		if c.Sequence < 0 {
			return incomplete(file, fmt.Sprintf("channel %q has the sequence %d", name, c.Sequence))
		}
	}
	return nil
}

// Write replaces the ledger durably and keeps the previous one.
func (l *Ledger) Write(root string) error {
	_, err := read(root, path(root))
	if err == nil {
		var earlier []byte
		if earlier, err = disk.ReadFile(path(root), bundle.MaxRecord); err == nil {
			err = disk.WriteFile(earlierPath(root), earlier, 0o644)
		}
	}
	if err != nil && !host.Lost(err) { // a damaged ledger is not worth keeping
		return err
	}
	return host.WriteRecord(path(root), l)
}
