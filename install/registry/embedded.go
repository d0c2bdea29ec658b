// Package registry implements the targets of an installation: the embedded registry below the
// root directory, and any registry on the site's network.
//
// The embedded registry uses the storage layout of CNCF distribution. Manifests and tags go
// through distribution, which runs in this process on our own storage driver. That driver
// alone writes blobs (docs/decisions/0006-the-store.md). Serve offers the registry read-only
// to container engines; on a network with TLS, only to clients with an account.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/distribution/distribution/v3"
	_ "github.com/distribution/distribution/v3/manifest/manifestlist" // registers the supported manifest types
	_ "github.com/distribution/distribution/v3/manifest/ocischema"
	_ "github.com/distribution/distribution/v3/manifest/schema2"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/install"
)

// Embedded is the registry below a root directory, opened for writing. The caller must hold
// the lock of the root.
type Embedded struct {
	store     *store // below ROOT/registry
	incoming  *incoming
	recovered Collected // content of a crashed run that was removed
	namespace distribution.Namespace
	buffers   sync.Pool // of *[bufferSize]byte
}

// bufferSize is the size of a copy buffer, in bytes.
const bufferSize = 256 << 10

// Dir returns the directory of the embedded registry of a root.
func Dir(root string) string { return filepath.Join(root, "registry") }

// OpenEmbedded opens or creates the registry below root, and removes uncertain content of a
// crashed run.
func OpenEmbedded(ctx context.Context, root string) (*Embedded, error) {
	quiet()
	e := &Embedded{store: &store{dir: Dir(root)}}
	e.buffers.New = func() any { return new([bufferSize]byte) }
	e.incoming = newIncoming(e.store.dir, func() error { return disk.SyncFilesystem(e.store.dir) })
	var err error
	if e.namespace, err = storage.NewRegistry(ctx, e.store, storage.EnableDelete, storage.DisableDigestResumption); err != nil {
		return nil, err
	}
	return e, e.recover(ctx)
}

// linkBytes is the size of a link file or a directory on most file systems.
const linkBytes = 4096

// Space returns the space for the missing blobs and for the links to all blobs.
func (e *Embedded) Space(blobs []bundle.Descriptor, links int) (disk.Demand, error) {
	missing, err := e.Missing(blobs)
	if err != nil {
		return disk.Demand{}, err
	}
	need := disk.Demand{Dir: e.store.dir, Files: 16 + 2*int64(links)*int64(len(blobs)) + 2*int64(len(missing))}
	for _, d := range missing {
		need.Bytes += (d.Size + linkBytes - 1) / linkBytes * linkBytes
	}
	need.Bytes += need.Files * linkBytes
	return need, nil
}

// Prepare records what will be stored.
func (e *Embedded) Prepare(blobs []bundle.Descriptor) error {
	missing, err := e.Missing(blobs)
	if err != nil {
		return err
	}
	var digests []bundle.Digest
	for _, d := range missing {
		digests = append(digests, d.Digest)
	}
	return e.incoming.begin(digests)
}

// Missing returns the blobs and manifests whose content no repository has.
func (e *Embedded) Missing(blobs []bundle.Descriptor) ([]bundle.Descriptor, error) {
	var missing []bundle.Descriptor
	for _, d := range blobs {
		has, err := e.hasContent(d)
		if err != nil {
			return nil, err
		}
		if !has {
			missing = append(missing, d)
		}
	}
	return missing, nil
}

// quiet discards distribution's log. Distribution also returns its errors, and stderr is for
// people.
func quiet() { logrus.SetOutput(io.Discard) }

// Name is the name of the registry below the root in the ledger and in messages.
const Name = "embedded"

// Registry returns e as the target of an installation. Its address is the default address of
// registry serve.
func (e *Embedded) Registry() install.Registry {
	return install.Registry{Target: e, Name: Name, Address: DefaultListen, Store: e}
}

func (e *Embedded) repository(ctx context.Context, name string) (distribution.Repository, error) {
	named, err := reference.WithName(name)
	if err != nil {
		return nil, fmt.Errorf("repository %q: %w", name, err)
	}
	return e.namespace.Repository(ctx, named)
}

// HasBlob reports whether the repository has the blob with its full size.
func (e *Embedded) HasBlob(_ context.Context, repo string, d bundle.Descriptor) (bool, error) {
	if _, err := reference.WithName(repo); err != nil {
		return false, fmt.Errorf("repository %q: %w", repo, err)
	}
	if has, err := e.hasContent(d); !has || err != nil {
		return false, err
	}
	link, err := os.ReadFile(e.store.file(linkPath(repo, d.Digest)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return string(link) == string(d.Digest), err
}

// hasContent reports whether the store has the blob with its full size.
func (e *Embedded) hasContent(d bundle.Descriptor) (bool, error) {
	fi, err := os.Stat(e.store.file(blobPath(d.Digest)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && fi.Size() == d.Size, err
}

// PutBlob stores a blob at its final place, hashing it on the way, or links stored content if
// from is not empty. If the content does not match d, nothing is kept and the error wraps
// bundle.ErrDigest.
func (e *Embedded) PutBlob(ctx context.Context, repo string, d bundle.Descriptor, from string, open func() io.Reader) error {
	if _, err := reference.WithName(repo); err != nil {
		return fmt.Errorf("repository %q: %w", repo, err)
	}
	there := false
	if from != "" {
		var err error
		if there, err = e.hasContent(d); err != nil {
			return err
		}
	}
	if !there {
		buf := e.buffers.Get().(*[bufferSize]byte)
		defer e.buffers.Put(buf)
		if err := e.store.putBlob(ctx, d, open(), buf[:]); err != nil {
			return err
		}
		if err := e.incoming.stored(d); err != nil {
			return err
		}
	}
	return e.store.link(repo, d.Digest)
}

// dropWrongSize removes a manifest whose file has the wrong size. Distribution would accept
// the existing file whatever it contains.
func (e *Embedded) dropWrongSize(ctx context.Context, d bundle.Descriptor) error {
	fi, err := os.Stat(e.store.file(blobPath(d.Digest)))
	if errors.Is(err, fs.ErrNotExist) || err == nil && fi.Size() == d.Size {
		return nil
	}
	if err != nil {
		return err
	}
	return e.store.Delete(ctx, blobPath(d.Digest))
}

// PutManifest stores a manifest, and records its subject for the referrers endpoint. The
// storage does not check the children of an index.
func (e *Embedded) PutManifest(ctx context.Context, repo string, m *bundle.Manifest, data []byte) error {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return err
	}
	if err := e.dropWrongSize(ctx, m.Descriptor); err != nil {
		return err
	}
	ms, err := r.Manifests(ctx)
	if err != nil {
		return err
	}
	parsed, _, err := distribution.UnmarshalManifest(m.Descriptor.MediaType, data)
	if err != nil {
		return fmt.Errorf("%w: manifest %s: %w", bundle.ErrFormat, m.Descriptor.Digest, err)
	}
	got, err := ms.Put(ctx, parsed)
	var verification distribution.ErrManifestVerification
	if errors.As(err, &verification) { // this error hides the disk error
		err = errors.Join(verification...)
	}
	if err != nil {
		return fmt.Errorf("storing manifest %s in %s: %w", m.Descriptor.Digest, repo, err)
	}
	if bundle.Digest(got) != m.Descriptor.Digest {
		return fmt.Errorf("%w: manifest %s was stored as %s", bundle.ErrDigest, m.Descriptor.Digest, got)
	}
	return e.recordReferrer(ctx, repo, m)
}

// Resolve returns the digest of a tag, or "".
func (e *Embedded) Resolve(ctx context.Context, repo, tag string) (bundle.Digest, error) {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return "", err
	}
	d, err := r.Tags(ctx).Get(ctx, tag)
	if errors.As(err, new(distribution.ErrTagUnknown)) {
		return "", nil
	}
	if errors.Is(err, digest.ErrDigestInvalidFormat) || errors.Is(err, digest.ErrDigestInvalidLength) {
		return "", nil // a damaged tag points to nothing and is written again
	}
	return bundle.Digest(d.Digest), err
}

// Tag points a tag to an existing manifest, or removes the tag if to is "".
func (e *Embedded) Tag(ctx context.Context, repo, tag string, to bundle.Digest) error {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return err
	}
	if to != "" {
		for _, p := range []string{revisionPath(repo, to), blobPath(to)} { // distribution reports any failure as "not found"
			if _, err := os.Lstat(e.store.file(p)); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w: %s has no manifest %s", install.ErrMissing, repo, to)
			} else if err != nil {
				return err
			}
		}
		return r.Tags(ctx).Tag(ctx, tag, ocispec.Descriptor{Digest: digest.Digest(to)})
	}
	err = r.Tags(ctx).Untag(ctx, tag)
	if errors.As(err, new(driver.PathNotFoundError)) {
		return nil
	}
	return err
}

// Sync makes everything that was stored durable.
func (e *Embedded) Sync() error {
	if _, err := os.Stat(e.store.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := disk.SyncFilesystem(e.store.dir); err != nil {
		return err
	}
	return e.incoming.end()
}

// Undo removes what was stored since the registry was opened.
func (e *Embedded) Undo() error {
	if err := errors.Join(e.store.undo(), e.incoming.end()); err != nil {
		return err
	}
	return e.store.tidy()
}
