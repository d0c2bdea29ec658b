// Package pull finds out on the connected side what a selection stands for, and
// fetches it. Images are described by their manifests, so their layers are left
// where they are until they have a place; plugins and charts are fetched and
// looked into. It decides which manifests of an index are carried, and checks
// upstream's signatures.
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

// maxConfig bounds an image config, in bytes: it is held in memory.
const maxConfig = 8 << 20

// Bounds of what is held in memory of one image: a hostile index names tens of
// thousands of manifests.
const (
	maxDocuments = 2000
	maxHeld      = 128 << 20 // bytes
)

// Source is the connected side.
type Source struct {
	Client *remote.Client
	// Mirrors maps an upstream host to HOST[:PORT][/PREFIX], which is asked in
	// its place, also for URLs. Everything keeps upstream's name.
	Mirrors map[string]string

	mu        sync.Mutex
	repos     map[string]*connection
	downloads map[string]*sync.Mutex // by path: one URL may be asked for twice
}

type connection struct {
	once sync.Once
	repo *remote.Repository
	err  error
}

// repository connects to where a reference is fetched from, once.
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

// mirror returns the host that is asked in the place of another, and what its
// paths begin with there, without slashes around it.
func (s *Source) mirror(host string) (string, string) {
	to, ok := s.Mirrors[host]
	if !ok {
		return host, ""
	}
	host, prefix, _ := strings.Cut(to, "/")
	return host, strings.Trim(prefix, "/")
}

// page returns what stands at a URL, or at its mirror's.
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

// Request says what to find out.
type Request struct {
	Selection *manifests.Selection
	Jobs      int    // requests at a time
	Dir       string // where plugins and the like are kept until they have a place
	// WithoutReferrers leaves signatures, attestations and SBOMs where they are.
	// Signatures that the manifest asks for are checked all the same.
	WithoutReferrers bool
	// Pinned returns what a lock says of a reference, or nil to take what upstream
	// says now.
	Pinned func(bundle.Reference) *Pin
}

// Pin is what a reference has to be.
type Pin struct {
	Digest    bundle.Digest
	Referrers []manifests.LockedReferrer // all that are carried, whatever upstream has now
}

// Resolved is what a selection stands for, in its order.
type Resolved struct {
	Images  []*Image
	Plugins []*Plugin
	Charts  []*Chart
	Files   []*Blob
}

// Image is a reference and what is carried of it.
type Image struct {
	Reference bundle.Reference
	// Top is what the reference resolved to: an index or a manifest.
	Top bundle.Descriptor
	// Partial says that Top is an index of which only some manifests are carried.
	Partial bool
	// Manifests are the carried ones: Top itself, or those of a partial index
	// in the order of the platforms asked for.
	Manifests []bundle.Descriptor
	// Attestations are those manifests of a partial index that speak of Manifests.
	Attestations []bundle.Descriptor
	// Referrers are manifests that speak of Top or of Manifests, in the order in
	// which upstream lists them.
	Referrers []Referrer
	// Moved reports what upstream has under the tag now, if a lock has something else.
	Moved string
	// Warnings name the referrers that are not carried, and why.
	Warnings []string
	// Checks are what it passed, for the lock.
	Checks []string
	// Documents holds the bytes of every manifest and of what else had to be
	// fetched to decide, by digest.
	Documents map[bundle.Digest][]byte
	// Repository is where the rest can be fetched.
	Repository *remote.Repository

	held     int64            // bytes of Documents
	upstream bundle.Reference // by which it was found
}

// Called reports whether a pattern of the manifest fits the image's repository, by
// the name under which it is carried or the one that upstream has for it.
func (i *Image) Called(pattern string) bool {
	return manifests.MatchImages(pattern, i.Reference.Repository()) || manifests.MatchImages(pattern, i.upstream.Repository())
}

// Resolve finds out what everything in a selection is, several at a time, and
// applies the rules between plugins, their server and their images. Errors wrap
// remote.ErrRegistry, bundle.ErrPolicy where upstream has not what is asked for,
// bundle.ErrSignature, bundle.ErrFormat, or manifests.ErrInvalid.
func (s *Source) Resolve(ctx context.Context, r Request) (*Resolved, error) {
	sel := r.Selection
	out := &Resolved{
		Images: make([]*Image, len(sel.Images)), Plugins: make([]*Plugin, len(sel.Plugins)),
		Charts: make([]*Chart, len(sel.Charts)), Files: make([]*Blob, len(sel.Files)),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.Jobs)
	for i, w := range sel.Plugins { // the slowest first
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

// PlainSource returns a source as it may be told: of a URL without its query, which may be
// a login of its own (signed URLs).
func PlainSource(s string) string {
	if fromUpstream(s) {
		s, _, _ = strings.Cut(s, "#")
		s, _, _ = strings.Cut(s, "?")
	}
	return s
}

// fromUpstream reports whether a source is a URL, and no file of the author's.
func fromUpstream(source string) bool { return strings.Contains(source, "://") }

// sent says of what upstream gave, and should not have given, that it is no bundle that is
// damaged, and what to look at.
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

// image resolves a reference, and finds and checks what speaks of it.
func (s *Source) image(ctx context.Context, ref bundle.Reference, r Request) (*Image, error) {
	return s.imageAt(ctx, ref, ref, r)
}

// imageAt does that for what upstream has under one reference and is carried, and
// locked, under another.
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

// moved compares what a lock has with what upstream has under the tag now: a lock is a file
// that somebody may have changed. The error is that of an interruption.
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

// platform reads an image's config for its platform; an artifact has none.
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
	return nil, nil // it says none, and is taken as it is
}

// small fetches a blob into memory, once.
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

// keep holds a document in memory, within bounds.
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

// memory is an io.WriterAt that is written from front to back.
type memory struct{ data []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.data = append(m.data[:off], p...)
	return len(p), nil
}

// fetchManifests fetches d and, if it is an index, everything below it.
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

// hold keeps a manifest that was fetched, and fetches everything below it.
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
