package operate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// Change names a deployment that is changed without a bundle.
type Change struct {
	Name     string // "" means the only one
	Registry string // where several of the name are installed, or ""
}

// site opens what a change without a bundle needs: the lock, and the target of a
// deployment that is installed or that an unfinished change was about.
func (o *Operator) site(ctx context.Context, change Change, action string) (d install.Installed, s install.Site, release func() error, err error) {
	lock, err := install.Acquire(o.Root)
	if err != nil {
		return d, s, nil, err
	}
	fail := func(err error) (install.Installed, install.Site, func() error, error) {
		return d, s, nil, errors.Join(err, lock.Release())
	}
	state, err := install.ReadState(o.Root)
	if err != nil {
		return fail(err)
	}
	o.warnRebuilt(state)
	taken, err := o.takeBack(ctx, change, action)
	if err != nil {
		return fail(err)
	}
	if taken != nil {
		if state, err = install.ReadState(o.Root); err != nil {
			return fail(err)
		}
		s.TakenBack, change = taken, Change{taken.Name, taken.Registry}
	}
	pending, err := install.Pending(o.Root, action, change.Name, change.Registry)
	switch {
	case err != nil:
		return fail(err)
	case pending != nil:
		d = *pending
	default:
		if d, err = state.Find(change.Name, change.Registry); taken != nil && errors.Is(err, install.ErrNotInstalled) { // it was the first one
			d = install.Installed{Name: taken.Name, Version: taken.Version, Identity: taken.Identity, Channel: taken.Channel, Registry: taken.Registry}
		} else if err != nil {
			return fail(notYet(o.Root, change.Name, err))
		}
	}
	s.Root, s.Warn = o.Root, o.Warn
	if s.Target, err = o.openTarget(ctx, d.Registry, d.Name); err != nil {
		return fail(err)
	}
	return d, s, lock.Release, nil
}

// takeBack takes back another change of the deployment that did not finish, so that
// rollback and uninstall never depend on finishing it. It returns the journal, or nil.
func (o *Operator) takeBack(ctx context.Context, change Change, action string) (*install.Journal, error) {
	journals, err := install.ReadJournals(o.Root)
	if err != nil {
		return nil, err
	}
	for _, j := range journals {
		if j.Action == action || change.Name != "" && j.Name != change.Name || change.Registry != "" && j.Registry != change.Registry {
			continue
		}
		target, err := o.openTarget(ctx, j.Registry, j.Name)
		if err != nil {
			return nil, err
		}
		taken, err := install.TakeBack(ctx, install.Site{Root: o.Root, Target: target, Warn: o.Warn}, j.Name)
		if err != nil {
			return nil, fmt.Errorf("taking back the unfinished %s of %s %s: %w", j.Action, j.Name, j.Version, err)
		}
		if taken != nil {
			o.Note("The %s of %s %s, which did not finish, is taken back", j.Action, j.Name, j.Version)
			return taken, nil
		}
	}
	return nil, nil
}

// notYet returns, where nothing is installed, the error of an unfinished change of the
// name, or err.
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

// RollbackOptions are those of Rollback.
type RollbackOptions struct {
	Change
	Start        bool // stop what runs, and start what is put back
	StartTimeout time.Duration
	Restore      bool // with Start: put back the dump from before the newer release
}

// RollbackResult is what Rollback did.
type RollbackResult struct {
	Installed install.Installed // what is installed now, or what was taken back
	Receipt   *install.Receipt  // of the release that is current now, or nil if there is none
	TakenBack bool              // an unfinished installation was taken back, and nothing more
}

// Rollback puts the release before the current one back; an unfinished installation is
// taken back instead. Errors are those of install.Rollback and of package service.
func (o *Operator) Rollback(ctx context.Context, opt RollbackOptions) (result *RollbackResult, err error) {
	d, site, release, err := o.site(ctx, opt.Change, "rollback")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if site.TakenBack != nil {
		return o.takenBack(ctx, d, opt)
	}
	older, err := install.Earlier(o.Root, d)
	if err != nil {
		return nil, notYet(o.Root, d.Name, err)
	}
	if err := install.CanRollback(ctx, site, d); err != nil {
		return nil, err
	}
	r := &rollback{Operator: o, opt: opt, installed: d, older: older, manager: o.manager(opt.StartTimeout)}
	if err := r.find(); err != nil {
		return nil, err
	}
	if opt.Start {
		if err := r.stop(ctx); err != nil {
			return nil, err
		}
		site.Switched = r.start // before the rollback counts as finished: the same command goes on with it
	}
	if r.migrated && r.dump == "" && service.HasDatabase(older) {
		o.Warn("the database in %s is as %s %s left it; if that migrated it, %s %s may not understand it, and --start --restore-database puts the dump from before back",
			older.Data, r.running.Name, r.running.Version, older.Name, older.Version)
	}
	receipt, err := install.Rollback(ctx, site, d)
	if err != nil {
		return nil, err
	}
	if r.migrated && !opt.Start {
		o.Warn("what was started last is %s %s, and stays so until %s %s is started: oob-bundle install BUNDLE --start, with the bundle of that one",
			r.running.Name, r.running.Version, older.Name, older.Version)
	}
	return &RollbackResult{Installed: d, Receipt: receipt}, nil
}

// rollback is one that has begun.
type rollback struct {
	*Operator
	opt       RollbackOptions
	installed install.Installed
	older     *host.About // that is put back
	manager   *service.Manager
	running   *host.About // that was started last, or nil
	migrated  bool        // another release than older has had the database
	dump      string      // that is put back, or ""
}

// find finds out what runs, and which dump belongs to it.
func (r *rollback) find() (err error) {
	if r.running, err = r.manager.Running(r.installed.Name); err != nil {
		return err
	}
	r.migrated = r.running != nil && r.running.ID != r.older.ID
	if !r.opt.Restore || !r.migrated {
		return nil
	}
	if r.dump, err = r.manager.Before(r.running); err != nil || r.dump != "" {
		return err
	}
	return fmt.Errorf("no dump of the database was taken before %s %s was started; leave --restore-database away, or put one of %s back by hand (pg_restore --clean --create)",
		r.running.Name, r.running.Version, filepath.Join(host.Base(r.Root, r.installed.Name), "backups"))
}

// stop stops what runs, when the images of the other release are there.
func (r *rollback) stop(ctx context.Context) error {
	if err := pullImages(ctx, r.manager, r.Root, r.installed.Registry != Embedded, r.older); err != nil || !r.migrated {
		return err
	}
	if r.dump == "" { // a dump that is put back ends what another one began
		if err := r.manager.Finish(ctx, r.running); err != nil {
			return err
		}
	}
	r.Note("Stopping %s %s", r.running.Name, r.running.Version)
	return r.manager.Stop(ctx, r.running)
}

// start puts the database back and starts the release.
func (r *rollback) start(ctx context.Context) error {
	if r.dump != "" {
		r.Note("Putting the dump %s back", r.dump)
		if err := r.manager.Restore(ctx, r.older, r.dump); err != nil {
			return err
		}
	}
	if err := r.manager.Up(ctx, r.older); err != nil {
		return fmt.Errorf("%s is %s again, and did not start: %w; oob-bundle rollback %s without --start ends the rollback and leaves it as it is", r.installed.Name, r.older.Version, err, r.installed.Name)
	}
	return nil
}

// takenBack ends a rollback that had only to take back an unfinished installation.
func (o *Operator) takenBack(ctx context.Context, d install.Installed, opt RollbackOptions) (*RollbackResult, error) {
	result := &RollbackResult{Installed: d, TakenBack: true}
	if d.Receipt == "" { // it was the first one
		return result, nil
	}
	var err error
	if result.Receipt, err = install.ReadReceipt(o.Root, d.Receipt); err != nil || !opt.Start {
		return result, err
	}
	about, err := host.ReadRelease(o.Root, d.Name, d.Release)
	if err != nil {
		return nil, err
	}
	manager := o.manager(opt.StartTimeout)
	if err := pullImages(ctx, manager, o.Root, d.Registry != Embedded, about); err != nil {
		return nil, err
	}
	return result, manager.Up(ctx, about)
}
