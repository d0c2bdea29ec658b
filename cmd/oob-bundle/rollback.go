package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// undoFlags are those of rollback and uninstall.
type undoFlags struct {
	targetFlags
	root, registry string
	start, restore bool
	leave          bool // of uninstall
	timeout        time.Duration
}

func (f *undoFlags) add(c *cobra.Command) {
	rootFlag(c, &f.root)
	f.targetFlags.add(c)
	c.Flags().StringVar(&f.registry, "registry", "", "the one of this `REGISTRY`, where several of the name are installed")
}

func rollbackCommand(u *ui) *cobra.Command {
	var f undoFlags
	c := &cobra.Command{
		Use:   "rollback [NAME]",
		Short: "Put the release before the current one back",
		Long: `Its tags and its files. NAME may be left away where only one deployment is
installed.

What programs have written since stays as it is. A database that the newer release
has migrated may be more than the older one understands: --restore-database puts
the dump back that install --start took before it started the newer release, and
loses what was written to it since.`,
		Example: `  oob-bundle rollback
  oob-bundle rollback application --start --restore-database`,
		Args: atMostOne("NAME"),
		RunE: func(c *cobra.Command, args []string) error { return u.rollback(c.Context(), first(args), f) },
	}
	f.add(c)
	c.Flags().BoolVar(&f.start, "start", false, "stop what runs, and start what is put back")
	c.Flags().BoolVar(&f.restore, "restore-database", false, "with --start: put the dump back that was taken before the newer release started")
	c.Flags().DurationVar(&f.timeout, "start-timeout", 5*time.Minute, "`TIME` that it may take to come up")
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
	u.warnRebuilt(state)
	taken, err := u.takeBack(ctx, name, action, f)
	if err != nil {
		return fail(err)
	}
	if taken != nil {
		if state, err = install.ReadState(f.root); err != nil {
			return fail(err)
		}
		s.TakenBack, name, f.registry = taken, taken.Name, taken.Registry
	}
	pending, err := install.Pending(f.root, action, name, f.registry)
	switch {
	case err != nil:
		return fail(err)
	case pending != nil:
		d = *pending
	default:
		if d, err = state.Find(name, f.registry); taken != nil && errors.Is(err, install.ErrNotInstalled) { // it was the first one
			d = install.Installed{Name: taken.Name, Version: taken.Version, Identity: taken.Identity, Channel: taken.Channel, Registry: taken.Registry}
		} else if err != nil {
			return fail(notYet(f.root, name, err))
		}
	}
	s.Root, s.Warn = f.root, u.warn
	if s.Target, err = f.openTarget(ctx, f.root, d.Registry, d.Name); err != nil {
		return fail(err)
	}
	return d, s, lock.Release, nil
}

// takeBack takes back another change of the deployment that did not finish, so that
// rollback and uninstall never depend on finishing it. It returns the journal, or nil.
func (u *ui) takeBack(ctx context.Context, name, action string, f undoFlags) (*install.Journal, error) {
	journals, err := install.ReadJournals(f.root)
	if err != nil {
		return nil, err
	}
	for _, j := range journals {
		if j.Action == action || name != "" && j.Name != name || f.registry != "" && j.Registry != f.registry {
			continue
		}
		target, err := f.openTarget(ctx, f.root, j.Registry, j.Name)
		if err != nil {
			return nil, err
		}
		taken, err := install.TakeBack(ctx, install.Site{Root: f.root, Target: target, Warn: u.warn}, j.Name)
		if err != nil {
			return nil, fmt.Errorf("taking back the unfinished %s of %s %s: %w", j.Action, j.Name, j.Version, err)
		}
		if taken != nil {
			u.note("The %s of %s %s, which did not finish, is taken back", j.Action, j.Name, j.Version)
			return taken, nil
		}
	}
	return nil, nil
}

// notYet words that nothing is installed where something is about to be.
func notYet(root, name string, err error) error {
	journals, journalErr := install.ReadJournals(root)
	if journalErr != nil || !errors.Is(err, install.ErrNotInstalled) {
		return err
	}
	for _, j := range journals {
		if name == "" || j.Name == name {
			return j.Unfinished(root)
		}
	}
	return err
}

func (u *ui) rollback(ctx context.Context, name string, f undoFlags) (err error) {
	if f.restore && !f.start {
		return wrongUsage("--restore-database needs --start, because the database has to run for it")
	}
	d, site, release, err := u.site(ctx, name, "rollback", f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if site.TakenBack != nil && d.Receipt == "" {
		return u.result(d, func(w io.Writer) {
			fmt.Fprintf(w, "The installation of %s %s is taken back; no other release of it was installed\n", d.Name, d.Version)
		})
	}
	if site.TakenBack != nil {
		return u.rolledBack(ctx, site, d, f)
	}
	older, err := install.Earlier(f.root, d)
	if err != nil {
		return notYet(f.root, d.Name, err)
	}
	if err := install.CanRollback(ctx, site, d); err != nil {
		return err
	}
	embedded := d.Registry == embeddedName
	manager := service.New(f.root, f.unencrypted, f.timeout, u.note)
	running, err := manager.Running(d.Name)
	if err != nil {
		return err
	}
	migrated := running != nil && running.ID != older.ID // it has had the database
	dump := ""
	if f.restore && migrated {
		if dump, err = manager.Before(running); err != nil {
			return err
		}
		if dump == "" {
			return fmt.Errorf("no dump of the database was taken before %s %s was started; leave --restore-database away, or put one of %s back by hand (pg_restore --clean --create)",
				running.Name, running.Version, filepath.Join(host.Base(f.root, d.Name), "backups"))
		}
	}
	if f.start {
		if err := pullImages(ctx, manager, f.root, !embedded, older); err != nil {
			return err
		}
		if migrated && dump == "" { // a dump that is put back ends what another one began
			if err := manager.Finish(ctx, running); err != nil {
				return err
			}
		}
		if migrated {
			u.note("Stopping %s %s", running.Name, running.Version)
			if err := manager.Stop(ctx, running); err != nil {
				return err
			}
		}
		// Before the rollback counts as finished: the same command goes on with it.
		site.Switched = func(ctx context.Context) error {
			if dump != "" {
				u.note("Putting the dump %s back", dump)
				if err := manager.Restore(ctx, older, dump); err != nil {
					return err
				}
			}
			if err := manager.Up(ctx, older); err != nil {
				return fmt.Errorf("%s is %s again, and did not start: %w; oob-bundle rollback %s without --start ends the rollback and leaves it as it is", d.Name, older.Version, err, d.Name)
			}
			return nil
		}
	}
	if migrated && dump == "" && service.HasDatabase(older) {
		u.warn("the database in %s is as %s %s left it; if that migrated it, %s %s may not understand it, and --start --restore-database puts the dump from before back",
			older.Data, running.Name, running.Version, older.Name, older.Version)
	}
	receipt, err := install.Rollback(ctx, site, d)
	if err != nil {
		return err
	}
	if migrated && !f.start {
		u.warn("what was started last is %s %s, and stays so until %s %s is started: oob-bundle install BUNDLE --start, with the bundle of that one", running.Name, running.Version, older.Name, older.Version)
	}
	return u.result(receipt, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s again\n  identity  %s\n", d.Name, receipt.Bundle.Version, receipt.Bundle.Digest)
	})
}

// rolledBack ends a rollback that had only to take back an unfinished installation.
func (u *ui) rolledBack(ctx context.Context, site install.Site, d install.Installed, f undoFlags) error {
	receipt, err := install.ReadReceipt(site.Root, d.Receipt)
	if err != nil {
		return err
	}
	if f.start {
		about, err := host.ReadRelease(site.Root, d.Name, d.Release)
		if err != nil {
			return err
		}
		manager := service.New(site.Root, f.unencrypted, f.timeout, u.note)
		if err := pullImages(ctx, manager, site.Root, d.Registry != embeddedName, about); err != nil {
			return err
		}
		if err := manager.Up(ctx, about); err != nil {
			return err
		}
	}
	return u.result(receipt, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s, as before\n  identity  %s\n", d.Name, receipt.Bundle.Version, receipt.Bundle.Digest)
	})
}
