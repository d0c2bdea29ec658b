package install

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/verify"
)

// slot returns the signatures as an artifact that refers to the root, so that other users of
// the registry can verify what is installed. Blobs holds the artifact's blobs without the
// manifest.
func (c *content) slot() (d bundle.Descriptor, document []byte, blobs map[bundle.Digest][]byte) {
	d, blobs = slotArtifact(c.Bundle)
	document = blobs[d.Digest]
	delete(blobs, d.Digest)
	return d, document, blobs
}

func slotArtifact(v *verify.Verified) (bundle.Descriptor, map[bundle.Digest][]byte) {
	root := bundle.Descriptor{MediaType: bundle.TypeOCIIndex, Digest: v.Identity, Size: int64(len(v.Root))}
	layer := bundle.Descriptor{MediaType: bundle.TypeSignatures + "+jsonl", Digest: bundle.DigestOf(v.Slot), Size: bundle.SlotSize}
	d, blobs := bundle.NewArtifact(bundle.TypeSignatures, &root, layer)
	blobs[layer.Digest] = v.Slot
	return d, blobs
}

// Added returns what an installation stores in addition to the bundle's blobs: the root, the
// signatures as an artifact, and indexes of the carried manifests of partial images.
func Added(v *verify.Verified) map[bundle.Digest][]byte {
	_, blobs := slotArtifact(v)
	blobs[v.Identity] = v.Root
	for _, i := range v.Deployment.Images {
		if d, index, ok := v.CarriedIndex(i); ok {
			blobs[d.Digest] = index
		}
	}
	return blobs
}

// storeSlot stores the signatures next to the root.
func (c *content) storeSlot(ctx context.Context, s *stored) error {
	var blobs map[bundle.Digest][]byte
	s.slot, s.slotDoc, blobs = c.slot()
	for digest, data := range blobs {
		b := bundle.Descriptor{MediaType: bundle.TypeSignatures + "+jsonl", Digest: digest, Size: int64(len(data))}
		has, err := c.Target.HasBlob(ctx, c.central, b)
		if err == nil && !has {
			err = c.Target.PutBlob(ctx, c.central, b, "", func() io.Reader { return bytes.NewReader(data) })
		}
		if err != nil {
			return err
		}
	}
	m, err := bundle.ParseManifest(s.slot, s.slotDoc)
	if err != nil {
		return err
	}
	return c.Target.PutManifest(ctx, c.central, m, s.slotDoc)
}

// CheckAsked refuses a bundle other than the requested one. It compares the name, and the
// version if that is a tag that installations make (channel-HEX, oob-HEX) or a digest. A
// registry can answer a request for one name with a bundle that was signed for another. The
// error wraps bundle.ErrPolicy.
func CheckAsked(info bundle.Info, identity bundle.Digest, name, version string) error {
	got := fmt.Sprintf("%s %s of channel %q (%s)", info.Name, info.Version, info.Channel, identity)
	if info.Name != name {
		return fmt.Errorf("%w: the registry answers with another bundle than %s: %s", bundle.ErrPolicy, name, got)
	}
	tag := retentionTag(identity, 0)
	switch {
	case strings.HasPrefix(version, "channel-") && version != channelTag(info.Channel),
		strings.HasPrefix(version, "oob-") && version != tag && !strings.HasPrefix(version, tag+"-"),
		strings.HasPrefix(version, "sha256:") && version != string(identity):
		return fmt.Errorf("%w: the registry answers for %s with another bundle: %s", bundle.ErrPolicy, version, got)
	}
	return nil
}
