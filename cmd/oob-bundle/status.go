package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
)

// embeddedName is the name of the registry below ROOT as a target.
const embeddedName = "embedded"

// errDrift says that something is not what was installed.
var errDrift = errors.New("it is not as it was installed")

type statusFlags struct {
	root  string
	check bool
}

func statusCommand(u *ui) *cobra.Command {
	var f statusFlags
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what is installed on this host",
		Long: `By which bundle, signed by whom, with which images and files. --check also hashes every file and every blob of the registry
below ROOT, looks at links, and ends with exit status 1 if something has drifted;
oob-bundle repair puts it right.`,
		Example: "  oob-bundle status\n  oob-bundle status --check",
		Args:    none,
		RunE:    func(c *cobra.Command, _ []string) error { return u.status(c.Context(), f) },
	}
	rootFlag(c, &f.root)
	c.Flags().BoolVar(&f.check, "check", false, "hash files and blobs, and say what has drifted")
	u.jsonFlag(c)
	return c
}

type statusJSON struct {
	Deployments []deploymentJSON  `json:"deployments"`
	Pending     []pendingJSON     `json:"pending"` // changes that did not finish
	Checked     bool              `json:"checked"`
	Unchecked   []string          `json:"unchecked"` // registries that --check does not look into
	Damaged     []registry.Damage `json:"damaged"`   // in the registry below ROOT
	Storing     bool              `json:"storing"`   // content for it is on its way, or was when a run was killed
}

type deploymentJSON struct {
	Name      string                 `json:"name"`
	Version   string                 `json:"version"`
	Digest    bundle.Digest          `json:"digest"`
	Channel   string                 `json:"channel"`
	Sequence  int64                  `json:"sequence"` // of the channel
	Signers   []string               `json:"signers"`
	Registry  string                 `json:"registry"`
	Installed string                 `json:"installed"` // RFC 3339, by this host's clock
	Release   string                 `json:"release"`
	Current   bool                   `json:"current"` // its files are those that are in use
	Directory string                 `json:"directory"`
	Started   string                 `json:"started"` // release that was started last and not stopped, or ""
	Before    []string               `json:"before"`  // versions that a rollback can go back to, the newest first
	Images    []install.ReceiptImage `json:"images"`
	Files     []install.ReceiptFile  `json:"files"`
	Drift     []host.Drift           `json:"drift"`
}

type pendingJSON struct {
	Action   string        `json:"action"`
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Digest   bundle.Digest `json:"digest"`
	Registry string        `json:"registry"`
	Started  string        `json:"started"`
	command  string        // that finishes it
}

func (u *ui) status(ctx context.Context, f statusFlags) error {
	state, err := install.ReadState(f.root)
	if err != nil {
		return err
	}
	journals, err := install.ReadJournals(f.root)
	if err != nil {
		return err
	}
	u.warnRebuilt(state)
	if len(state.Unknown) > 0 {
		return fmt.Errorf("%w: %s is installed, and neither state.json nor a receipt describes it; put them back from a backup, or install its newest bundle again with --allow-downgrade", install.ErrState, strings.Join(state.Unknown, ", "))
	}
	out := statusJSON{Deployments: []deploymentJSON{}, Pending: []pendingJSON{}, Damaged: []registry.Damage{}, Unchecked: []string{}, Checked: f.check}
	for _, key := range slices.Sorted(maps.Keys(state.Deployments)) {
		d, err := describeInstalled(ctx, state, state.Deployments[key], f)
		if err != nil {
			return err
		}
		out.Deployments = append(out.Deployments, d)
	}
	for _, j := range journals {
		out.Pending = append(out.Pending, pendingJSON{j.Action, j.Name, j.Version, j.Identity, j.Registry, j.Started.Format("2006-01-02T15:04:05Z"), j.Command(f.root)})
	}
	if out.Storing, err = registry.Storing(f.root); err != nil {
		return err
	}
	if f.check {
		damaged, err := registry.Check(ctx, f.root)
		if err != nil {
			return err
		}
		out.Damaged = append(out.Damaged, damaged...)
	}
	out.Unchecked = append(out.Unchecked, out.elsewhere()...)
	if err := u.result(out, func(w io.Writer) { out.print(w, f) }); err != nil {
		return err
	}
	if f.check && len(journals) > 0 {
		return journals[0].Unfinished(f.root)
	}
	if n := out.drift(); n > 0 {
		return fmt.Errorf("%w in %s; oob-bundle repair BUNDLE puts that right", errDrift, count(n, "place"))
	}
	return nil
}

func describeInstalled(ctx context.Context, state *install.State, d install.Installed, f statusFlags) (deploymentJSON, error) {
	receipt, err := install.ReadReceipt(f.root, d.Receipt)
	if err != nil {
		return deploymentJSON{}, err
	}
	current, err := host.Current(f.root, d.Name)
	if err != nil {
		return deploymentJSON{}, err
	}
	out := deploymentJSON{
		Name: d.Name, Version: d.Version, Digest: d.Identity, Channel: d.Channel, Sequence: state.Channels[d.Channel].Sequence,
		Signers: receipt.Signers, Registry: d.Registry, Installed: receipt.Installed, Release: d.Release, Current: current == d.Release,
		Directory: filepath.Join(host.Base(f.root, d.Name), "current"), Before: []string{},
		Images: receipt.Images, Files: receipt.Files, Drift: []host.Drift{},
	}
	started, err := host.ReadStarted(f.root, d.Name)
	if err != nil {
		return out, err
	}
	if started != nil {
		out.Started = started.Release
	}
	kept, err := d.Kept(f.root)
	if err != nil {
		return out, err
	}
	for _, earlier := range kept[1:] {
		out.Before = append(out.Before, earlier.Bundle.Version)
	}
	if !f.check {
		return out, nil
	}
	if out.Drift, err = tagDrift(f.root, state, d, kept, out.Drift); err != nil {
		return out, err
	}
	about, err := host.ReadRelease(f.root, d.Name, d.Release)
	if errors.Is(err, fs.ErrNotExist) {
		out.Drift = append(out.Drift, host.Drift{Path: filepath.Join(host.Base(f.root, d.Name), "releases", d.Release), What: "missing"})
		return out, nil
	}
	if err != nil {
		return out, err
	}
	drift, err := host.Check(ctx, f.root, about)
	if err != nil {
		return out, err
	}
	out.Drift = append(out.Drift, drift...)
	if drift, err = host.CheckSecrets(f.root, about); err != nil {
		return out, err
	}
	out.Drift = append(out.Drift, drift...)
	switch {
	case out.Current:
		about.Links = state.OwnLinks(about)
		drift, err = host.CheckLinks(f.root, about)
		out.Drift = append(out.Drift, drift...)
	case !slices.ContainsFunc(slices.Collect(maps.Values(state.Deployments)), func(x install.Installed) bool { return x.Name == d.Name && x.Release == current }):
		out.Drift = append(out.Drift, host.Drift{Path: out.Directory, What: "link"}) // it leads to no release that is installed
	}
	return out, err
}

// tagDrift adds the tags to a list that are lost, or lead to something else than they were
// put at.
func tagDrift(root string, state *install.State, d install.Installed, kept []*install.Receipt, list []host.Drift) ([]host.Drift, error) {
	for _, r := range kept {
		lost, err := lostTags(root, d, r)
		if err != nil {
			return list, err
		}
		if r.Release == d.Release && d.Registry == embeddedName {
			moved, err := elsewhere(root, state.OwnTags(d, r))
			if err != nil {
				return list, err
			}
			lost = append(lost, moved...)
		}
		for _, tag := range lost {
			list = append(list, host.Drift{Path: tag, What: "tag"})
		}
	}
	return list, nil
}

// lostTags lists the tags that keep a release in the registry below root, and are not
// there any more, although what they kept may be: repair with the release's bundle makes
// them again. A release that rollback can go back to counts as long as its root is there.
func lostTags(root string, d install.Installed, r *install.Receipt) (list []string, err error) {
	if d.Registry != embeddedName {
		return nil, nil
	}
	if r.Release != d.Release && !registry.HasBelow(root, install.CentralRepository(d.Name), r.Bundle.Digest) {
		return nil, nil
	}
	return elsewhere(root, r.Retaining())
}

// elsewhere lists the tags that do not lead to where they were put.
func elsewhere(root string, tags []install.TagMove) (list []string, err error) {
	for _, t := range tags {
		at, err := registry.TagBelow(root, t.Repository, t.Tag)
		if err != nil {
			return nil, err
		}
		if at != t.To {
			list = append(list, t.Repository+":"+t.Tag)
		}
	}
	return list, nil
}

// refuseLost refuses to remove what no tag leads to where tags are lost: what they kept
// would go with it.
func refuseLost(root string) error {
	state, err := install.ReadState(root)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(state.Deployments)) {
		d := state.Deployments[key]
		kept, err := d.Kept(root)
		if err != nil {
			return err
		}
		for _, r := range kept {
			lost, err := lostTags(root, d, r)
			if err != nil {
				return err
			}
			if len(lost) > 0 {
				return fmt.Errorf("%w: the registry has lost %s of %s %s, and what these keep would be removed; run oob-bundle repair with its bundle first", errDrift, count(len(lost), "tag"), d.Name, r.Bundle.Version)
			}
		}
	}
	return nil
}

func (s statusJSON) drift() int {
	n := len(s.Damaged)
	for _, d := range s.Deployments {
		n += len(d.Drift)
	}
	return n
}

// warnRebuilt reports a state that had to be rebuilt.
func (u *ui) warnRebuilt(state *install.State) {
	if state.Rebuilt != nil {
		u.warn("%v; what is installed is known from receipts and releases", state.Rebuilt)
	}
}

// elsewhere lists the registries that somebody else keeps.
func (s statusJSON) elsewhere() (list []string) {
	for _, d := range s.Deployments {
		if d.Registry != embeddedName && !slices.Contains(list, d.Registry) {
			list = append(list, d.Registry)
		}
	}
	return list
}

func (s statusJSON) print(w io.Writer, f statusFlags) {
	if len(s.Deployments) == 0 && len(s.Pending) == 0 {
		fmt.Fprintf(w, "Nothing is installed below %s.\n", f.root)
	}
	for _, d := range s.Deployments {
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
		for _, b := range d.Before {
			fmt.Fprintf(w, "  before    %s\n", b)
		}
		for _, x := range d.Drift {
			fmt.Fprintf(w, "  drift     %-7s %s\n", x.What, x.Path)
		}
	}
	if len(s.Damaged) > 0 {
		fmt.Fprintf(w, "registry below %s\n", f.root)
	}
	for _, x := range s.Damaged {
		fmt.Fprintf(w, "  drift     %-7s blob %s of %s\n", x.What, x.Digest, x.Repository)
	}
	if s.Storing {
		fmt.Fprintln(w, "An installation is storing content, or was killed while it did; nothing of that is in use. If none runs, run the same one again.")
	}
	if s.Checked && s.drift() == 0 && len(s.Deployments) > 0 {
		if out := s.Unchecked; len(out) > 0 {
			fmt.Fprintf(w, "Every file is as it was installed, and every blob of the registry below %s. What %s holds was not looked at.\n", f.root, strings.Join(out, ", "))
		} else {
			fmt.Fprintln(w, "Every file and every blob is as it was installed.")
		}
	}
	for _, p := range s.Pending {
		if p.Action == "install" {
			fmt.Fprintf(w, "The installation of %s %s into %s, begun %s, did not finish; run the same oob-bundle install again.\n", p.Name, p.Version, p.Registry, p.Started)
			continue
		}
		fmt.Fprintf(w, "The %s of %s, begun %s, did not finish; run %s again.\n", p.Action, p.Name, p.Started, p.command)
	}
}
