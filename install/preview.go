package install

import (
	"context"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// Preview is a Plan for people and programs: what Apply would do.
type Preview struct {
	Bundle   ReceiptBundle  `json:"bundle"`
	Registry string         `json:"registry"`
	Release  string         `json:"release"`
	Images   []PreviewImage `json:"images"`
	Tags     []TagMove      `json:"tags"` // those that move
	Files    []host.Change  `json:"files"`
	Links    []string       `json:"links"`    // absolute paths outside of the root
	Services []string       `json:"services"` // that --start would start or restart
	// Blobs and bytes that are not in the registry yet, and the bytes of the files.
	NewBlobs  int   `json:"newBlobs"`
	NewBytes  int64 `json:"newBytes"`
	FileBytes int64 `json:"fileBytes"`
	Nothing   bool  `json:"nothing"` // it is installed as it stands
}

// PreviewImage is an image and what is there of it.
type PreviewImage struct {
	Reference string        `json:"reference"` // on the site
	Digest    bundle.Digest `json:"digest"`
	What      string        `json:"what"` // new, changed, same
}

// Preview asks the target what it has, and writes nothing. The payload is not
// read: what it says holds if the rest of the bundle is good.
func (p *Plan) Preview(ctx context.Context) (*Preview, error) {
	info := p.Bundle.Info
	out := &Preview{
		Bundle:   ReceiptBundle{Digest: p.Bundle.Identity, Name: info.Name, Version: info.Version, Channel: info.Channel, Sequence: info.Sequence},
		Registry: p.Target.Address(), Release: p.release.ID, FileBytes: p.release.Size(),
		Images: []PreviewImage{}, Tags: []TagMove{}, Files: []host.Change{}, Links: []string{}, Services: p.release.Services(),
	}
	repos, err := p.repositories()
	if err != nil {
		return nil, err
	}
	for _, d := range slices.Concat(repos[0].blobs, repos[0].manifests) {
		m, ok := p.Bundle.Place(d)
		if !ok || p.Options.InPlace {
			continue
		}
		has, err := p.Target.HasBlob(ctx, p.central, bundle.Descriptor{MediaType: m.Type, Digest: d, Size: m.Size})
		if err != nil {
			return nil, err
		}
		if !has {
			out.NewBlobs++
			out.NewBytes += m.Size
		}
	}
	s := &stored{partial: map[string]bool{}}
	for _, i := range p.images {
		s.partial[i.Reference] = true // what most targets do; the others get a tag per platform
	}
	s.slot, _, _ = p.slot()
	moves, err := p.moves(ctx, repos, s)
	if err != nil {
		return nil, err
	}
	for _, m := range moves {
		if !p.Options.InPlace && m.From != m.To && m.Repository != p.central && !strings.HasPrefix(m.Tag, "oob-") { // those are for programs
			out.Tags = append(out.Tags, m)
		}
	}
	for _, i := range p.images {
		image := PreviewImage{Reference: p.siteReference(i, i.Manifests[0]), Digest: i.Manifests[0], What: "new"}
		for _, m := range moves {
			if m.Repository != i.Repository || m.Tag != i.Tag {
				continue
			}
			image.Digest = m.To
			switch {
			case p.Options.InPlace || m.From == m.To: // in place nothing of it is touched
				image.What = "same"
			case m.From != "":
				image.What = "changed"
			}
		}
		out.Images = append(out.Images, image)
	}
	if out.Files, err = p.release.Changes(); err != nil {
		return nil, err
	}
	out.Links = append(out.Links, p.release.Links()...)
	out.Nothing = p.done != nil
	return out, nil
}
