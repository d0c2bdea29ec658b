package install

import (
	"context"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// Preview describes what Apply would do, for people and programs.
type Preview struct {
	Bundle   ledger.Bundle    `json:"bundle"`
	Registry string           `json:"registry"`
	Release  string           `json:"release"`
	Images   []PreviewImage   `json:"images"`
	Tags     []ledger.TagMove `json:"tags"` // only tags that move
	Files    []host.Change    `json:"files"`
	Links    []string         `json:"links"`             // absolute paths outside of the root
	Services []string         `json:"services"`          // that --start would start or restart
	Cluster  []string         `json:"cluster,omitempty"` // steps that --start would apply, in this order
	// Blobs and bytes that are not in the registry yet, and the bytes of the files.
	NewBlobs  int   `json:"newBlobs"`
	NewBytes  int64 `json:"newBytes"`
	FileBytes int64 `json:"fileBytes"`
	Nothing   bool  `json:"nothing"` // the bundle is already installed
}

// PreviewImage is an image and its state on the target.
type PreviewImage struct {
	Reference string        `json:"reference"` // on the site
	Digest    bundle.Digest `json:"digest"`
	What      string        `json:"what"` // new, changed, same
}

// Preview queries the target and writes nothing. It does not read the payload; the result
// holds if the rest of the bundle is valid.
func (p *Plan) Preview(ctx context.Context) (*Preview, error) {
	info := p.Bundle.Info
	out := &Preview{
		Bundle: ledger.Bundle{
			Digest:   p.Bundle.Identity,
			Name:     info.Name,
			Version:  info.Version,
			Channel:  info.Channel,
			Sequence: info.Sequence,
		},
		Registry:  p.Target.Address,
		Release:   p.release.ID,
		FileBytes: p.release.Size(),
		Images:    []PreviewImage{},
		Tags:      []ledger.TagMove{},
		Files:     []host.Change{},
		Links:     []string{},
		Services:  p.release.Services(),
		Cluster:   p.release.ClusterSteps(),
	}
	repos, err := p.repositories()
	if err != nil {
		return nil, err
	}
	if !p.Options.InPlace {
		missing, err := p.missing(ctx, repos[0])
		if err != nil {
			return nil, err
		}
		for _, d := range missing {
			out.NewBlobs++
			out.NewBytes += d.Size
		}
	}
	s := &stored{partial: map[string]bool{}}
	for _, i := range p.images {
		s.partial[i.Reference] = true // most targets accept it; the others get one tag per platform
	}
	s.slot, _, _ = p.slot()
	wanted, err := p.wanted(ctx, repos, s)
	if err != nil {
		return nil, err
	}
	moves := map[string]ledger.TagMove{} // by REPOSITORY:TAG
	for _, w := range wanted {
		_, repo, tag, ok := w.Place.Split()
		if !ok {
			continue
		}
		m := ledger.TagMove{Repository: repo, Tag: tag, From: w.Found, To: w.Value}
		if w.Yields {
			m.To = w.Found
		}
		moves[repo+":"+tag] = m
		internal := repo == p.central || strings.HasPrefix(tag, "oob-") // internal tags
		if !p.Options.InPlace && m.From != m.To && !internal {
			out.Tags = append(out.Tags, m)
		}
	}
	for _, i := range p.images {
		out.Images = append(out.Images, p.previewImage(i, moves))
	}
	if out.Files, err = p.release.Changes(); err != nil {
		return nil, err
	}
	out.Links = append(out.Links, p.release.Links()...)
	out.Nothing = p.done != nil
	return out, nil
}

// previewImage describes an image. Moves are the moves of tags, by REPOSITORY:TAG.
func (p *Plan) previewImage(i bundle.Image, moves map[string]ledger.TagMove) PreviewImage {
	image := PreviewImage{Reference: p.siteReference(i, i.Manifests[0]), Digest: i.Manifests[0], What: "new"}
	m, ok := moves[i.Repository+":"+i.Tag]
	if !ok {
		return image
	}
	image.Digest = m.To
	switch {
	case p.Options.InPlace || m.From == m.To: // an in-place installation changes no image
		image.What = "same"
	case m.From != "":
		image.What = "changed"
	}
	return image
}

// missing returns the blobs and manifests that would be sent to the target. A registry reports
// whether it has a blob. Manifests are not queried: all are there if the root is, and
// otherwise all count as missing.
func (c *content) missing(ctx context.Context, central *repository) ([]bundle.Descriptor, error) {
	at := func(d bundle.Digest) bundle.Descriptor {
		m, _ := c.Bundle.Place(d)
		return bundle.Descriptor{MediaType: m.Type, Digest: d, Size: m.Size}
	}
	var all []bundle.Descriptor
	for _, d := range slices.Concat(central.blobs, central.manifests) {
		all = append(all, at(d))
	}
	if c.Target.Store != nil {
		return c.Target.Store.Missing(all)
	}
	root, err := c.Target.Resolve(ctx, c.central, retentionTag(c.Bundle.Identity, 0))
	if err != nil || root == c.Bundle.Identity {
		return nil, err
	}
	var list []bundle.Descriptor
	for n, d := range all {
		has := false
		if n < len(central.blobs) {
			if has, err = c.Target.HasBlob(ctx, c.central, d); err != nil {
				return nil, err
			}
		}
		if !has {
			list = append(list, d)
		}
	}
	return list, nil
}
