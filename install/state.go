package install

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// State is ROOT/state.json: what this host knows about what is installed.
type State struct {
	APIVersion string             `json:"apiVersion"` // bundle.APIVersion
	Kind       string             `json:"kind"`       // "State"
	Channels   map[string]Channel `json:"channels"`
	// Owners says whose something is: "deployment NAME" or
	// "tag TARGET REPOSITORY:TAG".
	Owners map[string]Owner `json:"owners"`
	// Deployments are the installed ones, by name and target (see deploymentKey).
	Deployments map[string]Installed `json:"deployments"`
}

// Owner is what may change something without --take-over.
type Owner struct {
	Channel    string `json:"channel"`
	Deployment string `json:"deployment"`
}

// Channel is how far a channel has come.
type Channel struct {
	Sequence int64 `json:"sequence"` // the highest; lower ones are refused
	// Identity is the bundle that is installed, or "".
	Identity bundle.Digest `json:"identity,omitempty"`
	// Highest is the bundle that has the sequence. It stays welcome, also after it
	// was rolled back or uninstalled.
	Highest bundle.Digest `json:"highest,omitempty"`
	// Pending is the bundle whose installation has begun to switch and did not
	// finish, or "". It stays welcome, whatever was installed since.
	Pending bundle.Digest `json:"pending,omitempty"`
}

// Installed is a deployment that is in place.
type Installed struct {
	Name     string        `json:"name"`
	Channel  string        `json:"channel"`
	Identity bundle.Digest `json:"identity"`
	Version  string        `json:"version"`
	Registry string        `json:"registry"` // name of the target
	Release  string        `json:"release"`  // ID below deployments/NAME/releases
	Receipt  string        `json:"receipt"`  // file name below receipts/
	// Before are the receipts that a rollback can go back to, the newest first.
	Before []string `json:"before,omitempty"`
}

func statePath(root string) string { return filepath.Join(root, "state.json") }

// ReadState reads the state of a root; one that does not exist is empty.
func ReadState(root string) (*State, error) {
	s := &State{
		APIVersion: bundle.APIVersion, Kind: "State",
		Channels: map[string]Channel{}, Owners: map[string]Owner{}, Deployments: map[string]Installed{},
	}
	if err := readJSON(statePath(root), s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.APIVersion != bundle.APIVersion || s.Kind != "State" {
		return nil, fmt.Errorf("%w: %s is a %q of %q", bundle.ErrNewer, statePath(root), s.Kind, s.APIVersion)
	}
	return s, nil
}

func (s *State) write(root string) error { return writeJSON(statePath(root), s) }

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := bundle.DecodeStrict(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	data, err := bundle.Encode(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return bundle.WriteFile(path, append(data, '\n'), 0o644)
}

// Receipt says what an installation left behind.
type Receipt struct {
	APIVersion string         `json:"apiVersion"` // bundle.APIVersion
	Kind       string         `json:"kind"`       // "Receipt"
	Bundle     ReceiptBundle  `json:"bundle"`
	Signers    []string       `json:"signers"` // fingerprints of the trusted keys
	Registry   string         `json:"registry"`
	Images     []ReceiptImage `json:"images"`
	Files      []ReceiptFile  `json:"files"`
	Release    string         `json:"release"` // ID below deployments/NAME/releases
	// Tags are those that were moved, and what they were before this deployment
	// had them.
	Tags      []TagMove `json:"tags"`
	Installed string    `json:"installed"` // RFC 3339, by this host's clock
}

// ReceiptBundle identifies the bundle.
type ReceiptBundle struct {
	Digest   bundle.Digest `json:"digest"`
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Channel  string        `json:"channel"`
	Sequence int64         `json:"sequence"`
}

// ReceiptImage is an image on the site.
type ReceiptImage struct {
	Reference string        `json:"reference"` // on the site
	Upstream  string        `json:"upstream"`
	Digest    bundle.Digest `json:"digest"` // what the reference resolves to
	// Index is upstream's index where only some of its manifests are here, and
	// IndexStored says whether the registry took it nevertheless.
	Index       bundle.Digest   `json:"index,omitempty"`
	IndexStored bool            `json:"indexStored,omitempty"`
	Manifests   []bundle.Digest `json:"manifests"` // by which hosts pin it, a platform each
}

// ReceiptFile is a file on the host.
type ReceiptFile struct {
	Path   string        `json:"path"` // absolute
	Mode   string        `json:"mode"` // four octal digits
	SHA256 bundle.Digest `json:"sha256"`
}

// deploymentKey tells one deployment on several registries apart.
func deploymentKey(name, target string) string { return name + " " + target }

func receiptName(name, target, release string) string {
	return name + "-" + release + "-" + bundle.DigestOf([]byte(target)).Short()[:8] + ".json"
}

func receiptPath(root, name string) string { return filepath.Join(root, "receipts", name) }

// ReadReceipt reads a receipt by the name in the state.
func ReadReceipt(root, name string) (*Receipt, error) {
	var r Receipt
	return &r, readJSON(receiptPath(root, name), &r)
}

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

// journalPath names the journal of a target, whose name may hold anything.
func journalPath(root, target string) string {
	return filepath.Join(root, "journal", bundle.DigestOf([]byte(target)).Short()+".json")
}

// readJournal returns the journal of an unfinished installation into a target,
// or nil.
func readJournal(path string) (*Journal, error) {
	var j Journal
	err := readJSON(path, &j)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if j.APIVersion != bundle.APIVersion || j.Kind != "Journal" {
		return nil, fmt.Errorf("%w: %s is a %q of %q", bundle.ErrNewer, path, j.Kind, j.APIVersion)
	}
	return &j, nil
}

// ReadJournals returns the journals of all unfinished installations.
func ReadJournals(root string) ([]*Journal, error) {
	paths, err := filepath.Glob(filepath.Join(root, "journal", "*.json"))
	if err != nil {
		return nil, err
	}
	var list []*Journal
	for _, path := range paths {
		j, err := readJournal(path)
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

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
