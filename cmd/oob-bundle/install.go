package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/operate"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

// targetFlags configure the connection to a registry on this network.
type targetFlags struct {
	plainHTTP []string
	caFile    string
}

func (f *targetFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.plainHTTP, "plain-http", nil, "use plain HTTP for `HOST[:PORT]`; may be repeated")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "PEM `FILE` with additional certificate authorities")
}

func (f *targetFlags) client() (*remote.Client, error) {
	return remote.New(remote.Options{PlainHTTP: f.plainHTTP, CAFile: f.caFile, UserAgent: userAgent()})
}

// unencrypted reports whether container engines use plain HTTP for an address: the default
// address of this host's registry, and the addresses given with --plain-http.
func (f *targetFlags) unencrypted(address string) bool {
	return address == registry.DefaultListen || f.plain(address)
}

// plain reports whether --plain-http names the host of an address.
func (f *targetFlags) plain(address string) bool {
	name, _, _ := strings.Cut(address, "/")
	for _, p := range f.plainHTTP {
		if p == name {
			return true
		}
	}
	return false
}

// hostFlags select a directory outside the root for links.
type hostFlags struct{ hostRoot string }

func (f *hostFlags) add(c *cobra.Command) {
	c.Flags().StringVar(
		&f.hostRoot,
		"host-root",
		"",
		"create the links to units and configurations in etc/ below `DIR` (default / with the default --root, no links with another root)",
	)
}

// first returns the default of --host-root for a first release: "/" with the default root, "" (no
// links) with another root.
func (f *hostFlags) first(root string) string {
	if filepath.Clean(root) == install.DefaultRoot {
		return "/"
	}
	return ""
}

// clusterFlags say which Kubernetes cluster is meant.
type clusterFlags struct{ kubeconfig, context string }

func (f *clusterFlags) add(c *cobra.Command) {
	c.Flags().StringVar(
		&f.kubeconfig, "kubeconfig", "",
		"kubeconfig `FILE` of the Kubernetes cluster (default the file used at the last start, or the default of kubectl)",
	)
	c.Flags().StringVar(&f.context, "context", "", "`NAME` of the context in the kubeconfig file")
}

// access returns what the flags say; the path is made absolute, because it is recorded.
func (f *clusterFlags) access(takeOver bool) service.Access {
	a := service.Access{Kubeconfig: f.kubeconfig, Context: f.context, TakeOver: takeOver}
	if abs, err := filepath.Abs(f.kubeconfig); err == nil && f.kubeconfig != "" {
		a.Kubeconfig = abs
	}
	return a
}

type installFlags struct {
	trustFlags
	targetFlags
	hostFlags
	clusterFlags
	registry, values         string
	dryRun, start            bool
	startTimeout             time.Duration
	allowDowngrade, takeOver bool
}

func (f *installFlags) addFlags(c *cobra.Command) {
	f.trustFlags.add(c)
	f.targetFlags.add(c)
	f.hostFlags.add(c)
	f.clusterFlags.add(c)
	c.Flags().StringVar(&f.registry, "registry", "", "use the registry `HOST[:PORT][/PREFIX]` instead of the one below ROOT")
	c.Flags().StringVar(&f.values, "values", "", "YAML `FILE` with the values of this site (default the values of the current release)")
	c.Flags().BoolVar(&f.takeOver, "take-over", false, "take over names, tags and paths that belong to another channel or to the host")
}

func installCommand(u *ui) *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "install BUNDLE [--key PUB]...",
		Short: "Verify a bundle and install its content",
		Long: `install stores images in the registry below ROOT, or with --registry in a registry on
this network. It writes files below ROOT/deployments. No tag and no file changes before
the last byte is verified. If the same bundle is already installed, install does nothing.

BUNDLE is a file, or oci://REGISTRY/oob-bundle/NAME for a bundle that another host has
installed into a registry on this network.

With --start, install also starts the services of the release: with Docker Compose, with
systemd, or in a Kubernetes cluster with kubectl and helm. It waits until everything is
ready. If the release does not become ready, install returns to the previous release.
Before an upgrade, install dumps the database; if it returns to the previous release, it
restores the dump.`,
		Example: `  oob-bundle install /media/disk/app.oob.tar --key oob.pub
  oob-bundle install /media/disk/app.oob.tar --values site.yaml --dry-run
  oob-bundle install /media/disk/app.oob.tar --values site.yaml --start
  oob-bundle install /media/disk/app.oob.tar --registry registry.site:5000`,
		Args: needs("BUNDLE"),
		RunE: func(c *cobra.Command, args []string) error { return u.install(c.Context(), args[0], f) },
	}
	f.addFlags(c)
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "report what install would change, and change nothing")
	c.Flags().BoolVar(&f.start, "start", false, "start the release and wait until it is ready")
	c.Flags().DurationVar(&f.startTimeout, "start-timeout", 5*time.Minute, "maximum `TIME` until the release is ready")
	c.Flags().BoolVar(
		&f.allowDowngrade,
		"allow-downgrade",
		false,
		"install even if this host has had a newer bundle of the channel; this bundle then counts as the newest",
	)
	u.jsonFlag(c)
	return c
}

// operator returns what works on the host below a root.
func (u *ui) operator(root string, f *targetFlags, access service.Access) *operate.Operator {
	return &operate.Operator{
		Root: root, Client: f.client, Unencrypted: f.unencrypted, Cluster: access, Note: u.note, Warn: u.warn, NeedsTime: u.needsTime,
		Progress: func(what string, g *bundle.Geometry) (bundle.Watch, func()) {
			p := u.progress(what, g)
			return p.watch(), p.stop
		},
	}
}

// source returns the bundle to install, from its path or oci:// reference and the flags.
func (f *installFlags) source(path string) (operate.Source, error) {
	s := operate.Source{
		Registry:       f.registry,
		HostRoot:       f.hostRoot,
		FirstHostRoot:  f.first(f.root),
		Values:         f.values,
		TakeOver:       f.takeOver,
		AllowDowngrade: f.allowDowngrade,
	}
	if err := f.checkRegistry(); err != nil {
		return s, err
	}
	var err error
	if s.Policy, err = f.policy(); err != nil {
		return s, err
	}
	rest, ok := strings.CutPrefix(path, "oci://")
	if !ok {
		s.Path = path
		return s, nil
	}
	address, name, version, err := parseOnRegistry(rest)
	if err != nil {
		return s, err
	}
	if f.registry != "" && f.registry != address {
		return s, wrongUsage("a bundle of a registry is installed from that one; leave --registry away")
	}
	s.Registry, s.Reference = "", &operate.Reference{Address: address, Name: name, Version: version}
	return s, nil
}

// checkRegistry refuses a --registry that clients would not accept as a registry.
func (f *installFlags) checkRegistry() error {
	if f.registry == "" || f.registry == registry.Name {
		return nil
	}
	name, prefix, _ := strings.Cut(f.registry, "/")
	switch {
	case strings.Contains(f.registry, "://"):
		return wrongUsage("--registry %q is not HOST[:PORT][/PREFIX]; leave the scheme away", f.registry)
	case strings.ToLower(prefix) != prefix:
		return wrongUsage("--registry %q is not HOST[:PORT][/PREFIX]; registries know names in lower case only", f.registry)
	case !isHost(name):
		return wrongUsage("--registry %q is not HOST[:PORT][/PREFIX]; write the host with a dot or a port", f.registry)
	}
	return nil
}

// parseOnRegistry splits the part of a reference after oci:// into the registry's address, the
// name of the bundle, and a tag or digest, which may be empty.
func parseOnRegistry(ref string) (address, name, version string, err error) {
	address, name, ok := strings.Cut(ref, "/oob-bundle/")
	name, version, _ = strings.Cut(name, "@")
	if version == "" {
		name, version, _ = strings.Cut(name, ":")
	}
	if host, _, _ := strings.Cut(address, "/"); !ok || name == "" || strings.Contains(name, "/") || !isHost(host) {
		return "", "", "", wrongUsage("oci://%s is not oci://HOST[:PORT][/PREFIX]/oob-bundle/NAME[:TAG]", ref)
	}
	return address, name, version, nil
}

func (u *ui) install(ctx context.Context, path string, f installFlags) error {
	if f.dryRun && f.start {
		return wrongUsage("--dry-run starts nothing; leave --start away")
	}
	source, err := f.source(path)
	if err != nil {
		return err
	}
	r, err := u.operator(f.root, &f.targetFlags, f.access(f.takeOver)).Install(ctx, operate.InstallOptions{
		Source: source, DryRun: f.dryRun, Start: f.start, StartTimeout: f.startTimeout,
	})
	if err != nil {
		return err
	}
	if f.dryRun {
		return u.result(r.Preview, func(w io.Writer) { printPreview(w, r.Preview, r.InPlace) })
	}
	return u.result(r.Receipt, func(w io.Writer) { printReceipt(w, r, f) })
}

// isHost reports whether every client parses s as a registry host, not as a part of a name: s
// contains a dot or a port, or is localhost.
func isHost(s string) bool { return strings.ContainsAny(s, ".:") || s == "localhost" }
