package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/operate"
)

func printPreview(w io.Writer, p *install.Preview, inPlace bool) {
	if p.Nothing {
		fmt.Fprintf(w, "%s %s is installed already; nothing would be done.\n", p.Bundle.Name, p.Bundle.Version)
		return
	}
	fmt.Fprintf(w, "Would install %s %s as release %s\n", p.Bundle.Name, p.Bundle.Version, p.Release)
	fmt.Fprintf(w, "  registry  %s: %d new blobs, %s\n", p.Registry, p.NewBlobs, human(p.NewBytes))
	for _, i := range p.Images {
		fmt.Fprintf(w, "  image     %-7s %s\n", i.What, i.Reference)
	}
	for _, t := range p.Tags {
		if t.From != "" {
			fmt.Fprintf(w, "  tag       %s:%s moves from %s\n            to %s\n", t.Repository, t.Tag, t.From, t.To)
		}
	}
	fmt.Fprintf(w, "  files     %s\n", human(p.FileBytes))
	for _, c := range p.Files {
		fmt.Fprintf(w, "  file      %-7s %s\n", c.What, c.Path)
		for _, line := range strings.Split(strings.TrimSuffix(c.Diff, "\n"), "\n") {
			if line != "" {
				fmt.Fprintf(w, "            %s\n", line)
			}
		}
	}
	for _, l := range p.Links {
		fmt.Fprintf(w, "  link      %s\n", l)
	}
	if len(p.Services) > 0 {
		fmt.Fprintf(w, "  services  %s (with --start)\n", strings.Join(p.Services, ", "))
	}
	for n, s := range p.Cluster {
		fmt.Fprintf(w, "  cluster   %d. %s (with --start)\n", n+1, s)
	}
	if inPlace {
		fmt.Fprintln(w, "Nothing was done. The images stay where they are; whoever pulls them checks them.")
		return
	}
	fmt.Fprintln(w, "Nothing was done. The payload was not read; install verifies it while it stores it.")
}

func printReceipt(w io.Writer, r *operate.InstallResult, f installFlags) {
	b, dir := r.Receipt.Bundle, f.root
	switch {
	case r.Nothing && f.start:
		fmt.Fprintf(w, "%s %s is installed already, and runs. The payload of this file was not read.\n", b.Name, b.Version)
	case r.Nothing && r.InPlace:
		fmt.Fprintf(w, "%s %s is installed already; nothing to do.\n", b.Name, b.Version)
	case r.Nothing:
		fmt.Fprintf(w, "%s %s is installed already; nothing to do. The payload of this file was not read.\n", b.Name, b.Version)
	default:
		fmt.Fprintf(w, "Installed %s %s\n", b.Name, b.Version)
	}
	fmt.Fprintf(w, "  identity  %s\n", b.Digest)
	fmt.Fprintf(w, "  channel   %s, sequence %d\n", b.Channel, b.Sequence)
	for _, i := range r.Receipt.Images {
		fmt.Fprintf(w, "  image     %s\n            %s\n", i.Reference, i.Digest)
	}
	fmt.Fprintf(w, "  files     %d in %s\n", len(r.Receipt.Files), filepath.Join(host.Base(dir, b.Name), "current"))
	for _, l := range r.Release.LinkPaths() {
		fmt.Fprintf(w, "  link      %s\n", l)
	}
	if r.Serves {
		fmt.Fprintf(w, "Serve them on this host: oob-bundle registry serve%s\n", install.RootFlag(dir))
	}
}
