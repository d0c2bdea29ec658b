package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/operate"
	"github.com/oob-bundle/oob-bundle/install/service"
)

func valuesCommand(u *ui) *cobra.Command {
	var f valuesFlags
	c := &cobra.Command{
		Use:   "values BUNDLE [--key PUB]...",
		Short: "Print a template for the values that a bundle asks for",
		Example: `  oob-bundle values /media/disk/app.oob.tar >site.yaml
  oob-bundle install /media/disk/app.oob.tar --values site.yaml`,
		Long: `The template asks for values that only this site knows, such as names, ports and
certificates. Fill in the template and give it to oob-bundle install --values.

BUNDLE is a file, or oci://REGISTRY/oob-bundle/NAME for a bundle that another host has
installed into a registry on this network.`,
		Args: needs("BUNDLE"),
		RunE: func(c *cobra.Command, args []string) error { return u.values(c.Context(), args[0], f) },
	}
	f.trustFlags.add(c)
	f.targetFlags.add(c)
	u.jsonFlag(c)
	return c
}

type valuesFlags struct {
	trustFlags
	targetFlags
}

// deployment opens and verifies a bundle, from a path or oci:// reference, and returns its
// deployment document.
func (u *ui) deployment(ctx context.Context, path string, f valuesFlags) (d *bundle.Deployment, err error) {
	rest, ok := strings.CutPrefix(path, "oci://")
	if !ok {
		v, file, err := f.open(ctx, path)
		if err != nil {
			return nil, err
		}
		return v.Deployment, file.Close()
	}
	policy, err := f.policy()
	if err != nil {
		return nil, err
	}
	address, name, version, err := parseOnRegistry(rest)
	if err != nil {
		return nil, err
	}
	ref := operate.Reference{Address: address, Name: name, Version: version}
	v, err := u.operator(f.root, &f.targetFlags, service.Access{}).Verified(ctx, ref, policy)
	if err != nil {
		return nil, err
	}
	return v.Deployment, nil
}

// values prints the template, or with --json the list of values.
func (u *ui) values(ctx context.Context, path string, f valuesFlags) error {
	d, err := u.deployment(ctx, path, f)
	if err != nil {
		return err
	}
	asked := []bundle.Value{}
	if d.Host != nil {
		asked = append(asked, d.Host.Values...)
	}
	return u.result(asked, func(w io.Writer) {
		_, _ = w.Write(host.Template(d)) // to memory
	})
}
