package host

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// checkStart checks whether this host can run the release: its platform, its units, and the
// ports of a first release.
func (r *Release) checkStart() error {
	if !r.site.Start {
		return nil
	}
	var problems []error
	if own := (bundle.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}); !runs(own, r.platform) {
		problems = append(
			problems,
			fmt.Errorf("%w: it carries %s, and this host is %s", bundle.ErrPolicy, strings.Join(r.bundle.Info.PlatformNames(), ", "), own),
		)
	}
	problems = append(problems, r.checkUnits())
	if current, err := Current(r.site.Root, r.Name); err != nil || current != "" {
		return errors.Join(append(problems, err)...) // the ports may be in use by the current release
	}
	for _, v := range r.host.Values {
		port := r.values[v.Name]
		if v.Kind != "port" || !slices.ContainsFunc(r.files, func(f file) bool {
			return f.path == "compose.yaml" && (bytes.Contains(f.data, []byte(`"`+port+":")) || bytes.Contains(f.data, []byte(":"+port+":")))
		}) {
			continue
		}
		l, err := net.Listen("tcp", ":"+port) //nolint:noctx // the call does not wait
		if errors.Is(err, syscall.EADDRINUSE) {
			problems = append(
				problems,
				fmt.Errorf("%w: %s: something on this host listens on port %s already; stop it, or choose another port", ErrValues, v.Name, port),
			)
		}
		if err == nil {
			problems = append(problems, l.Close())
		}
	}
	return errors.Join(problems...)
}

// checkUnits checks whether podman will see the release's units. Without the units, Docker
// would run services that the site wants podman to run.
func (r *Release) checkUnits() error {
	quadlet := slices.ContainsFunc(r.host.Links, func(l bundle.Link) bool { return strings.HasSuffix(l.Path, ".container") })
	if !quadlet || r.site.HostRoot != "" && filepath.Clean(r.site.HostRoot) == "/" {
		return nil
	}
	return fmt.Errorf(
		"%w: podman and systemd look for the units below /etc alone; to start them, give --host-root /, or leave --root away",
		ErrValues,
	)
}

// hostPlatform returns the nearest platform that this machine runs, or the first platform if
// it runs none.
func hostPlatform(carried []bundle.Platform) bundle.Platform {
	own := bundle.Platform{OS: "linux", Architecture: runtime.GOARCH}
	chosen, least := carried[0], math.MaxInt
	for _, p := range carried {
		if distance, ok := own.Runs(p); ok && distance < least {
			chosen, least = p, distance
		}
	}
	return chosen
}

// runs reports whether a machine runs programs for a platform.
func runs(machine, built bundle.Platform) bool {
	_, ok := machine.Runs(built)
	return ok
}
