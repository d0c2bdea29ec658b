package create

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// content is a bundle before it has a layout: the root, the documents, and the sources
// of all other blobs.
type content struct {
	root       []byte                   // index.json
	documents  map[bundle.Digest][]byte // blobs in memory
	deployment *bundle.Deployment
	sources    map[int]from // by the index of a descriptor in the root
}

// from is the source of the blobs below a descriptor of the root.
type from struct {
	pull.Fetcher
	name string // for messages
}

func (c *content) load(m bundle.Member) ([]byte, error) {
	data, ok := c.documents[m.Digest]
	if !ok {
		return nil, fmt.Errorf("%w: manifest %s was not fetched", bundle.ErrFormat, m.Digest)
	}
	return data, nil
}

// assembler builds the root and the bundle's own documents.
type assembler struct {
	*content
	lock        *manifests.Lock
	deployment  bundle.Deployment
	descriptors []bundle.Descriptor
	listed      map[bundle.Digest]bool // digests in the root without a reference
	references  map[string]bool
}

// assemble makes a bundle's root from the resolved content. The result depends only on
// the lock, the selection and upstream's bytes.
func assemble(lock *manifests.Lock, s *manifests.Selection, r *pull.Resolved) (*content, error) {
	a := &assembler{
		content: &content{documents: map[bundle.Digest][]byte{}, sources: map[int]from{}},
		lock:    lock,
		deployment: bundle.NewDeployment(
			lock.Metadata.Name, lock.Metadata.Version,
		),
		listed:     map[bundle.Digest]bool{},
		references: map[string]bool{},
	}
	a.deployment.Form = lock.Deployment
	a.deployment.Versions, a.deployment.Settings = lock.Versions, lock.Settings
	a.deployment.Host = s.Host
	a.descriptors = make([]bundle.Descriptor, 1) // [0]: the deployment document, encoded last
	if err := a.about(); err != nil {
		return nil, err
	}
	for _, i := range r.Images {
		a.image(i)
	}
	for _, c := range r.Charts {
		a.chart(c)
	}
	for _, p := range r.Plugins {
		a.plugin(p)
	}
	for _, f := range r.Files {
		a.file(f)
	}
	for _, c := range s.Components {
		a.component(c, r)
	}
	document, err := bundle.Encode(a.deployment)
	if err != nil {
		return nil, err
	}
	a.descriptors[0] = a.artifact(bundle.TypeDeployment, bundle.TypeDeployment+"+json", document, nil)
	info, err := infoOf(lock)
	if err != nil {
		return nil, err
	}
	if len(document) > bundle.MaxDeployment {
		return nil, fmt.Errorf(
			"%w: the deployment document would have %d bytes, at most %d are allowed",
			bundle.ErrLimit, len(document), bundle.MaxDeployment,
		)
	}
	a.content.deployment = &a.deployment
	a.root, err = bundle.Encode(bundle.NewIndex(info, a.descriptors))
	return a.content, err
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

// add appends a descriptor to the root. Content without a reference is listed only once.
func (a *assembler) add(d bundle.Descriptor, source from) {
	if d.Annotations[bundle.AnnotationRef] == "" {
		if a.listed[d.Digest] {
			return
		}
		a.listed[d.Digest] = true
	}
	if source.Fetcher != nil {
		a.sources[len(a.descriptors)] = source
	}
	a.descriptors = append(a.descriptors, d)
}

// keep adds blobs to the documents in memory.
func (a *assembler) keep(blobs map[bundle.Digest][]byte) {
	for digest, data := range blobs {
		a.documents[digest] = data
	}
}

// artifact wraps a document in an artifact, and keeps the artifact's blobs.
func (a *assembler) artifact(artifactType, mediaType string, document []byte, annotations map[string]string) bundle.Descriptor {
	layer := bundle.Descriptor{MediaType: mediaType, Digest: bundle.DigestOf(document), Size: int64(len(document)), Annotations: annotations}
	d, blobs := bundle.NewArtifact(artifactType, nil, layer)
	blobs[layer.Digest] = document
	a.keep(blobs)
	return d
}

// about adds the SBOM and the provenance of the bundle, both made from the lock.
func (a *assembler) about() error {
	sbom, err := sbomOf(a.lock)
	if err != nil {
		return err
	}
	provenance, err := provenanceOf(a.lock)
	if err != nil {
		return err
	}
	a.add(a.artifact(bundle.TypeSBOM, bundle.TypeCycloneDX, sbom, nil), from{})
	a.add(a.artifact(bundle.TypeProvenance, bundle.TypeInToto, provenance, nil), from{})
	return nil
}

func (a *assembler) image(i *pull.Image) {
	a.keep(i.Documents)
	source := from{i.Repository, i.Reference.String()}
	out := bundle.Image{
		Reference: i.Reference.String(), Repository: i.Reference.SiteRepository(), Tag: i.Reference.Tag,
		Digest: i.Top.Digest, Partial: i.Partial,
	}
	a.references[out.Reference] = true
	for _, d := range i.Manifests {
		out.Manifests = append(out.Manifests, d.Digest)
		a.add(bundle.Descriptor{
			MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform,
			Annotations: map[string]string{bundle.AnnotationRef: i.Reference.String()},
		}, source)
	}
	for _, d := range i.Attestations {
		out.Attestations = append(out.Attestations, d.Digest)
		annotations := map[string]string{} // only BuildKit's, so that none can pass for this program's
		for k, v := range d.Annotations {
			if strings.HasPrefix(k, "vnd.docker.reference.") {
				annotations[k] = v
			}
		}
		a.add(bundle.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform, Annotations: annotations}, source)
	}
	if i.Partial {
		a.add(
			a.artifact(
				bundle.TypePartialIndex, bundle.TypePartialIndex+"+json", i.Documents[i.Top.Digest],
				map[string]string{bundle.AnnotationMediaType: i.Top.MediaType},
			),
			from{},
		)
	}
	var tagged []bundle.Image
	for _, r := range i.Referrers {
		d := bundle.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size}
		source := from{i.Repository, fmt.Sprintf("%s: the referrer %s (--without-referrers leaves it out)", i.Reference, r.Digest)}
		if r.Tag == "" {
			out.Referrers = append(out.Referrers, r.Digest)
			a.add(d, source)
			continue
		}
		ref := bundle.Reference{Host: i.Reference.Host, Name: i.Reference.Name, Tag: r.Tag}
		if a.references[ref.String()] {
			continue // another tag of the same image has added it
		}
		a.references[ref.String()] = true
		d.Annotations = map[string]string{bundle.AnnotationRef: ref.String()}
		a.add(d, source)
		tagged = append(tagged, bundle.Image{
			Reference: ref.String(), Repository: ref.SiteRepository(), Tag: ref.Tag, Digest: r.Digest, Manifests: []bundle.Digest{r.Digest},
		})
	}
	a.deployment.Images = append(append(a.deployment.Images, out), tagged...)
}

// chart adds a chart in the form in which Helm pushes it.
func (a *assembler) chart(c *pull.Chart) {
	a.deployment.Charts = append(a.deployment.Charts, bundle.Chart{
		Name:       c.Wanted.Name,
		Version:    c.Wanted.Version,
		Repository: c.Wanted.Repository,
		Reference:  c.Reference.String(),
		Digest:     c.Content.Digest,
	})
	if a.references[c.Reference.String()] {
		return // already listed as an image
	}
	if c.OCI != nil {
		a.image(c.OCI)
	} else {
		config := bundle.Descriptor{MediaType: pull.TypeChartConfig, Digest: bundle.DigestOf(c.Config), Size: int64(len(c.Config))}
		d, manifest := bundle.NewManifest(config, map[string]string{
			"org.opencontainers.image.title": c.Wanted.Name, "org.opencontainers.image.version": c.Wanted.Version,
		}, c.Content)
		a.keep(map[bundle.Digest][]byte{config.Digest: c.Config, d.Digest: manifest, c.Content.Digest: c.Archive})
		ref := c.Reference.String()
		a.references[ref] = true
		d.Annotations = map[string]string{bundle.AnnotationRef: ref}
		a.add(d, from{})
		a.deployment.Images = append(a.deployment.Images, bundle.Image{
			Reference: ref, Repository: c.Reference.SiteRepository(), Tag: c.Reference.Tag, Digest: d.Digest, Manifests: []bundle.Digest{d.Digest},
		})
	}
}

// titled sets the file name under which clients save a layer (image-spec,
// annotations.md).
func titled(d bundle.Descriptor, name string) bundle.Descriptor {
	d.Annotations = map[string]string{"org.opencontainers.image.title": name}
	return d
}

var notInFileNames = regexp.MustCompile(`[^A-Za-z0-9._+-]`)

func (a *assembler) plugin(p *pull.Plugin) {
	out := bundle.Plugin{ID: p.About.ID, Version: p.About.Version, Archive: p.Archive.Digest}
	out.Name = notInFileNames.ReplaceAllString(path.Base(sourceName(p.Wanted.URL)), "_")
	taken := slices.ContainsFunc(a.deployment.Plugins, func(p bundle.Plugin) bool { return strings.EqualFold(p.Name, out.Name) })
	if !strings.HasSuffix(out.Name, ".tar.gz") || strings.ContainsAny(out.Name[:1], "._-+") || taken {
		out.Name = p.About.ID + "-" + p.About.Version + ".tar.gz"
	}
	layers := []bundle.Descriptor{titled(p.Archive, out.Name)}
	if p.Signature != nil {
		s := bundle.Descriptor{MediaType: bundle.TypePluginSignature, Digest: bundle.DigestOf(p.Signature), Size: int64(len(p.Signature))}
		s = titled(s, out.Name+".sig")
		layers, out.Signature = append(layers, s), s.Digest
		a.documents[s.Digest] = p.Signature
	}
	if p.Key != nil {
		k := bundle.Descriptor{MediaType: bundle.TypePluginKey, Digest: bundle.DigestOf(p.Key), Size: int64(len(p.Key))}
		layers, out.Key = append(layers, titled(k, out.Name+".key.asc")), k.Digest
		a.documents[k.Digest] = p.Key
	}
	d, blobs := bundle.NewArtifact(bundle.TypePlugin, nil, layers...)
	a.keep(blobs)
	out.Manifest = d.Digest
	a.add(d, from{p.Content(), sourceName(p.Wanted.URL)})
	a.deployment.Plugins = append(a.deployment.Plugins, out)
}

func (a *assembler) file(f *pull.Blob) {
	d, blobs := bundle.NewArtifact(bundle.TypeFile, nil, titled(f.Content, path.Base(f.Wanted.Path)))
	a.keep(blobs)
	platform := ""
	if f.Wanted.Platform != nil {
		platform = f.Wanted.Platform.String()
	}
	a.add(d, from{f.From(), sourceName(f.Wanted.Source)})
	a.deployment.Files = append(a.deployment.Files, bundle.HostFile{
		Path:     f.Wanted.Path,
		Mode:     fmt.Sprintf("%04o", f.Wanted.Mode),
		As:       f.Wanted.As,
		Strip:    f.Wanted.Strip,
		Platform: platform,
		Manifest: d.Digest,
		Digest:   f.Content.Digest,
		Size:     f.Content.Size,
	})
}

func (a *assembler) component(c manifests.WantedComponent, r *pull.Resolved) {
	out := bundle.Component{Name: c.Name, Images: []string{}}
	for _, i := range c.Images {
		out.Images = append(out.Images, r.Images[i].Reference.String())
	}
	for _, i := range c.Charts {
		if ref := r.Charts[i].Reference.String(); !slices.Contains(out.Charts, ref) {
			out.Charts = append(out.Charts, ref)
		}
	}
	for _, i := range c.Plugins {
		out.Plugins = append(out.Plugins, r.Plugins[i].About.ID)
	}
	for _, i := range c.Files {
		out.Files = append(out.Files, r.Files[i].Wanted.Path)
	}
	a.deployment.Components = append(a.deployment.Components, out)
}
