// Package operate implements the operator's commands on a host: install, roll back, uninstall,
// repair, status and collect. Each is a function with options and a result. They combine the
// plans of package install, the files of package host, the registries of package registry and
// the engines of package service. The package neither parses flags nor prints.
package operate

import (
	"context"
	"errors"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// ErrDrift reports content that differs from what was installed.
var ErrDrift = errors.New("it is not as it was installed")

// Operator works on one host. All function fields are required.
type Operator struct {
	Root   string                         // directory with registry, trust and state
	Client func() (*remote.Client, error) // returns the client for the network's registries
	// Unencrypted reports whether container engines use no TLS for an address.
	Unencrypted func(address string) bool
	Cluster     service.Access // access to the cluster of Kubernetes deployments
	Note, Warn  func(format string, args ...any)
	// NeedsTime receives how long the cleanup of an interrupted run may take.
	NeedsTime func(time.Duration)
	// Progress returns the watch for reading a payload, and a function that ends the progress
	// display.
	Progress func(what string, g *bundle.Geometry) (watch bundle.Watch, done func())
}

// openTarget returns the external registry at an address, or the registry below the root if
// name is "" or registry.Name.
func (o *Operator) openTarget(ctx context.Context, name, deployment string) (install.Registry, error) {
	if name == "" || name == registry.Name {
		e, err := registry.OpenEmbedded(ctx, o.Root)
		if err != nil {
			return install.Registry{}, err
		}
		return e.Registry(), nil
	}
	client, err := o.Client()
	if err != nil {
		return install.Registry{}, err
	}
	return registry.OpenExternal(client, name, install.CentralRepository(deployment)).Registry(), nil
}

func (o *Operator) manager(timeout time.Duration) *service.Manager {
	return service.New(o.Root, o.Unencrypted, o.Cluster, timeout, o.Note)
}

// warnRebuilt warns if the ledger had to be rebuilt.
func (o *Operator) warnRebuilt(l *ledger.Ledger) {
	if l.Rebuilt != nil {
		o.Warn("%v; what is installed is known from receipts and releases", l.Rebuilt)
	}
}

// BundleError is an error about a bundle.
type BundleError struct {
	Path string // or oci://…
	Err  error
}

func (e *BundleError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *BundleError) Unwrap() error { return e.Err }

// OfBundle returns err as a BundleError.
func OfBundle(path string, err error) error { return &BundleError{path, err} }

// RegistryError is an error of the registry that receives the content.
type RegistryError struct{ Err error }

func (e *RegistryError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *RegistryError) Unwrap() error { return e.Err }
