package operate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// Change names a deployment that is changed without a bundle.
type Change struct {
	Name     string // "" means the only one
	Registry string // where several of the name are installed, or ""
}

// subject is the deployment that a change is about.
type subject struct {
	ledger.Deployment
	// takenBack is a change to it that another run left unfinished, and that was ended.
	takenBack bool
	// first says that this was its first installation: nothing of it is recorded.
	first bool
}

// site opens what a change without a bundle needs: the lock, and the target of a
// deployment that is installed or that an unfinished change is about.
func (o *Operator) site(ctx context.Context, change Change, action string) (d subject, s install.Site, release func() error, err error) {
	lock, err := install.Acquire(o.Root)
	if err != nil {
		return d, s, nil, err
	}
	if d, err = o.subject(ctx, change, action); err == nil {
		s.Root, s.Warn = o.Root, o.Warn
		s.Target, err = o.openTarget(ctx, d.Registry, d.Name)
	}
	if err != nil {
		return d, s, nil, errors.Join(err, lock.Release())
	}
	return d, s, lock.Release, nil
}

// subject finds the deployment, and ends another unfinished change to it.
func (o *Operator) subject(ctx context.Context, change Change, action string) (d subject, err error) {
	l, err := ledger.Read(o.Root)
	if err != nil {
		return d, err
	}
	o.warnRebuilt(l)
	journals, err := ledger.ReadJournals(o.Root)
	if err != nil {
		return d, err
	}
	var unfinished *ledger.Journal
	for _, j := range journals {
		if change.Name != "" && j.Name != change.Name || change.Registry != "" && j.Registry != change.Registry {
			continue
		}
		if d.takenBack, err = o.takeBack(ctx, j, action); err != nil {
			return d, err
		}
		if d.takenBack || j.Action == action {
			unfinished, change = j, Change{j.Name, j.Registry}
			break
		}
	}
	if d.takenBack {
		if l, err = ledger.Read(o.Root); err != nil {
			return d, err
		}
	}
	d.Deployment, err = l.Find(change.Name, change.Registry)
	switch {
	case err == nil || !errors.Is(err, ledger.ErrNotInstalled):
		return d, err
	case unfinished == nil:
		return d, notYet(o.Root, change.Name, err)
	}
	d.first = d.takenBack
	d.Deployment = ledger.Deployment{Name: unfinished.Name, Registry: unfinished.Registry, Releases: []ledger.Release{{
		ID: unfinished.From, Version: unfinished.Version, Identity: unfinished.Identity, Channel: unfinished.Channel,
	}}}
	return d, nil
}

// takeBack takes back another change of a deployment that did not finish, so that rollback
// and uninstall never depend on finishing it. It reports whether there was one.
func (o *Operator) takeBack(ctx context.Context, j *ledger.Journal, action string) (bool, error) {
	if j.Action == action {
		return false, nil
	}
	target, err := o.openTarget(ctx, j.Registry, j.Name)
	if err != nil {
		return false, err
	}
	taken, err := install.TakeBack(ctx, install.Site{Root: o.Root, Target: target, Warn: o.Warn}, j.Name)
	if err != nil {
		return false, fmt.Errorf("taking back the unfinished %s of %s %s: %w", j.Action, j.Name, j.Version, err)
	}
	if taken != nil {
		o.Note("The %s of %s %s, which did not finish, is taken back", j.Action, j.Name, j.Version)
	}
	return taken != nil, nil
}

// notYet returns, where nothing is installed, the error of an unfinished change of the
// name, or err.
func notYet(root, name string, err error) error {
	journals, journalErr := ledger.ReadJournals(root)
	if journalErr != nil || !errors.Is(err, ledger.ErrNotInstalled) {
		return err
	}
	for _, j := range journals {
		if name == "" || j.Name == name {
			return install.Unfinished(root, j)
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

// RollbackResult is what Rollback did, to the release that was current or was taken back.
type RollbackResult struct {
	Name     string        `json:"name"`
	Channel  string        `json:"channel"`
	Identity bundle.Digest `json:"identity"`
	Version  string        `json:"version"`
	Registry string        `json:"registry"`

	Receipt   *ledger.Receipt `json:"-"` // of the release that is current now, or nil if there is none
	TakenBack bool            `json:"-"` // an unfinished installation was taken back, and nothing more
}

// Rollback puts the release before the current one back; an unfinished installation is
// taken back instead. Errors are those of install.Rollback and of package service.
func (o *Operator) Rollback(ctx context.Context, opt RollbackOptions) (result *RollbackResult, err error) {
	d, site, release, err := o.site(ctx, opt.Change, ledger.ActionRollback)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if d.takenBack {
		return o.takenBack(ctx, d, opt)
	}
	older, err := install.Earlier(o.Root, d.Deployment)
	if err != nil {
		return nil, notYet(o.Root, d.Name, err)
	}
	if err := install.CanRollback(ctx, site, d.Deployment); err != nil {
		return nil, err
	}
	r := &rollback{Operator: o, opt: opt, installed: d.Deployment, older: older, manager: o.manager(opt.StartTimeout)}
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
		o.Warn(
			"the database in %s is as %s %s left it; if that migrated it, %s %s may not understand it, and --start "+
				"--restore-database puts the dump from before back",
			older.Data, r.running.Name, r.running.Version, older.Name, older.Version,
		)
	}
	receipt, err := install.Rollback(ctx, site, d.Deployment)
	if err != nil {
		return nil, err
	}
	if r.migrated && !opt.Start {
		o.Warn(
			"what was started last is %s %s, and stays so until %s %s is started: oob-bundle install BUNDLE --start, with the bundle of that one",
			r.running.Name, r.running.Version, older.Name, older.Version,
		)
	}
	result = d.result()
	result.Receipt = receipt
	return result, nil
}

// rollback is one that has begun.
type rollback struct {
	*Operator
	opt       RollbackOptions
	installed ledger.Deployment
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
	return fmt.Errorf(
		"no dump of the database was taken before %s %s was started; leave --restore-database away, or put one of %s back by "+
			"hand (pg_restore --clean --create)",
		r.running.Name, r.running.Version, filepath.Join(host.Base(r.Root, r.installed.Name), "backups"),
	)
}

// stop stops what runs, when the images of the other release are there.
func (r *rollback) stop(ctx context.Context) error {
	if err := pullImages(ctx, r.manager, r.Root, r.installed.Registry != registry.Name, r.older); err != nil || !r.migrated {
		return err
	}
	if r.dump == "" { // a dump that is put back ends what another one began
		if err := r.manager.Finish(ctx, r.running); err != nil {
			return err
		}
	}
	r.Note("Stopping %s %s", r.running.Name, r.running.Version)
	return r.manager.Yield(ctx, r.running, r.older)
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
		return fmt.Errorf(
			"%s is %s again, and did not start: %w; oob-bundle rollback %s without --start ends the rollback and leaves it as it is",
			r.installed.Name, r.older.Version, err, r.installed.Name,
		)
	}
	return nil
}

func (d subject) result() *RollbackResult {
	now := d.Current()
	return &RollbackResult{Name: d.Name, Channel: now.Channel, Identity: now.Identity, Version: now.Version, Registry: d.Registry}
}

// takenBack ends a rollback that had only to take back an unfinished installation.
func (o *Operator) takenBack(ctx context.Context, d subject, opt RollbackOptions) (*RollbackResult, error) {
	now := d.Current()
	result := d.result()
	result.TakenBack = true
	if d.first {
		return result, nil
	}
	l, err := ledger.Read(o.Root)
	if err != nil {
		return nil, err
	}
	about, err := host.ReadRelease(o.Root, d.Name, now.ID)
	if err != nil {
		return nil, err
	}
	if result.Receipt, err = l.Receipt(o.Root, d.Deployment, now, about); err != nil || !opt.Start {
		return result, err
	}
	manager := o.manager(opt.StartTimeout)
	if err := pullImages(ctx, manager, o.Root, d.Registry != registry.Name, about); err != nil {
		return nil, err
	}
	return result, manager.Up(ctx, about)
}
