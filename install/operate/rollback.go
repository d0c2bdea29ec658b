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

// Change names a deployment to change without a bundle.
type Change struct {
	Name     string // "" means the only one
	Registry string // required if the name is installed with several registries, else ""
}

// subject is the deployment to change.
type subject struct {
	ledger.Deployment
	// takenBack reports whether an unfinished change of another kind was reverted.
	takenBack bool
	// first reports whether that change was the first installation: nothing is recorded of the
	// deployment.
	first bool
}

// site acquires the lock and opens the target of a deployment. The deployment is installed or
// has an unfinished change. The caller must call release.
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

// subject finds the deployment and reverts an unfinished change to it of another kind.
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

// takeBack reverts an unfinished change of another kind, so that rollback and uninstall never
// depend on finishing it. It reports whether it reverted one.
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

// notYet replaces err, if nothing is installed, by the error for an unfinished change of the
// name.
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

// RollbackOptions contains the options of Rollback.
type RollbackOptions struct {
	Change
	Start        bool // stop the running release and start the restored one
	StartTimeout time.Duration
	Restore      bool // with Start: restore the dump from before the newer release
}

// RollbackResult describes the release that Rollback restored, or whose installation it
// reverted.
type RollbackResult struct {
	Name     string        `json:"name"`
	Channel  string        `json:"channel"`
	Identity bundle.Digest `json:"identity"`
	Version  string        `json:"version"`
	Registry string        `json:"registry"`

	Receipt   *ledger.Receipt `json:"-"` // of the current release, or nil if there is none
	TakenBack bool            `json:"-"` // only an unfinished change was reverted
}

// Rollback restores the release before the current one. If a change of another kind is
// unfinished, Rollback reverts that change instead. Errors are those of install.Rollback and
// of package service.
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
		site.Switched = r.start // runs before the rollback counts as finished, so that the same command resumes it
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

// rollback is a rollback in progress.
type rollback struct {
	*Operator
	opt       RollbackOptions
	installed ledger.Deployment
	older     *host.About // the release to restore
	manager   *service.Manager
	running   *host.About // the release that was started last, or nil
	migrated  bool        // a release other than older has used the database
	dump      string      // the dump to restore, or ""
}

// find finds the running release and the dump to restore.
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

// stop pulls the images of the older release and then stops the running one.
func (r *rollback) stop(ctx context.Context) error {
	if err := pullImages(ctx, r.manager, r.Root, r.installed.Registry != registry.Name, r.older); err != nil || !r.migrated {
		return err
	}
	if r.dump == "" { // restoring r.dump replaces an interrupted restore
		if err := r.manager.Finish(ctx, r.running); err != nil {
			return err
		}
	}
	r.Note("Stopping %s %s", r.running.Name, r.running.Version)
	return r.manager.Yield(ctx, r.running, r.older)
}

// start restores the database and starts the older release.
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

// takenBack returns the result of a rollback that only reverted an unfinished change. With
// Start it starts the current release.
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
