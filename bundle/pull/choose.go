package pull

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
)

// checkPlatform refuses a single-manifest image that none of the platforms runs. An image
// that only some of them run is carried: the others may not need it.
func (i *Image) checkPlatform(platforms []bundle.Platform) error {
	have := i.Top.Platform
	runs := func(p bundle.Platform) bool {
		_, ok := p.Runs(*have)
		return ok
	}
	if have == nil || slices.ContainsFunc(platforms, runs) {
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

// BuildKit lists attestations in the index next to the images, and marks them with these
// annotations (docs/attestations/attestation-storage.md of moby/buildkit).
const (
	annotationKind    = "vnd.docker.reference.type"
	annotationSubject = "vnd.docker.reference.digest"
)

// choose selects the manifests of an index: for each platform the ones that container
// engines would choose, and all entries that are not images, except attestations of
// images that are not chosen. An index without images is carried whole.
func (i *Image) choose(ctx context.Context, index *bundle.Manifest, platforms []bundle.Platform) error {
	if !slices.ContainsFunc(index.Manifests, isImage) {
		return i.whole(ctx, index)
	}
	chosen := map[bundle.Digest]bool{}
	for _, p := range platforms {
		best := bestFor(p, index.Manifests)
		if len(best) == 0 {
			return fmt.Errorf("%w: there is none for %s, only for %s", bundle.ErrPolicy, p, offered(index))
		}
		for _, d := range best {
			if !bundle.IsManifest(d.MediaType) {
				return fmt.Errorf("%w: the manifest for %s is of type %q, which current registries do not accept", remote.ErrRegistry, p, d.MediaType)
			}
			if !chosen[d.Digest] {
				i.Manifests = append(i.Manifests, d)
			}
			chosen[d.Digest] = true
		}
	}
	for _, d := range index.Manifests {
		if chosen[d.Digest] || !comesAlong(d, chosen) {
			continue
		}
		if d.Platform != nil && (d.Platform.OS == "" || d.Platform.Architecture == "") {
			d.Platform = nil
		}
		i.Attestations = append(i.Attestations, d)
		chosen[d.Digest] = true
	}
	for _, d := range slices.Concat(i.Manifests, i.Attestations) {
		if err := i.fetchManifests(ctx, d, 2); err != nil {
			return err
		}
	}
	i.Partial = slices.ContainsFunc(index.Manifests, func(d bundle.Descriptor) bool { return !chosen[d.Digest] })
	if !i.Partial {
		i.Manifests, i.Attestations = []bundle.Descriptor{i.Top}, nil
	}
	return nil
}

// comesAlong reports whether an entry that is not an image is carried with the chosen
// images.
func comesAlong(d bundle.Descriptor, chosen map[bundle.Digest]bool) bool {
	if isImage(d) || !bundle.IsManifest(d.MediaType) {
		return false
	}
	attests := d.Annotations[annotationKind] != ""
	return !attests || chosen[bundle.Digest(d.Annotations[annotationSubject])]
}

// whole selects all manifests of an index.
func (i *Image) whole(ctx context.Context, index *bundle.Manifest) error {
	for _, d := range index.Manifests {
		if !bundle.IsManifest(d.MediaType) {
			return fmt.Errorf("%w: its index lists %s of type %q, which current registries do not accept", remote.ErrRegistry, d.Digest, d.MediaType)
		}
		if err := i.fetchManifests(ctx, d, 2); err != nil {
			return err
		}
	}
	i.Manifests = []bundle.Descriptor{i.Top}
	return nil
}

// bestFor returns the images of an index that an engine on p chooses from: those with
// the nearest variant, one for each operating system version. Of two images for the same
// version engines take the first; bestFor takes the one that needs fewer features.
func bestFor(p bundle.Platform, list []bundle.Descriptor) (best []bundle.Descriptor) {
	nearest := -1
	for _, d := range list {
		if !isImage(d) {
			continue
		}
		distance, ok := p.Runs(*d.Platform)
		if !ok || nearest >= 0 && distance > nearest {
			continue
		}
		if distance < nearest {
			best = nil
		}
		nearest = distance
		same := slices.IndexFunc(best, func(b bundle.Descriptor) bool { return b.Platform.OSVersion == d.Platform.OSVersion })
		switch {
		case same < 0:
			best = append(best, d)
		case len(d.Platform.OSFeatures) < len(best[same].Platform.OSFeatures):
			best[same] = d
		}
	}
	return best
}

// isImage reports whether an entry of an index is an image for a platform.
func isImage(d bundle.Descriptor) bool {
	return d.Platform.Machine() && d.Annotations[annotationKind] == ""
}

// offered lists the platforms of the images in an index.
func offered(index *bundle.Manifest) string {
	var have []bundle.Platform
	for _, d := range index.Manifests {
		if isImage(d) {
			have = append(have, *d.Platform)
		}
	}
	return names(have)
}
