package install

import (
	"context"
	"errors"
	"io"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// Target stores content by digest and resolves tags. Repository names have no prefix. All
// methods may be called concurrently.
type Target interface {
	// HasBlob reports whether the repository has the blob.
	HasBlob(ctx context.Context, repo string, d bundle.Descriptor) (bool, error)
	// PutBlob stores a blob, or mounts it from another repository if from is not empty. If the
	// content does not match d, it is not kept and the error wraps bundle.ErrDigest.
	PutBlob(ctx context.Context, repo string, d bundle.Descriptor, from string, open func() io.Reader) error
	// PutManifest stores a manifest. Its children must be stored before, except those of a
	// partial index. The error wraps ErrMissing if the target has lost children, and
	// ErrNotTaken if it does not accept such a manifest.
	PutManifest(ctx context.Context, repo string, m *bundle.Manifest, data []byte) error
	// Resolve returns the digest of a tag, or "" if there is no such tag.
	Resolve(ctx context.Context, repo, tag string) (bundle.Digest, error)
	// Tag points a tag to a manifest; "" removes the tag where that is possible. The error
	// wraps ErrMissing if the manifest does not exist, and ErrRefused if the target does not
	// let the tag move.
	Tag(ctx context.Context, repo, tag string, to bundle.Digest) error
}

// Registry is a target with its names, and with the operations that only a registry below the
// root or only one on a network offers.
type Registry struct {
	Target
	Name    string  // identifies it in the ledger
	Address string  // prefix of references on the site
	Store   Store   // nil for a registry on a network
	Network Network // nil for the registry below the root
}

// Store is a registry on a disk of this host. It is filled in one transaction. Methods are
// called one at a time.
type Store interface {
	// Missing returns the content that no repository has.
	Missing(list []bundle.Descriptor) ([]bundle.Descriptor, error)
	// Space returns the space that the content will need. Links is the average number of
	// repositories that each blob goes into.
	Space(list []bundle.Descriptor, links int) (disk.Demand, error)
	// Prepare is called with everything that will be stored, before anything is stored.
	Prepare(list []bundle.Descriptor) error
	// Sync makes the stored content durable.
	Sync() error
	// Undo removes what was stored since the registry was opened.
	Undo() error
}

// Network is a registry that other hosts also install bundles into.
type Network interface {
	// Ready checks whether the repositories may be filled, without lasting effects. The error
	// names all repositories that may not.
	Ready(ctx context.Context, repos []string) error
	// Root returns the root and signatures that a tag points to, or nil.
	Root(ctx context.Context, repo, tag string) (*bundle.Head, error)
}

// ErrNotTaken marks a manifest of a kind that a target does not accept.
var ErrNotTaken = errors.New("the registry does not take it")

// ErrMissing reports that a target lacks content that it reported as present or had accepted.
var ErrMissing = errors.New("it has lost content")

// ErrRefused marks a tag that a target does not let move, such as an immutable one.
var ErrRefused = errors.New("the registry does not let the tag move")

func (r Registry) sync() error {
	if r.Store == nil {
		return nil // a registry that answers 201 has stored the content
	}
	return r.Store.Sync()
}

// undo removes what was stored, where that is possible. A registry on a network accepts only
// complete and verified blobs, and no such registry guarantees their removal.
func (r Registry) undo() error {
	if r.Store == nil {
		return nil
	}
	return r.Store.Undo()
}
