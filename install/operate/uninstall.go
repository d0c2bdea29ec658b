package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// UninstallOptions contains the options of Uninstall.
type UninstallOptions struct {
	Change
	// LeaveRegistry leaves an external registry unchanged.
	LeaveRegistry bool
}

// UninstallResult describes what Uninstall removed and left.
type UninstallResult struct {
	Name    string        `json:"name"`
	Version string        `json:"version"`
	Digest  bundle.Digest `json:"digest"`
	Channel string        `json:"channel"`
	// Sequence is the channel's sequence. This host still refuses older bundles of the
	// channel.
	Sequence int64              `json:"sequence"`
	Removed  registry.Collected `json:"removed"` // from the registry below the root
	Left     []string           `json:"left"`    // paths with data, passwords and dumps
}

// ErrOwnRegistry reports LeaveRegistry with the registry below the root.
var ErrOwnRegistry = errors.New("--leave-registry is for a registry of the site; the one below --root goes with what is in it")

// Uninstall stops and removes a deployment. Errors are those of install.Uninstall and of
// package service, or ErrOwnRegistry.
func (o *Operator) Uninstall(ctx context.Context, opt UninstallOptions) (result *UninstallResult, err error) {
	d, site, release, err := o.site(ctx, opt.Change, ledger.ActionUninstall)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if opt.LeaveRegistry && d.Registry == registry.Name {
		return nil, ErrOwnRegistry
	}
	site.Leave = opt.LeaveRegistry
	if !d.first {
		if err := install.CanUninstall(ctx, site, d.Deployment); err != nil {
			return nil, err
		}
	}
	if site.Switched, err = o.stop(ctx, d.Deployment); err != nil {
		return nil, err
	}
	now := d.Current()
	result = &UninstallResult{Name: d.Name, Version: now.Version, Digest: now.Identity, Channel: now.Channel, Left: []string{}}
	site.Last = func(ctx context.Context) (err error) {
		result.Removed, err = o.collectUnneeded(ctx, site.Target)
		return err
	}
	remove := install.Uninstall
	if d.first {
		remove = install.RemoveStaged
	}
	left, err := remove(ctx, site, d.Deployment)
	if err != nil {
		return nil, err
	}
	result.Left = append(result.Left, left...)
	l, err := ledger.Read(o.Root)
	if err != nil {
		return nil, err
	}
	result.Sequence = l.Channels[now.Channel].Sequence
	return result, nil
}

// stop stops the running release of a deployment. It returns the function to call after the
// files are removed, or nil.
func (o *Operator) stop(ctx context.Context, d ledger.Deployment) (forget func(context.Context) error, err error) {
	manager := o.manager(time.Minute)
	running, lost := manager.Running(d.Name)
	both, err := o.elsewhere(d)
	if err != nil {
		return nil, err
	}
	if lost != nil {
		o.Warn("%v; what of it runs is not stopped", lost)
		if both {
			return nil, nil
		}
		return func(context.Context) error { return host.ForgetStarted(o.Root, d.Name) }, nil
	}
	if running == nil || both && !ours(d, running) {
		return nil, nil
	}
	if err := manager.Finish(ctx, running); err != nil { // the data that remains must belong to one release
		return nil, err
	}
	o.Note("Stopping %s %s", running.Name, running.Version)
	if err := manager.Stop(ctx, running); err != nil {
		return nil, fmt.Errorf("%s %s was started and cannot be stopped: %w", running.Name, running.Version, err)
	}
	return func(ctx context.Context) error { return forgetRunning(ctx, manager, running) }, nil
}

func forgetRunning(ctx context.Context, manager *service.Manager, running *host.About) error {
	if err := manager.Forget(ctx, running); err != nil {
		return err
	}
	return manager.Stopped(running)
}

// elsewhere reports whether the same name is also installed with another registry.
func (o *Operator) elsewhere(d ledger.Deployment) (bool, error) {
	l, err := ledger.Read(o.Root)
	if err != nil {
		return false, err
	}
	other := func(x ledger.Deployment) bool { return x.Name == d.Name && x.Registry != d.Registry }
	return slices.ContainsFunc(l.Sorted(), other), nil
}

// ours reports whether a release belongs to the deployment d.
func ours(d ledger.Deployment, a *host.About) bool {
	_, ok := d.Release(a.ID)
	return ok
}

// collectUnneeded removes untagged content from the registry below the root. Lost tags of
// another deployment or damaged content only cause a warning: they do not prevent the
// uninstallation.
func (o *Operator) collectUnneeded(ctx context.Context, target install.Registry) (registry.Collected, error) {
	e, ok := target.Target.(*registry.Embedded)
	if !ok {
		return registry.Collected{}, nil
	}
	later := func(err error) { o.Warn("%v; then oob-bundle registry gc removes what is not needed any more", err) }
	if err := o.refuseLost(); err != nil {
		if !errors.Is(err, ErrDrift) && !host.Lost(err) {
			return registry.Collected{}, err
		}
		later(err)
		return registry.Collected{}, nil
	}
	removed, err := e.Collect(ctx)
	if errors.Is(err, bundle.ErrDigest) {
		later(err)
		err = nil
	}
	return removed, err
}

// Collect removes untagged content from the registry below the root. Errors wrap ErrDrift or
// install.ErrIncomplete, or come from the file system.
func (o *Operator) Collect(ctx context.Context) (removed registry.Collected, err error) {
	lock, err := install.Acquire(o.Root)
	if err != nil {
		return removed, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	journals, err := ledger.ReadJournals(o.Root)
	if err != nil {
		return removed, err
	}
	for _, j := range journals {
		if j.Registry == registry.Name {
			return removed, install.Unfinished(o.Root, j)
		}
	}
	e, err := registry.OpenEmbedded(ctx, o.Root)
	if err != nil {
		return removed, err
	}
	if err := o.refuseLost(); err != nil {
		return removed, err
	}
	return e.Collect(ctx)
}
