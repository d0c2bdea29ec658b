package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Damage is missing or changed content that a tag leads to.
type Damage struct {
	Repository string        `json:"repository"`
	Digest     bundle.Digest `json:"digest"`
	What       string        `json:"what"` // missing, changed
}

// reachable is the content that the tags lead to.
type reachable struct {
	e       *Embedded
	blobs   map[bundle.Digest]int64           // digest → size, or -1 if only a tag names it
	repos   map[string]map[bundle.Digest]bool // repository → manifests and blobs
	missing []Damage
}

// reach follows every tag of every repository.
func (e *Embedded) reach(ctx context.Context) (*reachable, error) {
	r := &reachable{e: e, blobs: map[bundle.Digest]int64{}, repos: map[string]map[bundle.Digest]bool{}}
	names, err := e.repositories()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r.repos[name] = map[bundle.Digest]bool{}
		dir := e.store.file(storageRoot + "/repositories/" + name + "/_manifests/tags")
		tags, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, t := range tags {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			link, err := os.ReadFile(filepath.Join(dir, t.Name(), "current", "link"))
			if errors.Is(err, fs.ErrNotExist) {
				continue // the tag was removed
			}
			if err != nil {
				return nil, err
			}
			to, err := bundle.ParseDigest(string(link))
			if err != nil {
				continue // a damaged tag points to nothing; its users will find it missing
			}
			if err := r.manifest(name, to, -1); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// repositories returns the names of all repositories.
func (e *Embedded) repositories() ([]string, error) {
	root := e.store.file(storageRoot + "/repositories")
	var names []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == root {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		if base := d.Name(); strings.HasPrefix(base, "_") {
			if base == "_manifests" {
				rel, err := filepath.Rel(root, filepath.Dir(p))
				if err != nil {
					return err
				}
				names = append(names, filepath.ToSlash(rel))
			}
			return fs.SkipDir
		}
		return nil
	})
	return names, err
}

// manifest visits a manifest, its children, and its referrers.
func (r *reachable) manifest(repo string, digest bundle.Digest, size int64) error {
	if r.repos[repo][digest] {
		return nil
	}
	r.repos[repo][digest] = true
	r.blobs[digest] = max(size, r.blobs[digest])
	data, err := os.ReadFile(r.e.store.file(blobPath(digest)))
	if errors.Is(err, fs.ErrNotExist) {
		r.missing = append(r.missing, Damage{repo, digest, "missing"})
		return nil
	}
	if err != nil {
		return err
	}
	var head struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	if bundle.DigestOf(data) != digest {
		r.missing = append(r.missing, Damage{repo, digest, "changed"})
		return nil
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%s: manifest %s: %w", repo, digest, err)
	}
	if head.MediaType == "" {
		head.MediaType = bundle.TypeOCIManifest
		if head.Manifests != nil && string(head.Manifests) != "null" {
			head.MediaType = bundle.TypeOCIIndex
		}
	}
	m, err := bundle.ParseManifest(bundle.Descriptor{MediaType: head.MediaType, Digest: digest, Size: int64(len(data))}, data)
	if err != nil {
		return fmt.Errorf("%s: %w", repo, err)
	}
	r.blobs[digest] = int64(len(data))
	for _, c := range m.Children() {
		switch {
		case bundle.IsManifest(c.MediaType) && m.Config == nil:
			// Manifests of a partial index that are not carried do not exist here.
			_, err := os.Stat(r.e.store.file(revisionPath(repo, c.Digest)))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = r.manifest(repo, c.Digest, c.Size)
			}
			if err != nil { // uncertain content is not collected
				return err
			}
		default:
			r.repos[repo][c.Digest] = true
			r.blobs[c.Digest] = c.Size
		}
	}
	referrers, err := os.ReadDir(r.e.store.file(path.Join(referrersRoot, repo, digest.Hex())))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range referrers {
		if err := r.manifest(repo, bundle.Digest("sha256:"+f.Name()), -1); err != nil {
			return err
		}
	}
	return nil
}

func revisionPath(repo string, d bundle.Digest) string {
	return storageRoot + "/repositories/" + repo + "/_manifests/revisions/sha256/" + d.Hex() + "/link"
}

// Check hashes everything that a tag leads to and returns the missing or changed content.
func (e *Embedded) Check(ctx context.Context) ([]Damage, error) {
	r, err := e.reach(ctx)
	if err != nil {
		return nil, err
	}
	found := r.missing
	owner := map[bundle.Digest]string{}
	for _, repo := range sortedNames(r.repos) {
		for d := range r.repos[repo] {
			if owner[d] == "" {
				owner[d] = repo
			}
		}
	}
	var digests []bundle.Digest
	for d := range r.blobs {
		if !slices.ContainsFunc(r.missing, func(x Damage) bool { return x.Digest == d }) {
			digests = append(digests, d)
		}
	}
	slices.Sort(digests)
	buf := make([]byte, bufferSize)
	for _, d := range digests {
		f, err := os.Open(e.store.file(blobPath(d)))
		if errors.Is(err, fs.ErrNotExist) {
			found = append(found, Damage{owner[d], d, "missing"})
			continue
		}
		if err != nil {
			return nil, err
		}
		err = pour(ctx, io.Discard, bundle.Descriptor{Digest: d, Size: r.blobs[d]}, f, buf)
		bad := errors.Is(err, bundle.ErrDigest) || errors.Is(err, bundle.ErrFormat)
		if bad {
			found, err = append(found, Damage{owner[d], d, "changed"}), nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Check hashes the content of the registry below root, without changing the registry.
func Check(ctx context.Context, root string) ([]Damage, error) {
	e := &Embedded{store: &store{dir: Dir(root)}}
	return e.Check(ctx)
}

// Drop removes the content of damaged blobs, so that it is stored again.
func (e *Embedded) Drop(damaged []Damage) error {
	for _, d := range damaged {
		if err := removeIfThere(e.store.file(blobPath(d.Digest))); err != nil {
			return err
		}
	}
	return nil
}

// Collected counts the content that a collection has removed.
type Collected struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

// Collect removes content that no tag leads to: first the links in repositories, then the
// blobs. The caller must hold the lock of the root, and no change may be unfinished. If a
// manifest is damaged, Collect removes nothing and the error wraps bundle.ErrDigest.
func (e *Embedded) Collect(ctx context.Context) (c Collected, err error) {
	c = e.recovered
	r, err := e.reach(ctx)
	if err != nil {
		return c, err
	}
	if len(r.missing) > 0 { // its children are unknown and would be collected
		d := r.missing[0]
		return c, fmt.Errorf(
			"%w: manifest %s of %s in the registry is %s; nothing was removed: put it right with oob-bundle repair first",
			bundle.ErrDigest, d.Digest, d.Repository, d.What,
		)
	}
	for _, repo := range sortedNames(r.repos) {
		if err := e.sweepRepository(repo, r.repos[repo]); err != nil {
			return c, err
		}
	}
	if err := e.sweepBlobs(ctx, r, &c); err != nil {
		return c, err
	}
	if err := e.Sync(); err != nil { // this also ends the incoming file
		return c, err
	}
	return c, e.store.tidy()
}

// sweepRepository removes the links to content that a repository does not need.
func (e *Embedded) sweepRepository(repo string, needed map[bundle.Digest]bool) error {
	keep := func(hex string) bool { return needed[bundle.Digest("sha256:"+hex)] }
	base := storageRoot + "/repositories/" + repo
	for _, dir := range []string{base + "/_manifests/revisions/sha256", base + "/_layers/sha256", path.Join(referrersRoot, repo)} {
		if err := e.sweep(dir, keep); err != nil {
			return err
		}
	}
	if err := e.sweepTags(base, needed); err != nil || len(needed) > 0 {
		return err
	}
	// Nested repositories have their directories here, too.
	for _, sub := range []string{"_manifests", "_layers", "_uploads"} {
		if err := os.RemoveAll(e.store.file(base + "/" + sub)); err != nil {
			return err
		}
	}
	return nil
}

// sweepBlobs removes and counts content that no repository needs.
func (e *Embedded) sweepBlobs(ctx context.Context, r *reachable, c *Collected) error {
	blobs := e.store.file(storageRoot + "/blobs/sha256")
	shelves, err := os.ReadDir(blobs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, shelf := range shelves {
		list, err := os.ReadDir(filepath.Join(blobs, shelf.Name()))
		if err != nil {
			return err
		}
		for _, b := range list {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if _, ok := r.blobs[bundle.Digest("sha256:"+b.Name())]; ok {
				continue
			}
			p := filepath.Join(blobs, shelf.Name(), b.Name())
			fi, err := os.Stat(filepath.Join(p, "data"))
			if err == nil {
				c.Blobs++
				c.Bytes += fi.Size()
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep removes the directories, named by hexadecimal digests, that keep rejects.
func (e *Embedded) sweep(dir string, keep func(hex string) bool) error {
	list, err := os.ReadDir(e.store.file(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, x := range list {
		if len(x.Name()) == 64 && !keep(x.Name()) {
			if err := os.RemoveAll(filepath.Join(e.store.file(dir), x.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepTags removes the earlier values of tags.
func (e *Embedded) sweepTags(base string, keep map[bundle.Digest]bool) error {
	dir := base + "/_manifests/tags"
	tags, err := os.ReadDir(e.store.file(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, t := range tags {
		if err := e.sweep(dir+"/"+t.Name()+"/index/sha256", func(hex string) bool { return keep[bundle.Digest("sha256:"+hex)] }); err != nil {
			return err
		}
	}
	return nil
}

func sortedNames[V any](m map[string]V) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// HasBelow reports whether a repository of the registry below root has a manifest.
func HasBelow(root, repo string, d bundle.Digest) bool {
	s := &store{dir: Dir(root)}
	_, err := os.Lstat(s.file(revisionPath(repo, d)))
	return err == nil
}

// TagBelow returns the digest that a tag of the registry below root points to, or "" if there
// is no such tag. It does not open the registry and writes nothing.
func TagBelow(root, repo, tag string) (bundle.Digest, error) {
	link, err := os.ReadFile(
		filepath.Join((&store{dir: Dir(root)}).file(storageRoot+"/repositories/"+repo+"/_manifests/tags"), tag, "current", "link"),
	)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	d, err := bundle.ParseDigest(string(link))
	if err != nil {
		return "", nil //nolint:nilerr // a damaged tag points to nothing
	}
	return d, nil
}
