package record

import (
	"fmt"
	"slices"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// maxSteps bounds the number of descriptors visited in all walks together. References
// may share content, so even a small bundle could cause a long walk.
const maxSteps = 8 * bundle.MaxDescriptors

// walk calls visit once for each digest at and below the given descriptors. The
// error wraps bundle.ErrLimit.
func (d *describer) walk(roots []bundle.Descriptor, visit func(bundle.Digest)) error {
	met := map[bundle.Digest]bool{}
	rest := slices.Clone(roots)
	for len(rest) > 0 {
		c := rest[len(rest)-1]
		rest = rest[:len(rest)-1]
		if d.seen++; d.seen > maxSteps {
			return fmt.Errorf("%w: its references share so much that they cannot be summed up one by one", bundle.ErrLimit)
		}
		if met[c.Digest] {
			continue
		}
		met[c.Digest] = true
		visit(c.Digest)
		if m := d.Manifests[c.Digest]; m != nil && bundle.IsManifest(c.MediaType) {
			rest = append(rest, m.Children()...)
		}
	}
	return nil
}

// sum returns the size of all blobs at and below the descriptors, in bytes.
func (d *describer) sum(roots ...bundle.Descriptor) (n int64, err error) {
	err = d.walk(roots, func(digest bundle.Digest) { n += d.size(digest) })
	return n, err
}

// shares counts every blob once, and sets Shared of each image in s.
func (d *describer) shares(s *Summary) (Shares, error) {
	images := map[bundle.Digest]int{} // number of images with the blob
	for _, i := range s.Images {
		if i.Kind == KindImage || i.Kind == KindArtifact {
			if err := d.walk(d.named[i.Reference], func(b bundle.Digest) { images[b]++ }); err != nil {
				return Shares{}, err
			}
		}
	}
	for k := range s.Images {
		i := &s.Images[k]
		if i.Kind != KindImage && i.Kind != KindArtifact {
			continue
		}
		err := d.walk(d.named[i.Reference], func(b bundle.Digest) {
			if images[b] > 1 {
				i.Shared += d.size(b)
			}
		})
		if err != nil {
			return Shares{}, err
		}
	}
	var out Shares
	others := map[bundle.Digest]*int64{} // share of a blob that is in no image
	claim := func(share *int64, roots ...bundle.Descriptor) error {
		return d.walk(roots, func(b bundle.Digest) {
			if others[b] == nil {
				others[b] = share
			}
		})
	}
	if err := d.claimAll(s, &out, claim); err != nil {
		return Shares{}, err
	}
	for _, m := range d.Blobs() {
		switch share := others[m.Digest]; {
		case images[m.Digest] > 1:
			out.Shared += m.Size
		case images[m.Digest] == 1:
			out.Images += m.Size
		case share != nil:
			*share += m.Size
		default:
			out.Documents += m.Size
		}
	}
	return out, nil
}

// claimAll assigns all content that is not an image to its share.
func (d *describer) claimAll(s *Summary, out *Shares, claim func(*int64, ...bundle.Descriptor) error) error {
	share := map[bundle.Digest]*int64{} // manifests without a reference
	for _, p := range s.Plugins {
		share[p.Manifest] = &out.Plugins
	}
	for _, f := range s.Files {
		share[f.Manifest] = &out.Files
	}
	for _, i := range s.Images {
		for _, e := range i.Evidence {
			share[e.Digest] = &out.Evidence
		}
		to := map[string]*int64{KindChart: &out.Charts, KindEvidence: &out.Evidence}[i.Kind]
		if to == nil {
			continue
		}
		if err := claim(to, d.named[i.Reference]...); err != nil {
			return err
		}
	}
	for _, m := range d.Index.Manifests {
		if to := share[m.Digest]; to != nil && m.Annotations[bundle.AnnotationRef] == "" {
			if err := claim(to, m); err != nil {
				return err
			}
		}
	}
	return nil
}
