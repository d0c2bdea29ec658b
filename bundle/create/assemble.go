package create

import (
	"fmt"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// content is a bundle before it has a shape: the root, what is known already,
// and where the rest comes from.
type content struct {
	root      []byte                   // index.json
	documents map[bundle.Digest][]byte // blobs that are at hand
	images    map[int]*pull.Image      // by the place of a descriptor in the root
}

func (c *content) load(m bundle.Member) ([]byte, error) {
	data, ok := c.documents[m.Digest]
	if !ok {
		return nil, fmt.Errorf("%w: manifest %s was not fetched", bundle.ErrFormat, m.Digest)
	}
	return data, nil
}

// assemble writes the documents of ours: a pure function of the lock, the
// manifest and upstream's bytes.
func assemble(lock *manifests.Lock, manifest *manifests.Manifest, images []*pull.Image) (*content, error) {
	c := &content{documents: map[bundle.Digest][]byte{}, images: map[int]*pull.Image{}}
	for _, i := range images {
		for d, data := range i.Documents {
			c.documents[d] = data
		}
	}
	deployment := bundle.NewDeployment(lock.Metadata.Name, lock.Metadata.Version)
	for _, i := range images {
		deployment.Images = append(deployment.Images, imageOf(i))
	}
	for _, comp := range manifest.Components {
		out := bundle.Component{Name: comp.Name, Images: []string{}}
		for _, s := range comp.Images {
			ref, err := bundle.ParseReference(s)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", manifests.ErrInvalid, err)
			}
			out.Images = append(out.Images, ref.String())
		}
		deployment.Components = append(deployment.Components, out)
	}
	document, err := bundle.Encode(deployment)
	if err != nil {
		return nil, err
	}
	roots := rootList{content: c, listed: map[bundle.Digest]bool{}}
	roots.addArtifact(bundle.TypeDeployment, document, nil)
	for _, i := range images {
		roots.addImage(i)
	}
	info, err := infoOf(lock)
	if err != nil {
		return nil, err
	}
	c.root, err = bundle.Encode(bundle.NewIndex(info, roots.descriptors))
	return c, err
}

func infoOf(l *manifests.Lock) (bundle.Info, error) {
	info := bundle.Info{Name: l.Metadata.Name, Version: l.Metadata.Version, Channel: l.Channel, Sequence: l.Sequence, Created: l.Created}
	for _, s := range l.Platforms {
		p, err := bundle.ParsePlatform(s)
		if err != nil {
			return info, err
		}
		info.Platforms = append(info.Platforms, p)
	}
	return info, nil
}

func imageOf(i *pull.Image) bundle.Image {
	out := bundle.Image{
		Reference: i.Reference.String(), Repository: i.Reference.SiteRepository(), Tag: i.Reference.Tag,
		Digest: i.Top.Digest, Partial: i.Partial,
	}
	for _, d := range i.Manifests {
		out.Manifests = append(out.Manifests, d.Digest)
	}
	for _, d := range i.Attestations {
		out.Attestations = append(out.Attestations, d.Digest)
	}
	return out
}

// rootList collects the descriptors of the root.
type rootList struct {
	*content
	descriptors []bundle.Descriptor
	listed      map[bundle.Digest]bool // what stands there without a reference
}

func (r *rootList) add(d bundle.Descriptor, from *pull.Image) {
	if d.Annotations[bundle.AnnotationRef] == "" {
		if r.listed[d.Digest] {
			return
		}
		r.listed[d.Digest] = true
	}
	if from != nil {
		r.images[len(r.descriptors)] = from
	}
	r.descriptors = append(r.descriptors, d)
}

// addArtifact wraps a document of ours, or one that travels as if it were.
func (r *rootList) addArtifact(artifactType string, document []byte, annotations map[string]string) {
	layer := bundle.Descriptor{
		MediaType: artifactType + "+json", Digest: bundle.DigestOf(document), Size: int64(len(document)), Annotations: annotations,
	}
	d, blobs := bundle.NewArtifact(artifactType, layer, nil)
	blobs[layer.Digest] = document
	for digest, data := range blobs {
		r.documents[digest] = data
	}
	r.add(d, nil)
}

func (r *rootList) addImage(i *pull.Image) {
	for _, d := range i.Manifests {
		r.add(bundle.Descriptor{
			MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform,
			Annotations: map[string]string{bundle.AnnotationRef: i.Reference.String()},
		}, i)
	}
	for _, d := range i.Attestations {
		annotations := map[string]string{} // what BuildKit says, and nothing that could pass for ours
		for k, v := range d.Annotations {
			if strings.HasPrefix(k, "vnd.docker.reference.") {
				annotations[k] = v
			}
		}
		r.add(bundle.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform, Annotations: annotations}, i)
	}
	if i.Partial {
		r.addArtifact(bundle.TypePartialIndex, i.Documents[i.Top.Digest], map[string]string{bundle.AnnotationMediaType: i.Top.MediaType})
	}
}
