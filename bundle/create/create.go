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
