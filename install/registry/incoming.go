package registry

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// incoming is ROOT/registry/incoming.jsonl. The file exists while stored content is not
// durable yet. The first line contains the API version, an expected line names a blob that was
// missing, and a stored line names a blob that was stored and synced. After a crash, blobs
// that were expected and not stored are in doubt: their files may contain wrong bytes, and are
// removed.
type incoming struct {
	path string
	sync func() error // makes everything that was stored durable

	mu      sync.Mutex // guards the following fields
	f       *os.File
	waiting []bundle.Digest // stored, not synced
	next    time.Time       // when the next checkpoint is due

	checkpoint sync.Mutex // held while a checkpoint is made
}

// checkpointPause is the minimum time between two checkpoints. A crash can lose the work since
// the last checkpoint. The pause is longer if checkpoints take long.
const checkpointPause = 100 * time.Millisecond

// incomingLine is one line of the file. Exactly one field is set.
type incomingLine struct {
	APIVersion string        `json:"apiVersion,omitempty"` // bundle.APIVersion, on the first line
	Expected   bundle.Digest `json:"expected,omitempty"`
	Stored     bundle.Digest `json:"stored,omitempty"`
}

func newIncoming(dir string, sync func() error) *incoming {
	return &incoming{path: filepath.Join(dir, "incoming.jsonl"), sync: sync}
}

// Storing reports whether content is being stored below root, or was when a run was killed. No
// tag uses this content yet.
func Storing(root string) (bool, error) {
	_, err := os.Lstat(newIncoming(Dir(root), nil).path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// begin records the expected blobs before anything is stored.
func (i *incoming) begin(expected []bundle.Digest) error {
	var lines bytes.Buffer
	add := func(l incomingLine) error {
		line, err := bundle.Encode(l)
		lines.Write(line)
		lines.WriteByte('\n')
		return err
	}
	err := add(incomingLine{APIVersion: bundle.APIVersion})
	for _, d := range expected {
		err = errors.Join(err, add(incomingLine{Expected: d}))
	}
	if err != nil {
		return err
	}
	if err := mkdir(filepath.Dir(i.path)); err != nil {
		return err
	}
	if err := disk.WriteFile(i.path, lines.Bytes(), 0o644); err != nil {
		return err
	}
	i.next = time.Now().Add(checkpointPause)
	i.f, err = os.OpenFile(i.path, os.O_WRONLY|os.O_APPEND, 0)
	return err
}

// stored records that a blob is at its place. It makes a checkpoint if one is due and no other
// goroutine is making one.
func (i *incoming) stored(d bundle.Descriptor) error {
	i.mu.Lock()
	i.waiting = append(i.waiting, d.Digest)
	due := i.f != nil && time.Now().After(i.next)
	i.mu.Unlock()
	if !due || !i.checkpoint.TryLock() {
		return nil
	}
	defer i.checkpoint.Unlock()
	return i.claim()
}

// claim syncs, and then records the blobs that were stored before the sync.
func (i *incoming) claim() error {
	i.mu.Lock()
	list := i.waiting
	i.waiting = nil
	i.mu.Unlock()
	begun := time.Now()
	defer func() {
		i.mu.Lock()
		i.next = time.Now().Add(max(checkpointPause, 10*time.Since(begun)))
		i.mu.Unlock()
	}()
	if err := i.sync(); err != nil {
		return err
	}
	var lines bytes.Buffer
	for _, d := range list {
		line, err := bundle.Encode(incomingLine{Stored: d})
		if err != nil {
			return err
		}
		lines.Write(line)
		lines.WriteByte('\n')
	}
	if _, err := i.f.Write(lines.Bytes()); err != nil {
		return err
	}
	return i.f.Sync()
}

// end removes the file: all content is durable, or none of it is left.
func (i *incoming) end() error {
	if i.f != nil {
		if err := i.f.Close(); err != nil {
			return err
		}
		i.f = nil
	}
	err := os.Remove(i.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, disk.SyncDir(filepath.Dir(i.path)))
}

// doubtful returns the blobs that a crashed run expected and did not record as stored. Exists
// is false if no run crashed. Reading stops at a line that a power failure has damaged.
func (i *incoming) doubtful() (list []bundle.Digest, exists bool, err error) {
	f, err := os.Open(i.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	doubt := map[bundle.Digest]bool{}
	lines := bufio.NewScanner(f)
	for first := true; lines.Scan(); first = false {
		var l incomingLine
		err := bundle.DecodeStrict(lines.Bytes(), &l)
		if first && err == nil && l.APIVersion != bundle.APIVersion {
			err = fmt.Errorf("%w: it is of %q", bundle.ErrNewer, l.APIVersion)
		}
		if first && errors.Is(err, bundle.ErrNewer) {
			return nil, true, fmt.Errorf("%s: %w", i.path, err)
		}
		if err != nil || !l.sound() {
			break
		}
		if l.Expected != "" {
			doubt[l.Expected] = true
		}
		delete(doubt, l.Stored)
	}
	for d := range doubt {
		list = append(list, d)
	}
	err = lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = nil // also damage: a power failure can leave any number of zeros
	}
	return list, true, err
}

// sound reports whether the line contains valid digests, because they become paths.
func (l incomingLine) sound() bool {
	for _, d := range []bundle.Digest{l.Expected, l.Stored} {
		if _, err := bundle.ParseDigest(string(d)); d != "" && err != nil {
			return false
		}
	}
	return true
}

// recover removes uncertain content of a crashed run: blobs that were not synced, and
// incomplete links and descriptors.
func (e *Embedded) recover(ctx context.Context) error {
	doubt, crashed, err := e.incoming.doubtful()
	if err != nil || !crashed {
		return err
	}
	doubtful := map[bundle.Digest]bool{}
	for _, d := range doubt {
		doubtful[d] = true
		dir := filepath.Dir(e.store.file(blobPath(d)))
		files, err := os.ReadDir(dir) // including temporary files
		if err == nil && len(files) > 0 {
			e.recovered.Blobs++
		}
		for _, f := range files {
			if fi, err := f.Info(); err == nil {
				e.recovered.Bytes += fi.Size()
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	// Links to these blobs are removed, too. A tag stays: its manifest was stored before the
	// tag was switched, so the crashed run was repairing that manifest.
	if err := e.eachFile(ctx, path.Join(storageRoot, "repositories"), func(name string, data []byte) bool {
		d, err := bundle.ParseDigest(string(data))
		inTag := strings.Contains(filepath.ToSlash(name), "/_manifests/tags/")
		return filepath.Base(name) != "link" || err == nil && (inTag || !doubtful[d])
	}); err != nil {
		return err
	}
	return e.eachFile(ctx, referrersRoot, func(_ string, data []byte) bool {
		var d bundle.Descriptor
		return bundle.DecodeStrict(data, &d) == nil && !doubtful[d.Digest]
	})
}

// eachFile removes the files below dir that are not good, and temporary files that were not
// renamed yet.
func (e *Embedded) eachFile(ctx context.Context, dir string, good func(name string, data []byte) bool) error {
	err := filepath.WalkDir(e.store.file(dir), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return errors.Join(err, context.Cause(ctx))
		}
		if !strings.HasPrefix(d.Name(), ".") { // a leading dot marks a temporary file
			data, err := os.ReadFile(name)
			if err != nil || good(name, data) {
				return err
			}
		}
		return os.Remove(name)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
