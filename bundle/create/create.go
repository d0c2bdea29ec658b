// Package create turns a manifest into a signed bundle:
//
//	Manifest ─resolve→ Lock ─index→ index.json ─geometry→ offsets ─fetch in parallel→ FILE.partial ─sign→ rename
//
// The content of index.json is final before the first layer is fetched, so every blob
// is written directly to its place in the file.
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

// ErrLocked reports that another run is writing the same file.
var ErrLocked = errors.New("another run is at work")

// Options describe the bundle to create. Manifest and Source are required; Run also requires
// Signer.
type Options struct {
	Manifest   *manifests.Manifest
	Lock       *manifests.Lock // nil means resolve from the manifest alone
	Source     *pull.Source
	Signer     *sign.Signer
	Platforms  []bundle.Platform // empty means the lock's, or the manifest's first, or linux on this machine's architecture
	Choice     manifests.Choice  // Choice.Platforms is ignored; set Platforms instead
	Channel    string            // empty means the lock's, or name, deployment and platforms joined by /
	Sequence   *int64            // nil means the lock's, or the creation time in Unix seconds
	Output     string            // empty means NAME_VERSION_OS-ARCH.oob.tar
	VolumeSize int64             // bytes; 0 means one file
	Reuse      []string          // paths of earlier bundles; blobs are copied from them instead of fetched
	Jobs       int               // number of parallel connections; 0 means 8
	Program    string            // version of oob-bundle, for the lock
	KeyFile    string            // private key file, for the record; empty means oob.key
	Installer  string            // path of the program to place beside the bundle; empty means none
	Now        time.Time         // creation time; with a lock, only used to refuse a lock from the future

	// WithoutReferrers leaves out upstream's signatures, attestations and SBOMs.
	WithoutReferrers bool

	// Resolved, if not nil, is called when every size is known. The Watch that it
	// returns receives the progress of the payload.
	Resolved func(g *bundle.Geometry, l *manifests.Lock) bundle.Watch
	Warn     func(format string, args ...any) // nil discards warnings
}

// job is Options completed from the lock, the defaults and the manifest's own choices.
type job struct {
	Options
	selection *manifests.Selection
	sequence  int64
}

// newJob completes o. Errors wrap manifests.ErrInvalid or ErrMismatch.
func newJob(o Options) (*job, error) {
	j := &job{Options: o}
	if err := j.setDefaults(); err != nil {
		return nil, err
	}
	return j, j.setTime()
}

// Result describes the finished bundle.
type Result struct {
	Geometry *bundle.Geometry
	Identity bundle.Digest
	Lock     *manifests.Lock
	Output   string   // the path to open the bundle by
	Volumes  []string // the paths of the volumes; empty for one file
	LockFile string
	Record   string     // the transfer record
	Kit      []kit.File // files placed beside the bundle; the program first
	Reused   int64      // bytes copied from earlier bundles
	Needs    []string   // names of the values that an installation requires
}

// LockFile returns the path of the lock that Run writes beside a bundle.
func LockFile(output string) string { return output + ".lock.yaml" }

// geometry returns the layout of the bundle. Before anything is fetched, geometry refuses
// a bundle that verification or installation would refuse.
func (c *content) geometry() (*bundle.Geometry, error) {
	g, err := bundle.NewGeometry(c.root, c.load)
	if errors.Is(err, bundle.ErrFormat) && !errors.Is(err, bundle.ErrLimit) { // not a damaged bundle
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
	if err == nil { // the author chooses names of versions and settings
		var document []byte
		if document, err = bundle.Encode(c.deployment); err == nil {
			err = bundle.DecodeStrict(document, new(bundle.Deployment))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: this cannot be one bundle: %s", manifests.ErrInvalid, err) //nolint:errorlint // not a damaged bundle
	}
	return g, nil
}

// lay resolves the manifest and lays out the bundle. Content that must be inspected is
// downloaded to dir.
func (j *job) lay(ctx context.Context, dir string) (*manifests.Lock, *content, *bundle.Geometry, error) {
	resolved, err := j.resolve(ctx, dir)
	if err != nil {
		return nil, nil, nil, err
	}
	lock, err := j.lock(resolved)
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := assemble(lock, j.selection, resolved)
	if err != nil {
		return nil, nil, nil, err
	}
	g, err := c.geometry()
	if err != nil {
		return nil, nil, nil, err
	}
	return lock, c, g, nil
}

// checkWritten checks the files for the host as written to the bundle.
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

// Run creates the bundle, or completes an interrupted run. The output gets its name
// only after it is complete, signed and durable. Errors wrap manifests.ErrInvalid or
// ErrMismatch, bundle.ErrPolicy, ErrLimit, ErrFormat, ErrSignature, ErrDigest or
// ErrNewer, disk.ErrSpace, remote.ErrRegistry, kit.ErrProgram, ErrLocked, or are the
// file system's.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	j, err := newJob(o)
	if err != nil {
		return nil, err
	}
	program, err := j.openBeside()
	if err != nil {
		return nil, err
	}
	if program != nil {
		defer func() { err = errors.Join(err, program.Close()) }()
	}
	out, err := openOutput(j.Output, j.VolumeSize)
	if err != nil {
		return nil, err
	}
	if program != nil {
		out.beside += program.Size
	}
	if other := out.otherForm(); other != "" {
		j.Warn("%s is there, too: lock and record beside it will be of the bundle that is made now", other)
	}
	defer func() {
		if result == nil {
			err = errors.Join(err, out.abandon())
		}
	}()
	reuse, err := openReusable(j.Reuse)
	defer func() {
		for _, r := range reuse {
			err = errors.Join(err, r.file.Close())
		}
	}()
	if err != nil {
		return nil, err
	}
	lock, content, g, err := j.lay(ctx, out.intake())
	if err != nil {
		return nil, err
	}
	f := newFiller(g, content, out)
	f.reuse, f.warn = reuse, j.Warn
	if j.Resolved != nil {
		f.watch = j.Resolved(g, lock)
	}
	if err := out.begin(j.beginning(), g); err != nil {
		return nil, err
	}
	f.resume()
	if err := f.run(ctx, j.Jobs); err != nil {
		return nil, err
	}
	if err := checkWritten(ctx, content.deployment, g, out.file); err != nil {
		return nil, err
	}
	result = &Result{
		Geometry: g, Identity: bundle.DigestOf(g.Root), Lock: lock, Output: out.first(), LockFile: LockFile(j.Output),
		Reused: f.reused.Load(),
	}
	own, err := j.sign(out, g, lock)
	if err != nil {
		return nil, err
	}
	b := beside{job: j, out: out, program: program, signature: own, reuse: reuse}
	if err := b.write(result); err != nil {
		return nil, err
	}
	if result.Volumes, err = out.place(); err != nil {
		return nil, err
	}
	j.warnReplaced(result, out.before)
	return result, nil
}

// warnReplaced warns if the bundle has replaced another bundle.
func (j *job) warnReplaced(r *Result, before bundle.Digest) {
	if before != "" && before != r.Identity {
		j.Warn("%s was the bundle %s before, and is another one now", r.Output, before)
	}
}

// Lock resolves a manifest without fetching layers. Lock inspects plugins and charts,
// keeps downloads below dir, and removes dir at the end. Errors are those of Run.
func Lock(ctx context.Context, o Options, dir string) (l *manifests.Lock, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	j, err := newJob(o)
	if err != nil {
		return nil, err
	}
	r, err := j.resolve(ctx, dir)
	if err != nil {
		return nil, err
	}
	return j.lock(r)
}

// resolve resolves the selection. It warns of moved tags, of referrers that are not
// carried, of verifyImages rules that match nothing, and of images that charts name and
// the selection lacks.
func (j *job) resolve(ctx context.Context, dir string) (*pull.Resolved, error) {
	r, err := j.Source.Resolve(ctx, pull.Request{
		Selection: j.selection, Jobs: j.Jobs, Dir: dir, WithoutReferrers: j.WithoutReferrers, Pinned: j.pinned,
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
			j.Warn(
				"%s: the lock has %s, and %s; if that is a surprise, compare the lock with the one that was reviewed",
				i.Reference, i.Top.Digest, i.Moved,
			)
		}
	}
	carried := map[string]bool{}
	for _, i := range r.Images {
		carried[i.Reference.Repository()] = true
		j.warnOf(i)
	}
	for _, c := range r.Charts {
		j.warnOf(c.OCI)
	}
	for _, v := range j.selection.VerifyImages {
		if !slices.ContainsFunc(r.Images, func(i *pull.Image) bool { return i.Called(v.Images) }) &&
			!slices.ContainsFunc(r.Charts, func(c *pull.Chart) bool { return c.OCI != nil && c.OCI.Called(v.Images) }) {
			j.Warn("verifyImages asks for signatures on %s, and no image is called that: nothing was checked by it", v.Images)
		}
	}
	for _, c := range r.Charts {
		for _, image := range c.Images {
			ref, err := bundle.ParseReference(image)
			unused := func(p string) bool { return manifests.MatchImages(p, ref.Repository()) }
			if err != nil || carried[ref.Repository()] || slices.ContainsFunc(c.Wanted.UnusedImages, unused) {
				continue
			}
			j.Warn(
				"chart %s %s names the image %s, which is not carried; add it, or name it in unusedImages",
				c.Wanted.Name, c.Wanted.Version, image,
			)
		}
	}
	return r, j.warnUnquoted(r.Files)
}

// warnUnquoted warns of templates that print values without quotes.
func (j *job) warnUnquoted(files []*pull.Blob) error {
	for _, f := range files {
		found, err := j.selection.Host.Unquoted(f.Wanted.Path, f.Text)
		if err != nil {
			return err
		}
		for _, u := range found {
			j.Warn("template %s, line %d: %s is not quoted for this kind of file; "+
				"print it with the function %s (docs/host.md, Quoting)", f.Wanted.Path, u.Line, u.Value, u.Use)
		}
	}
	return nil
}

// warnOf prints the warnings about i: the referrers that are not carried. i may be nil.
func (j *job) warnOf(i *pull.Image) {
	if i == nil {
		return
	}
	for _, w := range i.Warnings {
		j.Warn("%s: %s", i.Reference, w)
	}
}

// sign signs the root, and writes the lock and everything in the bundle but the blobs.
func (j *job) sign(out *output, g *bundle.Geometry, lock *manifests.Lock) (bundle.Signature, error) {
	own, err := j.Signer.Sign(g.Root)
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
	if err := out.file.Sync(); err != nil { // before any file of an earlier bundle is replaced
		return own, err
	}
	lockData, err := lock.Encode()
	if err != nil {
		return own, err
	}
	return own, disk.WriteFile(LockFile(j.Output), lockData, 0o644)
}

// setDefaults sets the options that are unset, from the lock if there is one, and
// refuses options that contradict the lock.
func (j *job) setDefaults() error {
	if j.Jobs == 0 {
		j.Jobs = 8
	}
	if j.Warn == nil {
		j.Warn = func(string, ...any) {}
	}
	if j.Lock != nil {
		if err := j.followLock(); err != nil {
			return err
		}
	}
	if len(j.Platforms) == 0 && len(j.Manifest.Platforms) == 0 {
		j.Platforms = []bundle.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	j.Choice.Platforms = j.Platforms
	var err error
	if j.selection, err = j.Manifest.Select(j.Choice); err != nil {
		return err
	}
	j.Platforms = j.selection.Platforms
	if j.Channel == "" {
		parts := []string{j.selection.Name}
		if j.selection.Deployment != "" {
			parts = append(parts, j.selection.Deployment)
		}
		for _, p := range j.Platforms {
			parts = append(parts, p.String())
		}
		j.Channel = strings.Join(parts, "/")
	}
	if j.Output == "" {
		var p []string
		for _, platform := range j.Platforms {
			p = append(p, strings.ReplaceAll(platform.String(), "/", "-"))
		}
		j.Output = fmt.Sprintf("%s_%s_%s.oob.tar", j.selection.Name, j.selection.Version, strings.Join(p, "_"))
	}
	return nil
}

// setTime sets time and sequence. Both come from this run, from flags or from the lock,
// never from the journal of an interrupted run.
func (j *job) setTime() error {
	j.Now = j.Now.UTC().Truncate(time.Second)
	if j.sequence = j.Now.Unix(); j.Sequence != nil {
		j.sequence = *j.Sequence
	}
	if j.sequence > maxSequence {
		return fmt.Errorf(
			"%w: the sequence %d leaves no room for later bundles of the channel; at most %d are used",
			manifests.ErrInvalid, j.sequence, int64(maxSequence),
		)
	}
	if err := j.info().Check(); err != nil {
		return fmt.Errorf("%w: %w", manifests.ErrInvalid, err)
	}
	return nil
}

// maxSequence is the highest sequence that create signs. The format allows more, but a
// host that has installed the highest sequence refuses every later bundle.
const maxSequence = 1 << 62

func (j *job) beginning() beginning {
	return beginning{
		APIVersion: bundle.APIVersion,
		Kind:       "CreateJournal",
		Manifest:   j.Manifest.Digest,
		Program:    j.Program,
		Channel:    j.Channel,
		Platforms:  bundle.Info{Platforms: j.Platforms}.PlatformNames(),
		VolumeSize: j.VolumeSize,
		Choice: bundle.DigestOf(
			fmt.Appendf(nil, "%q", []any{j.Choice.Deployment, j.Choice.With, j.Choice.Without, j.Choice.Set, j.WithoutReferrers, j.Lock != nil}),
		),
	}
}

func (j *job) info() bundle.Info {
	return bundle.Info{
		Name: j.selection.Name, Version: j.selection.Version,
		Channel: j.Channel, Sequence: j.sequence, Created: j.Now, Platforms: j.Platforms,
	}
}
