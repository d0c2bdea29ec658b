package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/verify"
)

// RepairResult contains what Repair restored.
type RepairResult struct {
	Digest bundle.Digest     `json:"digest"`
	Files  []host.Drift      `json:"files"`
	Blobs  []registry.Damage `json:"blobs"`
	Tags   []string          `json:"tags"`
	Others []registry.Damage `json:"others"` // damage that only another bundle can repair

	Name, Version string `json:"-"` // of the bundle
	Earlier       bool   `json:"-"` // the bundle is of a release that rollback can return to
}

// Repair restores everything that has changed since a bundle was installed. For a release that
// rollback can return to, it repairs only the registry content. The result is complete even if
// the error wraps ErrDrift: some damage needs another bundle.
func (o *Operator) Repair(ctx context.Context, s Source) (result *RepairResult, err error) {
	x, err := o.open(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	r := &repair{Operator: o, opened: x, name: s.name(), out: &RepairResult{
		Digest: x.verified.Identity, Files: []host.Drift{}, Blobs: []registry.Damage{}, Tags: []string{}, Others: []registry.Damage{},
		Name: x.verified.Info.Name, Version: x.verified.Info.Version,
	}}
	if err := r.find(); err != nil {
		return nil, err
	}
	var plan *install.Plan
	if !r.out.Earlier {
		if plan, err = r.plan(ctx); err != nil {
			return nil, err
		}
	}
	tags, err := tagDrift(o.Root, r.ledger, r.installed)
	if err != nil {
		return nil, err
	}
	if err := r.registry(ctx); err != nil {
		return nil, OfBundle(r.name, err)
	}
	if plan != nil {
		watch, done := o.Progress("repair", x.verified.Geometry)
		files, err := plan.Repair(ctx, watch)
		done()
		if err != nil {
			return nil, OfBundle(r.name, err)
		}
		r.out.Files = append(r.out.Files, files...)
	}
	if plan != nil {
		if err := r.cluster(ctx); err != nil {
			return nil, err
		}
	}
	left, err := tagDrift(o.Root, r.ledger, r.installed)
	if err != nil {
		return nil, err
	}
	for _, t := range tags {
		if !slices.Contains(left, t) {
			r.out.Tags = append(r.out.Tags, t.Path)
		}
	}
	if plan != nil {
		if err := closeSecrets(o.Root, r.installed, r.out); err != nil {
			return nil, err
		}
	}
	return r.out, r.others()
}

// repair is a repair in progress.
type repair struct {
	*Operator
	*opened
	name      string // name of the bundle in messages
	ledger    *ledger.Ledger
	installed ledger.Deployment
	embedded  *registry.Embedded // or nil
	out       *RepairResult
}

// find finds the release that the bundle belongs to.
func (r *repair) find() (err error) {
	if r.ledger, err = ledger.Read(r.Root); err != nil {
		return err
	}
	r.warnRebuilt(r.ledger)
	v := r.verified
	if r.installed, err = r.ledger.Find(v.Info.Name, r.target.Name); err != nil {
		return err
	}
	now := r.installed.Current()
	r.embedded, _ = r.target.Target.(*registry.Embedded)
	r.out.Earlier = now.Identity != v.Identity
	known := slices.ContainsFunc(r.installed.Releases, func(k ledger.Release) bool { return k.Identity == v.Identity })
	if r.out.Earlier && (r.embedded == nil || !known) {
		return fmt.Errorf(
			"%w: %s %s is installed from %s, and this bundle is %s; repair needs the same one, or that of a release which "+
				"rollback can go back to, and install changes to another",
			bundle.ErrPolicy, r.installed.Name, now.Version, now.Identity, v.Identity,
		)
	}
	return nil
}

// plan plans the existing installation again.
func (r *repair) plan(ctx context.Context) (*install.Plan, error) {
	r.options.Again = true
	plan, err := install.NewPlan(ctx, r.verified, r.target, r.options)
	if err != nil {
		return nil, OfBundle(r.name, err)
	}
	if plan.Release() != r.installed.Current().ID {
		return nil, fmt.Errorf(
			"%w: with these values %s would be another release than the one that is installed; leave --values and --host-root "+
				"away, repeat --plain-http as it was given, or use install",
			bundle.ErrPolicy, r.installed.Name,
		)
	}
	return plan, nil
}

// registry repairs the content of the registry below the root.
func (r *repair) registry(ctx context.Context) error {
	if r.embedded == nil {
		return nil
	}
	if r.out.Earlier {
		if err := r.retainAgain(ctx); err != nil {
			return err
		}
	}
	return repairBlobs(ctx, r.verified, r.embedded, r.out)
}

// cluster applies the release again if its objects in the cluster have drifted.
func (r *repair) cluster(ctx context.Context) error {
	about, err := host.ReadRelease(r.Root, r.installed.Name, r.installed.Current().ID)
	if err != nil {
		return err
	}
	manager := r.manager(repairTimeout)
	drift, err := manager.Drift(ctx, about)
	if err != nil || len(drift) == 0 {
		return err
	}
	if err := manager.PutRight(ctx, about); err != nil {
		return err
	}
	for _, d := range drift {
		r.out.Files = append(r.out.Files, host.Drift{Path: d, What: "object"})
	}
	return nil
}

// repairTimeout limits the wait until repaired objects are ready.
const repairTimeout = 5 * time.Minute

// others returns an error if some damage needs another bundle.
func (r *repair) others() error {
	if len(r.out.Others) == 0 {
		return nil
	}
	others := otherBundles(r.ledger, r.target, r.verified.Identity)
	return fmt.Errorf(
		"%w: %s came with another bundle and must be put right; run repair with the one that brought them: %s",
		ErrDrift, count(len(r.out.Others), "blob"), strings.Join(others, ", "),
	)
}

// closeSecrets makes the password files readable by their owner only.
func closeSecrets(root string, d ledger.Deployment, out *RepairResult) error {
	about, err := host.ReadRelease(root, d.Name, d.Current().ID)
	if err != nil {
		return err
	}
	drift, err := host.CheckSecrets(root, about)
	if err != nil {
		return err
	}
	for _, s := range drift {
		if s.What == "missing" {
			return fmt.Errorf("%w: %s is missing, and no bundle has it; put it back from a backup", ErrDrift, s.Path)
		}
		if err := os.Chmod(s.Path, 0o600); err != nil {
			return err
		}
		out.Files = append(out.Files, s)
	}
	return nil
}

// retainAgain restores the tags that retain an earlier release. It must run before the check,
// which examines only content that tags lead to.
func (r *repair) retainAgain(ctx context.Context) error {
	e, v := r.embedded, r.verified
	added := install.Added(v)
	var all []bundle.Descriptor
	for _, m := range v.Blobs() {
		all = append(all, bundle.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: m.Size})
	}
	if err := e.Prepare(all); err != nil {
		return err
	}
	for _, release := range r.installed.Releases {
		if release.Identity != v.Identity {
			continue
		}
		for _, t := range install.Retaining(r.ledger, r.installed, release) {
			_, repository, tag, _ := t.Place.Split()
			at, err := registry.TagBelow(r.Root, repository, tag)
			if err == nil && at != t.Value {
				err = e.Tag(ctx, repository, tag, t.Value)
			}
			if errors.Is(err, install.ErrMissing) {
				if err = storeTree(ctx, v, e, repository, added, t.Value); err == nil {
					err = e.Tag(ctx, repository, tag, t.Value)
				}
			}
			if err != nil {
				return err
			}
		}
	}
	return e.Sync()
}

// manifestOf returns the manifest that a retention tag points to: a manifest of the bundle,
// its root, or an index of which the bundle contains only some manifests.
func manifestOf(v *verify.Verified, added map[bundle.Digest][]byte, d bundle.Digest) (*bundle.Manifest, []byte, error) {
	if m := v.Manifests[d]; m != nil {
		data, err := v.ReadBlob(m.Descriptor, bundle.MaxManifest)
		return m, data, err
	}
	data, mediaType := added[d], bundle.TypeOCIIndex
	for _, i := range v.Deployment.Images {
		if i.Partial && i.Digest == d && data == nil {
			var err error
			if data, mediaType, err = v.PartialIndex(i); err != nil {
				return nil, nil, err
			}
		}
	}
	if data == nil {
		return nil, nil, fmt.Errorf("%w: %s is not in the bundle", install.ErrMissing, d)
	}
	m, err := bundle.ParseManifest(bundle.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, data)
	return m, data, err
}

// storeTree stores a manifest and everything that it references.
func storeTree(
	ctx context.Context, v *verify.Verified, e *registry.Embedded, repo string, added map[bundle.Digest][]byte,
	d bundle.Digest,
) error {
	m, data, err := manifestOf(v, added, d)
	if err != nil {
		return err
	}
	for _, c := range m.Children() {
		place, ok := v.Place(c.Digest)
		if !ok { // the bundle may contain only a part of an index
			continue
		}
		if v.Manifests[c.Digest] != nil {
			err = storeTree(ctx, v, e, repo, added, c.Digest)
		} else if has, hasErr := e.HasBlob(ctx, repo, c); hasErr != nil || !has {
			err = hasErr
			if err == nil {
				err = e.PutBlob(ctx, repo, c, "", func() io.Reader { return v.Content(place) })
			}
		}
		if err != nil {
			return err
		}
	}
	return e.PutManifest(ctx, repo, m, data)
}

// repairBlobs restores the damaged blobs that the bundle contains, and lists all damage. It
// checks again after each repair, because a repaired manifest can lead to more damage.
func repairBlobs(ctx context.Context, v *verify.Verified, e *registry.Embedded, out *RepairResult) error {
	added := install.Added(v)
	for {
		damaged, err := e.Check(ctx)
		if err != nil {
			return err
		}
		var mine []registry.Damage
		out.Others = out.Others[:0]
		for _, d := range damaged {
			if _, ok := v.Place(d.Digest); ok || added[d.Digest] != nil {
				mine = append(mine, d)
			} else {
				out.Others = append(out.Others, d)
			}
		}
		if len(mine) == 0 {
			return nil
		}
		if err := storeAgain(ctx, v, e, mine, added); err != nil {
			return err
		}
		out.Blobs = append(out.Blobs, mine...)
	}
}

// storeAgain replaces damaged blobs with those of the bundle and those that installation adds.
func storeAgain(
	ctx context.Context, v *verify.Verified, e *registry.Embedded, damaged []registry.Damage,
	added map[bundle.Digest][]byte,
) error {
	if err := e.Drop(damaged); err != nil {
		return err
	}
	var blobs []bundle.Descriptor
	for _, d := range damaged {
		b := bundle.Descriptor{Digest: d.Digest, Size: int64(len(added[d.Digest]))}
		if m, ok := v.Place(d.Digest); ok {
			b.MediaType, b.Size = m.Type, m.Size
		}
		blobs = append(blobs, b)
	}
	if err := e.Prepare(blobs); err != nil {
		return err
	}
	for _, b := range blobs {
		content := func() io.Reader { return bytes.NewReader(added[b.Digest]) }
		if m, ok := v.Place(b.Digest); ok {
			content = func() io.Reader { return v.Content(m) }
		}
		if err := e.PutBlob(ctx, install.CentralRepository(v.Info.Name), b, "", content); err != nil {
			return err
		}
	}
	return e.Sync()
}

// otherBundles returns the other bundles that have content on a target, without duplicates.
func otherBundles(l *ledger.Ledger, target install.Registry, except bundle.Digest) []string {
	var list []string
	for _, d := range l.Sorted() {
		for _, r := range d.Releases {
			if d.Registry == target.Name && r.Identity != except {
				list = append(list, fmt.Sprintf("%s %s (%s)", d.Name, r.Version, r.Identity))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
