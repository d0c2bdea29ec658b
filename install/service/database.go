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

// DumpFile is where the dump is kept that was taken before a release started.
func DumpFile(root string, next *host.About) string {
	return filepath.Join(host.Base(root, next.Name), "backups", "before-"+next.ID+".dump")
}

// HasDatabase reports whether a release has a database with something in it.
func HasDatabase(a *host.About) bool {
	if a == nil || a.Database == nil {
		return false
	}
	if a.Database.Selector != "" {
		return true // in a cluster that has run
	}
	_, err := os.Stat(filepath.Join(a.Data, filepath.FromSlash(a.Database.Directory), "PG_VERSION"))
	return err == nil || !errors.Is(err, fs.ErrNotExist)
}

// Dump stops everything but the database of the release that runs and dumps it, for
// the case that the next one does not come up. A dump of the same name stays until
// this one is complete. The error wraps ErrNoDump; then what was running has been
// started again, if it is still the current release.
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

// alone leaves nothing running but the database, and waits until that answers.
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
		// By the network, where it answers only when it is not being made.
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

// Before returns the dump of the database from before a release was started, or "" if
// none was taken: one that an earlier start of it has left is another database's.
func (m *Manager) Before(a *host.About) (string, error) {
	rec, err := host.ReadStarted(m.root, a.Name)
	if err != nil || rec == nil || rec.Release != a.ID {
		return "", err
	}
	return rec.Dump, nil
}

// Finish puts back what was being put back for a release when that was interrupted.
func (m *Manager) Finish(ctx context.Context, a *host.About) error {
	rec, err := m.started(a)
	if err != nil || rec.Restoring == "" {
		return err
	}
	m.note("Putting the dump %s back, which was interrupted", rec.Restoring)
	return m.Restore(ctx, a, rec.Restoring)
}

// Restore puts a dump back, with the database of the given release. Everything
// but the database is stopped then. Whatever starts the release next goes on with
// that first if it did not come to its end.
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
	// The database as a whole: a migration may have made what the dump does not know.
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
