package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/install/operate"
)

func signCommand(u *ui) *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:   "sign BUNDLE --key KEY",
		Short: "Add a signature to a bundle, in place",
		Long: `sign writes the signature into the bundle file. Verify the bundle before you sign it: your
signature vouches for its content.

To complete an interrupted signature, run the same command again.`,
		Example: "  oob-bundle verify app.oob.tar --key builder.pub\n  oob-bundle sign app.oob.tar --key officer.key",
		Args:    needs("BUNDLE"),
		RunE:    func(c *cobra.Command, args []string) error { return u.sign(c.Context(), args[0], key) },
	}
	c.Flags().StringVar(&key, "key", "", "private `KEY` to sign with (required)")
	u.jsonFlag(c)
	return c
}

type signJSON struct {
	Digest     bundle.Digest `json:"digest"` // the identity of the bundle
	Added      bool          `json:"added"`
	Signatures []string      `json:"signatures"` // fingerprints
}

func (u *ui) sign(ctx context.Context, path, key string) error {
	if key == "" {
		return wrongUsage("give the private key with --key KEY")
	}
	signer, err := sign.Load(key, u.password(ctx))
	if err != nil {
		return err
	}
	r, err := sign.Add(path, signer)
	if err != nil {
		return operate.OfBundle(path, err)
	}
	if r.Recovered {
		u.note("Completed an interrupted run from %s", sign.SlotFile(path))
	}
	out := signJSON{Digest: r.Identity, Added: !r.Already, Signatures: []string{}}
	for _, f := range r.Signatures {
		out.Signatures = append(out.Signatures, f.String())
	}
	return u.result(out, func(w io.Writer) {
		switch {
		case r.Replaced:
			fmt.Fprintf(w, "Signed %s; what stood there as this key's signature was none, and is replaced. Find out who has had the disk\n", path)
		case r.Already:
			fmt.Fprintf(w, "%s was signed with this key before; nothing to do.\n", path)
		default:
			fmt.Fprintf(w, "Signed %s\n", path)
		}
		fmt.Fprintf(w, "  identity  %s\n", out.Digest)
		for _, s := range out.Signatures {
			fmt.Fprintf(w, "  signed    %s\n", s)
		}
	})
}
