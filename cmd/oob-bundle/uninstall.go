package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/install/operate"
)

func uninstallCommand(u *ui) *cobra.Command {
	var f undoFlags
	c := &cobra.Command{
		Use:   "uninstall [NAME]",
		Short: "Remove everything that a bundle has installed",
		Long: `uninstall first stops the services. It then restores the earlier tags, removes links and
restores what the links replaced. It also removes the content that no other bundle needs
from the registry below ROOT. It changes nothing else. In a Kubernetes cluster, volumes,
namespaces, resource definitions and what holds data remain.

Data, secrets and dumps remain; uninstall prints where they are. You may omit NAME if only
one deployment is installed.`,
		Example: "  oob-bundle uninstall application",
		Args:    atMostOne("NAME"),
		RunE:    func(c *cobra.Command, args []string) error { return u.uninstall(c.Context(), first(args), f) },
	}
	f.add(c)
	c.Flags().BoolVar(
		&f.leave,
		"leave-registry",
		false,
		"do not change the registry given to install with --registry; for a registry that is gone, or whose content others need",
	)
	u.jsonFlag(c)
	return c
}

func (u *ui) uninstall(ctx context.Context, name string, f undoFlags) error {
	out, err := u.operator(f.root, &f.targetFlags, f.access(false)).Uninstall(ctx, operate.UninstallOptions{
		Change: operate.Change{Name: name, Registry: f.registry}, LeaveRegistry: f.leave,
	})
	if errors.Is(err, operate.ErrOwnRegistry) {
		return wrongUsage("%v", err)
	}
	if err != nil {
		return err
	}
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
