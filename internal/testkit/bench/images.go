//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/registry"
)

// layerSpec is a layer made of Debian packages.
type layerSpec struct {
	name        string
	compression string // gzip, zstd, or none
	packages    []string
}

// The images: each is a list of layers, most of them on the same base.
var (
	layers = []layerSpec{
		{
			"base",
			"gzip",
			[]string{
				"base-files",
				"bash",
				"coreutils",
				"dpkg",
				"apt",
				"libc6",
				"libc-bin",
				"perl-base",
				"tar",
				"gzip",
				"util-linux",
				"findutils",
				"grep",
				"sed",
				"login",
				"passwd",
				"libssl3",
				"libstdc++6",
				"libgcc-s1",
				"zlib1g",
				"tzdata",
				"ca-certificates",
			},
		},
		{"postgresql", "zstd", []string{"postgresql-15", "postgresql-client-15", "libpq5", "libicu72", "libllvm14", "locales"}},
		{"nginx", "gzip", []string{"nginx", "nginx-common"}},
		{"curl", "gzip", []string{"curl", "libcurl4"}},
		{"jdk", "gzip", []string{"openjdk-17-jre-headless", "openjdk-17-jdk-headless"}},
		{"go", "gzip", []string{"golang-1.19-go", "golang-1.19-src"}},
		{
			"llvm",
			"none",
			[]string{
				"clang-14",
				"llvm-14",
				"llvm-14-dev",
				"libllvm14",
				"libclang-cpp14",
				"libclang1-14",
				"libclang-common-14-dev",
				"lld-14",
				"libclang-14-dev",
				"gcc-12",
				"g++-12",
				"cpp-12",
				"lldb-14",
				"liblldb-14",
			},
		},
		{"docs", "zstd", []string{"linux-doc-6.1", "postgresql-doc-15", "openjdk-17-doc"}},
	}
	images = map[string][]string{
		"debian:12":     {"base"},
		"postgres:15":   {"base", "postgresql"},
		"nginx:1.22":    {"base", "nginx"},
		"proxy:1.22":    {"base", "nginx", "curl"},
		"jdk:17":        {"base", "jdk"},
		"golang:1.19":   {"base", "go"},
		"llvm:14":       {"base", "llvm"},
		"handbook:2026": {"base", "docs"},
	}
	imageNames = []string{"debian:12", "postgres:15", "nginx:1.22", "proxy:1.22", "jdk:17", "golang:1.19", "llvm:14", "handbook:2026"}
)

// storage fills a registry's directory through the embedded registry, whose layout is
// distribution's.
type storage struct {
	*registry.Embedded
}

func openStorage(ctx context.Context, dir string) (storage, error) {
	e, err := registry.OpenEmbedded(ctx, dir)
	return storage{e}, err
}

func (s storage) put(ctx context.Context, repo, mediaType string, open func() io.Reader) (bundle.Descriptor, error) {
	h := sha256.New()
	n, err := io.Copy(h, open())
	if err != nil {
		return bundle.Descriptor{}, err
	}
	d := bundle.Descriptor{MediaType: mediaType, Digest: bundle.DigestFrom(h.Sum(nil)), Size: n}
	return d, s.PutBlob(ctx, repo, d, "", open)
}

// image stores and tags an image of stored layers.
func (s storage) image(ctx context.Context, repo, tag string, layers []bundle.Descriptor) error {
	config, err := json.Marshal(
		map[string]any{
			"os":           "linux",
			"architecture": "amd64",
			"comment":      repo,
			"config":       map[string]any{},
			"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{}},
		},
	)
	if err != nil {
		return err
	}
	c, err := s.put(ctx, repo, "application/vnd.oci.image.config.v1+json", func() io.Reader { return bytes.NewReader(config) })
	if err != nil {
		return err
	}
	data, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": bundle.TypeOCIManifest, "config": c, "layers": layers})
	if err != nil {
		return err
	}
	d := bundle.Descriptor{MediaType: bundle.TypeOCIManifest, Digest: bundle.DigestOf(data), Size: int64(len(data))}
	m, err := bundle.ParseManifest(d, data)
	if err != nil {
		return err
	}
	if err := s.PutManifest(ctx, repo, m, data); err != nil {
		return err
	}
	return s.Tag(ctx, repo, tag, d.Digest)
}

// realImages fills a registry's directory with the images above.
func realImages(ctx context.Context, dir string) (err error) {
	s, err := openStorage(ctx, dir)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "layers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	files := map[string]string{}
	types := map[string]string{}
	for _, l := range layers {
		fmt.Fprintf(os.Stderr, "layer %s: %d packages\n", l.name, len(l.packages))
		if files[l.name], err = l.build(ctx, scratch); err != nil {
			return fmt.Errorf("layer %s: %w", l.name, err)
		}
		types[l.name] = "application/vnd.oci.image.layer.v1.tar" + map[string]string{"gzip": "+gzip", "zstd": "+zstd"}[l.compression]
	}
	for _, name := range imageNames {
		repo, tag, _ := cut(name)
		var list []bundle.Descriptor
		for _, l := range images[name] {
			d, err := s.putFile(ctx, repo, types[l], files[l])
			if err != nil {
				return err
			}
			list = append(list, d)
		}
		if err := s.image(ctx, repo, tag, list); err != nil {
			return err
		}
	}
	return s.Sync()
}

func (s storage) putFile(ctx context.Context, repo, mediaType, path string) (d bundle.Descriptor, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return d, err
	}
	return s.put(ctx, repo, mediaType, func() io.Reader { return io.NewSectionReader(f, 0, fi.Size()) })
}

// build downloads the packages and makes one tar of the files they contain.
func (l layerSpec) build(ctx context.Context, scratch string) (path string, err error) {
	dir := filepath.Join(scratch, l.name)
	if err := os.Mkdir(dir, 0o777); err != nil {
		return "", err
	}
	get := exec.CommandContext(ctx, "apt-get", append([]string{"download", "-q"}, l.packages...)...)
	get.Dir, get.Stderr = dir, os.Stderr
	if err := get.Run(); err != nil {
		return "", fmt.Errorf("apt-get download: %w", err)
	}
	path = filepath.Join(scratch, l.name+".tar")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var out io.WriteCloser
	switch l.compression {
	case "gzip":
		out, err = gzip.NewWriterLevel(f, gzip.BestSpeed)
	case "zstd":
		out, err = zstd.NewWriter(f)
	default:
		out = nopCloser{f}
	}
	if err != nil {
		return "", err
	}
	w := tar.NewWriter(out)
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return "", err
	}
	seen := map[string]bool{}
	for _, deb := range debs {
		if err := unpack(ctx, deb, w, seen); err != nil {
			return "", fmt.Errorf("%s: %w", filepath.Base(deb), err)
		}
	}
	return path, errors.Join(w.Close(), out.Close())
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// unpack adds the files of a package to the tar, except those already in it.
func unpack(ctx context.Context, deb string, to *tar.Writer, seen map[string]bool) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r := tar.NewReader(pipe)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if seen[h.Name] {
			continue
		}
		seen[h.Name] = true
		h.Format = tar.FormatUnknown
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(to, r); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, pipe); err != nil {
		return err
	}
	return cmd.Wait()
}

// layersPerImage is the number of layers in each synthetic image of the scaling rows.
const layersPerImage = 25

// manyNames returns the names of the images that have this many layers in total.
func manyNames(blobs int) []string {
	var names []string
	for first := 0; first < blobs; first += layersPerImage {
		names = append(names, fmt.Sprintf("many/%d-%d:1", blobs, first))
	}
	return names
}

// manyBlobs fills a registry's directory with these images. Their layers are random bytes,
// total bytes altogether.
func manyBlobs(ctx context.Context, dir string, blobs int, total int64) error {
	s, err := openStorage(ctx, dir)
	if err != nil {
		return err
	}
	random := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, total/int64(blobs))
	for i, name := range manyNames(blobs) {
		repo, tag, _ := cut(name)
		var list []bundle.Descriptor
		for range min(layersPerImage, blobs-i*layersPerImage) {
			_, _ = random.Read(buf)
			d, err := s.put(ctx, repo, "application/vnd.oci.image.layer.v1.tar", func() io.Reader { return bytes.NewReader(buf) })
			if err != nil {
				return err
			}
			list = append(list, d)
		}
		if err := s.image(ctx, repo, tag, list); err != nil {
			return err
		}
	}
	return s.Sync()
}

// seed fills a directory in a separate process, because a process's peak memory counts as its
// children's too.
func (w *world) seed(ctx context.Context, dir string, what ...string) error {
	c := exec.CommandContext(ctx, w.self, append([]string{"seed", dir + ".new"}, what...)...)
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return err
	}
	return os.Rename(dir+".new", dir)
}

func seed(ctx context.Context, dir string, what ...string) error {
	if what[0] == "real" {
		return realImages(ctx, dir)
	}
	n, err := strconv.ParseInt(what[len(what)-1], 10, 64)
	if err != nil {
		return err
	}
	if what[0] == "huge" {
		return hugeImage(ctx, dir, n)
	}
	return manyBlobs(ctx, dir, int(n), scalingBytes)
}
