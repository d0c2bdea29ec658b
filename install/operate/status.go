package operate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
)

// Status describes the deployments that are installed on a host.
type Status struct {
	Deployments []DeploymentStatus `json:"deployments"`
	Pending     []PendingStatus    `json:"pending"` // changes that did not finish
	Checked     bool               `json:"checked"`
	Unchecked   []string           `json:"unchecked"` // registries that --check does not examine
	Damaged     []registry.Damage  `json:"damaged"`   // in the registry below ROOT
	Storing     bool               `json:"storing"`   // content is being stored, or was when a run was killed
}

// DeploymentStatus is one deployment.
type DeploymentStatus struct {
	Name      string         `json:"name"`
	Version   string         `json:"version"`
	Digest    bundle.Digest  `json:"digest"`
	Channel   string         `json:"channel"`
	Sequence  int64          `json:"sequence"` // of the channel
	Signers   []string       `json:"signers"`
	Registry  string         `json:"registry"`
	Installed string         `json:"installed"` // RFC 3339, by this host's clock
	Release   string         `json:"release"`
	Current   bool           `json:"current"` // its files are the ones in use
	Directory string         `json:"directory"`
	Started   string         `json:"started"`           // release that was started last and not stopped, or ""
	Waiting   []string       `json:"waiting,omitempty"` // parts that are not ready in its cluster
	Before    []string       `json:"before"`            // versions that rollback can return to, newest first
	Images    []ledger.Image `json:"images"`
	Files     []ledger.File  `json:"files"`
	Drift     []host.Drift   `json:"drift"`
}

// PendingStatus is a change that did not finish.
type PendingStatus struct {
	Action   string        `json:"action"`
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Digest   bundle.Digest `json:"digest"`
	Registry string        `json:"registry"`
	Started  string        `json:"started"`
	Command  string        `json:"-"` // finishes the change
}

// StatusOptions contains the options of Status.
type StatusOptions struct {
	Check bool // hash files and blobs
}

// Status returns what is installed. The result is complete even if the error wraps ErrDrift
// or, with Check, install.ErrIncomplete.
func (o *Operator) Status(ctx context.Context, opt StatusOptions) (*Status, error) {
	l, err := ledger.Read(o.Root)
	if err != nil {
		return nil, err
	}
	journals, err := ledger.ReadJournals(o.Root)
	if err != nil {
		return nil, err
	}
	o.warnRebuilt(l)
	if len(l.Unknown) > 0 {
		return nil, fmt.Errorf(
			"%w: %s is installed, and neither state.json nor a receipt describes it; put them back from a backup, or install "+
				"its newest bundle again with --allow-downgrade",
			host.ErrState, strings.Join(l.Unknown, ", "),
		)
	}
	out := &Status{
		Deployments: []DeploymentStatus{},
		Pending:     []PendingStatus{},
		Damaged:     []registry.Damage{},
		Unchecked:   []string{},
		Checked:     opt.Check,
	}
	for _, d := range l.Sorted() {
		status, err := o.describeInstalled(ctx, l, d, opt.Check)
		if err != nil {
			return nil, err
		}
		out.Deployments = append(out.Deployments, status)
	}
	for _, j := range journals {
		out.Pending = append(
			out.Pending,
			PendingStatus{j.Action, j.Name, j.Version, j.Identity, j.Registry, j.Started.Format("2006-01-02T15:04:05Z"), install.Command(o.Root, j)},
		)
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
		return out, install.Unfinished(o.Root, journals[0])
	}
	if n := out.Drift(); n > 0 {
		return out, fmt.Errorf("%w in %s; oob-bundle repair BUNDLE puts that right", ErrDrift, count(n, "place"))
	}
	return out, nil
}

// describeInstalled describes one deployment.
func (o *Operator) describeInstalled(ctx context.Context, l *ledger.Ledger, d ledger.Deployment, check bool) (DeploymentStatus, error) {
	now := d.Current()
	current, err := host.Current(o.Root, d.Name)
	if err != nil {
		return DeploymentStatus{}, err
	}
	out := DeploymentStatus{
		Name: d.Name, Version: now.Version, Digest: now.Identity, Channel: now.Channel, Sequence: l.Channels[now.Channel].Sequence,
		Signers: now.Signers, Registry: d.Registry, Installed: now.Installed, Release: now.ID, Current: current == now.ID,
		Directory: filepath.Join(host.Base(o.Root, d.Name), "current"), Before: []string{},
		Images: now.Images, Files: []ledger.File{}, Drift: []host.Drift{},
	}
	started, err := host.ReadStarted(o.Root, d.Name)
	if err != nil {
		return out, err
	}
	if started != nil {
		out.Started = started.Release
	}
	for _, earlier := range d.Releases[1:] {
		out.Before = append(out.Before, earlier.Version)
	}
	about, err := host.ReadRelease(o.Root, d.Name, now.ID)
	lost := errors.Is(err, fs.ErrNotExist)
	if err != nil && !lost {
		return out, err
	}
	if !lost {
		if out.Files, err = ledger.Files(o.Root, about); err != nil {
			return out, err
		}
	}
	if !lost && out.Started == now.ID && about.Form == "kubernetes" {
		if out.Waiting, err = o.manager(time.Minute).Waiting(ctx, about); err != nil {
			o.Warn("what runs of %s in the cluster is not known: %v", d.Name, err)
		}
	}
	if !check {
		return out, nil
	}
	tags, err := tagDrift(o.Root, l, d)
	if err != nil {
		return out, err
	}
	out.Drift = append(out.Drift, tags...)
	if lost {
		out.Drift = append(out.Drift, host.Drift{Path: filepath.Join(host.Base(o.Root, d.Name), "releases", now.ID), What: "missing"})
		return out, nil
	}
	files, err := o.fileDrift(ctx, l, d, about, current)
	out.Drift = append(out.Drift, files...)
	if err != nil {
		return out, err
	}
	objects, err := o.manager(time.Minute).Drift(ctx, about)
	for _, s := range objects {
		out.Drift = append(out.Drift, host.Drift{Path: s, What: "object"})
	}
	return out, err
}

// fileDrift returns the changed files, passwords and links of a release. current is the ID of
// the release in use.
func (o *Operator) fileDrift(
	ctx context.Context, l *ledger.Ledger, d ledger.Deployment, about *host.About, current string,
) ([]host.Drift, error) {
	list, err := host.Check(ctx, o.Root, about)
	if err != nil {
		return list, err
	}
	secrets, err := host.CheckSecrets(o.Root, about)
	if err != nil {
		return list, err
	}
	list = append(list, secrets...)
	if about.ID == current {
		about.Links = install.OwnLinks(l, about)
		links, err := host.CheckLinks(o.Root, about)
		return append(list, links...), err
	}
	installed := func(x ledger.Deployment) bool { return x.Name == d.Name && x.Current().ID == current }
	if !slices.ContainsFunc(l.Sorted(), installed) { // the link current points to no installed release
		list = append(list, host.Drift{Path: filepath.Join(host.Base(o.Root, d.Name), "current"), What: "link"})
	}
	return list, nil
}

// tagDrift returns the tags of a deployment in the registry below the root that are lost or
// point to the wrong content.
func tagDrift(root string, l *ledger.Ledger, d ledger.Deployment) (list []host.Drift, err error) {
	for _, r := range d.Releases {
		lost, err := lostTags(root, l, d, r)
		if err != nil {
			return list, err
		}
		if r.ID == d.Current().ID && d.Registry == registry.Name {
			moved, err := elsewhere(root, install.Published(l, d))
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

// lostTags returns the lost or wrong tags that retain a release in the registry below the
// root. Their content may still exist; repair with the release's bundle restores the tags. A
// release that rollback can return to counts only while its root exists.
func lostTags(root string, l *ledger.Ledger, d ledger.Deployment, r ledger.Release) (list []string, err error) {
	if d.Registry != registry.Name {
		return nil, nil
	}
	if r.ID != d.Current().ID && !registry.HasBelow(root, install.CentralRepository(d.Name), r.Identity) {
		return nil, nil
	}
	return elsewhere(root, install.Retaining(l, d, r))
}

// elsewhere returns the tags that do not point to their values.
func elsewhere(root string, tags []ledger.Placed) (list []string, err error) {
	for _, t := range tags {
		_, repository, tag, _ := t.Place.Split()
		at, err := registry.TagBelow(root, repository, tag)
		if err != nil {
			return nil, err
		}
		if at != t.Value {
			list = append(list, repository+":"+tag)
		}
	}
	return list, nil
}

// refuseLost returns an error if retaining tags are lost. Removing untagged content would then
// also remove the content that they retained.
func (o *Operator) refuseLost() error {
	l, err := ledger.Read(o.Root)
	if err != nil {
		return err
	}
	for _, d := range l.Sorted() {
		for _, r := range d.Releases {
			lost, err := lostTags(o.Root, l, d, r)
			if err != nil {
				return err
			}
			if len(lost) > 0 {
				return fmt.Errorf(
					"%w: the registry has lost %s of %s %s, and what these keep would be removed; run oob-bundle repair with its bundle first",
					ErrDrift, count(len(lost), "tag"), d.Name, r.Version,
				)
			}
		}
	}
	return nil
}

// Drift returns the number of places that differ from what was installed.
func (s *Status) Drift() int {
	n := len(s.Damaged)
	for _, d := range s.Deployments {
		n += len(d.Drift)
	}
	return n
}

// elsewhere returns the external registries, without duplicates.
func (s *Status) elsewhere() (list []string) {
	for _, d := range s.Deployments {
		if d.Registry != registry.Name && !slices.Contains(list, d.Registry) {
			list = append(list, d.Registry)
		}
	}
	return list
}
