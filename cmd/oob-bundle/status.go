package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
)

func statusCommand(u *ui) *cobra.Command {
	var root string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what is installed on this host",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return u.status(root) },
	}
	rootFlag(c, &root)
	u.jsonFlag(c)
	return c
}

type statusJSON struct {
	Deployments []deploymentJSON `json:"deployments"`
	Pending     []pendingJSON    `json:"pending"` // installations that did not finish
}

type deploymentJSON struct {
	Name     string                 `json:"name"`
	Version  string                 `json:"version"`
	Digest   bundle.Digest          `json:"digest"`
	Channel  string                 `json:"channel"`
	Sequence int64                  `json:"sequence"` // of the channel
	Registry string                 `json:"registry"`
	Images   []install.ReceiptImage `json:"images"`
}

type pendingJSON struct {
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Digest   bundle.Digest `json:"digest"`
	Registry string        `json:"registry"`
	Started  string        `json:"started"`
}

func (u *ui) status(root string) error {
	state, err := install.ReadState(root)
	if err != nil {
		return err
	}
	journals, err := install.ReadJournals(root)
	if err != nil {
		return err
	}
	out := statusJSON{Deployments: []deploymentJSON{}, Pending: []pendingJSON{}}
	for _, key := range slices.Sorted(maps.Keys(state.Deployments)) {
		d := state.Deployments[key]
		receipt, err := install.ReadReceipt(root, d.Receipt)
		if err != nil {
			return err
		}
		out.Deployments = append(out.Deployments, deploymentJSON{
			Name: d.Name, Version: d.Version, Digest: d.Identity, Channel: d.Channel,
			Sequence: state.Channels[d.Channel].Sequence, Registry: d.Registry, Images: receipt.Images,
		})
	}
	for _, j := range journals {
		out.Pending = append(out.Pending, pendingJSON{j.Name, j.Version, j.Identity, j.Registry, j.Started.Format("2006-01-02T15:04:05Z")})
	}
	return u.result(out, func(w io.Writer) { out.print(w, root) })
}

func (s statusJSON) print(w io.Writer, root string) {
	if len(s.Deployments) == 0 && len(s.Pending) == 0 {
		fmt.Fprintf(w, "Nothing is installed below %s.\n", root)
	}
	for _, d := range s.Deployments {
		fmt.Fprintf(w, "%s %s\n", d.Name, d.Version)
		fmt.Fprintf(w, "  identity  %s\n", d.Digest)
		fmt.Fprintf(w, "  channel   %s, sequence %d\n", d.Channel, d.Sequence)
		fmt.Fprintf(w, "  registry  %s\n", d.Registry)
		for _, i := range d.Images {
			fmt.Fprintf(w, "  image     %s\n            %s\n", i.Reference, i.Digest)
		}
	}
	for _, p := range s.Pending {
		fmt.Fprintf(w, "The installation of %s %s into %s, begun %s, did not finish; run the same oob-bundle install again.\n", p.Name, p.Version, p.Registry, p.Started)
	}
}
