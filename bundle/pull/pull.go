// Package pull resolves a selection on the connected side. It fetches the manifests of
// images and leaves their layers upstream until the bundle has a place for them. It
// fetches and inspects plugins and charts. It decides which manifests of an index are
// carried, and verifies upstream's signatures.
package pull

import (
	"context"
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
