package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
)

// External is a registry on the site's network.
type External struct {
	client *remote.Client
	host   string // HOST[:PORT]
	prefix string // empty, or a path that ends in a slash

	docker []string // images to push that have Docker's media types, for messages
	asked  bool     // whether the registry is known to accept these

	mu    sync.Mutex
	repos map[string]*remote.Repository
	from  []string // repositories to mount from, with prefix

	referring sync.Mutex // held while a manifest with a subject is pushed
}

// OpenExternal returns the registry at HOST[:PORT][/PREFIX]. Mounting names the repositories
// that PutBlob will mount from, without the prefix.
func OpenExternal(client *remote.Client, address string, mounting ...string) *External {
	host, prefix, _ := strings.Cut(address, "/")
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	e := &External{client: client, host: host, prefix: prefix, repos: map[string]*remote.Repository{}}
	for _, m := range mounting {
		e.from = append(e.from, prefix+m)
	}
	return e
}

// Registry returns e as the target of an installation.
func (e *External) Registry() install.Registry {
	return install.Registry{Target: e, Name: e.Address(), Address: e.Address(), Network: e}
}

// Address returns the prefix of references on the site.
func (e *External) Address() string { return strings.TrimSuffix(e.host+"/"+e.prefix, "/") }

func (e *External) repository(ctx context.Context, name string) (*remote.Repository, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.repos[name]; r != nil {
		return r, nil
	}
	r, err := e.client.Repository(ctx, e.host, e.prefix+name, remote.Push, e.from...)
	if err == nil {
		e.repos[name] = r
	}
	return r, err
}

// Expect announces the content that will be pushed. Ready then checks whether the registry
// accepts its media types, and names the images that it does not accept.
func (e *External) Expect(g *bundle.Geometry) {
	for _, m := range g.Blobs() {
		if !dockerType(m.Type) {
			continue
		}
		name := "the manifest " + string(m.Digest)
		if ref := g.Index.Manifests[m.Root].Annotations[bundle.AnnotationRef]; ref != "" {
			name = ref
		}
		e.docker = append(e.docker, name)
	}
}

func dockerType(mediaType string) bool {
	return mediaType == bundle.TypeDockerManifest || mediaType == bundle.TypeDockerList
}

// maxNamed limits the number of images that one message names.
const maxNamed = 10

// checkTypes checks whether the registry accepts Docker's media types, if any will be pushed.
// The error wraps bundle.ErrPolicy if it does not.
func (e *External) checkTypes(ctx context.Context, repo string) error {
	if len(e.docker) == 0 || e.asked {
		return nil
	}
	r, err := e.repository(ctx, repo)
	if err != nil {
		return err
	}
	takes, err := r.TakesManifests(ctx, bundle.TypeDockerManifest)
	if e.asked = takes; takes || err != nil {
		return err
	}
	named := slices.Compact(slices.Sorted(slices.Values(e.docker)))
	more := ""
	if len(named) > maxNamed {
		more = fmt.Sprintf(" and %d more", len(named)-maxNamed)
		named = named[:maxNamed]
	}
	return fmt.Errorf("%w: the registry %s does not take Docker's media types, which %s%s have; %s",
		bundle.ErrPolicy, e.Address(), strings.Join(named, ", "), more, remote.DockerTypesHint)
}

// Ready starts an upload to each repository and cancels it. The error names all repositories
// that refuse, and wraps remote.ErrRegistry. If Expect was called, Ready also checks the media
// types, and the error may wrap bundle.ErrPolicy.
func (e *External) Ready(ctx context.Context, repos []string) error {
	refused := make([]error, len(repos))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for i, name := range repos {
		g.Go(func() error {
			r, err := e.repository(gctx, name)
			if err == nil {
				err = r.CanPush(gctx)
			}
			if remote.Refused(err) || remote.Denied(err) {
				refused[i], err = err, nil
			}
			return err
		})
	}
	err := g.Wait()
	if problems := errors.Join(append(refused, err)...); problems != nil || len(repos) == 0 {
		return problems
	}
	return e.checkTypes(ctx, repos[0])
}

// asking is the number of repositories that are checked in parallel.
const asking = 4

// HasBlob reports whether the repository has the blob with its full size.
func (e *External) HasBlob(ctx context.Context, repo string, d bundle.Descriptor) (bool, error) {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return false, err
	}
	return r.HasBlob(ctx, d)
}

// PutBlob uploads or mounts a blob. If the content does not match d, the upload is not
// completed and the error wraps bundle.ErrDigest.
func (e *External) PutBlob(ctx context.Context, repo string, d bundle.Descriptor, from string, open func() io.Reader) error {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return err
	}
	if from != "" {
		from = e.prefix + from
	}
	return r.PushBlob(ctx, d, from, func() io.Reader { return &verifying{r: open(), d: d, hash: sha256.New()} })
}

// verifying passes bytes on and fails at the end if they do not match d. The last read then
// returns the error and no bytes, so that the upload cannot be complete.
type verifying struct {
	r    io.Reader
	d    bundle.Descriptor
	hash hash.Hash
	n    int64
}

func (v *verifying) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.n += int64(n)
	if v.n < v.d.Size && !errors.Is(err, io.EOF) {
		return n, err
	}
	if v.n != v.d.Size {
		return 0, fmt.Errorf("%w: %s ended after %d of %d bytes", bundle.ErrFormat, v.d.Digest, v.n, v.d.Size)
	}
	if bundle.DigestFrom(v.hash.Sum(nil)) != v.d.Digest {
		return 0, fmt.Errorf("%w: %s", bundle.ErrDigest, v.d.Digest)
	}
	return n, err
}

// PutManifest pushes a manifest whose children were stored before.
func (e *External) PutManifest(ctx context.Context, repo string, m *bundle.Manifest, data []byte) error {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return err
	}
	if m.Subject == nil {
		return classed(r.PushManifest(ctx, "", m.Descriptor, data))
	}
	e.referring.Lock() // one at a time: the client may maintain the referrers list
	defer e.referring.Unlock()
	return classed(r.PushReferrer(ctx, m, data))
}

// classed marks lost content with ErrMissing, and a rejected manifest with ErrNotTaken.
func classed(err error) error {
	switch {
	case remote.Missing(err):
		return fmt.Errorf("%w: %w", install.ErrMissing, err)
	case remote.Unsupported(err):
		return fmt.Errorf("%w: %w: %w", bundle.ErrPolicy, install.ErrNotTaken, err)
	case remote.Refused(err):
		return fmt.Errorf("%w: %w", install.ErrNotTaken, err)
	}
	return err
}

// Resolve returns the digest of a tag, or "".
func (e *External) Resolve(ctx context.Context, repo, tag string) (bundle.Digest, error) {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return "", err
	}
	return r.Resolve(ctx, tag)
}

// Tag points a tag to an existing manifest, or removes the tag if to is "". Not all registries
// support that; where they refuse, the tag stays.
func (e *External) Tag(ctx context.Context, repo, tag string, to bundle.Digest) error {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return err
	}
	if to == "" {
		return r.DeleteTag(ctx, tag)
	}
	d, data, err := r.Manifest(ctx, string(to))
	if errors.Is(err, remote.ErrNotFound) {
		return fmt.Errorf("%w: %w", install.ErrMissing, err)
	}
	if err != nil {
		return err
	}
	err = r.PushManifest(ctx, tag, d, data)
	if remote.Immutable(err) {
		return fmt.Errorf("%w: %w", install.ErrRefused, err)
	}
	return err
}

// Root returns the root and its signature slot that the tag of a channel points to. It returns
// nil if the tag does not exist or does not point to a bundle of this program.
func (e *External) Root(ctx context.Context, repo, tag string) (*bundle.Head, error) {
	r, err := e.repository(ctx, repo)
	if err != nil {
		return nil, err
	}
	d, data, err := r.Manifest(ctx, tag)
	if errors.Is(err, remote.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(d, data)
	if err != nil || m.ArtifactType != bundle.TypeSignatures || m.Subject == nil || len(m.Layers) != 1 || m.Layers[0].Size != bundle.SlotSize {
		return nil, nil //nolint:nilerr // made by another program; it proves nothing either way
	}
	_, root, err := r.Manifest(ctx, string(m.Subject.Digest))
	if err != nil {
		return nil, err
	}
	slot := buffer(make([]byte, bundle.SlotSize))
	if err := r.Fetch(ctx, m.Layers[0], slot, nil); err != nil {
		return nil, err
	}
	return &bundle.Head{Root: root, Slot: slot}, nil
}

// buffer is an io.WriterAt of fixed length.
type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }
