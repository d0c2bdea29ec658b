package operate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
)

// Status is what is installed on a host.
type Status struct {
	Deployments []DeploymentStatus `json:"deployments"`
	Pending     []PendingStatus    `json:"pending"` // changes that did not finish
	Checked     bool               `json:"checked"`
	Unchecked   []string           `json:"unchecked"` // registries that --check does not look into
	Damaged     []registry.Damage  `json:"damaged"`   // in the registry below ROOT
	Storing     bool               `json:"storing"`   // content for it is on its way, or was when a run was killed
}

// DeploymentStatus is one deployment.
type DeploymentStatus struct {
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

// PendingStatus is a change that did not finish.
type PendingStatus struct {
	Action   string        `json:"action"`
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Digest   bundle.Digest `json:"digest"`
	Registry string        `json:"registry"`
	Started  string        `json:"started"`
	Command  string        `json:"-"` // that finishes it
}

// StatusOptions are those of Status.
type StatusOptions struct {
	Check bool // hash files and blobs
}

// Status describes what is installed. The result is complete also with an error that wraps
// ErrDrift, or install.ErrIncomplete with Check.
func (o *Operator) Status(ctx context.Context, opt StatusOptions) (*Status, error) {
	state, err := install.ReadState(o.Root)
	if err != nil {
		return nil, err
	}
	journals, err := install.ReadJournals(o.Root)
	if err != nil {
		return nil, err
	}
	o.warnRebuilt(state)
	if len(state.Unknown) > 0 {
		return nil, fmt.Errorf("%w: %s is installed, and neither state.json nor a receipt describes it; put them back from a backup, or install its newest bundle again with --allow-downgrade", install.ErrState, strings.Join(state.Unknown, ", "))
	}
	out := &Status{Deployments: []DeploymentStatus{}, Pending: []PendingStatus{}, Damaged: []registry.Damage{}, Unchecked: []string{}, Checked: opt.Check}
	for _, key := range slices.Sorted(maps.Keys(state.Deployments)) {
		d, err := o.describeInstalled(ctx, state, state.Deployments[key], opt.Check)
		if err != nil {
			return nil, err
		}
		out.Deployments = append(out.Deployments, d)
	}
	for _, j := range journals {
		out.Pending = append(out.Pending, PendingStatus{j.Action, j.Name, j.Version, j.Identity, j.Registry, j.Started.Format("2006-01-02T15:04:05Z"), j.Command(o.Root)})
	}
	if out.Storing, err = registry.Storing(o.Root); err != nil {
		return nil, err
	}
	if opt.Check {
		damaged, err := registry.Check(ctx, o.Root)
		if err != nil {
			return nil, err
		}
		out.Damaged = append(out.Damaged, damaged...)
	}
	out.Unchecked = append(out.Unchecked, out.elsewhere()...)
	if opt.Check && len(journals) > 0 {
		return out, journals[0].Unfinished(o.Root)
	}
	if n := out.Drift(); n > 0 {
		return out, fmt.Errorf("%w in %s; oob-bundle repair BUNDLE puts that right", ErrDrift, count(n, "place"))
	}
	return out, nil
}

// describeInstalled describes one deployment.
func (o *Operator) describeInstalled(ctx context.Context, state *install.State, d install.Installed, check bool) (DeploymentStatus, error) {
	receipt, err := install.ReadReceipt(o.Root, d.Receipt)
	if err != nil {
		return DeploymentStatus{}, err
	}
	current, err := host.Current(o.Root, d.Name)
	if err != nil {
		return DeploymentStatus{}, err
	}
	out := DeploymentStatus{
		Name: d.Name, Version: d.Version, Digest: d.Identity, Channel: d.Channel, Sequence: state.Channels[d.Channel].Sequence,
		Signers: receipt.Signers, Registry: d.Registry, Installed: receipt.Installed, Release: d.Release, Current: current == d.Release,
		Directory: filepath.Join(host.Base(o.Root, d.Name), "current"), Before: []string{},
		Images: receipt.Images, Files: receipt.Files, Drift: []host.Drift{},
	}
	started, err := host.ReadStarted(o.Root, d.Name)
	if err != nil {
		return out, err
	}
	if started != nil {
		out.Started = started.Release
	}
	kept, err := d.Kept(o.Root)
	if err != nil {
		return out, err
	}
	for _, earlier := range kept[1:] {
		out.Before = append(out.Before, earlier.Bundle.Version)
	}
	if !check {
		return out, nil
	}
	if out.Drift, err = tagDrift(o.Root, state, d, kept, out.Drift); err != nil {
		return out, err
	}
	about, err := host.ReadRelease(o.Root, d.Name, d.Release)
	if errors.Is(err, fs.ErrNotExist) {
		out.Drift = append(out.Drift, host.Drift{Path: filepath.Join(host.Base(o.Root, d.Name), "releases", d.Release), What: "missing"})
		return out, nil
	}
	if err != nil {
		return out, err
	}
	drift, err := host.Check(ctx, o.Root, about)
	if err != nil {
		return out, err
	}
	out.Drift = append(out.Drift, drift...)
	if drift, err = host.CheckSecrets(o.Root, about); err != nil {
		return out, err
	}
	out.Drift = append(out.Drift, drift...)
	switch {
	case out.Current:
		about.Links = state.OwnLinks(about)
		drift, err = host.CheckLinks(o.Root, about)
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
		if r.Release == d.Release && d.Registry == Embedded {
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
	if d.Registry != Embedded {
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
func (o *Operator) refuseLost() error {
	state, err := install.ReadState(o.Root)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(state.Deployments)) {
		d := state.Deployments[key]
		kept, err := d.Kept(o.Root)
		if err != nil {
			return err
		}
		for _, r := range kept {
			lost, err := lostTags(o.Root, d, r)
			if err != nil {
				return err
			}
			if len(lost) > 0 {
				return fmt.Errorf("%w: the registry has lost %s of %s %s, and what these keep would be removed; run oob-bundle repair with its bundle first", ErrDrift, count(len(lost), "tag"), d.Name, r.Bundle.Version)
			}
		}
	}
	return nil
}

// Drift counts the places that are not as they were installed.
func (s *Status) Drift() int {
	n := len(s.Damaged)
	for _, d := range s.Deployments {
		n += len(d.Drift)
	}
	return n
}

// elsewhere lists the registries that somebody else keeps.
func (s *Status) elsewhere() (list []string) {
	for _, d := range s.Deployments {
		if d.Registry != Embedded && !slices.Contains(list, d.Registry) {
			list = append(list, d.Registry)
		}
	}
	return list
}
