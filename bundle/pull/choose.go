package pull

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// checkPlatform refuses an image of one manifest that is for none of the platforms. One
// that is for some of them is carried: the others may not need it.
func (i *Image) checkPlatform(platforms []bundle.Platform) error {
	have := i.Top.Platform
	if have == nil || slices.ContainsFunc(platforms, have.Matches) {
		return nil
	}
	return fmt.Errorf("%w: it is for %s only, and %s is asked for with --platform", bundle.ErrPolicy, have, names(platforms))
}

func names(platforms []bundle.Platform) string {
	var s []string
	for _, p := range platforms {
		s = append(s, p.String())
	}
	return strings.Join(s, ", ")
}

// BuildKit lists attestations in the index beside the images, with these
// annotations (docs/attestations/attestation-storage.md of moby/buildkit).
const (
	annotationKind    = "vnd.docker.reference.type"
	annotationSubject = "vnd.docker.reference.digest"
)

// choose selects the manifests of an index: those for the platforms, those that
// say no platform, and attestations that speak of a selected one.
func (i *Image) choose(ctx context.Context, index *bundle.Manifest, platforms []bundle.Platform) error {
	chosen := map[bundle.Digest]bool{}
	for _, p := range platforms {
		found := false
		for _, d := range index.Manifests {
			if d.Platform != nil && p.Matches(*d.Platform) && !found { // of two for one platform the first, as engines do
				found = true
				if !chosen[d.Digest] {
					i.Manifests = append(i.Manifests, d)
				}
				chosen[d.Digest] = true
			}
		}
		if !found && slices.ContainsFunc(index.Manifests, isImage) {
			return fmt.Errorf("%w: there is none for %s, only for %s", bundle.ErrPolicy, p, offered(index))
		}
	}
	var others []bundle.Descriptor // of an index without images
	for _, d := range index.Manifests {
		about, attests := d.Annotations[annotationSubject], d.Annotations[annotationKind] != ""
		switch {
		case chosen[d.Digest]:
		case attests && chosen[bundle.Digest(about)]:
			i.Attestations = append(i.Attestations, d)
			chosen[d.Digest] = true
		case d.Platform == nil && !attests && len(i.Manifests) > 0: // beside images; it runs nowhere
			i.Attestations = append(i.Attestations, d)
			chosen[d.Digest] = true
		case d.Platform == nil && !attests:
			others = append(others, d)
			chosen[d.Digest] = true
		}
	}
	i.Manifests = append(i.Manifests, others...)
	i.Partial = slices.ContainsFunc(index.Manifests, func(d bundle.Descriptor) bool { return !chosen[d.Digest] })
	for _, d := range slices.Concat(i.Manifests, i.Attestations) {
		if err := i.fetchManifests(ctx, d, 2); err != nil {
			return err
		}
	}
	if !i.Partial {
		i.Manifests, i.Attestations = []bundle.Descriptor{i.Top}, nil
	}
	return nil
}

func isImage(d bundle.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS != "unknown" && d.Annotations[annotationKind] == ""
}

func offered(index *bundle.Manifest) string {
	var have []bundle.Platform
	for _, d := range index.Manifests {
		if isImage(d) {
			have = append(have, *d.Platform)
		}
	}
	return names(have)
}
