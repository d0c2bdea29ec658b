// Package create turns a manifest into a signed bundle:
//
//	Manifest ─resolve→ Lock ─index→ index.json ─geometry→ offsets ─fetch in parallel→ FILE.partial ─sign→ rename
//
// Everything up to index.json is decided before the first layer is fetched, so
// every blob goes straight to its place in the file.
package create

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// ErrLocked says that another run writes the same file.
var ErrLocked = errors.New("another run is at work")

// Options say what to create. Manifest, Source and Signer are needed.
type Options struct {
	Manifest  *manifests.Manifest
	Lock      *manifests.Lock // nil resolves anew
	Source    *pull.Source
	Signer    *sign.Signer
	Platforms []bundle.Platform // none means linux on this machine's architecture, or the lock's
	Channel   string            // empty means name and platforms joined by /, or the lock's
	Sequence  *int64            // nil means the creation time in Unix seconds, or the lock's
	Output    string            // empty means NAME_VERSION_OS-ARCH.oob.tar
	Jobs      int               // connections at a time; 0 means 4
	Program   string            // version, for the lock
	Now       time.Time         // only used where there is no lock

	// Resolved, if not nil, is called when every size is known.
	Resolved func(g *bundle.Geometry, images int)
	// Done, if not nil, is called with each number of payload bytes that were
	// written, negative where some have to be written again.
	Done func(bytes int64)
}

// Result describes the finished bundle.
type Result struct {
	Geometry *bundle.Geometry
	Identity bundle.Digest
	Lock     *manifests.Lock
	Output   string
	LockFile string
}

// LockFile returns the name of the lock that is written beside a bundle.
func LockFile(output string) string { return output + ".lock.yaml" }

// Run creates the bundle. Nothing stands under the name of the output until it
// is complete, signed and durable. Errors wrap manifests.ErrInvalid or
// ErrMismatch, bundle.ErrPolicy, ErrLimit or ErrFormat, remote.ErrRegistry,
// ErrLocked, or are the file system's.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	refs, err := o.Manifest.References()
	if err != nil {
		return nil, err
	}
	images, err := o.Source.Resolve(ctx, refs, o.Platforms, o.Jobs, o.pinned)
	if err != nil {
		return nil, err
	}
	lock, err := o.lock(images)
	if err != nil {
		return nil, err
	}
	content, err := assemble(lock, o.Manifest, images)
	if err != nil {
		return nil, err
	}
	geometry, err := bundle.NewGeometry(content.root, content.load)
	if err != nil {
		return nil, err
	}
	if o.Resolved != nil {
		o.Resolved(geometry, len(images))
	}
	if err := o.write(ctx, geometry, content, lock); err != nil {
		return nil, err
	}
	return &Result{
		Geometry: geometry, Identity: bundle.DigestOf(geometry.Root), Lock: lock,
		Output: o.Output, LockFile: LockFile(o.Output),
	}, nil
}

// setDefaults fills in what was left open, from the lock where there is one,
// and refuses what contradicts it.
func (o *Options) setDefaults() error {
	if o.Jobs == 0 {
		o.Jobs = 4
	}
	if o.Lock != nil {
		if err := o.followLock(); err != nil {
			return err
		}
	}
	if len(o.Platforms) == 0 {
		o.Platforms = []bundle.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	if o.Channel == "" {
		parts := []string{o.Manifest.Metadata.Name}
		for _, p := range o.Platforms {
			parts = append(parts, p.String())
		}
		o.Channel = strings.Join(parts, "/")
	}
	o.Now = o.Now.UTC().Truncate(time.Second)
	if o.Sequence == nil {
		s := o.Now.Unix()
		o.Sequence = &s
	}
	if o.Output == "" {
		var p []string
		for _, platform := range o.Platforms {
			p = append(p, strings.ReplaceAll(platform.String(), "/", "-"))
		}
		o.Output = fmt.Sprintf("%s_%s_%s.oob.tar", o.Manifest.Metadata.Name, o.Manifest.Metadata.Version, strings.Join(p, "_"))
	}
	if err := o.info().Check(); err != nil {
		return fmt.Errorf("%w: %w", manifests.ErrInvalid, err)
	}
	return checkOutput(o.Output)
}

// checkOutput refuses to replace what is not a bundle, before anything is fetched.
func checkOutput(path string) error {
	if fi, err := os.Stat(filepath.Dir(path)); err != nil || !fi.IsDir() {
		return fmt.Errorf("%w: there is no directory %s to write to; make it, or choose another place with -o", manifests.ErrInvalid, filepath.Dir(path))
	}
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%w: %s exists and is not a file; choose another name with -o", manifests.ErrInvalid, path)
	}
	f, size, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	_, err = bundle.ReadHead(f, size)
	if err != nil {
		err = fmt.Errorf("%w: %s exists and is not a bundle; move it away, or choose another name with -o", manifests.ErrInvalid, path)
	}
	return errors.Join(err, f.Close())
}

func (o *Options) followLock() error {
	l := o.Lock
	mismatch := func(what string, lock, asked any) error {
		return fmt.Errorf("%w: it has the %s %v, and %v is asked for; create without --lock makes a new one", manifests.ErrMismatch, what, lock, asked)
	}
	if l.Manifest != o.Manifest.Digest {
		return mismatch("manifest", l.Manifest, o.Manifest.Digest)
	}
	var locked []bundle.Platform
	for _, s := range l.Platforms {
		p, err := bundle.ParsePlatform(s)
		if err != nil {
			return fmt.Errorf("%w: the lock: %w", manifests.ErrInvalid, err)
		}
		locked = append(locked, p)
	}
	if len(o.Platforms) > 0 && !slices.EqualFunc(o.Platforms, locked, bundle.Platform.Matches) {
		return mismatch("platforms", l.Platforms, bundle.Info{Platforms: o.Platforms}.PlatformNames())
	}
	if o.Channel != "" && o.Channel != l.Channel {
		return mismatch("channel", l.Channel, o.Channel)
	}
	if o.Sequence != nil && *o.Sequence != l.Sequence {
		return mismatch("sequence", l.Sequence, *o.Sequence)
	}
	o.Platforms, o.Channel, o.Sequence, o.Now = locked, l.Channel, &l.Sequence, l.Created
	return nil
}

func (o *Options) info() bundle.Info {
	return bundle.Info{
		Name: o.Manifest.Metadata.Name, Version: o.Manifest.Metadata.Version,
		Channel: o.Channel, Sequence: *o.Sequence, Created: o.Now, Platforms: o.Platforms,
	}
}

func (o *Options) pinned(ref bundle.Reference) bundle.Digest {
	if o.Lock == nil {
		return ""
	}
	i, _ := o.Lock.Image(ref)
	return i.Digest
}

// lock returns the lock of what was resolved. If one was given, it is that one,
// and what was resolved has to agree.
func (o *Options) lock(images []*pull.Image) (*manifests.Lock, error) {
	info := o.info()
	l := &manifests.Lock{
		APIVersion: bundle.APIVersion, Kind: "Lock", Metadata: o.Manifest.Metadata, Program: o.Program,
		Manifest: o.Manifest.Digest, Channel: info.Channel, Sequence: info.Sequence, Created: info.Created,
		Platforms: info.PlatformNames(),
	}
	for _, i := range images {
		locked := manifests.LockedImage{Reference: i.Reference.String(), MediaType: i.Top.MediaType, Digest: i.Top.Digest, Size: i.Top.Size}
		if i.Partial {
			for _, d := range slices.Concat(i.Manifests, i.Attestations) {
				m := manifests.LockedManifest{Digest: d.Digest, Size: d.Size}
				if d.Platform != nil && d.Platform.OS != "unknown" {
					m.Platform = d.Platform.String()
				}
				locked.Carried = append(locked.Carried, m)
			}
		}
		l.Images = append(l.Images, locked)
	}
	if err := sameTags(images); err != nil {
		return nil, err
	}
	if o.Lock == nil {
		return l, nil
	}
	l.Program = o.Lock.Program
	want, err := o.Lock.Encode()
	if err != nil {
		return nil, err
	}
	got, err := l.Encode()
	if err != nil {
		return nil, err
	}
	if string(want) != string(got) {
		return nil, fmt.Errorf("%w: resolving it gives another result (%s); create without --lock makes a new one", manifests.ErrMismatch, firstOther(string(want), string(got)))
	}
	return o.Lock, nil
}

// sameTags refuses two references that would be one tag on the site and are not
// one image, such as app:1 and app:1@sha256:… of last year.
func sameTags(images []*pull.Image) error {
	seen := map[string]*pull.Image{}
	for _, i := range images {
		if i.Reference.Tag == "" {
			continue
		}
		name := i.Reference.Repository() + ":" + i.Reference.Tag
		if other := seen[name]; other != nil && other.Top.Digest != i.Top.Digest {
			return fmt.Errorf("%w: %s and %s are different images with one name; leave one of them out, or give one by its digest alone",
				manifests.ErrInvalid, other.Reference, i.Reference)
		}
		seen[name] = i
	}
	return nil
}

func firstOther(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("%q instead of %q", strings.TrimSpace(g[i]), strings.TrimSpace(w[i]))
		}
	}
	return "one has more images than the other"
}

// write fetches every blob to its place in OUTPUT.partial, signs, and renames.
func (o *Options) write(ctx context.Context, g *bundle.Geometry, c *content, lock *manifests.Lock) (err error) {
	partial := o.Output + ".partial"
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	busy := fmt.Errorf("%w on %s; wait for it, or choose another name with -o", ErrLocked, partial)
	release, err := bundle.TryLock(partial)
	if err == nil && release == nil {
		err = busy
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	defer func() { err = errors.Join(err, release()) }()
	// What was opened may have been another run's, which has finished and renamed
	// it since: then it is a good bundle, and not ours to fill.
	if !isAt(f, partial) {
		return errors.Join(busy, f.Close())
	}
	err = o.fill(ctx, f, g, c)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(partial)) // nothing would read it again
	}
	lockData, err := lock.Encode()
	if err != nil {
		return err
	}
	if err := bundle.WriteFile(LockFile(o.Output), lockData, 0o644); err != nil {
		return err
	}
	if err := os.Rename(partial, o.Output); err != nil {
		return err
	}
	return bundle.SyncDir(filepath.Dir(o.Output))
}

// isAt reports whether the open file is the one that the path names.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(open, named)
}

func (o *Options) fill(ctx context.Context, f *os.File, g *bundle.Geometry, c *content) error {
	if err := errors.Join(f.Truncate(0), f.Truncate(g.Size)); err != nil {
		return fmt.Errorf("%s needs %d bytes: %w", f.Name(), g.Size, err)
	}
	if err := o.fetch(ctx, f, g, c); err != nil {
		return err
	}
	own, err := o.Signer.Sign(g.Root)
	if err != nil {
		return err
	}
	slot, err := bundle.EncodeSlot([]bundle.Signature{own})
	if err != nil {
		return err
	}
	if err := g.WriteFrame(f, slot); err != nil {
		return err
	}
	return f.Sync()
}

// fetch puts every blob at its offset, the largest first, so that none of them
// is left alone at the end.
func (o *Options) fetch(ctx context.Context, f *os.File, g *bundle.Geometry, c *content) error {
	blobs := slices.Clone(g.Blobs())
	slices.SortStableFunc(blobs, func(a, b bundle.Member) int { return int(min(max(b.Size-a.Size, -1), 1)) })
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(o.Jobs)
	for _, m := range blobs {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error {
			at := offsetWriter{f, m.Data}
			if data, ok := c.documents[m.Digest]; ok {
				_, err := at.WriteAt(data, 0)
				o.done(m.Size)
				return err
			}
			image := c.images[m.Root]
			if image == nil {
				return fmt.Errorf("%w: nothing says where %s comes from", bundle.ErrFormat, g.Describe(m))
			}
			d := bundle.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: m.Size}
			if err := image.Repository.Fetch(gctx, d, at, o.done); err != nil {
				return fmt.Errorf("%s: %w", image.Reference, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (o *Options) done(n int64) {
	if o.Done != nil {
		o.Done(n)
	}
}

// offsetWriter writes at an offset of a file.
type offsetWriter struct {
	f    *os.File
	base int64
}

func (w offsetWriter) WriteAt(p []byte, off int64) (int, error) { return w.f.WriteAt(p, w.base+off) }
