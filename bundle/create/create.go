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
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/kit"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// ErrLocked says that another run writes the same file.
var ErrLocked = errors.New("another run is at work")

// Options say what to create. Manifest, Source and Signer are needed.
type Options struct {
	Manifest   *manifests.Manifest
	Lock       *manifests.Lock // nil resolves anew
	Source     *pull.Source
	Signer     *sign.Signer
	Platforms  []bundle.Platform // none means the manifest's first, or linux on this machine's architecture, or the lock's
	Choice     manifests.Choice  // its platforms are those above
	Channel    string            // empty means name, deployment and platforms joined by /, or the lock's
	Sequence   *int64            // nil means the creation time in Unix seconds, or the lock's
	Output     string            // empty means NAME_VERSION_OS-ARCH.oob.tar
	VolumeSize int64             // bytes; 0 means one file
	Reuse      []string          // earlier bundles, from which blobs are taken
	Jobs       int               // connections at a time; 0 means 8
	Program    string            // version, for the lock
	KeyFile    string            // of the private key, which the record names; empty leaves it open
	Installer  string            // program to put beside the bundle; empty means none
	Now        time.Time         // only used where there is no lock

	// WithoutReferrers leaves upstream's signatures, attestations and SBOMs
	// behind.
	WithoutReferrers bool

	// Resolved, if not nil, is called when every size is known. What it returns
	// is told how the payload comes.
	Resolved func(g *bundle.Geometry, l *manifests.Lock) bundle.Watch
	Warn     func(format string, args ...any) // nil means that nobody wants to know

	selection *manifests.Selection
}

// Result describes the finished bundle.
type Result struct {
	Geometry *bundle.Geometry // without its Manifests
	Identity bundle.Digest
	Lock     *manifests.Lock
	Output   string   // the path by which the bundle is opened
	Volumes  []string // the paths of the parts; none for one file
	LockFile string
	Record   string     // the page to print
	Kit      []kit.File // what was put beside the bundle; the program first
	Reused   int64      // bytes that came out of earlier bundles
	Needs    []string   // names of the values without which an installation refuses
}

// LockFile returns the name of the lock that is written beside a bundle.
func LockFile(output string) string { return output + ".lock.yaml" }

// geometry returns where everything of the bundle goes, and refuses what the other side
// would refuse, before anything is fetched.
func (c *content) geometry() (*bundle.Geometry, error) {
	g, err := bundle.NewGeometry(c.root, c.load)
	if errors.Is(err, bundle.ErrFormat) && !errors.Is(err, bundle.ErrLimit) { // it is no damaged bundle
		return nil, fmt.Errorf("%w: what upstream sent does not make a bundle: %w", remote.ErrRegistry, err)
	}
	if err != nil && !errors.Is(err, bundle.ErrLimit) {
		return nil, err
	}
	if err == nil {
		err = c.deployment.Check(g)
	}
	if err == nil {
		err = c.deployment.Installable()
	}
	if err == nil { // names that the author chose: of versions, of settings
		var document []byte
		if document, err = bundle.Encode(c.deployment); err == nil {
			err = bundle.DecodeStrict(document, new(bundle.Deployment))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: this cannot be one bundle: %s", manifests.ErrInvalid, err) //nolint:errorlint // it is not a damaged bundle
	}
	return g, nil
}

// lay resolves the manifest and decides where everything goes. Dir is for what is looked into.
// The geometry has no Manifests: while the content comes, memory is for buffers.
func (o *Options) lay(ctx context.Context, dir string) (*manifests.Lock, *content, *bundle.Geometry, error) {
	resolved, err := o.resolve(ctx, dir)
	if err != nil {
		return nil, nil, nil, err
	}
	lock, err := o.lock(resolved)
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := assemble(lock, o.selection, resolved)
	if err != nil {
		return nil, nil, nil, err
	}
	g, err := c.geometry()
	if err != nil {
		return nil, nil, nil, err
	}
	g.Manifests = nil
	return lock, c, g, nil
}

// checkWritten checks the files of a host as they are in the bundle.
func checkWritten(ctx context.Context, d *bundle.Deployment, g *bundle.Geometry, written io.ReaderAt) error {
	files := hostFiles{d, func(digest bundle.Digest) (io.Reader, error) {
		m, ok := g.Place(digest)
		if !ok {
			return nil, fmt.Errorf("%w: blob %s has no place", bundle.ErrFormat, digest)
		}
		return io.NewSectionReader(written, m.Data, m.Size), nil
	}}
	return files.check(ctx)
}

// Run creates the bundle, or finishes what an interrupted run began. Nothing
// stands under the name of the output until it is complete, signed and durable.
// Errors wrap manifests.ErrInvalid or ErrMismatch, bundle.ErrPolicy, ErrLimit,
// ErrFormat or ErrSpace, remote.ErrRegistry, kit.ErrProgram, ErrLocked, or are the
// file system's.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	program, err := o.openBeside()
	if err != nil {
		return nil, err
	}
	if program != nil {
		defer func() { err = errors.Join(err, program.Close()) }()
	}
	out, err := openOutput(o.Output, o.VolumeSize)
	if err != nil {
		return nil, err
	}
	if program != nil {
		out.beside += program.Size
	}
	if other := out.otherForm(); other != "" {
		o.Warn("%s is there, too: lock and record beside it will be of the bundle that is made now", other)
	}
	defer func() {
		if result == nil {
			err = errors.Join(err, out.abandon())
		}
	}()
	if err := o.setTime(); err != nil {
		return nil, err
	}
	reuse, err := openReusable(o.Reuse)
	defer func() {
		for _, r := range reuse {
			err = errors.Join(err, r.file.Close())
		}
	}()
	if err != nil {
		return nil, err
	}
	lock, content, g, err := o.lay(ctx, out.intake())
	if err != nil {
		return nil, err
	}
	f := newFiller(g, content, out)
	f.reuse, f.warn = reuse, o.Warn
	if o.Resolved != nil {
		f.watch = o.Resolved(g, lock)
	}
	if err := out.begin(o.beginning(), g); err != nil {
		return nil, err
	}
	f.resume()
	if err := f.run(ctx, o.Jobs); err != nil {
		return nil, err
	}
	if err := checkWritten(ctx, content.deployment, g, out.file); err != nil {
		return nil, err
	}
	result = &Result{
		Geometry: g, Identity: bundle.DigestOf(g.Root), Lock: lock, Output: out.first(), LockFile: LockFile(o.Output),
		Reused: f.reused.Load(),
	}
	own, err := o.sign(out, g, lock)
	if err != nil {
		return nil, err
	}
	b := beside{Options: &o, out: out, program: program, signature: own, reuse: reuse}
	if err := b.write(result); err != nil {
		return nil, err
	}
	if result.Volumes, err = out.place(); err != nil {
		return nil, err
	}
	o.warnReplaced(result, out.before)
	return result, nil
}

// warnReplaced reports that the bundle took the place of another one, if it did.
func (o *Options) warnReplaced(r *Result, before bundle.Digest) {
	if before != "" && before != r.Identity {
		o.Warn("%s was the bundle %s before, and is another one now", r.Output, before)
	}
}

// Lock resolves a manifest and fetches no layers. Plugins and charts are looked
// into, and are kept below dir, which is removed. Errors are those of Run.
func Lock(ctx context.Context, o Options, dir string) (l *manifests.Lock, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	if err := o.setTime(); err != nil {
		return nil, err
	}
	r, err := o.resolve(ctx, dir)
	if err != nil {
		return nil, err
	}
	return o.lock(r)
}

// resolve finds out what the selection stands for, and says which images its
// charts ask for that are not among it.
func (o *Options) resolve(ctx context.Context, dir string) (*pull.Resolved, error) {
	r, err := o.Source.Resolve(ctx, pull.Request{
		Selection: o.selection, Jobs: o.Jobs, Dir: dir, WithoutReferrers: o.WithoutReferrers, Pinned: o.pinned,
	})
	if err != nil {
		return nil, err
	}
	locked := slices.Clone(r.Images)
	for _, c := range r.Charts {
		if c.OCI != nil {
			locked = append(locked, c.OCI)
		}
	}
	for _, i := range locked {
		if i.Moved != "" {
			o.Warn(
				"%s: the lock has %s, and %s; if that is a surprise, compare the lock with the one that was reviewed",
				i.Reference, i.Top.Digest, i.Moved,
			)
		}
	}
	carried := map[string]bool{}
	for _, i := range r.Images {
		carried[i.Reference.Repository()] = true
		o.warnOf(i)
	}
	for _, c := range r.Charts {
		o.warnOf(c.OCI)
	}
	for _, v := range o.selection.VerifyImages {
		if !slices.ContainsFunc(r.Images, func(i *pull.Image) bool { return i.Called(v.Images) }) &&
			!slices.ContainsFunc(r.Charts, func(c *pull.Chart) bool { return c.OCI != nil && c.OCI.Called(v.Images) }) {
			o.Warn("verifyImages asks for signatures on %s, and no image is called that: nothing was checked by it", v.Images)
		}
	}
	for _, c := range r.Charts {
		for _, image := range c.Images {
			ref, err := bundle.ParseReference(image)
			unused := func(p string) bool { return manifests.MatchImages(p, ref.Repository()) }
			if err != nil || carried[ref.Repository()] || slices.ContainsFunc(c.Wanted.UnusedImages, unused) {
				continue
			}
			o.Warn(
				"chart %s %s names the image %s, which is not carried; add it, or name it in unusedImages",
				c.Wanted.Name, c.Wanted.Version, image,
			)
		}
	}
	return r, o.warnUnquoted(r.Files)
}

// warnUnquoted warns of templates that print values without quoting them.
func (o *Options) warnUnquoted(files []*pull.Blob) error {
	for _, f := range files {
		found, err := o.selection.Host.Unquoted(f.Wanted.Path, f.Text)
		if err != nil {
			return err
		}
		for _, u := range found {
			o.Warn("template %s, line %d: %s is not quoted for this kind of file; "+
				"print it with the function %s (docs/host.md, Quoting)", f.Wanted.Path, u.Line, u.Value, u.Use)
		}
	}
	return nil
}

// warnOf passes on what upstream has of an image and is not carried.
func (o *Options) warnOf(i *pull.Image) {
	if i == nil {
		return
	}
	for _, w := range i.Warnings {
		o.Warn("%s: %s", i.Reference, w)
	}
}

// sign signs, and writes the lock and what is not a blob.
func (o *Options) sign(out *output, g *bundle.Geometry, lock *manifests.Lock) (bundle.Signature, error) {
	own, err := o.Signer.Sign(g.Root)
	if err != nil {
		return own, err
	}
	slot, err := bundle.EncodeSlot([]bundle.Signature{own})
	if err != nil {
		return own, err
	}
	if err := g.WriteFrame(out.file, slot); err != nil {
		return own, err
	}
	if err := out.file.Sync(); err != nil { // before anything takes an earlier bundle's place
		return own, err
	}
	lockData, err := lock.Encode()
	if err != nil {
		return own, err
	}
	return own, disk.WriteFile(LockFile(o.Output), lockData, 0o644)
}

// setDefaults fills in what was left open, from the lock where there is one,
// and refuses what contradicts it.
func (o *Options) setDefaults() error {
	if o.Jobs == 0 {
		o.Jobs = 8
	}
	if o.Warn == nil {
		o.Warn = func(string, ...any) {}
	}
	if o.Lock != nil {
		if err := o.followLock(); err != nil {
			return err
		}
	}
	if len(o.Platforms) == 0 && len(o.Manifest.Platforms) == 0 {
		o.Platforms = []bundle.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	o.Choice.Platforms = o.Platforms
	var err error
	if o.selection, err = o.Manifest.Select(o.Choice); err != nil {
		return err
	}
	o.Platforms = o.selection.Platforms
	if o.Channel == "" {
		parts := []string{o.selection.Name}
		if o.selection.Deployment != "" {
			parts = append(parts, o.selection.Deployment)
		}
		for _, p := range o.Platforms {
			parts = append(parts, p.String())
		}
		o.Channel = strings.Join(parts, "/")
	}
	if o.Output == "" {
		var p []string
		for _, platform := range o.Platforms {
			p = append(p, strings.ReplaceAll(platform.String(), "/", "-"))
		}
		o.Output = fmt.Sprintf("%s_%s_%s.oob.tar", o.selection.Name, o.selection.Version, strings.Join(p, "_"))
	}
	return nil
}

// setTime decides about time and sequence. What is signed comes from this run, from flags or
// from the lock, never from what an interrupted run has left.
func (o *Options) setTime() error {
	o.Now = o.Now.UTC().Truncate(time.Second)
	if o.Sequence == nil {
		s := o.Now.Unix()
		o.Sequence = &s
	}
	if *o.Sequence > maxSequence {
		return fmt.Errorf(
			"%w: the sequence %d leaves no room for later bundles of the channel; at most %d are used",
			manifests.ErrInvalid, *o.Sequence, int64(maxSequence),
		)
	}
	if err := o.info().Check(); err != nil {
		return fmt.Errorf("%w: %w", manifests.ErrInvalid, err)
	}
	return nil
}

// maxSequence bounds what is signed. The format allows more, but a host that has installed
// the highest sequence refuses every later bundle.
const maxSequence = 1 << 62

func (o *Options) beginning() beginning {
	return beginning{
		APIVersion: bundle.APIVersion,
		Kind:       "CreateJournal",
		Manifest:   o.Manifest.Digest,
		Program:    o.Program,
		Channel:    o.Channel,
		Platforms:  bundle.Info{Platforms: o.Platforms}.PlatformNames(),
		VolumeSize: o.VolumeSize,
		Choice: bundle.DigestOf(
			fmt.Appendf(nil, "%q", []any{o.Choice.Deployment, o.Choice.With, o.Choice.Without, o.Choice.Set, o.WithoutReferrers, o.Lock != nil}),
		),
	}
}

func (o *Options) info() bundle.Info {
	return bundle.Info{
		Name: o.selection.Name, Version: o.selection.Version,
		Channel: o.Channel, Sequence: *o.Sequence, Created: o.Now, Platforms: o.Platforms,
	}
}
