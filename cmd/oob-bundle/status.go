package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/install/operate"
)

type statusFlags struct {
	clusterFlags
	root  string
	check bool
}

func statusCommand(u *ui) *cobra.Command {
	var f statusFlags
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what is installed on this host",
		Long: `status shows each installed bundle, the keys that signed it, and its images and files.

With --check, status also hashes every file and every blob in the registry below ROOT,
and checks tags and links. It exits with status 1 if anything has drifted. oob-bundle
repair restores what has drifted.

For a deployment in a Kubernetes cluster, status also shows what is not ready, and --check
compares its objects with what the server has.`,
		Example: "  oob-bundle status\n  oob-bundle status --check",
		Args:    none,
		RunE:    func(c *cobra.Command, _ []string) error { return u.status(c.Context(), f) },
	}
	rootFlag(c, &f.root)
	f.add(c)
	c.Flags().BoolVar(&f.check, "check", false, "hash files and blobs, and report drift")
	u.jsonFlag(c)
	return c
}

func (u *ui) status(ctx context.Context, f statusFlags) error {
	out, err := u.operator(f.root, &targetFlags{}, f.access(false)).Status(ctx, operate.StatusOptions{Check: f.check})
	if out == nil {
		return err
	}
	return errors.Join(u.result(out, func(w io.Writer) { printStatus(w, out, f) }), err)
}

func printStatus(w io.Writer, s *operate.Status, f statusFlags) {
	if len(s.Deployments) == 0 && len(s.Pending) == 0 {
		fmt.Fprintf(w, "Nothing is installed below %s.\n", f.root)
	}
	for _, d := range s.Deployments {
		printDeployment(w, d)
	}
	if len(s.Damaged) > 0 {
		fmt.Fprintf(w, "registry below %s\n", f.root)
	}
	for _, x := range s.Damaged {
		fmt.Fprintf(w, "  drift     %-7s blob %s of %s\n", x.What, x.Digest, x.Repository)
	}
	if s.Storing {
		fmt.Fprintln(
			w,
			"An installation is storing content, or was killed while it did; nothing of that is in use. If none runs, run the same one again.",
		)
	}
	if s.Checked && s.Drift() == 0 && len(s.Deployments) > 0 {
		if out := s.Unchecked; len(out) > 0 {
			fmt.Fprintf(
				w,
				"Every file is as it was installed, and every blob of the registry below %s. What %s holds was not looked at.\n",
				f.root, strings.Join(out, ", "),
			)
		} else {
			fmt.Fprintln(w, "Every file and every blob is as it was installed.")
		}
	}
	for _, p := range s.Pending {
		if p.Action == "install" {
			fmt.Fprintf(
				w,
				"The installation of %s %s into %s, begun %s, did not finish; run the same oob-bundle install again.\n",
				p.Name, p.Version, p.Registry, p.Started,
			)
			continue
		}
		fmt.Fprintf(w, "The %s of %s, begun %s, did not finish; run %s again.\n", p.Action, p.Name, p.Started, p.Command)
	}
}

func printDeployment(w io.Writer, d operate.DeploymentStatus) {
	fmt.Fprintf(w, "%s %s\n", d.Name, d.Version)
	fmt.Fprintf(w, "  identity  %s\n", d.Digest)
	fmt.Fprintf(w, "  channel   %s, newest sequence %d\n", d.Channel, d.Sequence)
	for _, s := range d.Signers {
		fmt.Fprintf(w, "  signed    %s\n", s)
	}
	fmt.Fprintf(w, "  installed %s (by this host's clock)\n", d.Installed)
	fmt.Fprintf(w, "  registry  %s\n", d.Registry)
	for _, i := range d.Images {
		fmt.Fprintf(w, "  image     %s\n            %s\n", i.Reference, i.Digest)
	}
	switch {
	case d.Current:
		fmt.Fprintf(w, "  files     %d in %s (release %s)\n", len(d.Files), d.Directory, d.Release)
	default:
		fmt.Fprintf(w, "  files     %d of release %s, which is not the current one\n", len(d.Files), d.Release)
	}
	if d.Current && d.Started != "" && d.Started != d.Release {
		fmt.Fprintf(w, "  runs      another release, %s, which was started last: install --start with this bundle starts this one\n", d.Started)
	}
	for _, s := range d.Waiting {
		fmt.Fprintf(w, "  waiting   %s\n", s)
	}
	for _, b := range d.Before {
		fmt.Fprintf(w, "  before    %s\n", b)
	}
	for _, x := range d.Drift {
		fmt.Fprintf(w, "  drift     %-7s %s\n", x.What, x.Path)
	}
}
