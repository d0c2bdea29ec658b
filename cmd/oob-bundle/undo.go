package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// undoFlags are those of rollback and uninstall.
type undoFlags struct {
	targetFlags
	hostFlags
	root, registry string
	start, restore bool
	timeout        time.Duration
}

func (f *undoFlags) add(c *cobra.Command) {
	rootFlag(c, &f.root)
	f.targetFlags.add(c)
	f.hostFlags.add(c)
	c.Flags().StringVar(&f.registry, "registry", "", "the one of this registry, where several of the name are installed")
}

func rollbackCommand(u *ui) *cobra.Command {
	var f undoFlags
	c := &cobra.Command{
		Use:   "rollback [NAME]",
		Short: "Put the release before the current one back",
		Long: `Put the release before the current one back: its tags and its files. NAME may be
left away where only one deployment is installed.

What programs have written since stays as it is. A database that the newer release
has migrated may be more than the older one understands: --restore-database puts
the dump back that install --start took before it started the newer release, and
loses what was written to it since.`,
		Example: `  oob-bundle rollback
  oob-bundle rollback application --start --restore-database`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return u.rollback(c.Context(), first(args), f) },
	}
	f.add(c)
	c.Flags().BoolVar(&f.start, "start", false, "stop what runs, and start what is put back")
	c.Flags().BoolVar(&f.restore, "restore-database", false, "with --start: put the dump back that was taken before the newer release started")
	c.Flags().DurationVar(&f.timeout, "start-timeout", 5*time.Minute, "how long it may take to come up")
	u.jsonFlag(c)
	return c
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// site opens what a change without a bundle needs: the lock, and the target of a
// deployment that is installed or that an unfinished change was about.
func (u *ui) site(ctx context.Context, name, action string, f undoFlags) (d install.Installed, s install.Site, release func() error, err error) {
	lock, err := install.Acquire(f.root)
	if err != nil {
		return d, s, nil, err
	}
	fail := func(err error) (install.Installed, install.Site, func() error, error) {
		return d, s, nil, errors.Join(err, lock.Release())
	}
	state, err := install.ReadState(f.root)
	if err != nil {
		return fail(err)
	}
	pending, err := install.Pending(f.root, action)
	switch {
	case err != nil:
		return fail(err)
	case pending != nil && (name == "" || name == pending.Name):
		d = *pending
	default:
		if d, err = state.Find(name, f.registry); err != nil {
			return fail(err)
		}
	}
	target, err := f.openTarget(ctx, f.root, d.Registry, d.Name)
	if err != nil {
		return fail(err)
	}
	return d, install.Site{Root: f.root, HostRoot: f.dir(f.root), Target: target}, lock.Release, nil
}

func (u *ui) rollback(ctx context.Context, name string, f undoFlags) (err error) {
	if f.restore && !f.start {
		return fmt.Errorf("%w: --restore-database needs --start, because the database has to run for it", errUsage)
	}
	d, site, release, err := u.site(ctx, name, "rollback", f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	newer, err := host.ReadRelease(f.root, d.Name, d.Release)
	if err != nil {
		return err
	}
	manager := service.New(f.root, d.Registry == "embedded" || f.plain(d.Registry), f.timeout, u.note)
	dump := ""
	if f.start {
		if f.restore {
			dump = service.DumpFile(f.root, newer)
			if _, err := os.Stat(dump); err != nil {
				return fmt.Errorf("there is no dump from before %s %s: %w", newer.Name, newer.Version, err)
			}
		}
		u.note("Stopping %s %s", newer.Name, newer.Version)
		if err := manager.Stop(ctx, newer); err != nil {
			return err
		}
	}
	receipt, err := install.Rollback(ctx, site, d)
	if err != nil {
		return err
	}
	older, err := host.ReadRelease(f.root, d.Name, receipt.Release)
	if err != nil {
		return err
	}
	switch {
	case dump != "":
		u.note("Putting the dump %s back", dump)
		if err := manager.Restore(ctx, older, dump); err != nil {
			return fmt.Errorf("%s is %s again, and its database is not: putting %s back: %w\nput it back by hand (pg_restore --clean --create); another rollback would go back one release more", d.Name, older.Version, dump, err)
		}
	case service.HasDatabase(older):
		u.warn("the database in %s is as %s %s left it; if that migrated it, %s %s may not understand it, and --start --restore-database puts the dump from before back",
			older.Data, newer.Name, newer.Version, older.Name, older.Version)
	}
	if f.start {
		if err := manager.Up(ctx, older); err != nil {
			return err
		}
	}
	return u.result(receipt, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s again\n  identity  %s\n", d.Name, receipt.Bundle.Version, receipt.Bundle.Digest)
	})
}

func uninstallCommand(u *ui) *cobra.Command {
	var f undoFlags
	c := &cobra.Command{
		Use:   "uninstall [NAME]",
		Short: "Remove what a bundle has put in place",
		Long: `Remove what a bundle has put in place, and nothing else: tags are what they were
before, links are gone and what they replaced is back, and what no other bundle
needs leaves the registry below ROOT. Services are stopped first. Data, secrets and
dumps are not touched; it says where they are. NAME may be left away where only one
deployment is installed.`,
		Example: "  oob-bundle uninstall application",
		Args:    cobra.MaximumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return u.uninstall(c.Context(), first(args), f) },
	}
	f.add(c)
	u.jsonFlag(c)
	return c
}

type uninstallJSON struct {
	Name    string             `json:"name"`
	Version string             `json:"version"`
	Digest  bundle.Digest      `json:"digest"`
	Removed registry.Collected `json:"removed"` // from the registry below ROOT
	Left    []string           `json:"left"`    // paths that belong to nobody but the site
}

func (u *ui) uninstall(ctx context.Context, name string, f undoFlags) (err error) {
	d, site, release, err := u.site(ctx, name, "uninstall", f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if a, err := host.ReadRelease(f.root, d.Name, d.Release); err == nil && service.CameUp(f.root, a) {
		u.note("Stopping %s %s", a.Name, a.Version)
		if err := service.New(f.root, false, time.Minute, u.note).Stop(ctx, a); err != nil {
			return fmt.Errorf("%s %s was started and cannot be stopped: %w", a.Name, a.Version, err)
		}
	}
	out := uninstallJSON{Name: d.Name, Version: d.Version, Digest: d.Identity, Left: []string{}}
	left, err := install.Uninstall(ctx, site, d)
	if err != nil {
		return err
	}
	out.Left = append(out.Left, left...)
	if e, ok := site.Target.(*registry.Embedded); ok {
		if out.Removed, err = e.Collect(ctx); err != nil {
			return err
		}
	}
	return u.result(out, func(w io.Writer) {
		fmt.Fprintf(w, "Removed %s %s\n", out.Name, out.Version)
		if out.Removed.Blobs > 0 {
			fmt.Fprintf(w, "  registry  %d blobs less, %s\n", out.Removed.Blobs, human(out.Removed.Bytes))
		}
		for _, p := range out.Left {
			fmt.Fprintf(w, "  left      %s\n", p)
		}
	})
}

func repairCommand(u *ui) *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "repair BUNDLE [--key PUB]...",
		Short: "Put right what has changed since a bundle was installed",
		Long: `Hash everything that a bundle has put in place, and put right what is missing or
changed: blobs of the registry below ROOT, tags, files of the release, links. The
bundle has to be the one that is installed. What a program keeps below the data
directory is not looked at.`,
		Example: "  oob-bundle repair /media/disk/app.oob.tar",
		Args:    needs("BUNDLE"),
		RunE:    func(c *cobra.Command, args []string) error { return u.repair(c.Context(), args[0], f) },
	}
	f.addFlags(c)
	u.jsonFlag(c)
	return c
}

type repairJSON struct {
	Digest bundle.Digest     `json:"digest"`
	Files  []host.Drift      `json:"files"`
	Blobs  []registry.Damage `json:"blobs"`
	Others []registry.Damage `json:"others"` // that another bundle brought, and that only it can put right
}

func (u *ui) repair(ctx context.Context, path string, f installFlags) (err error) {
	o, err := u.open(ctx, path, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	v := o.verified
	state, err := install.ReadState(f.root)
	if err != nil {
		return err
	}
	d, err := state.Find(v.Info.Name, o.target.Name())
	if err != nil {
		return err
	}
	if d.Identity != v.Identity {
		return fmt.Errorf("%w: %s %s is installed from %s, and this bundle is %s; repair needs the same one, and install changes to another", bundle.ErrPolicy, d.Name, d.Version, d.Identity, v.Identity)
	}
	out := repairJSON{Digest: v.Identity, Files: []host.Drift{}, Blobs: []registry.Damage{}, Others: []registry.Damage{}}
	o.options.Again = true
	plan, err := install.NewPlan(ctx, v, o.target, o.options)
	if err != nil {
		return &bundleError{path, err}
	}
	if e, ok := o.target.(*registry.Embedded); ok {
		damaged, err := e.Check(ctx)
		if err != nil {
			return err
		}
		for _, d := range damaged {
			if _, ok := v.Place(d.Digest); ok || d.Digest == v.Identity {
				out.Blobs = append(out.Blobs, d)
			} else {
				out.Others = append(out.Others, d)
			}
		}
		if err := e.Drop(out.Blobs); err != nil {
			return err
		}
	}
	p := u.progress("repair", v.Geometry)
	files, err := plan.Repair(ctx, p.watch())
	p.stop()
	if err != nil {
		return &bundleError{path, err}
	}
	out.Files = append(out.Files, files...)
	return u.result(out, func(w io.Writer) {
		for _, d := range out.Files {
			fmt.Fprintf(w, "  file      %-7s %s\n", d.What, d.Path)
		}
		for _, b := range out.Blobs {
			fmt.Fprintf(w, "  blob      %-7s %s\n", b.What, b.Digest)
		}
		for _, b := range out.Others {
			fmt.Fprintf(w, "  blob      %-7s %s of %s: another bundle brought it; repair with that one\n", b.What, b.Digest, b.Repository)
		}
		fmt.Fprintf(w, "%s %s is as it was installed: %d files and %d blobs put right\n", v.Info.Name, v.Info.Version, len(out.Files), len(out.Blobs))
	})
}

func gcCommand(u *ui) *cobra.Command {
	var root string
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove from the registry below ROOT what no tag leads to",
		Long: `Remove from the registry below ROOT what no tag leads to. Everything that is
installed, or that a rollback can go back to, has tags.`,
		Example: "  oob-bundle registry gc",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return u.collect(c.Context(), root) },
	}
	rootFlag(c, &root)
	u.jsonFlag(c)
	return c
}

func (u *ui) collect(ctx context.Context, root string) (err error) {
	lock, err := install.Acquire(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	journals, err := install.ReadJournals(root)
	if err != nil {
		return err
	}
	for _, j := range journals {
		if j.Registry == "embedded" {
			return fmt.Errorf("%w: the %s of %s %s did not finish; run it again first", install.ErrIncomplete, j.Action, j.Name, j.Version)
		}
	}
	e, err := registry.OpenEmbedded(ctx, root)
	if err != nil {
		return err
	}
	removed, err := e.Collect(ctx)
	if err != nil {
		return err
	}
	return u.result(removed, func(w io.Writer) {
		fmt.Fprintf(w, "Removed %d blobs, %s\n", removed.Blobs, human(removed.Bytes))
	})
}
