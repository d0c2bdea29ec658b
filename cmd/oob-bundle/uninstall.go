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
	c.Flags().BoolVar(
		&f.leave,
		"leave-registry",
		false,
		"change nothing in the registry that --registry named at the installation: it is gone, or others need what is there",
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
