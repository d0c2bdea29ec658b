package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Media types of layers that tests use.
const (
	TypeLayer     = "application/vnd.oci.image.layer.v1.tar"
	typeHelm      = "application/vnd.cncf.helm.config.v1+json"
	typeHelmChart = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// Content builds a bundle, including content that create would never write but that a
// malicious or faulty signer could sign.
type Content struct {
	Info  bundle.Info
	Blobs map[bundle.Digest][]byte
	Roots []bundle.Descriptor // roots after the deployment document
	Doc   bundle.Deployment
	// Document and Root change the encoded documents; nil changes nothing.
	Document, Root func([]byte) []byte
}

// NewContent returns an empty bundle.
func NewContent(name string) *Content {
	return &Content{
		Info: bundle.Info{
			Name: name, Version: "1.0.0", Channel: name, Sequence: 7, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Platforms: []bundle.Platform{{OS: "linux", Architecture: "amd64"}},
		},
		Blobs: map[bundle.Digest][]byte{}, Doc: bundle.NewDeployment(name, "1.0.0"),
	}
}

// Encode encodes a value as create does.
func Encode(v any) []byte {
	data, err := bundle.Encode(v)
	Must(err)
	return data
}

// Blob adds a blob and returns its descriptor.
func (c *Content) Blob(mediaType string, data []byte) bundle.Descriptor {
	d := bundle.Descriptor{MediaType: mediaType, Digest: bundle.DigestOf(data), Size: int64(len(data))}
	c.Blobs[d.Digest] = data
	return d
}

// Image adds an image for the platform OS/ARCHITECTURE with layers of the given content. It
// does not list the image in the root.
func (c *Content) Image(platform string, layers ...string) bundle.Descriptor {
	os, arch, _ := strings.Cut(platform, "/")
	var list []bundle.Descriptor
	for _, l := range layers {
		list = append(list, c.Blob(TypeLayer, []byte(l)))
	}
	config := c.Blob(bundle.TypeOCIConfig, fmt.Appendf(nil, `{"architecture":%q,"os":%q,"rootfs":{"type":"layers","diff_ids":[]}}`, arch, os))
	d, data := bundle.NewManifest(config, nil, list...)
	c.Blobs[d.Digest] = data
	d.Platform = &bundle.Platform{OS: os, Architecture: arch}
	return d
}

// Index adds an index of the given manifests.
func (c *Content) Index(manifests ...bundle.Descriptor) bundle.Descriptor {
	d, data := bundle.NewReferrersIndex(manifests)
	c.Blobs[d.Digest] = data
	return d
}

func (c *Content) artifact(artifactType string, layers ...bundle.Descriptor) bundle.Descriptor {
	d, blobs := bundle.NewArtifact(artifactType, nil, layers...)
	for digest, data := range blobs {
		c.Blobs[digest] = data
	}
	return d
}

// Add lists a manifest or a complete index under a reference.
func (c *Content) Add(ref string, d bundle.Descriptor) { c.list(ref, d.Digest, d) }

// Partial lists the carried manifests of an index. The index itself becomes a layer of an
// artifact.
func (c *Content) Partial(ref string, index bundle.Descriptor, carried ...bundle.Descriptor) {
	image := c.list(ref, index.Digest, carried...)
	image.Partial = true
	layer := c.Blob(bundle.TypePartialIndex+"+json", c.Blobs[index.Digest])
	layer.Annotations = map[string]string{bundle.AnnotationMediaType: bundle.TypeOCIIndex}
	c.Roots = append(c.Roots, c.artifact(bundle.TypePartialIndex, layer))
}

func (c *Content) list(ref string, digest bundle.Digest, manifests ...bundle.Descriptor) *bundle.Image {
	r, err := bundle.ParseReference(ref)
	Must(err)
	i := bundle.Image{Reference: ref, Repository: r.SiteRepository(), Tag: r.Tag, Digest: digest}
	for _, d := range manifests {
		d.Annotations = map[string]string{bundle.AnnotationRef: ref}
		c.Roots = append(c.Roots, d)
		i.Manifests = append(i.Manifests, d.Digest)
	}
	c.Doc.Images = append(c.Doc.Images, i)
	return &c.Doc.Images[len(c.Doc.Images)-1]
}

// HostFile adds a file for the host.
func (c *Content) HostFile(path, data string) {
	layer := c.Blob(bundle.TypeFileContent, []byte(data))
	d := c.artifact(bundle.TypeFile, layer)
	c.Roots = append(c.Roots, d)
	c.Doc.Files = append(c.Doc.Files, bundle.HostFile{Path: path, Mode: "0644", Manifest: d.Digest, Digest: layer.Digest, Size: layer.Size})
}

// Plugin adds a plugin with a signature.
func (c *Content) Plugin(id, archive, signature string) {
	a, s := c.Blob(bundle.TypePluginArchive, []byte(archive)), c.Blob(bundle.TypePluginSignature, []byte(signature))
	d := c.artifact(bundle.TypePlugin, a, s)
	c.Roots = append(c.Roots, d)
	c.Doc.Plugins = append(
		c.Doc.Plugins,
		bundle.Plugin{ID: id, Version: "1.0.0", Name: id + "-1.0.0.tar.gz", Manifest: d.Digest, Archive: a.Digest, Signature: s.Digest},
	)
}

// Chart adds a Helm chart.
func (c *Content) Chart(repository, name, version, archive string) {
	layer := c.Blob(typeHelmChart, []byte(archive))
	d, data := bundle.NewManifest(c.Blob(typeHelm, fmt.Appendf(nil, `{"name":%q,"version":%q}`, name, version)), nil, layer)
	c.Blobs[d.Digest] = data
	ref := repository + "/" + name + ":" + version
	c.Add(ref, d)
	c.Doc.Charts = append(
		c.Doc.Charts,
		bundle.Chart{Name: name, Version: version, Repository: "https://" + repository, Reference: ref, Digest: layer.Digest},
	)
}

// IndexJSON returns the content of index.json.
func (c *Content) IndexJSON() []byte {
	document := Encode(c.Doc)
	if c.Document != nil {
		document = c.Document(document)
	}
	d := c.artifact(bundle.TypeDeployment, c.Blob(bundle.TypeDeployment+"+json", document))
	root := Encode(bundle.NewIndex(c.Info, append([]bundle.Descriptor{d}, c.Roots...)))
	if c.Root != nil {
		root = c.Root(root)
	}
	return root
}

// File encodes and signs the bundle. It does not use the order of package bundle, which
// refuses invalid content, so that a hostile blob is where a reader looks for it.
func (c *Content) File(tb testing.TB, keys ...*Key) []byte {
	tb.Helper()
	root := c.IndexJSON()
	loadList := []byte("[]")
	if g, err := bundle.NewGeometry(root, func(m bundle.Member) ([]byte, error) { return c.Blobs[m.Digest], nil }); err == nil {
		loadList = g.LoadList
	}
	out := bytes.NewBuffer(Member(bundle.NameLayout, []byte(`{"imageLayoutVersion":"1.0.0"}`)))
	out.Write(Member(bundle.NameIndex, root))
	out.Write(Member(bundle.NameSignatures, Slot(tb, root, keys...)))
	for _, d := range c.walk(root) {
		out.Write(Member("blobs/sha256/"+d.Hex(), c.Blobs[d]))
	}
	out.Write(Member(bundle.NameLoadList, loadList))
	out.Write(make([]byte, 1024))
	return out.Bytes()
}

// walk returns the blobs in the order in which a reader reaches them.
func (c *Content) walk(root []byte) []bundle.Digest {
	var order []bundle.Digest
	placed, entered := map[string]bool{}, map[string]bool{}
	type descriptor struct{ MediaType, Digest string }
	var visit func(list []descriptor)
	visit = func(list []descriptor) {
		for _, d := range list {
			if data, ok := c.Blobs[bundle.Digest(d.Digest)]; ok && !placed[d.Digest] && data != nil {
				placed[d.Digest] = true
				order = append(order, bundle.Digest(d.Digest))
			}
			if !bundle.IsManifest(d.MediaType) || entered[d.Digest] {
				continue
			}
			entered[d.Digest] = true
			var m struct {
				Config            *descriptor
				Layers, Manifests []descriptor
			}
			if json.Unmarshal(c.Blobs[bundle.Digest(d.Digest)], &m) != nil {
				continue
			}
			if m.Config != nil {
				visit([]descriptor{*m.Config})
			}
			visit(slices.Concat(m.Manifests, m.Layers))
		}
	}
	var x struct{ Manifests []descriptor }
	if json.Unmarshal(root, &x) == nil {
		visit(x.Manifests)
	}
	return order
}

// Member returns a tar member: header, content and padding.
func Member(name string, content []byte) []byte {
	out := append(Header(name, int64(len(content))), content...)
	return append(out, make([]byte, -len(content)&511)...)
}

// Slot returns the slot with the keys' signatures over a root.
func Slot(tb testing.TB, root []byte, keys ...*Key) []byte {
	tb.Helper()
	var list []bundle.Signature
	for _, k := range keys {
		s, err := k.Signer.Sign(root)
		if err != nil {
			tb.Fatal(err)
		}
		list = append(list, s)
	}
	slot, err := bundle.EncodeSlot(list)
	if err != nil {
		tb.Fatal(err)
	}
	return slot
}

// Rich returns a small bundle with every kind of content: images that share a layer, a
// complete index, a partial one, a chart, a plugin with a signature, and files. Bundles with
// different values of what have different content.
func Rich(what string) *Content {
	c := NewContent("rich")
	c.Add("docker.io/library/one:1", c.Image("linux/amd64", "shared", "one "+what))
	c.Add("docker.io/library/two:2", c.Image("linux/amd64", "shared", "two"))
	c.Add("quay.io/team/multi:1", c.Index(c.Image("linux/amd64", "multi amd64"), c.Image("linux/arm64", "multi arm64")))
	amd, arm := c.Image("linux/amd64", "part amd64"), c.Image("linux/arm64", "part arm64")
	other := c.Image("linux/s390x", "not carried")
	c.Partial("ghcr.io/team/part:3", c.Index(amd, other, arm), amd, arm)
	c.Chart("charts.example.com/stable", "acme", "1.2.3", "chart "+what)
	c.Plugin("com.example.acme", "plugin archive", "plugin signature")
	c.HostFile("etc/acme.conf", "key = "+what+"\n")
	c.HostFile("etc/empty", "")
	c.Doc.Components = []bundle.Component{
		{Name: "web", Images: []string{"docker.io/library/one:1"}, Plugins: []string{"com.example.acme"}, Files: []string{"etc/acme.conf"}},
		{Name: "rest", Images: []string{"quay.io/team/multi:1"}, Charts: []string{"charts.example.com/stable/acme:1.2.3"}},
	}
	c.Doc.Host = &bundle.Host{Values: []bundle.Value{{Name: "domain", About: "Name of the site", Kind: "host", Default: "localhost"}}}
	return c
}
