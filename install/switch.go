package install

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// wanted returns the places that the release needs, each once, with their current values.
func (p *Plan) wanted(ctx context.Context, repos []*repository, s *stored) ([]ledger.Wanted, error) {
	list := p.filled()
	if list == nil {
		list = p.wantedTags(repos, s)
		for i := range list {
			_, repo, tag, _ := list[i].Place.Split()
			var err error
			if list[i].Found, err = p.Target.Resolve(ctx, repo, tag); err != nil {
				return nil, err
			}
		}
		p.disown(list)
	}
	images := map[ledger.Place]bundle.Image{}
	for _, i := range p.images {
		for _, name := range p.tagNames(i) {
			images[p.place(i.Repository, name)] = i
		}
	}
	for i := range list {
		_, repo, tag, _ := list[i].Place.Split()
		_, foreign := p.foreignOwner(repo, tag)
		list[i].Yields = foreign && !p.Options.TakeOver && meansSame(images[list[i].Place], list[i].Found)
	}
	for _, path := range p.release.Links() {
		owner, taken := p.ledger.Owner(ledger.Path(path))
		list = append(list, ledger.Wanted{Place: ledger.Path(path), Yields: taken && owner.Name != p.Bundle.Info.Name && !p.Options.TakeOver})
	}
	return list, nil
}

// filled returns the tags that this host itself set, or was going to set: those of an
// unfinished run, or of the release that is repaired from the registry. It returns nil if
// there are none.
func (p *Plan) filled() (list []ledger.Wanted) {
	if p.journal != nil {
		for _, m := range p.journal.Tags {
			list = append(list, ledger.Wanted{Place: p.place(m.Repository, m.Tag), Value: m.To, Found: m.From})
		}
		return list
	}
	d := p.installed()
	if have, known := d.Release(p.release.ID); p.Options.InPlace && known && !have.InPlace {
		for _, t := range p.ledger.Tags(d, have.ID) {
			list = append(list, ledger.Wanted{Place: t.Place, Value: t.Value, Found: t.Value})
		}
	}
	return list
}

// wantedTags returns the tags that the release needs.
func (p *Plan) wantedTags(repos []*repository, s *stored) (list []ledger.Wanted) {
	add := func(repo, name string, to bundle.Digest) {
		list = append(list, ledger.Wanted{Place: p.place(repo, name), Value: to})
	}
	if !p.Options.InPlace {
		p.addRetention(repos, s, add)
		add(p.central, channelTag(p.Bundle.Info.Channel), s.slot.Digest)
	}
	for _, r := range repos[1:] {
		for _, t := range r.tags {
			p.addTag(t, r.name, s, add)
		}
	}
	return list
}

// addRetention adds the tags that protect content from garbage collection: one for the root,
// and those for the content of each repository.
func (p *Plan) addRetention(repos []*repository, s *stored, add func(repo, name string, to bundle.Digest)) {
	add(p.central, retentionTag(p.Bundle.Identity, 0), p.Bundle.Identity)
	for _, r := range repos[1:] {
		retain := slices.Clone(r.retain)
		for _, i := range r.partial { // signatures of the index are found by its digest
			if s.partial[i.Reference] && !slices.Contains(retain, i.Digest) {
				retain = append(retain, i.Digest)
			}
			if d, _, ok := p.Bundle.CarriedIndex(i); ok && !slices.Contains(retain, d.Digest) {
				retain = append(retain, d.Digest)
			}
		}
		for n, d := range retain {
			add(r.name, retentionTag(p.Bundle.Identity, n), d)
		}
	}
}

// disown treats tags as new that an earlier installation of this bundle set and of which this
// host has lost the record. No other host writes to a registry below the root.
func (p *Plan) disown(list []ledger.Wanted) {
	root := p.place(p.central, retentionTag(p.Bundle.Identity, 0))
	left := slices.ContainsFunc(list, func(w ledger.Wanted) bool { return w.Place == root && w.Found == w.Value })
	if !left || p.Target.Network != nil || len(p.ledger.Claims[root]) > 0 {
		return
	}
	for i, w := range list {
		if w.Found == w.Value && len(p.ledger.Claims[w.Place]) == 0 {
			list[i].Found = ""
		}
	}
}

// meansSame reports whether d is the image: its index, or one of its platforms.
func meansSame(i bundle.Image, d bundle.Digest) bool {
	return d == i.Digest || slices.Contains(i.Manifests, d)
}

// addTag decides what an image's tag points to: the complete index, or the one carried
// manifest. If several manifests are carried and the target accepted the index, the tag points
// to the index. If the target rejected it, the tag points to the first platform, and each
// platform gets its own tag.
func (p *Plan) addTag(t tag, repo string, s *stored, add func(repo, name string, to bundle.Digest)) {
	several := t.image.Partial && len(t.image.Manifests) > 1
	switch {
	case p.Options.InPlace && t.image.Partial && s.partial[t.image.Reference], several && s.partial[t.image.Reference]:
		add(repo, t.name, t.image.Digest)
		return
	case p.Options.InPlace:
		add(repo, t.name, t.digest)
		return
	}
	names := p.platformTags(t.image)
	for _, name := range sortedKeys(names) {
		add(repo, name, names[name])
	}
	add(repo, t.name, t.digest)
}

// switchOver is the critical part of the installation. It writes the journal and the sequence
// first, then switches the tags and the release, and then writes the ledger. Errors wrap
// ErrIncomplete, or bundle.ErrPolicy if nothing was changed.
func (p *Plan) switchOver(
	ctx context.Context, wanted []ledger.Wanted, s *stored, current string, about *host.About,
) (*ledger.Receipt, error) {
	next := p.next(wanted, s, about)
	j, c := p.journal, p.change()
	if j == nil {
		var err error
		if j, err = p.newJournal(ctx, c, next, wanted); err != nil {
			return nil, err
		}
		j.From, j.Release = current, about.ID
		if err := j.Write(p.Options.Root); err != nil {
			return nil, unfinished(j.Action, err)
		}
	} else if err := c.complete(ctx, j, next); err != nil {
		return nil, unfinished(j.Action, err)
	}
	before := p.ledger.Channels[p.Bundle.Info.Channel]
	channel := p.raised(before)
	// Written before the switch, so that a power failure cannot permit a downgrade.
	if err := p.setChannel(channel); err != nil {
		return nil, unfinished(j.Action, err)
	}
	if err := c.carryOut(ctx, j); err != nil {
		if errors.Is(err, ErrRefused) && !errors.Is(err, ErrIncomplete) {
			err = errors.Join(err, p.setChannel(before))
		}
		return nil, err
	}
	channel.Identity = p.Bundle.Identity
	if channel.Pending == p.Bundle.Identity {
		channel.Pending = ""
	}
	next.Channels[p.Bundle.Info.Channel] = channel
	receipt, err := p.record(next, about)
	if err == nil {
		c.ledger = next
		err = c.tidy(p.Bundle.Info.Name)
	}
	if err == nil {
		err = j.Remove(p.Options.Root)
	}
	return receipt, unfinished(j.Action, err)
}

// next returns the ledger after the installation.
func (p *Plan) next(wanted []ledger.Wanted, s *stored, about *host.About) *ledger.Ledger {
	info := p.Bundle.Info
	r := ledger.Release{
		ID:       about.ID,
		Identity: p.Bundle.Identity,
		Version:  info.Version,
		Channel:  info.Channel,
		Sequence: info.Sequence,
		Installed: time.Now().UTC().Format(
			time.RFC3339,
		),
		Signers: []string{},
		Address: p.Target.Address,
		InPlace: p.Options.InPlace && p.filled() == nil,
		Images:  []ledger.Image{},
	}
	have, known := p.installed().Release(r.ID)
	if known && p.again() { // a repair keeps the date
		r.Installed = have.Installed
	}
	for _, sig := range p.Bundle.Signatures {
		if sig.Trusted {
			r.Signers = append(r.Signers, sig.Fingerprint.String())
		}
	}
	values := map[ledger.Place]bundle.Digest{}
	for _, w := range wanted {
		values[w.Place] = w.Value
		if w.Yields {
			values[w.Place] = w.Found // the present tag may have more platforms, or fewer
		}
	}
	for _, i := range p.images {
		image := ledger.Image{Upstream: i.Reference, Digest: i.Manifests[0], Manifests: i.Manifests}
		if d, ok := values[p.place(i.Repository, i.Tag)]; ok {
			image.Digest = d
		}
		image.Reference = p.siteReference(i, image.Digest)
		if i.Partial {
			image.Index, image.IndexStored = i.Digest, s.partial[i.Reference]
		}
		r.Images = append(r.Images, image)
	}
	return p.ledger.With(info.Name, p.Target.Name, r, wanted)
}

// newJournal returns the changes of the installation.
func (p *Plan) newJournal(ctx context.Context, c *change, next *ledger.Ledger, wanted []ledger.Wanted) (*ledger.Journal, error) {
	info := p.Bundle.Info
	j := ledger.NewJournal(ledger.ActionInstall, p.Target.Name)
	j.Identity, j.Name, j.Version, j.Channel, j.Sequence = p.Bundle.Identity, info.Name, info.Version, info.Channel, info.Sequence
	forced := map[ledger.Place]bool{}
	for _, w := range wanted {
		if _, _, _, tag := w.Place.Split(); tag {
			forced[w.Place] = true
		}
	}
	var err error
	if j.Tags, j.Others, err = c.moves(ctx, next, forced); p.Options.InPlace {
		j.Tags = []ledger.TagMove{} // another host has set them
	}
	return j, err
}

// raised returns the record of the channel with the bundle's sequence. The record does not
// change if an older bundle is restored after the installation of a newer one was started.
func (p *Plan) raised(c ledger.Channel) ledger.Channel {
	if p.Bundle.Info.Sequence >= c.Sequence || p.Options.AllowDowngrade {
		c.Sequence, c.Highest, c.Pending = p.Bundle.Info.Sequence, p.Bundle.Identity, p.Bundle.Identity
	}
	return c
}

// setChannel records the state of the channel. The zero value removes the record.
func (p *Plan) setChannel(c ledger.Channel) error {
	if p.ledger.Channels[p.Bundle.Info.Channel] = c; c == (ledger.Channel{}) {
		delete(p.ledger.Channels, p.Bundle.Info.Channel)
	}
	return p.ledger.Write(p.Options.Root)
}

// record writes the receipt and then the ledger that contains the installation.
func (p *Plan) record(next *ledger.Ledger, about *host.About) (*ledger.Receipt, error) {
	root := p.Options.Root
	d := next.Deployments[ledger.Key(p.Bundle.Info.Name, p.Target.Name)]
	receipt, err := next.Receipt(root, d, d.Current(), about)
	if err != nil {
		return nil, err
	}
	if err := host.WriteRecord(ledger.ReceiptPath(root, ledger.ReceiptName(d.Name, d.Registry, about.ID)), receipt); err != nil {
		return nil, err
	}
	return receipt, next.Write(root)
}
