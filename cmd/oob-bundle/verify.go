package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/operate"
	"github.com/oob-bundle/oob-bundle/verify"
	"github.com/oob-bundle/oob-bundle/verify/trust"
)

// trustFlags select the trusted keys and the threshold.
type trustFlags struct {
	root      string
	keys      []string
	threshold int
}

func (f *trustFlags) add(c *cobra.Command) {
	rootFlag(c, &f.root)
	c.Flags().StringArrayVar(&f.keys, "key", nil, "trust the public key `PUB` instead of the keys below ROOT/trust; may be repeated")
	c.Flags().IntVar(&f.threshold, "threshold", 1, "require signatures by `K` different keys; the policy of this host may require more")
}

func (f *trustFlags) policy() (verify.Policy, error) {
	if f.threshold < 1 {
		return verify.Policy{}, wrongUsage("--threshold %d must be at least 1", f.threshold)
	}
	kept, err := trust.Open(f.root).Policy()
	if err != nil {
		return verify.Policy{}, err
	}
	var given []verify.Key
	for _, path := range f.keys {
		k, err := trust.ReadKey(path)
		if err != nil {
			return verify.Policy{}, err
		}
		given = append(given, k)
	}
	p := trust.Tighten(kept, given, f.threshold)
	if len(p.Keys) == 0 {
		return p, fmt.Errorf("%w in %s", verify.ErrNoKeys, filepath.Join(f.root, "trust"))
	}
	return p, nil
}

func verifyCommand(u *ui) *cobra.Command {
	var f trustFlags
	c := &cobra.Command{
		Use:   "verify BUNDLE [--key PUB]...",
		Short: "Check signatures, policy and every byte of a bundle",
		Long: `verify writes nothing and needs no network.

install may still refuse a verified bundle because a newer bundle is installed or because
another channel owns its names. install --dry-run reports this.`,
		Example: "  oob-bundle verify /media/disk/app.oob.tar --key oob.pub",
		Args:    needs("BUNDLE"),
		RunE:    func(c *cobra.Command, args []string) error { return u.verify(c, args[0], f) },
	}
	f.add(c)
	u.jsonFlag(c)
	return c
}

type verifyJSON struct {
	Bundle     bundleJSON      `json:"bundle"`
	Signatures []signatureJSON `json:"signatures"`
	Blobs      int             `json:"blobs"`
	Bytes      int64           `json:"bytes"` // of the blobs
	Verified   bool            `json:"verified"`
}

type signatureJSON struct {
	Fingerprint string `json:"fingerprint"`
	Trusted     bool   `json:"trusted"`
	Valid       bool   `json:"valid"`
}

// open opens a bundle and verifies everything except the payload. The caller must close the
// file.
func (f *trustFlags) open(ctx context.Context, path string) (*verify.Verified, *bundle.File, error) {
	policy, err := f.policy()
	if err != nil {
		return nil, nil, err
	}
	file, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	v, err := verify.Open(ctx, file, file.Size(), policy)
	if err != nil {
		return nil, nil, errors.Join(operate.OfBundle(path, err), file.Close())
	}
	return v, file, nil
}

func (u *ui) verify(c *cobra.Command, path string, f trustFlags) (err error) {
	v, file, err := f.open(c.Context(), path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	p := u.progress("verify", v.Geometry)
	err = v.Payload(c.Context(), p.watch())
	p.stop()
	if err == nil {
		err = file.Unchanged()
	}
	if err != nil {
		return operate.OfBundle(path, err)
	}
	out := verifyJSON{
		Bundle: describeBundle(v.Identity, v.Info), Signatures: describeSignatures(v.Signatures),
		Blobs: len(v.Blobs()), Bytes: v.PayloadSize(), Verified: true,
	}
	return u.result(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s is good: %s bytes\n", path, commas(file.Size()))
		out.Bundle.print(w)
		for _, s := range out.Signatures {
			fmt.Fprintf(w, "  signed    %s  (%s)\n", s.Fingerprint, s.word())
		}
		fmt.Fprintf(w, "  verified  %d blobs, %s bytes\n", out.Blobs, commas(out.Bytes))
	})
}

func (s signatureJSON) word() string {
	switch {
	case s.Trusted && s.Valid:
		return "trusted"
	case s.Valid:
		return "known, but not trusted for this channel"
	}
	return "unknown key, not counted"
}

func describeSignatures(reports []verify.SignatureReport) []signatureJSON {
	list := []signatureJSON{}
	for _, r := range reports {
		list = append(list, signatureJSON{r.Fingerprint.String(), r.Trusted, r.Valid})
	}
	return list
}
