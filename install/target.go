package install

import (
	"context"
	"errors"
	"io"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// Target is where content goes by its digest, and what tags name. Repositories are named
// without a prefix. All methods may be called concurrently.
type Target interface {
	// HasBlob reports whether the repository has the blob.
	HasBlob(ctx context.Context, repo string, d bundle.Descriptor) (bool, error)
	// PutBlob stores a blob, or mounts it from another repository if from is not empty.
	// Content that is not d's is not kept, and the error wraps bundle.ErrDigest.
	PutBlob(ctx context.Context, repo string, d bundle.Descriptor, from string, open func() io.Reader) error
	// PutManifest stores a manifest. Its children are there, except those of an index of
	// which some platforms are carried. An error wraps ErrMissing where the target has lost
	// them, and ErrNotTaken where it does not take such a manifest.
	PutManifest(ctx context.Context, repo string, m *bundle.Manifest, data []byte) error
	// Resolve returns the digest of a tag, or "" if there is none.
	Resolve(ctx context.Context, repo, tag string) (bundle.Digest, error)
	// Tag points a tag to a manifest; "" removes it where that is possible. The error
	// wraps ErrMissing if the manifest is not there, and ErrRefused if the target does not
	// let the tag move.
	Tag(ctx context.Context, repo, tag string, to bundle.Digest) error
}

// Registry is a target with its names, and with what it offers besides as the one below the
// root or as one on a network.
type Registry struct {
	Target
	Name    string  // identifies it in the ledger
	Address string  // what references on the site begin with
	Store   Store   // nil for a registry on a network
	Network Network // nil for the registry below the root
}

// Store is a registry on a disk of this host, filled in one transaction. Methods are called
// one at a time.
type Store interface {
	// Missing returns the content that no repository has.
	Missing(list []bundle.Descriptor) ([]bundle.Descriptor, error)
	// Space returns the room that the content will take, each of it going into so many
	// repositories on average.
	Space(list []bundle.Descriptor, links int) (disk.Demand, error)
	// Prepare is called before anything is stored, with all that is going to be.
	Prepare(list []bundle.Descriptor) error
	// Sync makes durable what was stored.
	Sync() error
	// Undo removes what was stored since the registry was opened.
	Undo() error
}

// Network is a registry into which other hosts put bundles, too.
type Network interface {
	// Ready asks whether the repositories may be filled; nothing that it does lasts.
	// The error names all that may not.
	Ready(ctx context.Context, repos []string) error
	// Root returns the root and signatures found under a tag, or nil.
	Root(ctx context.Context, repo, tag string) (*bundle.Head, error)
}

// ErrNotTaken marks a manifest of a kind that a target does not take.
var ErrNotTaken = errors.New("the registry does not take it")

// ErrMissing says that a target misses what HasBlob said it has, or what it took.
var ErrMissing = errors.New("it has lost content")

// ErrRefused marks a tag that a target does not let move, such as an immutable one.
var ErrRefused = errors.New("the registry does not let the tag move")

func (r Registry) sync() error {
	if r.Store == nil {
		return nil // a registry that answers 201 has it
	}
	return r.Store.Sync()
}

// undo removes what was stored, where that is possible: blobs become part of a registry on a
// network only when complete and good, and none lets them be taken back for certain.
func (r Registry) undo() error {
	if r.Store == nil {
		return nil
	}
	return r.Store.Undo()
}
