// Package pull resolves references on the connected side and fetches what they
// stand for. It decides which manifests of an index are carried.
package pull

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
)

// maxConfig bounds an image config, in bytes: it is held in memory.
const maxConfig = 8 << 20

// Source is the connected side.
type Source struct {
	Client *remote.Client
	// Mirrors maps an upstream host to HOST[:PORT][/PREFIX], which is asked in
	// its place. The images keep upstream's name.
	Mirrors map[string]string

	mu    sync.Mutex
	repos map[string]*connection
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
		host, name := ref.Host, ref.Name
		if to, ok := s.Mirrors[ref.Host]; ok {
			var prefix string
			host, prefix, _ = strings.Cut(to, "/")
			if prefix = strings.Trim(prefix, "/"); prefix != "" {
				name = prefix + "/" + name
			}
		}
		c.repo, c.err = s.Client.Repository(ctx, host, name, remote.Pull)
	})
	return c.repo, c.err
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
	// Documents holds the bytes of every manifest and of what else had to be
	// fetched to decide, by digest.
	Documents map[bundle.Digest][]byte
	// Repository is where the rest can be fetched.
	Repository *remote.Repository
}

// Resolve resolves references, several at a time, in the given order. Pinned
// returns the digest that a reference has to have, or "" to take what upstream
// says now. Errors wrap remote.ErrRegistry, or bundle.ErrPolicy where upstream
// has not what is asked for.
func (s *Source) Resolve(ctx context.Context, refs []bundle.Reference, platforms []bundle.Platform, jobs int, pinned func(bundle.Reference) bundle.Digest) ([]*Image, error) {
	images := make([]*Image, len(refs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i, ref := range refs {
		g.Go(func() error {
			image, err := s.resolve(ctx, ref, platforms, pinned(ref))
			if err != nil {
				return fmt.Errorf("%s: %w", ref, err)
			}
			images[i] = image
			return nil
		})
	}
	return images, g.Wait()
}

func (s *Source) resolve(ctx context.Context, ref bundle.Reference, platforms []bundle.Platform, pin bundle.Digest) (*Image, error) {
	repo, err := s.repository(ctx, ref)
	if err != nil {
		return nil, err
	}
	ask := ref.Tag
	if ref.Digest != "" {
		ask = string(ref.Digest)
	}
	if pin != "" {
		ask = string(pin)
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

// platform reads an image's config for its platform; an artifact has none.
func (i *Image) platform(ctx context.Context, m *bundle.Manifest) (*bundle.Platform, error) {
	if !m.Runnable() {
		return nil, nil
	}
	if m.Config.Size > maxConfig {
		return nil, fmt.Errorf("%w: its config has %d bytes, at most %d are allowed", bundle.ErrLimit, m.Config.Size, maxConfig)
	}
	var buf memory
	if err := i.Repository.Fetch(ctx, *m.Config, &buf, nil); err != nil {
		return nil, err
	}
	i.Documents[m.Config.Digest] = buf.data
	var p bundle.Platform
	if json.Unmarshal(buf.data, &p) == nil && p.OS != "" && p.Architecture != "" {
		return &p, nil
	}
	return nil, nil // it says none, and is taken as it is
}

// memory is an io.WriterAt that is written from front to back.
type memory struct{ data []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.data = append(m.data[:off], p...)
	return len(p), nil
}

func (i *Image) checkPlatform(platforms []bundle.Platform) error {
	have := i.Top.Platform
	if have == nil || slices.ContainsFunc(platforms, have.Matches) {
		return nil
	}
	return fmt.Errorf("%w: it is for %s only, and %s is asked for with --platform", bundle.ErrPolicy, have, names(platforms))
}

func names(platforms []bundle.Platform) string {
	var s []string
	for _, p := range platforms {
		s = append(s, p.String())
	}
	return strings.Join(s, ", ")
}

// BuildKit lists attestations in the index beside the images, with these
// annotations (docs/attestations/attestation-storage.md of moby/buildkit).
const (
	annotationKind    = "vnd.docker.reference.type"
	annotationSubject = "vnd.docker.reference.digest"
)

// choose selects the manifests of an index: those for the platforms, those that
// say no platform, and attestations that speak of a selected one.
func (i *Image) choose(ctx context.Context, index *bundle.Manifest, platforms []bundle.Platform) error {
	chosen := map[bundle.Digest]bool{}
	for _, p := range platforms {
		found := false
		for _, d := range index.Manifests {
			if d.Platform != nil && p.Matches(*d.Platform) {
				found = true
				if !chosen[d.Digest] {
					i.Manifests = append(i.Manifests, d)
				}
				chosen[d.Digest] = true
			}
		}
		if !found && slices.ContainsFunc(index.Manifests, isImage) {
			return fmt.Errorf("%w: there is none for %s, only for %s", bundle.ErrPolicy, p, offered(index))
		}
	}
	for _, d := range index.Manifests {
		about, attests := d.Annotations[annotationSubject], d.Annotations[annotationKind] != ""
		switch {
		case chosen[d.Digest]:
		case attests && chosen[bundle.Digest(about)]:
			i.Attestations = append(i.Attestations, d)
			chosen[d.Digest] = true
		case d.Platform == nil && !attests:
			i.Manifests = append(i.Manifests, d)
			chosen[d.Digest] = true
		}
	}
	i.Partial = slices.ContainsFunc(index.Manifests, func(d bundle.Descriptor) bool { return !chosen[d.Digest] })
	for _, d := range slices.Concat(i.Manifests, i.Attestations) {
		if err := i.fetchManifests(ctx, d, 2); err != nil {
			return err
		}
	}
	if !i.Partial {
		i.Manifests, i.Attestations = []bundle.Descriptor{i.Top}, nil
	}
	return nil
}

func isImage(d bundle.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS != "unknown" && d.Annotations[annotationKind] == ""
}

func offered(index *bundle.Manifest) string {
	var have []bundle.Platform
	for _, d := range index.Manifests {
		if isImage(d) {
			have = append(have, *d.Platform)
		}
	}
	return names(have)
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
	i.Documents[d.Digest] = data
	m, err := bundle.ParseManifest(d, data)
	if err != nil {
		return fmt.Errorf("%w: it sent what no bundle can carry: %w", remote.ErrRegistry, err)
	}
	for _, c := range m.Manifests {
		if err := i.fetchManifests(ctx, c, depth+1); err != nil {
			return err
		}
	}
	return nil
}
