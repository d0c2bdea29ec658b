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
	c.Flags().StringVar(&f.registry, "registry", "", "the one of this `REGISTRY`, where several of the name are installed")
}

func rollbackCommand(u *ui) *cobra.Command {
	var f undoFlags
	c := &cobra.Command{
		Use:   "rollback [NAME]",
		Short: "Put the release before the current one back",
		Long: `Its tags and its files. NAME may be left away where only one deployment is
installed.

What programs have written since stays as it is. A database that the newer release
has migrated may be more than the older one understands: --restore-database puts
the dump back that install --start took before it started the newer release, and
loses what was written to it since.`,
		Example: `  oob-bundle rollback
  oob-bundle rollback application --start --restore-database`,
		Args: atMostOne("NAME"),
		RunE: func(c *cobra.Command, args []string) error { return u.rollback(c.Context(), first(args), f) },
	}
	f.add(c)
	c.Flags().BoolVar(&f.start, "start", false, "stop what runs, and start what is put back")
	c.Flags().BoolVar(&f.restore, "restore-database", false, "with --start: put the dump back that was taken before the newer release started")
	c.Flags().DurationVar(&f.timeout, "start-timeout", 5*time.Minute, "`TIME` that it may take to come up")
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
