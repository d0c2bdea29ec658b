package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// launch starts a release, and goes back to the one before if it does not come up.
type launch struct {
	u       *ui
	f       installFlags
	target  install.Target
	manager *service.Manager
	earlier *host.About // what ran before, or nil
}

// before is called when everything is in place and nothing is switched.
func (l *launch) before(ctx context.Context, current, next *host.About) error {
	l.earlier = current
	if err := l.pull(ctx, next); err != nil {
		return err
	}
	if current != nil && current.ID == next.ID {
		return nil // an interrupted run has switched already
	}
	if err := l.manager.Begin(next); err != nil {
		return err
	}
	if !service.HasDatabase(current) {
		return nil
	}
	return l.manager.Dump(ctx, current, next)
}

// pull makes the images available to the container engine. The registry of this
// host is served for that time, unless it is served already.
func (l *launch) pull(ctx context.Context, a *host.About) (err error) {
	if l.f.registry != "" || a.Registry != registry.DefaultListen {
		return l.manager.Pull(ctx, a)
	}
	lc, err := new(net.ListenConfig).Listen(ctx, "tcp", registry.DefaultListen)
	if err != nil { // somebody serves there
		return l.manager.Pull(ctx, a)
	}
	h, err := registry.NewHandler(ctx, l.f.root)
	if err != nil {
		return errors.Join(err, lc.Close())
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- registry.Serve(serving, lc, h) }()
	err = l.manager.Pull(ctx, a)
	stop()
	return errors.Join(err, <-ended)
}

// after starts what has become current.
func (l *launch) after(ctx context.Context, next *host.About) error {
	if l.earlier == nil { // installed already: nothing was switched
		if err := l.pull(ctx, next); err != nil {
			return err
		}
	}
	l.u.note("Starting %s %s", next.Name, next.Version)
	err := l.manager.Up(ctx, next)
	if err == nil || !errors.Is(err, service.ErrUnhealthy) || ctx.Err() != nil {
		return err
	}
	if service.CameUp(l.f.root, next) {
		return fmt.Errorf("%s %s: %w; it came up before, so it is left as it is: oob-bundle rollback goes back to the release before", next.Name, next.Version, err)
	}
	l.u.warn("%s %s %v", next.Name, next.Version, err)
	return errors.Join(fmt.Errorf("%s %s: %w", next.Name, next.Version, err), l.back(ctx, next))
}

// back stops a release that did not come up, and starts the one before with the
// database as it was.
func (l *launch) back(ctx context.Context, next *host.About) error {
	state, err := install.ReadState(l.f.root)
	if err != nil {
		return err
	}
	d, err := state.Find(next.Name, l.target.Name())
	if err != nil {
		return err
	}
	if len(d.Before) == 0 {
		return errors.Join(l.manager.Stop(ctx, next), fmt.Errorf("it is the first release here, so there is none to go back to: it is stopped, and still installed"))
	}
	dump := service.DumpFile(l.f.root, next)
	_, statErr := os.Stat(dump)
	if service.HasDatabase(next) && statErr != nil {
		return fmt.Errorf("there is no dump of the database from before (%s), and the release before is not started on a migrated one; it is stopped: %w", dump, errors.Join(l.manager.Stop(ctx, next)))
	}
	if err := l.manager.Stop(ctx, next); err != nil {
		return err
	}
	if _, err := install.Rollback(ctx, install.Site{Root: l.f.root, HostRoot: l.f.dir(l.f.root), Target: l.target}, d); err != nil {
		return err
	}
	id, err := host.Current(l.f.root, next.Name)
	if err != nil {
		return err
	}
	earlier, err := host.ReadRelease(l.f.root, next.Name, id)
	if err != nil {
		return err
	}
	if statErr == nil {
		l.u.note("Putting the dump %s back", dump)
		if err := l.manager.Restore(ctx, earlier, dump); err != nil {
			return fmt.Errorf("putting the dump back: %w", err)
		}
	}
	if err := l.manager.Up(ctx, earlier); err != nil {
		return err
	}
	l.u.note("%s %s runs again", earlier.Name, earlier.Version)
	return nil
}
