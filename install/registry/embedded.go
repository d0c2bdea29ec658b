// Package registry holds the places where install puts images: the embedded
// registry below the root directory, and any registry on the site's network.
//
// The embedded registry has the layout of CNCF distribution's storage. Manifests
// and tags go through distribution, used in process upon a driver of ours; blobs
// are written by that driver alone (docs/decisions/0006-the-store.md). Serve
// offers it all, read-only, to container engines; on a network with TLS, to those
// who have an account.
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
	_ "github.com/distribution/distribution/v3/manifest/manifestlist" // the manifest types that may be stored
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

// Embedded is the registry below a root directory, opened for writing. The
// caller holds the lock of the root.
type Embedded struct {
	store     *store // below ROOT/registry
	incoming  *incoming
	recovered Collected // what a run that crashed had left in doubt
	namespace distribution.Namespace
	buffers   sync.Pool // of *[bufferSize]byte
}

// bufferSize is what is moved at a time, in bytes.
const bufferSize = 256 << 10

// Dir returns where the embedded registry of a root is kept.
func Dir(root string) string { return filepath.Join(root, "registry") }

// OpenEmbedded opens, or begins, the registry below root, and takes away what a
// run that crashed left in doubt.
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

// linkBytes is what a link or a directory takes on most file systems.
const linkBytes = 4096

// Space returns what is missing of the blobs, with the links to them.
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

// Prepare writes down what is going to be stored.
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

// quiet keeps distribution's log off stderr: what it has to say comes back as
// errors, and stderr is for people.
func quiet() { logrus.SetOutput(io.Discard) }

// Name is how the registry below the root is called in the ledger and in messages.
const Name = "embedded"

// Registry returns e as the place where an installation puts images. Its address is the one
// at which registry serve listens unless told otherwise.
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

// hasContent reports whether any repository has the blob.
func (e *Embedded) hasContent(d bundle.Descriptor) (bool, error) {
	fi, err := os.Stat(e.store.file(blobPath(d.Digest)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && fi.Size() == d.Size, err
}

// PutBlob stores a blob, hashing it on its way to its final place, or links it
// to one that the repository from has. An error wraps bundle.ErrDigest if the
// content is not what d says; then nothing of it is kept.
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

// dropWrongSize removes a manifest whose file has another size than its name
// promises: distribution would take it for good, whatever is stored.
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

// PutManifest stores a manifest, and remembers what it refers to for the referrers
// endpoint. The storage does not look at the children of an index.
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
	if errors.As(err, &verification) { // which hides what went wrong with the disk
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

// Resolve returns the digest that a tag has, or "".
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
		return "", nil // damaged: it names nothing, and is written again
	}
	return bundle.Digest(d.Digest), err
}

// Tag points a tag to a manifest that is there, or removes the tag if that is "".
func (e *Embedded) Tag(ctx context.Context, repo, tag string, to bundle.Digest) error {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return err
	}
	if to != "" {
		for _, p := range []string{revisionPath(repo, to), blobPath(to)} { // the library takes any failure for an absence
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
