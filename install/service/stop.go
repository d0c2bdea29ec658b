package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// Stop stops everything. That the release was started is remembered until Stopped.
func (m *Manager) Stop(ctx context.Context, a *host.About) error {
	ctx = m.masking(ctx, a)
	e, err := m.of(ctx, a)
	if err != nil {
		return m.orGone(a, err)
	}
	return e.stop(ctx, a, "")
}

// orGone says how to go on if the engine that would have to stop a release is gone.
func (m *Manager) orGone(a *host.About, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return err // it is there, and may run
	}
	if rec, readErr := m.started(a); readErr != nil || rec.Restoring != "" {
		return err // its database is not whole
	}
	return fmt.Errorf(
		"%w; if nothing of %s %s runs any more, remove %s (the dump of its database that an upgrade takes is then yours to take)",
		err, a.Name, a.Version, host.StartedFile(m.root, a.Name),
	)
}

// Yield stops a release for another one that is started next. In a cluster nothing is
// stopped: applying the next one changes what runs.
func (m *Manager) Yield(ctx context.Context, a, next *host.About) error {
	if a.Form == "kubernetes" && next.Form == "kubernetes" {
		return nil
	}
	return m.Stop(ctx, a)
}

// Stopped says that what was stopped is not going to be started again.
func (m *Manager) Stopped(a *host.About) error { return host.ForgetStarted(m.root, a.Name) }

// Leave stops what the next release would not: units that it has not got, and
// everything if another engine runs it, because two servers on one database
// directory destroy it. An engine that is gone runs nothing.
func (m *Manager) Leave(ctx context.Context, current, next *host.About) error {
	ctx = m.masking(ctx, current)
	old, err := m.of(ctx, current)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := m.of(ctx, next)
	if err != nil {
		return err
	}
	if old.kind() != e.kind() {
		m.note("Stopping %s %s, which %s runs", current.Name, current.Version, old.kind())
		return old.stop(ctx, current, "")
	}
	gone := *current
	gone.Links = slices.DeleteFunc(slices.Clone(current.Links), func(l bundle.Link) bool {
		return slices.ContainsFunc(next.Links, func(n bundle.Link) bool { return n.Path == l.Path })
	})
	if old.kind() == composeKind || len(gone.Links) == 0 {
		return nil // Compose removes by itself what a release has not got
	}
	return old.stop(ctx, &gone, "")
}

// Forget lets the engine of a release that was stopped, and whose links are gone,
// forget it.
func (m *Manager) Forget(ctx context.Context, a *host.About) error {
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	return e.forget(ctx, a)
}

// forgetOthers makes systemd forget the units that other releases have and the one that
// runs now has not got.
func (m *Manager) forgetOthers(ctx context.Context, a *host.About) error {
	releases, err := host.Releases(m.root, a.Name)
	problems := []error{err}
	mine := func(p string) bool {
		return slices.ContainsFunc(a.Links, func(l bundle.Link) bool { return l.Path == p })
	}
	for _, r := range releases {
		r.Links = slices.DeleteFunc(r.Links, func(l bundle.Link) bool { return unit(l) == nil || mine(l.Path) })
		if r.Form != "linux" || len(r.Links) == 0 {
			continue
		}
		if err := m.Forget(ctx, r); !gone(err) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}
