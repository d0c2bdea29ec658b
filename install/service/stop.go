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

// Stop stops all services of a release. The record that the release was started stays until
// Stopped is called.
func (m *Manager) Stop(ctx context.Context, a *host.About) error {
	ctx = m.masking(ctx, a)
	e, err := m.of(ctx, a)
	if err != nil {
		return m.orGone(a, err)
	}
	return e.stop(ctx, a, "")
}

// orGone adds advice on how to continue if the engine that should stop a release is gone.
func (m *Manager) orGone(a *host.About, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return err // the engine exists and may be running services
	}
	if rec, readErr := m.started(a); readErr != nil || rec.Restoring != "" {
		return err // its database is not fully restored
	}
	return fmt.Errorf(
		"%w; if nothing of %s %s runs any more, remove %s (the dump of its database that an upgrade takes is then yours to take)",
		err, a.Name, a.Version, host.StartedFile(m.root, a.Name),
	)
}

// Yield stops a release so that next can start. Between two Kubernetes releases it stops
// nothing: applying next changes what runs.
func (m *Manager) Yield(ctx context.Context, a, next *host.About) error {
	if a.Form == "kubernetes" && next.Form == "kubernetes" {
		return nil
	}
	return m.Stop(ctx, a)
}

// Stopped removes the record that a deployment was started. A stopped release is then not
// started again.
func (m *Manager) Stopped(a *host.About) error { return host.ForgetStarted(m.root, a.Name) }

// Leave stops what the next release would not stop: units that the next release does not have,
// and everything if the engines differ, because two servers on one database directory destroy
// it. It does nothing if the current engine is not on this host.
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
		return nil // Compose removes services that a release does not have
	}
	return old.stop(ctx, &gone, "")
}

// Forget removes the engine's records of a stopped release whose links are removed.
func (m *Manager) Forget(ctx context.Context, a *host.About) error {
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	return e.forget(ctx, a)
}

// forgetOthers makes systemd forget the units of other releases that the running release does
// not have.
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
