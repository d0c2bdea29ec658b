package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// launch starts a release, and goes back to the one before if it does not come up.
type launch struct {
	u        *ui
	f        installFlags
	target   install.Target
	manager  *service.Manager
	prepared bool // what ran before has made room
}

// restart is how long an interrupted command may take to start again what it stopped.
const restart = 2 * time.Minute

// before is called when everything is in place and nothing is switched. What makes
// room is what runs, which need not be what is current.
func (l *launch) before(ctx context.Context, next *host.About) error {
	l.prepared = true
	if err := pullImages(ctx, l.manager, l.f.root, l.f.registry != "", next); err != nil {
		return err
	}
	running, err := l.manager.Running(next.Name)
	if err != nil || running == nil || running.ID == next.ID {
		return err
	}
	if service.HasDatabase(running) {
		l.u.needsTime(restart) // what ran is started again if the dump fails
		if err := l.manager.Dump(ctx, running, next); err != nil {
			return err
		}
	}
	return l.manager.Leave(ctx, running, next)
}

// pullImages makes the images of a release available to the container engine. The registry
// of this host is served for that time, unless it is served already.
func pullImages(ctx context.Context, m *service.Manager, root string, external bool, a *host.About) (err error) {
	if external || a.Registry != registry.DefaultListen {
		return m.Pull(ctx, a)
	}
	lc, err := new(net.ListenConfig).Listen(ctx, "tcp", registry.DefaultListen)
	if err != nil { // somebody serves there
		return m.Pull(ctx, a)
	}
	h, err := registry.NewHandler(ctx, root)
	if err != nil {
		return errors.Join(err, lc.Close())
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- registry.Serve(serving, lc, h) }()
	err = m.Pull(ctx, a)
	stop()
	return errors.Join(err, <-ended)
}

// after starts what is current.
func (l *launch) after(ctx context.Context, next *host.About) error {
	if !l.prepared { // it was installed already, and nothing was switched
		if err := l.before(ctx, next); err != nil {
			return err
		}
	}
	l.u.note("Starting %s %s", next.Name, next.Version)
	err := l.manager.Up(ctx, next)
	if err == nil || !errors.Is(err, service.ErrUnhealthy) || ctx.Err() != nil {
		return err
	}
	up, upErr := service.CameUp(l.f.root, next)
	if up || upErr != nil {
		return fmt.Errorf("%s %s: %w; it came up before, so it is left as it is: oob-bundle rollback --start goes back to the release before", next.Name, next.Version, errors.Join(err, upErr))
	}
	ran, ranErr := service.RanBefore(l.f.root, next)
	if !ran || ranErr != nil {
		return errors.Join(fmt.Errorf("%s %s: %w; nothing of it ran before, so there is nothing to go back to: it is stopped, and still installed", next.Name, next.Version, err), ranErr, l.manager.Stop(ctx, next))
	}
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
		return errors.Join(l.manager.Stop(ctx, next), errors.New("no release before it is here any more, so there is none to go back to: it is stopped, and still installed"))
	}
	dump, err := l.manager.Before(next)
	if err != nil {
		return err
	}
	if service.HasDatabase(next) && dump == "" {
		return errors.Join(errors.New("no dump of the database was taken before it was started, and the release before is not started on a migrated one; it is stopped"), l.manager.Stop(ctx, next))
	}
	earlier, err := install.Earlier(l.f.root, d)
	if err != nil {
		return err
	}
	l.u.warn("%s %s did not come up; going back to %s %s", next.Name, next.Version, earlier.Name, earlier.Version)
	if err := l.manager.Stop(ctx, next); err != nil {
		return err
	}
	// Before the rollback counts as finished: rollback goes on with it.
	site := install.Site{Root: l.f.root, Target: l.target, Warn: l.u.warn, Switched: func(ctx context.Context) error {
		if dump != "" {
			l.u.note("Putting the dump %s back", dump)
			if err := l.manager.Restore(ctx, earlier, dump); err != nil {
				return err
			}
		}
		return l.manager.Up(ctx, earlier)
	}}
	if _, err := install.Rollback(ctx, site, d); err != nil {
		var incomplete *install.Incomplete
		if !errors.As(err, &incomplete) {
			return fmt.Errorf("going back to %s %s: %w", earlier.Name, earlier.Version, err)
		}
		restore := ""
		if dump != "" {
			restore = " --restore-database"
		}
		root := install.RootFlag(l.f.root)
		return fmt.Errorf("%w: going back to %s %s: %w\noob-bundle rollback %[5]s --start%[6]s%[7]s goes on with it; without --start it ends, and nothing is started",
			install.ErrIncomplete, earlier.Name, earlier.Version, incomplete.Err, d.Name, restore, root)
	}
	l.u.warn("%s %s runs again", earlier.Name, earlier.Version)
	return nil
}
