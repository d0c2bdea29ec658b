package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/verify"
)

func repairCommand(u *ui) *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "repair BUNDLE [--key PUB]...",
		Short: "Put right what has changed since a bundle was installed",
		Long: `It hashes everything that a bundle has put in place, and puts right what is missing
or changed: blobs of the registry below ROOT, tags, files of the release, links. The
bundle has to be the one that is installed, or the one of a release that rollback can
go back to: of that, blobs are put right. What a program keeps below the data
directory is not looked at.`,
		Example: "  oob-bundle repair /media/disk/app.oob.tar",
		Args:    needs("BUNDLE"),
		RunE:    func(c *cobra.Command, args []string) error { return u.repair(c.Context(), args[0], f) },
	}
	f.addFlags(c)
	u.jsonFlag(c)
	return c
}

type repairJSON struct {
	Digest bundle.Digest     `json:"digest"`
	Files  []host.Drift      `json:"files"`
	Blobs  []registry.Damage `json:"blobs"`
	Tags   []string          `json:"tags"`
	Others []registry.Damage `json:"others"` // that another bundle brought, and that only it can put right
}

func (u *ui) repair(ctx context.Context, path string, f installFlags) (err error) {
	o, err := u.open(ctx, path, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	v := o.verified
	state, err := install.ReadState(f.root)
	if err != nil {
		return err
	}
	d, err := state.Find(v.Info.Name, o.target.Name())
	if err != nil {
		return err
	}
	kept, err := d.Kept(f.root)
	if err != nil && !host.Lost(err) { // what is lost is written again
		return err
	}
	embedded, _ := o.target.(*registry.Embedded)
	earlier := d.Identity != v.Identity
	if earlier && (embedded == nil || !slices.ContainsFunc(kept, func(r *install.Receipt) bool { return r.Bundle.Digest == v.Identity })) {
		return fmt.Errorf("%w: %s %s is installed from %s, and this bundle is %s; repair needs the same one, or that of a release which rollback can go back to, and install changes to another", bundle.ErrPolicy, d.Name, d.Version, d.Identity, v.Identity)
	}
	out := repairJSON{Digest: v.Identity, Files: []host.Drift{}, Blobs: []registry.Damage{}, Tags: []string{}, Others: []registry.Damage{}}
	var plan *install.Plan
	if !earlier { // of an earlier release only what the registry has of it is looked at
		o.options.Again = true
		if plan, err = install.NewPlan(ctx, v, o.target, o.options); err != nil {
			return &bundleError{path, err}
		}
		if plan.Release() != d.Release {
			return fmt.Errorf("%w: with these values %s would be another release than the one that is installed; leave --values and --host-root away, repeat --plain-http as it was given, or use install", bundle.ErrPolicy, d.Name)
		}
	}
	tags, err := tagDrift(f.root, state, d, kept, nil)
	if err != nil {
		return err
	}
	if earlier {
		if err := retainAgain(ctx, embedded, f.root, kept, v); err != nil {
			return &bundleError{path, err}
		}
	}
	if embedded != nil {
		if err := repairBlobs(ctx, v, embedded, &out); err != nil {
			return &bundleError{path, err}
		}
	}
	if plan != nil {
		p := u.progress("repair", v.Geometry)
		files, err := plan.Repair(ctx, p.watch())
		p.stop()
		if err != nil {
			return &bundleError{path, err}
		}
		out.Files = append(out.Files, files...)
	}
	left, err := tagDrift(f.root, state, d, kept, nil)
	if err != nil {
		return err
	}
	for _, t := range tags {
		if !slices.Contains(left, t) {
			out.Tags = append(out.Tags, t.Path)
		}
	}
	if plan != nil {
		if err := closeSecrets(f.root, d, &out); err != nil {
			return err
		}
	}
	if err := u.result(out, func(w io.Writer) {
		for _, d := range out.Files {
			fmt.Fprintf(w, "  file      %-7s %s\n", d.What, d.Path)
		}
		for _, t := range out.Tags {
			fmt.Fprintf(w, "  tag       %s\n", t)
		}
		for _, b := range out.Blobs {
			fmt.Fprintf(w, "  blob      %-7s %s\n", b.What, b.Digest)
		}
		for _, b := range out.Others {
			fmt.Fprintf(w, "  blob      %-7s %s of %s, which another bundle brought\n", b.What, b.Digest, b.Repository)
		}
		also := ""
		if n := len(out.Tags); n > 0 {
			also = " and " + count(n, "tag")
		}
		if earlier {
			fmt.Fprintf(w, "What the registry has of %s %s, which rollback can go back to, is good: %s%s put right\n", v.Info.Name, v.Info.Version, count(len(out.Blobs), "blob"), also)
			return
		}
		fmt.Fprintf(w, "%s %s is as it was installed: %s and %s%s put right\n", v.Info.Name, v.Info.Version, count(len(out.Files), "file"), count(len(out.Blobs), "blob"), also)
	}); err != nil {
		return err
	}
	if len(out.Others) == 0 {
		return nil
	}
	others, err := otherBundles(f.root, state, o.target, v.Identity)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s came with another bundle and must be put right; run repair with the one that brought them: %s", errDrift, count(len(out.Others), "blob"), strings.Join(others, ", "))
}

// closeSecrets makes the passwords of the site nobody else's to read again.
func closeSecrets(root string, d install.Installed, out *repairJSON) error {
	about, err := host.ReadRelease(root, d.Name, d.Release)
	if err != nil {
		return err
	}
	drift, err := host.CheckSecrets(root, about)
	if err != nil {
		return err
	}
	for _, s := range drift {
		if s.What == "missing" {
			return fmt.Errorf("%w: %s is missing, and no bundle has it; put it back from a backup", errDrift, s.Path)
		}
		if err := os.Chmod(s.Path, 0o600); err != nil {
			return err
		}
		out.Files = append(out.Files, s)
	}
	return nil
}

// retainAgain makes the tags again that keep what an earlier release needs. A check
// reaches only what tags lead to, so this comes before it.
func retainAgain(ctx context.Context, e *registry.Embedded, root string, kept []*install.Receipt, v *verify.Verified) error {
	added := install.Added(v)
	var all []bundle.Descriptor
	for _, m := range v.Blobs() {
		all = append(all, bundle.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: m.Size})
	}
	if err := e.Prepare(ctx, all); err != nil {
		return err
	}
	for _, r := range kept {
		if r.Bundle.Digest != v.Identity {
			continue
		}
		for _, t := range r.Retaining() {
			at, err := registry.TagBelow(root, t.Repository, t.Tag)
			if err == nil && at != t.To {
				err = e.Tag(ctx, t.Repository, t.Tag, t.To)
			}
			if errors.Is(err, install.ErrMissing) {
				if err = storeTree(ctx, v, e, t.Repository, added, t.To); err == nil {
					err = e.Tag(ctx, t.Repository, t.Tag, t.To)
				}
			}
			if err != nil {
				return err
			}
		}
	}
	return e.Sync()
}

// manifestOf returns what a retention tag of a bundle leads to: a manifest, the root, or
// an index of which some manifests are carried.
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

// storeTree stores a manifest with all that it needs.
func storeTree(ctx context.Context, v *verify.Verified, e *registry.Embedded, repo string, added map[bundle.Digest][]byte, d bundle.Digest) error {
	m, data, err := manifestOf(v, added, d)
	if err != nil {
		return err
	}
	for _, c := range m.Children() {
		place, ok := v.Place(c.Digest)
		if !ok { // not all of an index need be carried
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

// repairBlobs puts the blobs right that the bundle has, and lists all that were
// damaged. What a damaged manifest leads to is found when the manifest is good again.
func repairBlobs(ctx context.Context, v *verify.Verified, e *registry.Embedded, out *repairJSON) error {
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

// storeAgain replaces damaged blobs by those of the bundle, and of what is added to it.
func storeAgain(ctx context.Context, v *verify.Verified, e *registry.Embedded, damaged []registry.Damage, added map[bundle.Digest][]byte) error {
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
	if err := e.Prepare(ctx, blobs); err != nil {
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

// otherBundles names the bundles besides one that have something on a target.
func otherBundles(root string, state *install.State, target install.Target, except bundle.Digest) ([]string, error) {
	var list []string
	for _, d := range state.Deployments {
		if d.Registry != target.Name() {
			continue
		}
		kept, err := d.Kept(root)
		if err != nil {
			return nil, err
		}
		for _, r := range kept {
			if r.Bundle.Digest != except {
				list = append(list, fmt.Sprintf("%s %s (%s)", r.Bundle.Name, r.Bundle.Version, r.Bundle.Digest))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
