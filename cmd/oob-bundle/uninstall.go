package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

func uninstallCommand(u *ui) *cobra.Command {
	var f undoFlags
	c := &cobra.Command{
		Use:   "uninstall [NAME]",
		Short: "Remove what a bundle has put in place",
		Long: `And nothing else: tags are what they were before, links are gone and what they replaced is back, and what no other bundle
needs leaves the registry below ROOT. Services are stopped first. Data, secrets and
dumps are not touched; it says where they are. NAME may be left away where only one
deployment is installed.`,
		Example: "  oob-bundle uninstall application",
		Args:    atMostOne("NAME"),
		RunE:    func(c *cobra.Command, args []string) error { return u.uninstall(c.Context(), first(args), f) },
	}
	f.add(c)
	c.Flags().BoolVar(&f.leave, "leave-registry", false, "change nothing in the registry that --registry named at the installation: it is gone, or others need what is there")
	u.jsonFlag(c)
	return c
}

// shared reports whether the same name is installed with another registry, too.
func shared(root string, d install.Installed) (bool, error) {
	state, err := install.ReadState(root)
	if err != nil {
		return false, err
	}
	for _, other := range state.Deployments {
		if other.Name == d.Name && other.Registry != d.Registry {
			return true, nil
		}
	}
	return false, nil
}

// mine reports whether a release is of what is installed with this registry, as far as
// its receipts know.
func mine(root string, d install.Installed, a *host.About) bool {
	kept, err := d.Kept(root)
	return d.Release == a.ID || err == nil && slices.ContainsFunc(kept, func(r *install.Receipt) bool { return r.Release == a.ID })
}

type uninstallJSON struct {
	Name    string        `json:"name"`
	Version string        `json:"version"`
	Digest  bundle.Digest `json:"digest"`
	Channel string        `json:"channel"`
	// Sequence is what the channel stays at: this host refuses what is older also now.
	Sequence int64              `json:"sequence"`
	Removed  registry.Collected `json:"removed"` // from the registry below ROOT
	Left     []string           `json:"left"`    // paths that belong to nobody but the site
}

func (u *ui) uninstall(ctx context.Context, name string, f undoFlags) (err error) {
	d, site, release, err := u.site(ctx, name, "uninstall", f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if f.leave && d.Registry == embeddedName {
		return wrongUsage("--leave-registry is for a registry of the site; the one below --root goes with what is in it")
	}
	site.Leave = f.leave
	if d.Receipt != "" { // else its first installation was taken back
		if err := install.CanUninstall(ctx, site, d); err != nil {
			return err
		}
	}
	manager := service.New(f.root, f.unencrypted, time.Minute, u.note)
	running, lost := manager.Running(d.Name)
	if lost != nil {
		u.warn("%v; what of it runs is not stopped", lost)
		running = nil
	}
	both, err := shared(f.root, d)
	if err != nil {
		return err
	}
	if running != nil && both && !mine(f.root, d, running) {
		running = nil
	}
	if lost != nil && !both {
		site.Switched = func(context.Context) error { return host.ForgetStarted(f.root, d.Name) }
	}
	if running != nil { // what is left of it is to be of one release
		if err := manager.Finish(ctx, running); err != nil {
			return err
		}
	}
	if running != nil {
		u.note("Stopping %s %s", running.Name, running.Version)
		if err := manager.Stop(ctx, running); err != nil {
			return fmt.Errorf("%s %s was started and cannot be stopped: %w", running.Name, running.Version, err)
		}
		site.Switched = func(ctx context.Context) error {
			if err := manager.Forget(ctx, running); err != nil {
				return err
			}
			return manager.Stopped(running)
		}
	}
	out := uninstallJSON{Name: d.Name, Version: d.Version, Digest: d.Identity, Left: []string{}}
	site.Last = func(ctx context.Context) (err error) {
		e, ok := site.Target.(*registry.Embedded)
		if !ok {
			return nil
		}
		// Of another deployment; its own is gone.
		if err := refuseLost(f.root); err != nil && (errors.Is(err, errDrift) || host.Lost(err)) {
			u.warn("%v; then oob-bundle registry gc removes what is not needed any more", err)
			return nil
		} else if err != nil {
			return err
		}
		out.Removed, err = e.Collect(ctx)
		if errors.Is(err, bundle.ErrDigest) { // of another bundle, and no reason to keep this one
			u.warn("%v; then oob-bundle registry gc removes what is not needed any more", err)
			return nil
		}
		return err
	}
	remove := install.Uninstall
	if d.Receipt == "" {
		remove = install.RemoveStaged
	}
	left, err := remove(ctx, site, d)
	if err != nil {
		return err
	}
	out.Left = append(out.Left, left...)
	state, err := install.ReadState(f.root)
	if err != nil {
		return err
	}
	out.Channel, out.Sequence = d.Channel, state.Channels[d.Channel].Sequence
	return u.result(out, func(w io.Writer) {
		fmt.Fprintf(w, "Removed %s %s\n", out.Name, out.Version)
		if out.Removed.Blobs > 0 {
			fmt.Fprintf(w, "  registry  %s less, %s\n", count(out.Removed.Blobs, "blob"), human(out.Removed.Bytes))
		}
		fmt.Fprintf(w, "  channel   %s stays at sequence %d: this host refuses what is older also now\n", out.Channel, out.Sequence)
		for _, p := range out.Left {
			fmt.Fprintf(w, "  left      %s\n", p)
		}
	})
}
