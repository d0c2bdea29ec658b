package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/install/operate"
)

func repairCommand(u *ui) *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "repair BUNDLE [--key PUB]...",
		Short: "Restore what has changed since a bundle was installed",
		Long: `repair hashes everything that a bundle has installed. It restores what is missing or
changed: blobs in the registry below ROOT, tags, files of the release and links. It does
not check the content of the data directory, where programs keep their data.

BUNDLE must be the installed bundle, or the bundle of a release that rollback can
restore. For such an earlier release, repair restores only its content in the registry.

If the release was started in a Kubernetes cluster, repair also applies its objects
again where the cluster has something else.`,
		Example: "  oob-bundle repair /media/disk/app.oob.tar",
		Args:    needs("BUNDLE"),
		RunE:    func(c *cobra.Command, args []string) error { return u.repair(c.Context(), args[0], f) },
	}
	f.addFlags(c)
	u.jsonFlag(c)
	return c
}

func (u *ui) repair(ctx context.Context, path string, f installFlags) error {
	source, err := f.source(path)
	if err != nil {
		return err
	}
	out, err := u.operator(f.root, &f.targetFlags, f.access(f.takeOver)).Repair(ctx, source)
	if out == nil {
		return err
	}
	return errors.Join(u.result(out, func(w io.Writer) { printRepaired(w, out) }), err)
}

func printRepaired(w io.Writer, r *operate.RepairResult) {
	for _, d := range r.Files {
		fmt.Fprintf(w, "  file      %-7s %s\n", d.What, d.Path)
	}
	for _, t := range r.Tags {
		fmt.Fprintf(w, "  tag       %s\n", t)
	}
	for _, b := range r.Blobs {
		fmt.Fprintf(w, "  blob      %-7s %s\n", b.What, b.Digest)
	}
	for _, b := range r.Others {
		fmt.Fprintf(w, "  blob      %-7s %s of %s, which another bundle brought\n", b.What, b.Digest, b.Repository)
	}
	also := ""
	if n := len(r.Tags); n > 0 {
		also = " and " + count(n, "tag")
	}
	if r.Earlier {
		fmt.Fprintf(
			w,
			"What the registry has of %s %s, which rollback can go back to, is good: %s%s put right\n",
			r.Name, r.Version, count(len(r.Blobs), "blob"), also,
		)
		return
	}
	fmt.Fprintf(
		w,
		"%s %s is as it was installed: %s and %s%s put right\n",
		r.Name, r.Version, count(len(r.Files), "file"), count(len(r.Blobs), "blob"), also,
	)
}
