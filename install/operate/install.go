package operate

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/record"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/verify"
)

// Source names a bundle and configures its installation.
type Source struct {
	Path      string     // of the bundle file; "" with Reference
	Reference *Reference // a bundle that another host has installed into a registry
	Policy    verify.Policy
	// Registry is HOST[:PORT][/PREFIX] or registry.Name. If it is "", the deployment's
	// registry is used, or the one below the root. It must be empty with Reference.
	Registry string
	// HostRoot and FirstHostRoot are the fields of install.Options.
	HostRoot, FirstHostRoot string
	Values                  string // YAML file; "" means the values of the current release
	TakeOver                bool
	AllowDowngrade          bool
}

// Reference identifies a bundle in a registry.
type Reference struct {
	Address string // HOST[:PORT][/PREFIX]
	Name    string // of the bundle
	Version string // tag or digest; "" for the only channel
}

func (r Reference) String() string {
	s := "oci://" + r.Address + "/oob-bundle/" + r.Name
	switch {
	case strings.HasPrefix(r.Version, "sha256:"):
		return s + "@" + r.Version
	case r.Version != "":
		return s + ":" + r.Version
	}
	return s
}

// name returns the name of the bundle for messages.
func (s Source) name() string {
	if s.Reference != nil {
		return s.Reference.String()
	}
	return s.Path
}

// opened contains a verified bundle, its target and the lock of the root.
type opened struct {
	verified *verify.Verified
	target   install.Registry
	options  install.Options
	close    func() error
}

// sized is the content of a bundle, local or in a registry.
type sized interface {
	io.ReaderAt
	Size() int64
}

// open verifies a bundle, locks the root and opens the target. The caller must call close.
func (o *Operator) open(ctx context.Context, s Source) (_ *opened, err error) {
	x := &opened{options: install.Options{
		Root:           o.Root,
		HostRoot:       s.HostRoot,
		FirstHostRoot:  s.FirstHostRoot,
		Policy:         s.Policy,
		AllowDowngrade: s.AllowDowngrade,
		TakeOver:       s.TakeOver,
		Warn:           o.Warn,
		PlainHTTP:      o.Unencrypted,
		Chosen:         s.Registry != "" || s.Reference != nil,
		InPlace:        s.Reference != nil,
	}}
	var closers []func() error
	x.close = func() error {
		var problems []error
		for _, c := range slices.Backward(closers) {
			problems = append(problems, c())
		}
		return errors.Join(problems...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.close())
		}
	}()
	if s.Values != "" {
		if x.options.Values, err = host.ReadValues(s.Values); err != nil {
			return nil, err
		}
	}
	var file sized
	address := s.Registry
	if s.Reference != nil {
		address = s.Reference.Address
		if file, err = o.onRegistry(ctx, *s.Reference, s.Policy); err != nil {
			return nil, err
		}
	} else {
		local, err := bundle.OpenFile(s.Path, os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		closers = append(closers, local.Close)
		file = local
	}
	if x.verified, err = verify.Open(ctx, file, file.Size(), s.Policy); err != nil {
		return nil, OfBundle(s.name(), err)
	}
	lock, err := install.Acquire(o.Root)
	if err != nil {
		return nil, err
	}
	closers = append(closers, lock.Release)
	x.target, err = o.openTarget(ctx, address, x.verified.Info.Name)
	if e, ok := x.target.Target.(*registry.External); ok {
		e.Expect(x.verified.Geometry)
	}
	return x, err
}

// Verified verifies a bundle in a registry and returns it.
func (o *Operator) Verified(ctx context.Context, ref Reference, policy verify.Policy) (*verify.Verified, error) {
	file, err := o.onRegistry(ctx, ref, policy)
	if err != nil {
		return nil, err
	}
	v, err := verify.Open(ctx, file, file.Size(), policy)
	if err != nil {
		return nil, OfBundle(ref.String(), err)
	}
	return v, nil
}

// onRegistry finds a bundle that another host has installed into a registry. It verifies the
// bundle's root before it requests anything else.
func (o *Operator) onRegistry(ctx context.Context, ref Reference, policy verify.Policy) (sized, error) {
	client, err := o.Client()
	if err != nil {
		return nil, err
	}
	repo := install.CentralRepository(ref.Name)
	e := registry.OpenExternal(client, ref.Address, repo)
	version := ref.Version
	if version == "" {
		if version, err = e.OnlyChannel(ctx, repo); err != nil {
			return nil, err
		}
	}
	heads, err := e.Heads(ctx, repo, version)
	if err != nil {
		return nil, err
	}
	good := slices.IndexFunc(heads, func(h *bundle.Head) bool {
		_, _, err := verify.Root(h, policy)
		return err == nil
	})
	head := heads[max(good, 0)]
	info, _, err := verify.Root(head, policy)
	if err == nil {
		err = install.CheckAsked(info, head.Identity(), ref.Name, version)
	}
	if err != nil {
		return nil, OfBundle(ref.String(), err)
	}
	v, err := e.Bundle(ctx, repo, head)
	if err != nil {
		return nil, OfBundle(ref.String(), err)
	}
	return v, nil
}

// InstallOptions contains the options of Install.
type InstallOptions struct {
	Source
	DryRun       bool // check everything and change nothing
	Start        bool // start the release and wait until it is healthy
	StartTimeout time.Duration
}

// InstallResult describes what Install did. With DryRun it contains only the preview.
type InstallResult struct {
	*install.Result
	Preview *install.Preview
	InPlace bool // the bundle comes from the registry that it is installed into
	Serves  bool // images are in the registry below the root
}

// Install verifies a bundle and installs its content. Errors are those of verify.Open,
// install.NewPlan, Plan.Apply and package service. Errors about the bundle or the target
// registry are a BundleError or a RegistryError.
func (o *Operator) Install(ctx context.Context, opt InstallOptions) (result *InstallResult, err error) {
	x, err := o.open(ctx, opt.Source)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	v, name := x.verified, opt.name()
	launch := &launch{Operator: o, target: x.target, manager: o.manager(opt.StartTimeout)}
	if opt.Start {
		x.options.Before, x.options.Start = launch.before, true
	}
	plan, err := install.NewPlan(ctx, v, x.target, x.options)
	if err != nil {
		return nil, OfBundle(name, filling(x.target, err))
	}
	if opt.Start {
		if err := launch.manager.Check(ctx, v.Deployment.Form, plan.Links()); err != nil {
			return nil, err
		}
	}
	o.notePlatform(name, v.Info)
	result = &InstallResult{InPlace: x.options.InPlace}
	if opt.DryRun {
		result.Preview, err = plan.Preview(ctx)
		return result, err
	}
	o.noteStoring(name, plan, v, x.target)
	watch, done := o.Progress("store", v.Geometry)
	result.Result, err = plan.Apply(ctx, watch)
	done()
	if err != nil {
		return nil, OfBundle(name, filling(x.target, err))
	}
	for _, n := range result.Notes {
		o.Warn("%s", n)
	}
	if h := v.Deployment.Host; h != nil && len(plan.Links()) == 0 &&
		slices.ContainsFunc(h.Links, func(l bundle.Link) bool { return l.If == "" }) {
		o.Note("No links are made in /etc with this root; --host-root says below which directory they are to be")
	}
	if opt.Start {
		if err := launch.after(ctx, result.Release); err != nil {
			return nil, err
		}
	}
	if running, err := launch.manager.Running(v.Info.Name); err == nil && running != nil && running.ID != result.Release.ID {
		o.Warn(
			"what was started last is %s %s, and stays so until this one is started: oob-bundle install with --start",
			running.Name, running.Version,
		)
	}
	_, embedded := x.target.Target.(*registry.Embedded)
	result.Serves = embedded && !result.Nothing && len(result.Receipt.Images) > 0
	return result, nil
}

// notePlatform prints a note if the host can serve the images but not run them.
func (o *Operator) notePlatform(name string, info bundle.Info) {
	own := bundle.Platform{OS: "linux", Architecture: runtime.GOARCH}
	runs := func(p bundle.Platform) bool { _, ok := own.Runs(p); return ok }
	if !slices.ContainsFunc(info.Platforms, runs) {
		o.Note(
			"%s is for %s and this host is %s: it can serve the images to other machines, and run none",
			name, strings.Join(info.PlatformNames(), ", "), own,
		)
	}
}

// noteStoring prints a note about what is going to be stored.
func (o *Operator) noteStoring(name string, plan *install.Plan, v *verify.Verified, target install.Registry) {
	switch {
	case plan.Done():
	case plan.Options.InPlace:
		o.Note("%s: signature and manifests are good; laying out %s %s, whose images %s has", name, v.Info.Name, v.Info.Version, target.Address)
	default:
		o.Note("%s: signature, headers and manifests are good; storing %s %s (%s, %s) in %s",
			name, v.Info.Name, v.Info.Version, count(len(v.Deployment.Images), "image"), record.Human(v.PayloadSize()), target.Address)
	}
}

// filling returns an error of the external target registry as a RegistryError.
func filling(target install.Registry, err error) error {
	if target.Name != registry.Name && errors.Is(err, remote.ErrRegistry) {
		return &RegistryError{err}
	}
	return err
}

// count formats a number of things: 1 file, 2 files.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}
