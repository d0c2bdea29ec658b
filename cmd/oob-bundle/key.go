package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/verify/trust"
)

func keyCommand(u *ui) *cobra.Command {
	c := group("key", "Make signing keys")
	c.Example = "  oob-bundle key generate"
	var prefix string
	generate := &cobra.Command{
		Use:   "generate",
		Short: "Make a key pair in cosign's formats: PREFIX.key and PREFIX.pub",
		Long: `The private key is encrypted with a password. The command asks for the password, or takes
it from OOB_BUNDLE_PASSWORD or COSIGN_PASSWORD. It never overwrites existing files.`,
		Example: "  oob-bundle key generate\n  oob-bundle key generate --output-prefix officer",
		Args:    none,
		RunE:    func(c *cobra.Command, _ []string) error { return u.generateKey(c.Context(), prefix) },
	}
	generate.Flags().StringVar(&prefix, "output-prefix", "oob", "`PREFIX` of both file names")
	u.jsonFlag(generate)
	c.AddCommand(generate)
	return c
}

type keyJSON struct {
	Private     string `json:"private"`
	Public      string `json:"public"`
	Fingerprint string `json:"fingerprint"`
}

func (u *ui) generateKey(ctx context.Context, prefix string) error {
	private, public, err := sign.Generate(prefix, u.password(ctx))
	if err != nil {
		return err
	}
	k, err := trust.ReadKey(public)
	if err != nil {
		return err
	}
	out := keyJSON{private, public, k.Fingerprint.String()}
	return u.result(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s   keep it on the connected side, and a copy in a safe\n", out.Private)
		fmt.Fprintf(w, "%s   carry it to the isolated side by another way than the bundles\n", out.Public)
		fmt.Fprintf(w, "  fingerprint  %s   compare it there by voice\n", out.Fingerprint)
	})
}
