package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/verify"
)

type installFlags struct {
	trustFlags
	registry, caFile         string
	plainHTTP                []string
	allowDowngrade, takeOver bool
}

func installCommand(u *ui) *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "install BUNDLE [--key PUB]...",
		Short: "Verify a bundle and put its images into a registry",
		Long: `Verify a bundle and put its images into the registry below ROOT, or with
--registry into one on this network. No tag changes before the last byte is
verified. Installing the same bundle again does nothing.`,
		Example: `  oob-bundle install /media/disk/app.oob.tar --key oob.pub
  oob-bundle install /media/disk/app.oob.tar --registry registry.site:5000/mirror`,
		Args: needs("BUNDLE"),
		RunE: func(c *cobra.Command, args []string) error { return u.install(c.Context(), args[0], f) },
	}
	f.add(c)
	c.Flags().StringVar(&f.registry, "registry", "", "push to HOST[:PORT][/PREFIX] instead of the registry below ROOT")
	c.Flags().StringArrayVar(&f.plainHTTP, "plain-http", nil, "speak to HOST[:PORT] without TLS; may be repeated")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "PEM file with further certificate authorities")
	c.Flags().BoolVar(&f.allowDowngrade, "allow-downgrade", false, "install although the channel is further")
	c.Flags().BoolVar(&f.takeOver, "take-over", false, "take names and tags that belong to another channel")
	u.jsonFlag(c)
	return c
}

func (u *ui) install(ctx context.Context, path string, f installFlags) (err error) {
	if strings.Contains(f.registry, "://") {
		return fmt.Errorf("%w: --registry %q is not HOST[:PORT][/PREFIX]; leave the scheme away", errUsage, f.registry)
	}
	policy, err := f.policy()
	if err != nil {
		return err
	}
	file, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	v, err := verify.Open(ctx, file, file.Size(), policy)
	if err != nil {
		return &bundleError{path, err}
	}
	lock, err := install.Acquire(f.root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	target, err := f.target(ctx, v)
	if err != nil {
		return err
	}
	plan, err := install.NewPlan(ctx, v, target, install.Options{
		Root: f.root, Policy: policy, AllowDowngrade: f.allowDowngrade, TakeOver: f.takeOver, Warn: u.warn,
	})
	if err != nil {
		return &bundleError{path, err}
	}
	u.note("%s: signature, headers and manifests are good; storing %s %s (%d images, %s) in %s",
		path, v.Info.Name, v.Info.Version, len(v.Deployment.Images), human(v.PayloadSize()), target.Address())
	p := u.progress("store", v.Geometry)
	r, err := plan.Apply(ctx, p.watch())
	p.stop()
	if err != nil {
		return &bundleError{path, err}
	}
	return u.result(r.Receipt, func(w io.Writer) { u.printReceipt(w, r, f) })
}

func (f installFlags) target(ctx context.Context, v *verify.Verified) (install.Target, error) {
	if f.registry == "" {
		return registry.OpenEmbedded(ctx, f.root)
	}
	client, err := remote.New(remote.Options{PlainHTTP: f.plainHTTP, CAFile: f.caFile, UserAgent: userAgent()})
	if err != nil {
		return nil, err
	}
	host, _, _ := strings.Cut(f.registry, "/")
	if !isHost(host) {
		return nil, fmt.Errorf("%w: --registry %q is not HOST[:PORT][/PREFIX]; write the host with a dot or a port", errUsage, f.registry)
	}
	return registry.OpenExternal(client, f.registry, install.CentralRepository(v.Info.Name)), nil
}

// isHost reports whether every client takes s for a registry's host and not for
// a part of a name: it has a dot or a port, or is localhost.
func isHost(s string) bool { return strings.ContainsAny(s, ".:") || s == "localhost" }

func (u *ui) printReceipt(w io.Writer, r *install.Result, f installFlags) {
	b := r.Receipt.Bundle
	if r.Nothing {
		fmt.Fprintf(w, "%s %s is installed already; nothing to do.\n", b.Name, b.Version)
	} else {
		fmt.Fprintf(w, "Installed %s %s\n", b.Name, b.Version)
	}
	fmt.Fprintf(w, "  identity  %s\n", b.Digest)
	fmt.Fprintf(w, "  channel   %s, sequence %d\n", b.Channel, b.Sequence)
	for _, i := range r.Receipt.Images {
		fmt.Fprintf(w, "  image     %s\n            %s\n", i.Reference, i.Digest)
	}
	if f.registry == "" && !r.Nothing {
		root := ""
		if f.root != defaultRoot {
			root = " --root " + f.root
		}
		fmt.Fprintf(w, "Serve them on this host: oob-bundle registry serve%s\n", root)
	}
}
