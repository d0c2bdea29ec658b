// Package pull resolves a selection on the connected side. It fetches the manifests of
// images and leaves their layers upstream until the bundle has a place for them. It
// fetches and inspects plugins and charts. It decides which manifests of an index are
// carried, and verifies upstream's signatures.
package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// maxConfig bounds an image config, in bytes: the config is held in memory.
const maxConfig = 8 << 20

// maxDocuments and maxHeld bound the documents of one image that are held in memory: a
// hostile index could name tens of thousands of manifests.
const (
	maxDocuments = 2000
	maxHeld      = 128 << 20 // bytes
)

// Source resolves selections against upstream registries and web servers.
type Source struct {
	Client *remote.Client
	// Mirrors maps an upstream host to HOST[:PORT][/PREFIX], which is contacted instead,
	// also for URLs. References keep upstream's name.
	Mirrors map[string]string

	mu        sync.Mutex
	repos     map[string]*connection
	downloads map[string]*sync.Mutex // by path: two requests may need the same URL
}

type connection struct {
	once sync.Once
	repo *remote.Repository
	err  error
}

// repository returns the repository from which a reference is fetched. It connects once.
func (s *Source) repository(ctx context.Context, ref bundle.Reference) (*remote.Repository, error) {
	s.mu.Lock()
	if s.repos == nil {
		s.repos = map[string]*connection{}
	}
	c := s.repos[ref.Repository()]
	if c == nil {
		c = &connection{}
		s.repos[ref.Repository()] = c
	}
	s.mu.Unlock()
	c.once.Do(func() {
		host, prefix := s.mirror(ref.Host)
		name := path.Join(prefix, ref.Name)
		c.repo, c.err = s.Client.Repository(ctx, host, name, remote.Pull)
	})
	return c.repo, c.err
}

// mirror returns the host to contact instead of host, and the path prefix there, without
// leading and trailing slashes.
func (s *Source) mirror(host string) (string, string) {
	to, ok := s.Mirrors[host]
	if !ok {
		return host, ""
	}
	host, prefix, _ := strings.Cut(to, "/")
	return host, strings.Trim(prefix, "/")
}

// page returns the page at a URL, or at the URL of its mirror.
func (s *Source) page(from string) (*remote.Page, error) {
	u, err := url.Parse(from)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not a URL", manifests.ErrInvalid, from)
	}
	var prefix string
	if u.Host, prefix = s.mirror(u.Host); prefix != "" {
		u.Path, u.RawPath = "/"+prefix+u.Path, "/"+prefix+u.EscapedPath()
	}
	return s.Client.Page(u.String())
}

// Request describes what to resolve, and how.
type Request struct {
	Selection *manifests.Selection
	Jobs      int    // number of parallel jobs
	Dir       string // directory for downloaded plugins, files and chart indexes
	// WithoutReferrers leaves signatures, attestations and SBOMs out. Signatures that the
	// manifest requires are checked nevertheless.
	WithoutReferrers bool
	// Pinned returns the lock's pin of a reference, or nil to resolve the reference
	// upstream. Pinned must be set.
	Pinned func(bundle.Reference) *Pin
}

// Pin is the content that a lock requires for a reference.
type Pin struct {
	Digest    bundle.Digest
	Referrers []manifests.LockedReferrer // exactly those to carry, whatever upstream has now
}

// Resolved is the resolved content of a selection, in the selection's order.
type Resolved struct {
	Images  []*Image
	Plugins []*Plugin
	Charts  []*Chart
	Files   []*Blob
}

// Image is a reference and the content that is carried for it.
type Image struct {
	Reference bundle.Reference
	// Top is the index or manifest to which the reference resolved.
	Top bundle.Descriptor
	// Partial reports that Top is an index of which only some manifests are carried.
	Partial bool
	// Manifests contains the carried manifests: Top itself, or those of a partial index,
	// in the order of the requested platforms.
	Manifests []bundle.Descriptor
	// Attestations contains the other carried manifests of a partial index: attestations
	// of Manifests, and entries that are not images.
	Attestations []bundle.Descriptor
	// Referrers contains the manifests that refer to Top, to the carried manifests, or to
	// other referrers, sorted by tag and digest.
	Referrers []Referrer
	// Moved describes what upstream has under the tag now, if a lock pins other content.
	Moved string
	// Warnings name the referrers that are not carried, and the reason.
	Warnings []string
	// Checks lists the checks that the image passed, for the lock.
	Checks []string
	// Documents contains, by digest, all fetched manifests and the small blobs that were
	// needed to resolve the image.
	Documents map[bundle.Digest][]byte
	// Repository is the source of all other content.
	Repository *remote.Repository

	held     int64            // bytes of Documents except Top
	upstream bundle.Reference // under which upstream has the image
}

// Called reports whether a pattern of the manifest matches the image's repository, under
// the name that is carried or under upstream's name.
func (i *Image) Called(pattern string) bool {
	return manifests.MatchImages(pattern, i.Reference.Repository()) || manifests.MatchImages(pattern, i.upstream.Repository())
}

// Resolve resolves all items of a selection in parallel, and applies the rules between
// plugins, their server and their images. Errors wrap remote.ErrRegistry, bundle.ErrPolicy
// if upstream does not offer what the manifest requires, bundle.ErrSignature,
// bundle.ErrFormat, or manifests.ErrInvalid.
func (s *Source) Resolve(ctx context.Context, r Request) (*Resolved, error) {
	sel := r.Selection
	out := &Resolved{
		Images: make([]*Image, len(sel.Images)), Plugins: make([]*Plugin, len(sel.Plugins)),
		Charts: make([]*Chart, len(sel.Charts)), Files: make([]*Blob, len(sel.Files)),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.Jobs)
	for i, w := range sel.Plugins { // start the slowest first
		g.Go(func() (err error) {
			out.Plugins[i], err = s.plugin(ctx, w, sel.Platforms, r.Dir)
			return about("plugin "+PlainSource(w.URL), sent(fromUpstream(w.URL), err))
		})
	}
	for i, w := range sel.Files {
		g.Go(func() (err error) {
			out.Files[i], err = s.file(ctx, w, r.Dir)
			return about("file "+PlainSource(w.Source), sent(fromUpstream(w.Source), err))
		})
	}
	for i, w := range sel.Charts {
		g.Go(func() (err error) {
			out.Charts[i], err = s.chart(ctx, w, r)
			return about(fmt.Sprintf("chart %s %s of %s", w.Name, w.Version, w.Repository), sent(true, err))
		})
	}
	for i, w := range sel.Images {
		g.Go(func() (err error) {
			out.Images[i], err = s.image(ctx, w.Reference, r)
			return about(w.Reference.String(), sent(true, err))
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var found []manifests.FoundPlugin
	for _, p := range out.Plugins {
		found = append(
			found,
			manifests.FoundPlugin{ID: p.About.ID, Version: p.About.Version, MinServer: p.About.MinServerVersion, Props: p.About.Props},
		)
	}
	return out, sel.CheckPlugins(found)
}

func about(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// PlainSource returns a source in a form that may be shown: a URL without its fragment and
// its query, which may contain a credential (signed URLs).
func PlainSource(s string) string {
	if fromUpstream(s) {
		s, _, _ = strings.Cut(s, "#")
		s, _, _ = strings.Cut(s, "?")
	}
	return s
}

// fromUpstream reports whether a source is a URL, not a local file of the author.
func fromUpstream(source string) bool { return strings.Contains(source, "://") }

// sent marks bad content from upstream as remote.ErrRegistry, so that it is not reported
// as a damaged bundle, and adds advice.
func sent(upstream bool, err error) error {
	wrong := slices.ContainsFunc(
		[]error{bundle.ErrDigest, bundle.ErrFormat, bundle.ErrLimit},
		func(class error) bool { return errors.Is(err, class) },
	)
	if !wrong || !upstream || errors.Is(err, remote.ErrRegistry) {
		return err
	}
	return fmt.Errorf(
		"%w: %w; upstream may have replaced it, or the manifest is wrong: compare both with what its publisher says",
		remote.ErrRegistry, err,
	)
}

// image resolves a reference, finds its referrers and checks its signatures.
func (s *Source) image(ctx context.Context, ref bundle.Reference, r Request) (*Image, error) {
	return s.imageAt(ctx, ref, ref, r)
}

// imageAt does the same for an image that upstream has under one reference, and that is
// carried and locked under another, ref.
func (s *Source) imageAt(ctx context.Context, upstream, ref bundle.Reference, r Request) (*Image, error) {
	pin := r.Pinned(ref)
	i, err := s.resolve(ctx, upstream, r.Selection.Platforms, pin)
	if err != nil {
		return nil, err
	}
	i.Reference, i.upstream = ref, upstream
	if pin != nil {
		if i.Moved, err = i.moved(ctx); err != nil {
			return nil, err
		}
	}
	asked := slices.ContainsFunc(r.Selection.VerifyImages, func(v manifests.WantedSignature) bool {
		return i.Called(v.Images)
	})
	if r.WithoutReferrers && !asked {
		return i, nil
	}
	if pin != nil && !r.WithoutReferrers {
		err = i.pinned(ctx, pin.Referrers)
	} else {
		err = i.referrers(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := i.checkSignatures(ctx, r.Selection.VerifyImages); err != nil {
		return nil, err
	}
	if r.WithoutReferrers {
		i.Referrers, i.Warnings = nil, nil
	}
	return i, nil
}

func (s *Source) resolve(ctx context.Context, ref bundle.Reference, platforms []bundle.Platform, pin *Pin) (*Image, error) {
	repo, err := s.repository(ctx, ref)
	if err != nil {
		return nil, err
	}
	ask := ref.Tag
	if ref.Digest != "" {
		ask = string(ref.Digest)
	}
	if pin != nil {
		ask = string(pin.Digest)
	}
	top, data, err := repo.Manifest(ctx, ask)
	if err != nil {
		return nil, err
	}
	image := &Image{Reference: ref, Top: top, Documents: map[bundle.Digest][]byte{top.Digest: data}, Repository: repo}
	m, err := bundle.ParseManifest(top, data)
	if err != nil {
		return nil, fmt.Errorf("%w: it sent what no bundle can carry: %w", remote.ErrRegistry, err)
	}
	if !bundle.IsIndex(top.MediaType) {
		if image.Top.Platform, err = image.platform(ctx, m); err != nil {
			return nil, err
		}
		image.Manifests = []bundle.Descriptor{image.Top}
		return image, image.checkPlatform(platforms)
	}
	return image, image.choose(ctx, m, platforms)
}

// moved describes what upstream has under the tag now, or returns "" if upstream has the
// locked content: a user may have changed the lock file. The error is the cause of the end
// of ctx.
func (i *Image) moved(ctx context.Context) (string, error) {
	if i.upstream.Tag == "" || i.upstream.Digest != "" {
		return "", nil
	}
	now, err := i.Repository.Resolve(ctx, i.upstream.Tag)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return fmt.Sprintf("what upstream has now is unknown: %v", err), nil
	case now == "":
		return "upstream has no such tag now", nil
	case now != i.Top.Digest:
		return fmt.Sprintf("upstream has %s now", now), nil
	}
	return "", nil
}

// platform reads the platform from an image's config. It returns nil for an artifact.
func (i *Image) platform(ctx context.Context, m *bundle.Manifest) (*bundle.Platform, error) {
	if !m.Runnable() {
		return nil, nil
	}
	data, err := i.small(ctx, *m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	var p bundle.Platform
	if json.Unmarshal(data, &p) == nil && p.Machine() {
		return &p, nil
	}
	return nil, nil // the config names no platform; the image is accepted as it is
}

// small returns a blob, which it fetches into memory once. limit is in bytes.
func (i *Image) small(ctx context.Context, d bundle.Descriptor, limit int64) ([]byte, error) {
	if data, ok := i.Documents[d.Digest]; ok {
		return data, nil
	}
	if d.Size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", bundle.ErrLimit, d.Digest, d.Size, limit)
	}
	var buf memory
	if err := i.Repository.Fetch(ctx, d, &buf, nil); err != nil {
		return nil, err
	}
	return buf.data, i.keep(d.Digest, buf.data)
}

// keep adds a document to Documents. The error wraps bundle.ErrLimit if there are too many.
func (i *Image) keep(d bundle.Digest, data []byte) error {
	if i.held+int64(len(data)) > maxHeld || len(i.Documents) >= maxDocuments {
		return fmt.Errorf(
			"%w: upstream has more manifests and the like for it than can be held in memory (%d, %d bytes)",
			bundle.ErrLimit, len(i.Documents), i.held,
		)
	}
	i.Documents[d] = data
	i.held += int64(len(data))
	return nil
}

// memory is an io.WriterAt that is written sequentially.
type memory struct{ data []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.data = append(m.data[:off], p...)
	return len(p), nil
}

// fetchManifests fetches d and, if d is an index, all manifests below it.
func (i *Image) fetchManifests(ctx context.Context, d bundle.Descriptor, depth int) error {
	if !bundle.IsManifest(d.MediaType) || i.Documents[d.Digest] != nil {
		return nil
	}
	if depth > bundle.MaxDepth {
		return fmt.Errorf("%w: indexes are nested more than %d deep", bundle.ErrLimit, bundle.MaxDepth)
	}
	_, data, err := i.Repository.Manifest(ctx, string(d.Digest))
	if err != nil {
		return err
	}
	if err := d.Verify(data); err != nil {
		return fmt.Errorf("%w: %w", remote.ErrRegistry, err)
	}
	_, err = i.hold(ctx, d, data, depth)
	return err
}

// hold keeps a fetched manifest, and fetches all manifests below it.
func (i *Image) hold(ctx context.Context, d bundle.Descriptor, data []byte, depth int) (*bundle.Manifest, error) {
	if err := i.keep(d.Digest, data); err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(d, data)
	if err != nil {
		return nil, fmt.Errorf("%w: it sent what no bundle can carry: %w", remote.ErrRegistry, err)
	}
	for _, c := range m.Manifests {
		if err := i.fetchManifests(ctx, c, depth+1); err != nil {
			return nil, err
		}
	}
	return m, nil
}
