package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

func valuesCommand(u *ui) *cobra.Command {
	var f trustFlags
	c := &cobra.Command{
		Use:   "values BUNDLE [--key PUB]...",
		Short: "Write a template of what only the site knows",
		Example: `  oob-bundle values /media/disk/app.oob.tar >site.yaml
  oob-bundle install /media/disk/app.oob.tar --values site.yaml`,
		Args: needs("BUNDLE"),
		RunE: func(c *cobra.Command, args []string) error { return u.values(c.Context(), args[0], f) },
	}
	f.add(c)
	u.jsonFlag(c)
	return c
}

// values prints the template, or with --json what is asked for.
func (u *ui) values(ctx context.Context, path string, f trustFlags) (err error) {
	v, file, err := f.open(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	asked := []bundle.Value{}
	if v.Deployment.Host != nil {
		asked = append(asked, v.Deployment.Host.Values...)
	}
	return u.result(asked, func(w io.Writer) {
		_, err = w.Write(host.Template(v.Deployment))
	})
}
