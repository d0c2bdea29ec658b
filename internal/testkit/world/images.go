package world

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// File is one file of an image.
type File struct {
	Name string
	Mode int64
	Data []byte
}

// tarOf returns the tar of a layer with the given files.
func tarOf(files ...File) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data))}
		Must(w.WriteHeader(h))
		_, err := w.Write(f.Data)
		Must(err)
	}
	Must(w.Close())
	return buf.Bytes()
}

// Must panics if err is not nil. It is for steps that cannot fail, such as writing to memory.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Layer returns a gzip layer with the given files.
func Layer(files ...File) v1.Layer {
	data := tarOf(files...)
	// Use an opener: for a reader, the library keeps a copy in a temporary file.
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	Must(err)
	return l
}

// PlainLayer returns an uncompressed layer with the given files.
func PlainLayer(files ...File) v1.Layer {
	return static.NewLayer(tarOf(files...), types.OCIUncompressedLayer)
}

// ZstdLayer returns a zstd layer with the given files.
func ZstdLayer(files ...File) v1.Layer {
	e, err := zstd.NewWriter(nil)
	Must(err)
	return static.NewLayer(e.EncodeAll(tarOf(files...), nil), types.OCILayerZStd)
}

// Image returns an OCI image for OS/ARCHITECTURE with the given layers.
func Image(platform string, layers ...v1.Layer) v1.Image {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err := mutate.AppendLayers(img, layers...)
	Must(err)
	config, err := img.ConfigFile()
	Must(err)
	config = config.DeepCopy()
	config.OS, config.Architecture, _ = strings.Cut(platform, "/")
	config.Config.Entrypoint = []string{"/app"}
	img, err = mutate.ConfigFile(img, config)
	Must(err)
	return img
}

// DockerImage returns the image in Docker's schema 2 format.
func DockerImage(platform string, layers ...v1.Layer) v1.Image {
	img := Image(platform, layers...)
	img = mutate.MediaType(img, types.DockerManifestSchema2)
	return mutate.ConfigMediaType(img, types.DockerConfigJSON)
}

// Artifact returns an OCI artifact that is not an image, with one layer.
func Artifact(data []byte) v1.Image {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, "application/vnd.example.config")
	img, err := mutate.AppendLayers(img, static.NewLayer(data, "application/vnd.example.data"))
	Must(err)
	return img
}

// ArtifactOf returns an artifact with one layer of the given type.
func ArtifactOf(mediaType string, data []byte, annotations map[string]string) v1.Image {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, "application/vnd.oci.empty.v1+json")
	img, err := mutate.Append(img, mutate.Addendum{Layer: static.NewLayer(data, types.MediaType(mediaType)), Annotations: annotations})
	Must(err)
	return img
}

// CosignSignature returns the signature image that cosign stores under the tag sha256-HEX.sig
// for the image with this digest.
func CosignSignature(tb testing.TB, key *Key, d bundle.Digest) v1.Image {
	tb.Helper()
	payload := fmt.Appendf(
		nil,
		`{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container `+
			`image signature"},"optional":null}`,
		d,
	)
	s, err := key.Signer.Sign(payload)
	if err != nil {
		tb.Fatal(err)
	}
	return ArtifactOf(
		"application/vnd.dev.cosign.simplesigning.v1+json",
		payload,
		map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(s.Bytes)},
	)
}

// Index returns an OCI index of images, each with the platform of its config.
func Index(images ...v1.Image) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		config, err := img.ConfigFile()
		Must(err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture}},
		})
	}
	return index
}

// WithAttestation adds the attestation manifest that BuildKit adds to an index for an image.
func WithAttestation(index v1.ImageIndex, about v1.Image) v1.ImageIndex {
	d, err := about.Digest()
	Must(err)
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"digest":{"sha256":%q}}]}`, d.Hex)
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err = mutate.AppendLayers(img, static.NewLayer([]byte(statement), "application/vnd.in-toto+json"))
	Must(err)
	return mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
		Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
		Annotations: map[string]string{
			"vnd.docker.reference.type":   "attestation-manifest",
			"vnd.docker.reference.digest": d.String(),
		},
	}})
}
