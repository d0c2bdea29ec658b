package operate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// launch starts a release, and returns to the previous release if the new one does not become
// healthy.
type launch struct {
	*Operator
	target   install.Registry
	manager  *service.Manager
	prepared bool // before has run
}

// restart is how long an interrupted command may take to restart the services that it stopped.
const restart = 2 * time.Minute

// before runs when the new release is stored and staged but not yet active. It makes room by
// stopping services of the running release, which need not be the current one.
func (l *launch) before(ctx context.Context, next *host.About) error {
	l.prepared = true
	if err := l.manager.Preflight(ctx, next); err != nil {
		return err
	}
	if err := pullImages(ctx, l.manager, l.Root, l.target.Name != registry.Name, next); err != nil {
		return err
	}
	running, err := l.manager.Running(next.Name)
	if err != nil || running == nil || running.ID == next.ID {
		return err
	}
	if service.HasDatabase(running) {
		l.NeedsTime(restart) // a failed dump starts the running release again
		if err := l.manager.Dump(ctx, running, next); err != nil {
			return err
		}
	}
	return l.manager.Leave(ctx, running, next)
}

// pullImages pulls the images of a release into the container engine. It serves the registry
// of this host meanwhile, unless the registry is already being served.
func pullImages(ctx context.Context, m *service.Manager, root string, external bool, a *host.About) (err error) {
	if external || a.Registry != registry.DefaultListen {
		return m.Pull(ctx, a)
	}
	var lc net.Listener
	for until := time.Now().Add(serving); lc == nil; {
		if lc, err = new(net.ListenConfig).Listen(ctx, "tcp", registry.DefaultListen); err == nil {
			break
		}
		if err = servesOurs(ctx, a); err == nil { // the registry is already being served
			return m.Pull(ctx, a)
		}
		if time.Now().After(until) { // another root's registry still holds the port
			return joinIf(m.Pull(ctx, a), err) // the engine may have all images already
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	h, err := registry.NewHandler(ctx, root)
	if err != nil {
		return errors.Join(err, lc.Close())
	}
	while, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- registry.Serve(while, lc, h) }()
	err = m.Pull(ctx, a)
	stop()
	return errors.Join(err, <-ended)
}

// joinIf adds a possible cause to err, unless err is nil.
func joinIf(err, cause error) error {
	if err == nil {
		return nil
	}
	return errors.Join(cause, err)
}

// serving is how long to wait for the port while another root's installation uses it.
const serving = 10 * time.Second

// servesOurs requests one image of the release from the server on this host's registry port.
// It returns an error if the image is missing or the server is gone. It ignores TLS and
// logins: the engine handles those.
func servesOurs(ctx context.Context, a *host.About) error {
	for _, image := range a.Images {
		name, digest, ok := strings.Cut(strings.TrimPrefix(image, registry.DefaultListen+"/"), "@")
		if !ok {
			continue
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+registry.DefaultListen+"/v2/"+name+"/manifests/"+digest, nil)
		if err != nil {
			return err
		}
		req.Header.Set(
			"Accept",
			strings.Join([]string{bundle.TypeOCIManifest, bundle.TypeOCIIndex, "application/vnd.docker.distribution.manifest.v2+json", "*/*"}, ", "),
		)
		res, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return err // the server was there a moment ago
		}
		if err != nil {
			return nil //nolint:nilerr // the server may speak TLS and still be the right one
		}
		if err := res.Body.Close(); err != nil {
			return err
		}
		if res.StatusCode == http.StatusNotFound {
			return fmt.Errorf(
				"%w: what listens on %s is not the registry of this root, or has lost content: it has no %s; see what it is (ss -ltnp), and end it",
				service.ErrNoRuntime, registry.DefaultListen, image,
			)
		}
		return nil
	}
	return nil
}

// after starts the current release.
func (l *launch) after(ctx context.Context, next *host.About) error {
	if !l.prepared { // the release was already installed, so nothing called before
		if err := l.before(ctx, next); err != nil {
			return err
		}
	}
	l.Note("Starting %s %s", next.Name, next.Version)
	err := l.manager.Up(ctx, next)
	if err == nil || !errors.Is(err, service.ErrUnhealthy) || ctx.Err() != nil {
		return err
	}
	up, upErr := service.CameUp(l.Root, next)
	if up || upErr != nil {
		return fmt.Errorf(
			"%s %s: %w; it came up before, so it is left as it is: oob-bundle rollback --start goes back to the release before",
			next.Name, next.Version, errors.Join(err, upErr),
		)
	}
	ran, ranErr := service.RanBefore(l.Root, next)
	if !ran || ranErr != nil {
		return errors.Join(
			fmt.Errorf(
				"%s %s: %w; nothing of it ran before, so there is nothing to go back to: it is stopped, and still installed",
				next.Name, next.Version, err,
			),
			ranErr, l.manager.Stop(ctx, next),
		)
	}
	return errors.Join(fmt.Errorf("%s %s: %w", next.Name, next.Version, err), l.back(ctx, next))
}

// back stops a release that did not become healthy, and starts the previous release with the
// database from before.
func (l *launch) back(ctx context.Context, next *host.About) error {
	installed, err := ledger.Read(l.Root)
	if err != nil {
		return err
	}
	d, err := installed.Find(next.Name, l.target.Name)
	if err != nil {
		return err
	}
	if len(d.Releases) == 1 {
		return errors.Join(
			l.manager.Stop(ctx, next),
			errors.New("no release before it is here any more, so there is none to go back to: it is stopped, and still installed"),
		)
	}
	dump, err := l.manager.Before(next)
	if err != nil {
		return err
	}
	if service.HasDatabase(next) && dump == "" {
		return errors.Join(
			errors.New(
				"no dump of the database was taken before it was started, and the release before is not started on a migrated one; it is stopped",
			),
			l.manager.Stop(ctx, next),
		)
	}
	earlier, err := install.Earlier(l.Root, d)
	if err != nil {
		return err
	}
	l.Warn("%s %s did not come up; going back to %s %s", next.Name, next.Version, earlier.Name, earlier.Version)
	if err := l.manager.Yield(ctx, next, earlier); err != nil {
		return err
	}
	// Switched runs before the rollback counts as finished, so that the rollback command can
	// resume it.
	site := install.Site{Root: l.Root, Target: l.target, Warn: l.Warn, Switched: func(ctx context.Context) error {
		if dump != "" {
			l.Note("Putting the dump %s back", dump)
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
		root := install.RootFlag(l.Root)
		return fmt.Errorf(
			"%w: going back to %s %s: %w\noob-bundle rollback %[5]s --start%[6]s%[7]s goes on with it; without --start it ends, "+
				"and nothing is started",
			install.ErrIncomplete, earlier.Name, earlier.Version, incomplete.Err, d.Name, restore, root,
		)
	}
	l.Warn("%s %s runs again", earlier.Name, earlier.Version)
	return nil
}
