package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// DumpFile returns the path of the dump that is taken before a release starts.
func DumpFile(root string, next *host.About) string {
	return filepath.Join(host.Base(root, next.Name), "backups", "before-"+next.ID+".dump")
}

// HasDatabase reports whether a release has a database with data in it. If that cannot be
// determined, it reports true.
func HasDatabase(a *host.About) bool {
	if a == nil || a.Database == nil {
		return false
	}
	if a.Database.Selector != "" {
		return true // in a cluster; assume that it has data
	}
	_, err := os.Stat(filepath.Join(a.Data, filepath.FromSlash(a.Database.Directory), "PG_VERSION"))
	return err == nil || !errors.Is(err, fs.ErrNotExist)
}

// Dump stops all services of the running release except the database, and dumps the database
// in case the next release does not start. An existing dump of the same name stays until the
// new one is complete. The error wraps ErrNoDump. If the dump itself fails, Dump starts the
// running release again, provided that it is still the current release.
func (m *Manager) Dump(ctx context.Context, running, next *host.About) error {
	ctx = m.masking(ctx, running)
	e, err := m.of(ctx, running)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoDump, m.orGone(running, err))
	}
	if err := m.Finish(ctx, running); err != nil {
		return fmt.Errorf("%w: %w", ErrNoDump, err)
	}
	rec, err := m.started(running)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoDump, err)
	}
	file := DumpFile(m.root, next)
	m.note("Stopping %s %s, and dumping its database to %s", running.Name, running.Version, file)
	if err = m.dump(ctx, e, running, file); err == nil {
		rec.Next, rec.NextDump = next.ID, file
		return rec.Write(m.root, running.Name)
	}
	if current, currentErr := host.Current(m.root, running.Name); currentErr != nil || current != running.ID {
		return fmt.Errorf(
			"%w: %w\n%s %s is not the current release any more, and is left stopped",
			ErrNoDump, errors.Join(err, currentErr), running.Name, running.Version,
		)
	}
	m.note("Starting %s %s again", running.Name, running.Version)
	return fmt.Errorf(
		"%w: %w\nnothing was switched; %s %s is started again",
		ErrNoDump, errors.Join(err, e.start(context.WithoutCancel(ctx), running, nil)), running.Name, running.Version,
	)
}

func (m *Manager) dump(ctx context.Context, e engine, a *host.About, file string) (err error) {
	if err := m.alone(ctx, e, a); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	d := a.Database
	err = e.exec(ctx, a, d.Service, nil, f, "pg_dump", "--username", d.User, "--format", "custom", d.Name)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(file+".new"))
	}
	return errors.Join(os.Rename(file+".new", file), disk.SyncDir(filepath.Dir(file)))
}

// alone stops all services except the database, and waits until the database answers.
func (m *Manager) alone(ctx context.Context, e engine, a *host.About) error {
	d := a.Database
	if err := e.stop(ctx, a, d.Service); err != nil {
		return err
	}
	if err := e.startOnly(ctx, a, d.Service); err != nil {
		return err
	}
	deadline := time.Now().Add(m.timeout)
	for {
		// Connect over the network: during initialization PostgreSQL listens only on its
		// socket.
		err := e.exec(ctx, a, d.Service, nil, io.Discard, "pg_isready", "--host", "127.0.0.1", "--username", d.User, "--dbname", d.Name)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// Before returns the dump that was taken before the release's last start, or "" if none was
// taken. A dump from before an earlier start does not count: it belongs to another state of
// the database.
func (m *Manager) Before(a *host.About) (string, error) {
	rec, err := host.ReadStarted(m.root, a.Name)
	if err != nil || rec == nil || rec.Release != a.ID {
		return "", err
	}
	return rec.Dump, nil
}

// Finish completes an interrupted restore for a release, if there is one.
func (m *Manager) Finish(ctx context.Context, a *host.About) error {
	rec, err := m.started(a)
	if err != nil || rec.Restoring == "" {
		return err
	}
	m.note("Putting the dump %s back, which was interrupted", rec.Restoring)
	return m.Restore(ctx, a, rec.Restoring)
}

// Restore restores a dump into the database of a release. It stops all other services of the
// release. If it is interrupted, the next start of the release completes it first.
func (m *Manager) Restore(ctx context.Context, a *host.About, file string) (err error) {
	ctx = m.masking(ctx, a)
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	rec := host.Started{Release: a.ID, Restoring: file}
	before, err := host.ReadStarted(m.root, a.Name)
	if err != nil {
		return err
	}
	if before != nil && before.Release == a.ID {
		rec.Dump = before.Dump
	}
	if err := rec.Write(m.root, a.Name); err != nil {
		return err
	}
	if err := m.alone(ctx, e, a); err != nil {
		return err
	}
	d := a.Database
	// Replace the whole database: a migration may have created objects that the dump does not
	// contain.
	if err := e.exec(
		ctx, a, d.Service, f, io.Discard,
		"pg_restore",
		"--username",
		d.User,
		"--dbname",
		"postgres",
		"--clean",
		"--create",
		"--if-exists",
		"--exit-on-error",
	); err != nil {
		return fmt.Errorf("putting %s back: %w", file, err)
	}
	rec.Restoring = ""
	return rec.Write(m.root, a.Name)
}
