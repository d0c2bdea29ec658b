package install

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// moves lists the tags in the order in which they are switched.
func (p *Plan) moves(ctx context.Context, repos []*repository, s *stored) ([]TagMove, error) {
	list := []TagMove{{Repository: p.central, Tag: retentionTag(p.Bundle.Identity, 0), To: p.Bundle.Identity}}
	add := func(repo, name string, to bundle.Digest) {
		list = append(list, TagMove{Repository: repo, Tag: name, To: to})
	}
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
	for _, r := range repos[1:] {
		for _, t := range r.tags {
			p.addTag(t, r.name, s, add)
		}
	}
	add(p.central, channelTag(p.Bundle.Info.Channel), s.slot.Digest)
	theirs := map[string]bundle.Image{} // tags of other channels
	for _, o := range p.owned() {
		if owner, ok := p.state.Owners[o.key]; ok && o.tag != "" && owner.Channel != p.Bundle.Info.Channel && !p.Options.TakeOver {
			theirs[o.key] = o.image
		}
	}
	for i := range list {
		m := &list[i]
		var err error
		if m.From, err = p.Target.Resolve(ctx, m.Repository, m.Tag); err != nil {
			return nil, err
		}
		if image, ok := theirs[p.tagKey(m.Repository, m.Tag)]; ok && meansSame(image, m.From) {
			m.To = m.From // it has more platforms, or fewer
		}
	}
	slices.SortStableFunc(list, func(a, b TagMove) int { return cmp.Compare(p.order(a), p.order(b)) })
	return list, nil
}

// order returns when a tag moves: first those that exist, which a registry may refuse to
// move; last the one by which other hosts learn of the bundle.
func (p *Plan) order(m TagMove) int {
	switch {
	case m.Repository == p.central && m.Tag == channelTag(p.Bundle.Info.Channel):
		return 2
	case m.From != "" && m.From != m.To:
		return 0
	}
	return 1
}

// meansSame reports whether a tag that leads to d is the image: all of it, or one of its
// platforms.
func meansSame(i bundle.Image, d bundle.Digest) bool {
	return d == i.Digest || slices.Contains(i.Manifests, d)
}

// addTag decides what an image's tag points to: the complete index, or the one
// carried manifest. Of several, the index serves every platform if the target
// took it; if not, the tag is the first platform's and each has one of its own.
func (p *Plan) addTag(t tag, repo string, s *stored, add func(repo, name string, to bundle.Digest)) {
	several := t.image.Partial && len(t.image.Manifests) > 1
	if several && s.partial[t.image.Reference] {
		add(repo, t.name, t.image.Digest)
		return
	}
	names := p.platformTags(t.image)
	for _, name := range sortedKeys(names) {
		add(repo, name, names[name])
	}
	add(repo, t.name, t.digest)
}

// switchOver is the part that cannot be left half done: journal and sequence
// first, then the tags and the release, then the record of what is installed.
// Errors wrap ErrIncomplete, or bundle.ErrPolicy where nothing was changed.
func (p *Plan) switchOver(ctx context.Context, moves, others []TagMove, s *stored, current string, next *host.About) (*Receipt, error) {
	info, identity := p.Bundle.Info, p.Bundle.Identity
	j := p.journal
	if j == nil {
		j = newJournal(actionInstall, p.Target.Name())
		j.Identity, j.Name, j.Version, j.Channel, j.Sequence = identity, info.Name, info.Version, info.Channel, info.Sequence
		j.Release, j.Tags, j.Others = next.ID, moves, others
		j.From = current
	}
	receipt, err := p.switchBy(ctx, j, s, next)
	if err != nil && !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrRefused) {
		err = unfinished(actionInstall, err)
	}
	return receipt, err
}

// switchBy carries out a journal, which is written first unless it is there.
func (p *Plan) switchBy(ctx context.Context, j *Journal, s *stored, next *host.About) (*Receipt, error) {
	info, identity := p.Bundle.Info, p.Bundle.Identity
	c := p.change()
	if p.journal == nil {
		if err := c.begin(j); err != nil {
			return nil, err
		}
	}
	before, known := p.state.Channels[info.Channel]
	channel := before
	// Before anything is switched: a power cut is no way back. An older bundle
	// that is put back after a newer one was begun leaves the record alone.
	if info.Sequence >= channel.Sequence || p.Options.AllowDowngrade {
		channel.Sequence, channel.Highest, channel.Pending = info.Sequence, identity, identity
	}
	p.state.Channels[info.Channel] = channel
	if err := p.state.write(p.Options.Root); err != nil {
		return nil, err
	}
	if err := c.carryOut(ctx, j); err != nil {
		if errors.Is(err, ErrRefused) && !errors.Is(err, ErrIncomplete) {
			err = errors.Join(err, p.resetChannel(before, known))
		}
		return nil, err
	}
	key := deploymentKey(info.Name, p.Target.Name())
	old, upgrade := p.state.Deployments[key]
	receipt := p.receipt(slices.Clone(j.Tags), s, next)
	name := receiptName(info.Name, p.Target.Name(), next.ID)
	if p.Options.InPlace { // it is put right from the registry, and had put the tags there itself
		if was, err := ReadReceipt(p.Options.Root, name); err == nil {
			receipt.Tags = was.Tags
		} else if !host.Lost(err) {
			return nil, err
		}
	}
	if err := receipt.inherit(p.Options.Root, p.state, p.Target, old); err != nil {
		return nil, err
	}
	if err := host.WriteRecord(receiptPath(p.Options.Root, name), receipt); err != nil {
		return nil, err
	}
	channel.Identity = identity
	if channel.Pending == identity {
		channel.Pending = ""
	}
	p.state.Channels[info.Channel] = channel
	fresh := Installed{
		Name: info.Name, Channel: info.Channel, Identity: identity, Version: info.Version,
		Registry: p.Target.Name(), Release: next.ID, Receipt: name, Before: old.Before,
	}
	if upgrade && old.Receipt != name {
		fresh.Before = slices.Insert(slices.Clone(old.Before), 0, old.Receipt)
	}
	fresh.Before = slices.DeleteFunc(fresh.Before, func(r string) bool { return r == name })
	fresh.Before = fresh.Before[:min(len(fresh.Before), keptReleases)]
	p.state.Deployments[key] = fresh
	p.own()
	if err := p.state.settleOwners(p.Options.Root); err != nil {
		return nil, err
	}
	if err := p.state.write(p.Options.Root); err != nil {
		return nil, err
	}
	if err := c.forget(ctx, p.state, info.Name); err != nil {
		return nil, err
	}
	return receipt, removeJournal(p.Options.Root, p.Target.Name())
}

// resetChannel takes back the record of a sequence that was not installed.
func (p *Plan) resetChannel(before Channel, known bool) error {
	if known {
		p.state.Channels[p.Bundle.Info.Channel] = before
	} else {
		delete(p.state.Channels, p.Bundle.Info.Channel)
	}
	return p.state.write(p.Options.Root)
}

// own records whose the tags, paths and the name are now.
func (p *Plan) own() {
	info := p.Bundle.Info
	mine := map[string]bool{}
	for _, o := range p.owned() {
		mine[o.key] = true
	}
	tags := "tag " + p.Target.Name() + " "
	self := Owner{Channel: info.Channel, Deployment: info.Name}
	maps.DeleteFunc(p.state.Owners, func(key string, owner Owner) bool {
		return owner.Deployment == info.Name && (strings.HasPrefix(key, tags) || strings.HasPrefix(key, "path ")) && !mine[key]
	})
	for key := range mine {
		if other, ok := p.state.Owners[key]; !ok || other.Channel == info.Channel || p.Options.TakeOver {
			p.state.Owners[key] = self
		}
	}
}

func (p *Plan) receipt(moves []TagMove, s *stored, release *host.About) *Receipt {
	info := p.Bundle.Info
	r := &Receipt{
		APIVersion: bundle.APIVersion, Kind: "Receipt", Registry: p.Target.Address(),
		Bundle:  ReceiptBundle{Digest: p.Bundle.Identity, Name: info.Name, Version: info.Version, Channel: info.Channel, Sequence: info.Sequence},
		Signers: []string{}, Images: []ReceiptImage{}, Files: []ReceiptFile{},
		Release: release.ID, Tags: moves, Installed: time.Now().UTC().Format(time.RFC3339),
	}
	for _, f := range release.Files {
		r.Files = append(r.Files, ReceiptFile{Path: filepath.Join(p.release.Dir, filepath.FromSlash(f.Path)), Mode: f.Mode, SHA256: f.SHA256})
	}
	for _, sig := range p.Bundle.Signatures {
		if sig.Trusted {
			r.Signers = append(r.Signers, sig.Fingerprint.String())
		}
	}
	to := map[string]bundle.Digest{}
	for _, m := range moves {
		to[m.Repository+":"+m.Tag] = m.To
	}
	for _, i := range p.images {
		image := ReceiptImage{Upstream: i.Reference, Digest: i.Manifests[0], Manifests: i.Manifests}
		if d, ok := to[i.Repository+":"+i.Tag]; ok {
			image.Digest = d
		}
		if p.Options.InPlace && i.Partial && s.partial[i.Reference] { // another host has put the index there
			image.Digest = i.Digest
		}
		image.Reference = p.siteReference(i, image.Digest)
		if i.Partial {
			image.Index, image.IndexStored = i.Digest, s.partial[i.Reference]
		}
		r.Images = append(r.Images, image)
	}
	return r
}
