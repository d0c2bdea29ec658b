package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
	"github.com/oob-bundle/oob-bundle/verify"
)

// targetFlags say how a registry on this network is reached.
type targetFlags struct {
	plainHTTP []string
	caFile    string
}

func (f *targetFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.plainHTTP, "plain-http", nil, "speak to `HOST[:PORT]` without TLS; may be repeated")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "PEM `FILE` with further certificate authorities")
}

func (f *targetFlags) client() (*remote.Client, error) {
	return remote.New(remote.Options{PlainHTTP: f.plainHTTP, CAFile: f.caFile, UserAgent: userAgent()})
}

// openTarget returns the target of a name: a registry's address, or that of the one
// below root.
func (f *targetFlags) openTarget(ctx context.Context, root, name, deployment string) (install.Target, error) {
	if name == "" || name == embeddedName {
		return registry.OpenEmbedded(ctx, root)
	}
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	return registry.OpenExternal(client, name, install.CentralRepository(deployment)), nil
}

// unencrypted reports whether a container engine speaks to an address without TLS: to
// the registry of this host, unless that was given one, and to what --plain-http names.
func (f *targetFlags) unencrypted(address string) bool {
	return address == registry.DefaultListen || f.plain(address)
}

// plain reports whether an address is spoken to without TLS.
func (f *targetFlags) plain(address string) bool {
	name, _, _ := strings.Cut(address, "/")
	for _, p := range f.plainHTTP {
		if p == name {
			return true
		}
	}
	return false
}

// hostFlags say where files go besides the root.
type hostFlags struct{ hostRoot string }

func (f *hostFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.hostRoot, "host-root", "", "`DIR` whose etc/ gets the links of units and configurations (default / with the default --root, none with another)")
}

// first returns the directory whose etc/ gets the links of a first release, or "" for none.
func (f *hostFlags) first(root string) string {
	if filepath.Clean(root) == install.DefaultRoot {
		return "/"
	}
	return ""
}

type installFlags struct {
	trustFlags
	targetFlags
	hostFlags
	registry, values         string
	dryRun, start            bool
	startTimeout             time.Duration
	allowDowngrade, takeOver bool
}

func (f *installFlags) addFlags(c *cobra.Command) {
	f.trustFlags.add(c)
	f.targetFlags.add(c)
	f.hostFlags.add(c)
	c.Flags().StringVar(&f.registry, "registry", "", "push to this one, `HOST[:PORT][/PREFIX]`, instead of the registry below ROOT")
	c.Flags().StringVar(&f.values, "values", "", "YAML `FILE` of what only this site knows (default the values of the current release)")
	c.Flags().BoolVar(&f.takeOver, "take-over", false, "take names, tags and paths that belong to another channel or to the host")
}

func installCommand(u *ui) *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "install BUNDLE [--key PUB]...",
		Short: "Verify a bundle and put its content in place",
		Long: `Images go into the registry below ROOT, or with --registry into one on this
network, and files are laid out below ROOT/deployments. No tag and
no file changes before the last byte is verified. Installing the same bundle again
does nothing. BUNDLE is a file, or oci://REGISTRY/oob-bundle/NAME for one that
another host has installed into a registry of this network.

--start also starts what was installed, with Docker Compose or systemd, waits until
it is well, and goes back to the release before if it does not come up; a
database is dumped before an upgrade, and the dump is put back then.`,
		Example: `  oob-bundle install /media/disk/app.oob.tar --key oob.pub
  oob-bundle install /media/disk/app.oob.tar --values site.yaml --dry-run
  oob-bundle install /media/disk/app.oob.tar --values site.yaml --start
  oob-bundle install /media/disk/app.oob.tar --registry registry.site:5000`,
		Args: needs("BUNDLE"),
		RunE: func(c *cobra.Command, args []string) error { return u.install(c.Context(), args[0], f) },
	}
	f.addFlags(c)
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and do nothing")
	c.Flags().BoolVar(&f.start, "start", false, "start what was installed and wait until it is well")
	c.Flags().DurationVar(&f.startTimeout, "start-timeout", 5*time.Minute, "`TIME` that it may take to come up")
	c.Flags().BoolVar(&f.allowDowngrade, "allow-downgrade", false, "install although a newer bundle of this channel was here; this one counts as the newest afterwards")
	u.jsonFlag(c)
	return c
}

// opened is a verified bundle, the lock of the root, and the target.
type opened struct {
	verified *verify.Verified
	target   install.Target
	options  install.Options
	close    func() error
}

// open verifies a bundle and prepares everything that changes the root. What was
// opened is closed by the caller.
func (u *ui) open(ctx context.Context, path string, f installFlags) (_ *opened, err error) {
	if strings.Contains(f.registry, "://") {
		return nil, wrongUsage("--registry %q is not HOST[:PORT][/PREFIX]; leave the scheme away", f.registry)
	}
	policy, err := f.policy()
	if err != nil {
		return nil, err
	}
	o := &opened{options: install.Options{
		Root: f.root, HostRoot: f.hostRoot, FirstHostRoot: f.first(f.root), Policy: policy, AllowDowngrade: f.allowDowngrade, TakeOver: f.takeOver, Warn: u.warn,
		PlainHTTP: f.unencrypted,
	}}
	var closers []func() error
	o.close = func() error {
		var problems []error
		for i := len(closers) - 1; i >= 0; i-- {
			problems = append(problems, closers[i]())
		}
		return errors.Join(problems...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if f.values != "" {
		if o.options.Values, err = host.ReadValues(f.values); err != nil {
			return nil, err
		}
	}
	var file sized
	if rest, ok := strings.CutPrefix(path, "oci://"); ok {
		given := f.registry
		if file, f.registry, err = f.onRegistry(ctx, rest, policy); err != nil {
			return nil, err
		}
		if given != "" && given != f.registry {
			return nil, wrongUsage("a bundle of a registry is installed from that one; leave --registry away")
		}
		o.options.InPlace = true
	} else {
		local, err := bundle.OpenFile(path, os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		closers = append(closers, local.Close)
		file = local
	}
	if o.verified, err = verify.Open(ctx, file, file.Size(), policy); err != nil {
		return nil, &bundleError{path, err}
	}
	lock, err := install.Acquire(f.root)
	if err != nil {
		return nil, err
	}
	closers = append(closers, lock.Release)
	o.options.Chosen = f.registry != ""
	if f.registry != "" && f.registry != embeddedName {
		name, prefix, _ := strings.Cut(f.registry, "/")
		if strings.ToLower(prefix) != prefix {
			return nil, wrongUsage("--registry %q is not HOST[:PORT][/PREFIX]; registries know names in lower case only", f.registry)
		}
		if !isHost(name) {
			return nil, wrongUsage("--registry %q is not HOST[:PORT][/PREFIX]; write the host with a dot or a port", f.registry)
		}
	}
	o.target, err = f.openTarget(ctx, f.root, f.registry, o.verified.Info.Name)
	if e, ok := o.target.(*registry.External); ok {
		e.Expect(o.verified.Geometry)
	}
	return o, err
}

// sized is a bundle, wherever it is.
type sized interface {
	io.ReaderAt
	Size() int64
}

// onRegistry finds a bundle that another host has installed into a registry, and
// verifies its root before anything else is asked for. It returns the registry's address.
func (f *targetFlags) onRegistry(ctx context.Context, ref string, policy verify.Policy) (sized, string, error) {
	address, name, version, err := parseOnRegistry(ref)
	if err != nil {
		return nil, "", err
	}
	client, err := f.client()
	if err != nil {
		return nil, "", err
	}
	repo := install.CentralRepository(name)
	e := registry.OpenExternal(client, address, repo)
	if version == "" {
		if version, err = e.OnlyChannel(ctx, repo); err != nil {
			return nil, "", err
		}
	}
	heads, err := e.Heads(ctx, repo, version)
	if err != nil {
		return nil, "", err
	}
	good := slices.IndexFunc(heads, func(h *bundle.Head) bool {
		_, _, err := verify.Root(h, policy)
		return err == nil
	})
	head := heads[max(good, 0)]
	info, _, err := verify.Root(head, policy)
	if err == nil {
		err = install.CheckAsked(info, head.Identity(), name, version)
	}
	if err != nil {
		return nil, "", &bundleError{"oci://" + ref, err}
	}
	v, err := e.Bundle(ctx, repo, head)
	if err != nil {
		return nil, "", &bundleError{"oci://" + ref, err}
	}
	return v, address, nil
}

// parseOnRegistry splits what follows oci:// into the registry's address, the name of
// the bundle, and a tag or digest, which may be empty.
func parseOnRegistry(ref string) (address, name, version string, err error) {
	address, name, ok := strings.Cut(ref, "/oob-bundle/")
	name, version, _ = strings.Cut(name, "@")
	if version == "" {
		name, version, _ = strings.Cut(name, ":")
	}
	if host, _, _ := strings.Cut(address, "/"); !ok || name == "" || strings.Contains(name, "/") || !isHost(host) {
		return "", "", "", wrongUsage("oci://%s is not oci://HOST[:PORT][/PREFIX]/oob-bundle/NAME[:TAG]", ref)
	}
	return address, name, version, nil
}

func (u *ui) install(ctx context.Context, path string, f installFlags) (err error) {
	if f.dryRun && f.start {
		return wrongUsage("--dry-run starts nothing; leave --start away")
	}
	o, err := u.open(ctx, path, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	v := o.verified
	launch := &launch{u: u, f: f, target: o.target, manager: service.New(f.root, f.unencrypted, f.startTimeout, u.note)}
	if f.start {
		o.options.Before, o.options.Start = launch.before, true
	}
	plan, err := install.NewPlan(ctx, v, o.target, o.options)
	if err != nil {
		return &bundleError{path, f.filling(err)}
	}
	if f.start {
		if err := launch.manager.Check(ctx, v.Deployment.Form, plan.Links()); err != nil {
			return err
		}
	}
	if own := (bundle.Platform{OS: "linux", Architecture: runtime.GOARCH}); !slices.ContainsFunc(v.Info.Platforms, func(p bundle.Platform) bool { _, runs := own.Runs(p); return runs }) {
		u.note("%s is for %s and this host is %s: it can serve the images to other machines, and run none", path, strings.Join(v.Info.PlatformNames(), ", "), own)
	}
	if f.dryRun {
		preview, err := plan.Preview(ctx)
		if err != nil {
			return err
		}
		return u.result(preview, func(w io.Writer) { printPreview(w, preview, o.options.InPlace) })
	}
	switch {
	case plan.Done():
	case o.options.InPlace:
		u.note("%s: signature and manifests are good; laying out %s %s, whose images %s has", path, v.Info.Name, v.Info.Version, o.target.Address())
	default:
		u.note("%s: signature, headers and manifests are good; storing %s %s (%s, %s) in %s",
			path, v.Info.Name, v.Info.Version, count(len(v.Deployment.Images), "image"), human(v.PayloadSize()), o.target.Address())
	}
	p := u.progress("store", v.Geometry)
	r, err := plan.Apply(ctx, p.watch())
	p.stop()
	if err != nil {
		return &bundleError{path, f.filling(err)}
	}
	for _, n := range r.Notes {
		u.warn("%s", n)
	}
	if h := v.Deployment.Host; h != nil && len(plan.Links()) == 0 && slices.ContainsFunc(h.Links, func(l bundle.Link) bool { return l.If == "" }) {
		u.note("No links are made in /etc with this root; --host-root says below which directory they are to be")
	}
	if f.start {
		if err := launch.after(ctx, r.Release); err != nil {
			return err
		}
	}
	if running, err := launch.manager.Running(v.Info.Name); err == nil && running != nil && running.ID != r.Release.ID {
		u.warn("what was started last is %s %s, and stays so until this one is started: oob-bundle install with --start", running.Name, running.Version)
	}
	return u.result(r.Receipt, func(w io.Writer) { printReceipt(w, r, f, o) })
}

// filling marks an error of the registry that was to be filled.
func (f *installFlags) filling(err error) error {
	if f.registry != "" && f.registry != embeddedName && errors.Is(err, remote.ErrRegistry) {
		return &registryError{err}
	}
	return err
}

// isHost reports whether every client takes s for a registry's host and not for
// a part of a name: it has a dot or a port, or is localhost.
func isHost(s string) bool { return strings.ContainsAny(s, ".:") || s == "localhost" }
