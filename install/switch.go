package install

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// move is a tag on its way.
type move struct {
	TagMove
	descriptor bundle.Descriptor
	data       []byte // of the manifest
}

// moves lists the tags in the order in which they are switched: first those
// that only keep content alive, then those that people use, then the one by
// which other hosts learn of it.
func (p *Plan) moves(ctx context.Context, repos []*repository, s *stored) ([]move, error) {
	root := bundle.Descriptor{MediaType: bundle.TypeOCIIndex, Digest: p.Bundle.Identity, Size: int64(len(p.Bundle.Root))}
	list := []move{{TagMove{Repository: p.central, Tag: retentionTag(p.Bundle.Identity, 0), To: root.Digest}, root, p.Bundle.Root}}
	add := func(repo, name string, to bundle.Digest) error {
		d, data, err := p.manifestBytes(to)
		list = append(list, move{TagMove{Repository: repo, Tag: name, To: to}, d, data})
		return err
	}
	for _, r := range repos[1:] {
		for n, d := range r.retain {
			if err := add(r.name, retentionTag(p.Bundle.Identity, n), d); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range repos[1:] {
		for _, t := range r.tags {
			if err := p.addTag(t, r.name, s, add); err != nil {
				return nil, err
			}
		}
	}
	list = append(list, move{TagMove{Repository: p.central, Tag: channelTag(p.Bundle.Info.Channel), To: s.slot.Digest}, s.slot, s.slotDoc})
	for i := range list {
		var err error
		if list[i].From, err = p.Target.Resolve(ctx, list[i].Repository, list[i].Tag); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// addTag decides what an image's tag points to: the complete index, or the one
// carried manifest. Of several, the index serves every platform if the target
// took it; if not, the tag is the first platform's and each has one of its own.
func (p *Plan) addTag(t tag, repo string, s *stored, add func(repo, name string, to bundle.Digest) error) error {
	if !t.image.Partial || len(t.image.Manifests) == 1 {
		return add(repo, t.name, t.digest)
	}
	if s.partial[t.image.Reference] {
		return add(repo, t.name, t.image.Digest)
	}
	for _, d := range p.platforms(t.image) {
		name := platformTag(t.name, d.Platform)
		if len(name) > 128 {
			continue // no registry takes it (distribution-spec); the digest remains
		}
		if err := add(repo, name, d.Digest); err != nil {
			return err
		}
	}
	return add(repo, t.name, t.digest)
}

// manifestBytes reads a manifest of the bundle, also an index that is carried
// as a layer.
func (p *Plan) manifestBytes(digest bundle.Digest) (bundle.Descriptor, []byte, error) {
	if m := p.Bundle.Manifests[digest]; m != nil {
		data, err := p.Bundle.ReadBlob(m.Descriptor, bundle.MaxManifest)
		return m.Descriptor, data, err
	}
	for _, i := range p.images {
		if i.Digest == digest && i.Partial {
			data, mediaType, err := p.Bundle.PartialIndex(i)
			return bundle.Descriptor{MediaType: mediaType, Digest: digest, Size: int64(len(data))}, data, err
		}
	}
	return bundle.Descriptor{}, nil, fmt.Errorf("%w: manifest %s is not in the bundle", bundle.ErrFormat, digest)
}

// switchOver is the part that cannot be left half done: journal and sequence
// first, then the tags, then the record of what is installed.
func (p *Plan) switchOver(ctx context.Context, moves []move, s *stored) (*Receipt, error) {
	info, identity := p.Bundle.Info, p.Bundle.Identity
	if p.journal == nil {
		j := &Journal{
			APIVersion: bundle.APIVersion, Kind: "Journal", Identity: identity, Name: info.Name, Version: info.Version,
			Channel: info.Channel, Sequence: info.Sequence, Registry: p.Target.Name(), Started: time.Now().UTC().Truncate(time.Second),
		}
		for _, m := range moves {
			j.Tags = append(j.Tags, m.TagMove)
		}
		if err := writeJSON(journalPath(p.Options.Root, p.Target.Name()), j); err != nil {
			return nil, err
		}
	}
	channel := p.state.Channels[info.Channel]
	// Before anything is switched: a power cut is no way back. An older bundle
	// that is put back after a newer one was begun leaves the record alone.
	if info.Sequence >= channel.Sequence || p.Options.AllowDowngrade {
		channel.Sequence, channel.Pending = info.Sequence, identity
	}
	p.state.Channels[info.Channel] = channel
	if err := p.state.write(p.Options.Root); err != nil {
		return nil, err
	}
	for _, m := range moves {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if m.From == m.To {
			continue
		}
		if err := p.Target.Tag(ctx, m.Repository, m.Tag, m.descriptor, m.data); err != nil {
			return nil, fmt.Errorf("tagging %s:%s: %w", m.Repository, m.Tag, err)
		}
	}
	if err := p.Target.Sync(); err != nil {
		return nil, err
	}
	receipt := p.receipt(moves, s)
	name := receiptName(info.Name, p.Target.Name(), identity)
	if err := writeJSON(receiptPath(p.Options.Root, name), receipt); err != nil {
		return nil, err
	}
	channel.Identity = identity
	if channel.Pending == identity {
		channel.Pending = ""
	}
	p.state.Channels[info.Channel] = channel
	p.state.Deployments[deploymentKey(info.Name, p.Target.Name())] = Installed{
		Name: info.Name, Channel: info.Channel, Identity: identity, Version: info.Version, Registry: p.Target.Name(), Receipt: name,
	}
	mine := map[string]bool{}
	for _, o := range p.owned() {
		mine[o.key] = true
	}
	tags := "tag " + p.Target.Name() + " "
	self := Owner{Channel: info.Channel, Deployment: info.Name}
	maps.DeleteFunc(p.state.Owners, func(key string, owner Owner) bool {
		return owner == self && strings.HasPrefix(key, tags) && !mine[key]
	})
	for key := range mine {
		if other, ok := p.state.Owners[key]; !ok || other.Channel == info.Channel || p.Options.TakeOver {
			p.state.Owners[key] = self
		}
	}
	if err := p.state.write(p.Options.Root); err != nil {
		return nil, err
	}
	return receipt, removeJournal(p.Options.Root, p.Target.Name())
}

func (p *Plan) receipt(moves []move, s *stored) *Receipt {
	info := p.Bundle.Info
	r := &Receipt{
		APIVersion: bundle.APIVersion, Kind: "Receipt", Registry: p.Target.Address(),
		Bundle:  ReceiptBundle{Digest: p.Bundle.Identity, Name: info.Name, Version: info.Version, Channel: info.Channel, Sequence: info.Sequence},
		Signers: []string{}, Images: []ReceiptImage{}, Files: []ReceiptFile{},
		Installed: time.Now().UTC().Format(time.RFC3339),
	}
	for _, sig := range p.Bundle.Signatures {
		if sig.Trusted {
			r.Signers = append(r.Signers, sig.Fingerprint.String())
		}
	}
	for _, i := range p.images {
		image := ReceiptImage{Upstream: i.Reference, Digest: i.Manifests[0], Manifests: i.Manifests}
		for _, m := range moves {
			if m.Repository == i.Repository && m.Tag == i.Tag {
				image.Digest = m.To
			}
		}
		image.Reference = p.siteReference(i, image.Digest)
		if i.Partial {
			image.Index, image.IndexStored = i.Digest, s.partial[i.Reference]
		}
		r.Images = append(r.Images, image)
	}
	return r
}
