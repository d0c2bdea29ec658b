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
	"runtime"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
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
	Platforms  []bundle.Platform // none means linux on this machine's architecture, or the lock's
	Channel    string            // empty means name and platforms joined by /, or the lock's
	Sequence   *int64            // nil means the creation time in Unix seconds, or the lock's
	Output     string            // empty means NAME_VERSION_OS-ARCH.oob.tar
	VolumeSize int64             // bytes; 0 means one file
	Reuse      []string          // earlier bundles, from which blobs are taken
	Jobs       int               // connections at a time; 0 means 8
	Program    string            // version, for the lock
	Now        time.Time         // only used where there is no lock

	// Resolved, if not nil, is called when every size is known. What it returns
	// is told how the payload comes.
	Resolved func(g *bundle.Geometry, images int) bundle.Watch
	Warn     func(format string, args ...any) // nil means that nobody wants to know
}

// Result describes the finished bundle.
type Result struct {
	Geometry *bundle.Geometry
	Identity bundle.Digest
	Lock     *manifests.Lock
	Output   string   // the path by which the bundle is opened
	Volumes  []string // the paths of the parts; none for one file
	LockFile string
}

// LockFile returns the name of the lock that is written beside a bundle.
func LockFile(output string) string { return output + ".lock.yaml" }

// Run creates the bundle, or finishes what an interrupted run began. Nothing
// stands under the name of the output until it is complete, signed and durable.
// Errors wrap manifests.ErrInvalid or ErrMismatch, bundle.ErrPolicy, ErrLimit,
// ErrFormat or ErrSpace, remote.ErrRegistry, ErrLocked, or are the file system's.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	out, err := openOutput(o.Output, o.VolumeSize)
	if err != nil {
		return nil, err
	}
	defer func() {
		if result == nil {
			err = errors.Join(err, out.abandon())
		}
	}()
	if err := o.setTime(out.journal.begun); err != nil {
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
	g, err := bundle.NewGeometry(content.root, content.load)
	if err != nil {
		return nil, err
	}
	f := newFiller(g, content, out)
	f.reuse, f.warn = reuse, o.Warn
	if o.Resolved != nil {
		f.watch = o.Resolved(g, len(images))
	}
	if err := out.begin(o.beginning(), g); err != nil {
		return nil, err
	}
	f.resume()
	if err := f.run(ctx, o.Jobs); err != nil {
		return nil, err
	}
	result = &Result{
		Geometry: g, Identity: bundle.DigestOf(g.Root), Lock: lock, Output: out.first(), LockFile: LockFile(o.Output),
	}
	if result.Volumes, err = o.finish(out, g, lock); err != nil {
		return nil, err
	}
	return result, nil
}

// finish signs, writes what is not a blob, and gives the file its name. It
// returns the names of the volumes, if there are any.
func (o *Options) finish(out *output, g *bundle.Geometry, lock *manifests.Lock) ([]string, error) {
	own, err := o.Signer.Sign(g.Root)
	if err != nil {
		return nil, err
	}
	slot, err := bundle.EncodeSlot([]bundle.Signature{own})
	if err != nil {
		return nil, err
	}
	if err := g.WriteFrame(out.file, slot); err != nil {
		return nil, err
	}
	lockData, err := lock.Encode()
	if err != nil {
		return nil, err
	}
	if err := bundle.WriteFile(LockFile(o.Output), lockData, 0o644); err != nil {
		return nil, err
	}
	return out.place()
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
	if o.Output == "" {
		var p []string
		for _, platform := range o.Platforms {
			p = append(p, strings.ReplaceAll(platform.String(), "/", "-"))
		}
		o.Output = fmt.Sprintf("%s_%s_%s.oob.tar", o.Manifest.Metadata.Name, o.Manifest.Metadata.Version, strings.Join(p, "_"))
	}
	return nil
}

// setTime decides about time and sequence: a run that goes on with what an
// interrupted one began has its time, so that the bundle is the same.
func (o *Options) setTime(interrupted *beginning) error {
	if interrupted != nil && o.Lock == nil && o.beginning().continues(*interrupted) {
		o.Now = interrupted.Created
	}
	o.Now = o.Now.UTC().Truncate(time.Second)
	if o.Sequence == nil {
		s := o.Now.Unix()
		o.Sequence = &s
	}
	if err := o.info().Check(); err != nil {
		return fmt.Errorf("%w: %w", manifests.ErrInvalid, err)
	}
	return nil
}

func (o *Options) beginning() beginning {
	return beginning{
		APIVersion: bundle.APIVersion, Kind: "CreateJournal", Manifest: o.Manifest.Digest, Program: o.Program,
		Channel: o.Channel, Platforms: bundle.Info{Platforms: o.Platforms}.PlatformNames(), Created: o.Now, VolumeSize: o.VolumeSize,
	}
}

func (o *Options) info() bundle.Info {
	return bundle.Info{
		Name: o.Manifest.Metadata.Name, Version: o.Manifest.Metadata.Version,
		Channel: o.Channel, Sequence: *o.Sequence, Created: o.Now, Platforms: o.Platforms,
	}
}
