package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/install/operate"
)

// undoFlags are the flags of rollback and uninstall.
type undoFlags struct {
	targetFlags
	clusterFlags
	root, registry string
	start, restore bool
	leave          bool // uninstall only
	timeout        time.Duration
}

func (f *undoFlags) add(c *cobra.Command) {
	rootFlag(c, &f.root)
	f.targetFlags.add(c)
	f.clusterFlags.add(c)
	c.Flags().StringVar(&f.registry, "registry", "", "`REGISTRY` of the deployment, required if NAME is installed with several registries")
}

func rollbackCommand(u *ui) *cobra.Command {
	var f undoFlags
	c := &cobra.Command{
		Use:   "rollback [NAME]",
		Short: "Return to the previous release",
		Long: `rollback restores the tags and the files of the previous release. You may omit NAME if
only one deployment is installed.

rollback does not change the data that programs have written since. If the newer release
has migrated a database, the previous release may not be able to read the database.
--restore-database restores the dump that install --start took before it started the
newer release. Data that was written to the database since then is lost.`,
		Example: `  oob-bundle rollback
  oob-bundle rollback application --start --restore-database`,
		Args: atMostOne("NAME"),
		RunE: func(c *cobra.Command, args []string) error { return u.rollback(c.Context(), first(args), f) },
	}
	f.add(c)
	c.Flags().BoolVar(&f.start, "start", false, "stop the running release and start the restored one")
	c.Flags().BoolVar(&f.restore, "restore-database", false, "with --start: restore the database dump from before the newer release started")
	c.Flags().DurationVar(&f.timeout, "start-timeout", 5*time.Minute, "maximum `TIME` until the release is ready")
	u.jsonFlag(c)
	return c
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func (u *ui) rollback(ctx context.Context, name string, f undoFlags) error {
	if f.restore && !f.start {
		return wrongUsage("--restore-database needs --start, because the database has to run for it")
	}
	r, err := u.operator(f.root, &f.targetFlags, f.access(false)).Rollback(ctx, operate.RollbackOptions{
		Change: operate.Change{Name: name, Registry: f.registry}, Start: f.start, StartTimeout: f.timeout, Restore: f.restore,
	})
	if err != nil {
		return err
	}
	switch {
	case r.Receipt == nil:
		return u.result(r, func(w io.Writer) {
			fmt.Fprintf(w, "The installation of %s %s is taken back; no other release of it was installed\n", r.Name, r.Version)
		})
	case r.TakenBack:
		return u.result(r.Receipt, func(w io.Writer) {
			fmt.Fprintf(w, "%s is %s, as before\n  identity  %s\n", r.Name, r.Receipt.Bundle.Version, r.Receipt.Bundle.Digest)
		})
	}
	return u.result(r.Receipt, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s again\n  identity  %s\n", r.Name, r.Receipt.Bundle.Version, r.Receipt.Bundle.Digest)
	})
}
