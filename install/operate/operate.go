// Package operate is what an operator does to a host: install, roll back, uninstall,
// repair, look, collect. Each is a function with options and a result; they put the plan
// of package install, the files of host, the registries of registry and the programs of
// service together. Nothing here parses flags or prints.
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

// ErrDrift marks something that is not as it was installed.
var ErrDrift = errors.New("it is not as it was installed")

// Operator works on one host. All fields are needed.
type Operator struct {
	Root   string                         // directory with registry, trust and state
	Client func() (*remote.Client, error) // reaches registries of this network
	// Unencrypted reports whether container engines speak to an address without TLS.
	Unencrypted func(address string) bool
	Cluster     service.Access // of Kubernetes deployments
	Note, Warn  func(format string, args ...any)
	// NeedsTime is told how long an interrupted run may take to put things in order.
	NeedsTime func(time.Duration)
	// Progress returns what is told how a payload is read, and what ends that.
	Progress func(what string, g *bundle.Geometry) (watch bundle.Watch, done func())
}

// openTarget returns the target of a name: the address of a registry, or that of the one
// below the root.
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

// warnRebuilt reports a ledger that had to be rebuilt.
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

// OfBundle marks an error as one about a bundle.
func OfBundle(path string, err error) error { return &BundleError{path, err} }

// RegistryError is an error of a registry that was to be filled.
type RegistryError struct{ Err error }

func (e *RegistryError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *RegistryError) Unwrap() error { return e.Err }
