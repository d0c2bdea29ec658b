package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// Several deployments of a host may have one tag. It is what the current release of its
// owner says, and when the last of them goes, what it was before the first of them had
// it: that is what each of their receipts says as From.

// claims are what deployments need of the tags of a target, by REPOSITORY:TAG.
type claims map[string]claim

type claim struct {
	to    bundle.Digest   // what it has to be, or "": no current release has it
	known []bundle.Digest // what it may stay, because a rollback may go back to that
}

// add adds the tags of a deployment's current receipt. Of several that claim a tag its
// owner is heard, or else the first.
func (c claims) add(s *State, d Installed, r *Receipt) {
	for _, t := range r.Tags {
		key := t.Repository + ":" + t.Tag
		if x := c[key]; x.to == "" || s.Owners[tagKey(d.Registry, t.Repository, t.Tag)] == (Owner{d.Channel, d.Name}) {
			x.to = t.To
			c[key] = x
		}
	}
}

// keep adds what a tag may stay.
func (c claims) keep(key string, d bundle.Digest) {
	x := c[key]
	x.known = append(x.known, d)
	c[key] = x
}

// claimsOfOthers returns what deployments besides d need of its target's tags.
func claimsOfOthers(root string, s *State, d Installed) (claims, error) {
	c := claims{}
	for _, other := range s.installed() {
		if other.Registry != d.Registry || other.Name == d.Name {
			continue
		}
		receipt, err := ReadReceipt(root, other.Receipt)
		if err != nil && host.Lost(err) {
			return nil, fmt.Errorf("%w; what %s needs of the registry is not known: repair it first, with the bundle that is installed", err, other.Name)
		}
		if err != nil {
			return nil, err
		}
		c.add(s, other, receipt)
	}
	return c, nil
}

// dropped returns the moves of tags that the release before has and this one has not,
// and that others need.
func (p *Plan) dropped(ctx context.Context, moves []TagMove) ([]TagMove, error) {
	d, ok := p.state.Deployments[deploymentKey(p.Bundle.Info.Name, p.Target.Name())]
	if !ok || p.Options.InPlace {
		return nil, nil
	}
	before, err := ReadReceipt(p.Options.Root, d.Receipt)
	if err != nil {
		if host.Lost(err) {
			err = nil // the receipt is written again, and nobody knows what it said
		}
		return nil, err
	}
	needed, err := claimsOfOthers(p.Options.Root, p.state, d)
	if err != nil && host.Lost(err) {
		p.Options.Warn("%v; tags that this release has not got stay as they are", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	still := map[string]bool{}
	for _, m := range moves {
		still[m.Repository+":"+m.Tag] = true
	}
	var list []TagMove
	for _, t := range before.Tags {
		to := needed[t.Repository+":"+t.Tag].to
		if to == "" || to == t.To || still[t.Repository+":"+t.Tag] {
			continue
		}
		now, err := p.Target.Resolve(ctx, t.Repository, t.Tag)
		if err != nil {
			return nil, err
		}
		if now == t.To {
			list = append(list, TagMove{Repository: t.Repository, Tag: t.Tag, From: now, To: to})
		}
	}
	return list, nil
}

// moving completes the moves of a rollback or an uninstallation with where the tags are
// now. It leaves those alone that this deployment has not put where they are; one that
// another deployment has too becomes what its owner needs. Then is the receipt that is
// put back, or nil.
func (s *Site) moving(ctx context.Context, state *State, d Installed, moves, ours []TagMove, then *Receipt) ([]TagMove, error) {
	needed, err := claimsOfOthers(s.Root, state, d)
	if err != nil {
		return nil, err
	}
	if then != nil {
		needed.add(state, d, then)
	}
	put := map[string]bundle.Digest{}
	for _, t := range ours {
		put[t.Repository+":"+t.Tag] = t.To
	}
	var list []TagMove
	for _, m := range moves {
		m.From, err = s.Target.Resolve(ctx, m.Repository, m.Tag)
		if err != nil {
			return nil, err
		}
		if to, ok := put[m.Repository+":"+m.Tag]; ok && to != m.From {
			continue
		}
		if to := needed[m.Repository+":"+m.Tag].to; to != "" {
			m.To = to
		}
		list = append(list, m)
	}
	return list, nil
}

// giveUp puts the tags of a receipt that nobody needs any more where they belong, as far
// as they still are what it says.
func (c *change) giveUp(ctx context.Context, r *Receipt, bundles map[bundle.Digest]bool, claimed claims) error {
	for _, t := range r.Tags {
		to := t.From
		if strings.HasPrefix(t.Tag, retentionTag(r.Bundle.Digest, 0)) {
			if bundles[r.Bundle.Digest] || t.From == t.To { // another host has put it there
				continue
			}
			to = ""
		} else if x := claimed[t.Repository+":"+t.Tag]; x.to != "" {
			to = x.to
		} else if slices.Contains(x.known, t.To) {
			continue
		}
		now, err := c.target.Resolve(ctx, t.Repository, t.Tag)
		if err != nil {
			return err
		}
		if now != t.To || now == to {
			continue
		}
		if err := c.point(ctx, t.Repository, t.Tag, to); err != nil {
			return err
		}
	}
	return nil
}

// point points a tag to what it was. Where that is gone from the target, because
// somebody has collected what had no tag, the tag goes too.
func (c *change) point(ctx context.Context, repo, tag string, to bundle.Digest) error {
	err := c.target.Tag(ctx, repo, tag, to)
	if to != "" && errors.Is(err, ErrMissing) {
		c.tell("%s:%s was %s before, which %s has not got any more; the tag is removed", repo, tag, to, c.target.Address())
		err = c.target.Tag(ctx, repo, tag, "")
	}
	return err
}

// inherit makes From of each tag what it was before any deployment of this host had it,
// as far as their receipts know, this deployment's first; and keeps when the same
// release was installed if this only puts it right. Old is the deployment as it was, if
// it was installed.
func (r *Receipt) inherit(root string, s *State, target Target, old Installed) error {
	names := append([]string{old.Receipt, receiptName(r.Bundle.Name, target.Name(), r.Release)}, old.Before...)
	for _, d := range s.installed() {
		if d.Registry == target.Name() && d.Name != r.Bundle.Name {
			names = append(append(names, d.Receipt), d.Before...)
		}
	}
	original := map[TagMove]bundle.Digest{} // a tag that is something, and what it was before
	for n, name := range names {
		if name == "" {
			continue
		}
		earlier, err := ReadReceipt(root, name)
		if err != nil && !host.Lost(err) {
			return err
		}
		if err != nil {
			continue
		}
		if n == 0 && earlier.Release == r.Release {
			r.Installed = earlier.Installed
		}
		for _, t := range earlier.Tags {
			key := TagMove{Repository: t.Repository, Tag: t.Tag, To: t.To}
			if _, ok := original[key]; !ok {
				original[key] = t.From
			}
		}
	}
	unknown := false // the bundle has been here, and no receipt says so
	for i, t := range r.Tags {
		from, ok := original[TagMove{Repository: t.Repository, Tag: t.Tag, To: t.From}]
		if ok {
			r.Tags[i].From = from
		} else if t.From == t.To && strings.HasPrefix(t.Tag, retentionTag(r.Bundle.Digest, 0)) {
			unknown = true
		}
	}
	for i, t := range r.Tags {
		if unknown && t.From == t.To && !target.Shared() {
			r.Tags[i].From = ""
		}
	}
	return nil
}
