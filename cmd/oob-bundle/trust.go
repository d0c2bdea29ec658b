package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/verify"
	"github.com/oob-bundle/oob-bundle/verify/trust"
)

func trustCommand(u *ui) *cobra.Command {
	c := group("trust", "Manage the trusted keys and the policy of this host")
	c.Example = "  oob-bundle trust add oob.pub\n  oob-bundle trust list"
	c.AddCommand(trustAddCommand(u), trustListCommand(u), trustRemoveCommand(u), trustPolicyCommand(u))
	return c
}

func trustAddCommand(u *ui) *cobra.Command {
	var root, channel string
	c := &cobra.Command{
		Use:     "add PUB",
		Short:   "Trust a public key",
		Long:    `The key is kept below ROOT/trust. Commands that verify a bundle use the key, unless --key is given.`,
		Example: `  oob-bundle trust add oob.pub --channel 'app/*'`,
		Args:    needs("PUB"),
		RunE: func(_ *cobra.Command, args []string) error {
			pem, err := trust.ReadKeyFile(args[0])
			if err != nil {
				return err
			}
			return locked(root, func() error {
				k, err := trust.Open(root).Add(pem, channel)
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				out := describeKey(k)
				return u.result(out, func(w io.Writer) { out.print(w) })
			})
		},
	}
	rootFlag(c, &root)
	c.Flags().StringVar(
		&channel,
		"channel",
		"",
		"`GLOB` of the channels that the key may sign for, with * and ?; repeat the command to add more; '*' removes earlier limits "+
			"(default all channels)",
	)
	u.jsonFlag(c)
	return c
}

// locked runs f while it holds the lock of root.
func locked(root string, f func() error) error {
	l, err := install.Acquire(root)
	if err != nil {
		return err
	}
	err = f()
	if releaseErr := l.Release(); err == nil {
		err = releaseErr
	}
	return err
}

type trustedKeyJSON struct {
	Fingerprint string   `json:"fingerprint"`
	File        string   `json:"file"`
	Channels    []string `json:"channels"` // empty means all
}

func describeKey(k verify.Key) trustedKeyJSON {
	return trustedKeyJSON{k.Fingerprint.String(), k.Name, append([]string{}, k.Channels...)}
}

func (k trustedKeyJSON) print(w io.Writer) {
	channels := "every channel"
	if len(k.Channels) > 0 {
		channels = strings.Join(k.Channels, ", ")
	}
	fmt.Fprintf(w, "%s  %s  for %s\n", k.Fingerprint, k.File, channels)
}

type trustJSON struct {
	Keys        []trustedKeyJSON `json:"keys"`
	Threshold   int              `json:"threshold"`
	MinSequence map[string]int64 `json:"minSequence"`
}

func (u *ui) printTrust(p verify.Policy) error {
	out := trustJSON{Keys: []trustedKeyJSON{}, Threshold: max(p.Threshold, 1), MinSequence: map[string]int64{}}
	for _, k := range p.Keys {
		out.Keys = append(out.Keys, describeKey(k))
	}
	maps.Copy(out.MinSequence, p.MinSequence)
	return u.result(out, func(w io.Writer) {
		for _, k := range out.Keys {
			k.print(w)
		}
		if len(out.Keys) == 0 {
			fmt.Fprintln(w, "no trusted keys")
		}
		fmt.Fprintf(w, "threshold %d\n", out.Threshold)
		for _, ch := range slices.Sorted(maps.Keys(out.MinSequence)) {
			fmt.Fprintf(w, "channel %s from sequence %d on\n", ch, out.MinSequence[ch])
		}
	})
}

func trustListCommand(u *ui) *cobra.Command {
	var root string
	c := &cobra.Command{
		Use:     "list",
		Short:   "Show the trusted keys and the policy of this host",
		Example: "  oob-bundle trust list",
		Args:    none,
		RunE: func(*cobra.Command, []string) error {
			p, err := trust.Open(root).Policy()
			if err != nil {
				return err
			}
			return u.printTrust(p)
		},
	}
	rootFlag(c, &root)
	u.jsonFlag(c)
	return c
}

func trustRemoveCommand(u *ui) *cobra.Command {
	var root string
	c := &cobra.Command{
		Use:     "remove FINGERPRINT",
		Short:   "Stop trusting a key",
		Long:    `FINGERPRINT may be shortened to SHA256: and at least six more characters.`,
		Example: "  oob-bundle trust remove SHA256:Zk2nPq",
		Args:    needs("FINGERPRINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			return locked(root, func() error {
				k, err := trust.Open(root).Remove(args[0])
				if err != nil {
					return err
				}
				out := describeKey(k)
				return u.result(out, func(w io.Writer) { fmt.Fprintf(w, "%s is not trusted any more\n", out.Fingerprint) })
			})
		},
	}
	rootFlag(c, &root)
	u.jsonFlag(c)
	return c
}

func trustPolicyCommand(u *ui) *cobra.Command {
	var root string
	var threshold int
	var minimum []string
	c := &cobra.Command{
		Use:     "policy",
		Short:   "Set how many keys must sign, and the lowest accepted sequence",
		Long:    `Settings whose flags are not given stay as they are.`,
		Example: "  oob-bundle trust policy --threshold 2\n  oob-bundle trust policy --min-sequence app/linux/amd64=1767225600",
		Args:    none,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("threshold") && threshold < 1 {
				return wrongUsage("--threshold %d must be at least 1", threshold)
			}
			sequences, err := parseSequences(minimum)
			if err != nil {
				return err
			}
			return locked(root, func() error {
				p, err := trust.Open(root).SetPolicy(threshold, sequences)
				if err != nil {
					return err
				}
				return u.printTrust(p)
			})
		},
	}
	rootFlag(c, &root)
	c.Flags().IntVar(&threshold, "threshold", 0, "require signatures by `K` different keys")
	c.Flags().StringArrayVar(&minimum, "min-sequence", nil, "lowest accepted sequence of a channel, `CHANNEL=N`; may be repeated")
	u.jsonFlag(c)
	return c
}

func parseSequences(list []string) (map[string]int64, error) {
	out := map[string]int64{}
	for _, s := range list {
		i := strings.LastIndexByte(s, '=')
		if i <= 0 {
			return nil, wrongUsage("--min-sequence %q is not CHANNEL=N", s)
		}
		n, err := strconv.ParseInt(s[i+1:], 10, 64)
		if err != nil || n < 0 {
			return nil, wrongUsage("--min-sequence %q is not CHANNEL=N", s)
		}
		if !bundle.ValidChannel(s[:i]) { // a pattern would match no channel
			return nil, wrongUsage("--min-sequence %q is not CHANNEL=N: a channel is named as a whole, in letters, digits and ._+/-", s)
		}
		out[s[:i]] = n
	}
	return out, nil
}
