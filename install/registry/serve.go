package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/sirupsen/logrus"
)

// DefaultListen is the default address of registry serve.
const DefaultListen = "127.0.0.1:5000"

// ErrNothingInstalled reports that there is no registry below the root yet.
var ErrNothingInstalled = errors.New("nothing is installed")

// NewHandler returns a read-only handler for the embedded registry below root, with the
// referrers endpoint.
func NewHandler(ctx context.Context, root string) (http.Handler, error) {
	dir := Dir(root)
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("%w below %s: %w", ErrNothingInstalled, root, err)
	}
	c := &configuration.Configuration{}
	c.Version = configuration.MajorMinorVersion(0, 1)
	c.Storage = configuration.Storage{
		"filesystem": configuration.Parameters{"rootdirectory": dir},
		"maintenance": configuration.Parameters{
			"readonly":      map[any]any{"enabled": true},
			"uploadpurging": map[any]any{"enabled": false},
		},
	}
	c.Catalog.MaxEntries = 1000
	c.HTTP.Secret = "read-only" // signs upload states; there are no uploads
	logrus.SetOutput(io.Discard)
	app := handlers.NewApp(ctx, c)
	store := filesystem.New(filesystem.DriverParameters{RootDirectory: dir, MaxThreads: 100})
	return referrers(store, app), nil
}

// Grace is the time that running requests get when the registry is stopped.
const Grace = 5 * time.Second

// Serve answers on the listener until ctx ends. Running requests may then finish within Grace.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), Grace)
		defer cancel()
		stopped <- s.Shutdown(grace)
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	if err := <-stopped; err != nil {
		return s.Close() // a client is still pulling after the grace period
	}
	return nil
}
