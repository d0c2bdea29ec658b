//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// hugeLayers is the number of layers in the huge image.
const hugeLayers = 10

// hugeImage fills a registry's directory with an image of total bytes. Its layers are zeros in
// sparse files.
func hugeImage(ctx context.Context, dir string, total int64) error {
	s, err := openStorage(ctx, dir)
	if err != nil {
		return err
	}
	var list []bundle.Descriptor
	h := sha256.New()
	var size int64
	zeros := make([]byte, 1<<20)
	for size < total/hugeLayers {
		n, _ := h.Write(zeros)
		size += int64(n)
	}
	for range hugeLayers {
		h.Write(zeros[:4096])
		size += 4096
		c, err := h.(hash.Cloner).Clone()
		if err != nil {
			return err
		}
		d := bundle.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: bundle.DigestFrom(c.Sum(nil)), Size: size}
		path := filepath.Join(dir, "registry/docker/registry/v2/blobs/sha256", d.Digest.Hex()[:2], d.Digest.Hex(), "data")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		if err := os.Truncate(path, size); err != nil {
			return err
		}
		if err := s.PutBlob(ctx, "huge", d, "elsewhere", func() io.Reader { return bytes.NewReader(nil) }); err != nil {
			return err
		}
		list = append(list, d)
	}
	if err := s.image(ctx, "huge", "1", list); err != nil {
		return err
	}
	return s.Sync()
}

// huge creates, verifies and installs a bundle of b.hugeBytes. The directory needs twice that
// space, or a file system that compresses.
func (b *bench) huge(ctx context.Context) error {
	dir := filepath.Join(b.dir, fmt.Sprintf("huge-%d", b.hugeBytes))
	if _, err := os.Stat(dir); err != nil {
		if err := b.seed(ctx, dir, "huge", strconv.FormatInt(b.hugeBytes, 10)); err != nil {
			return err
		}
	}
	host, stop, err := b.serve(ctx, filepath.Join(dir, "registry"))
	if err != nil {
		return err
	}
	defer stop()
	manifest, err := b.manifest("huge", host, []string{"huge:1"})
	if err != nil {
		return err
	}
	b.printf("\n## A bundle of %d GB\n\n| | seconds | peak memory, MiB |\n|---|---|---|\n", b.hugeBytes/1e9)
	show := func(name string, r run, err error) error {
		b.printf("| %s | %.0f | %d |\n", name, r.wall.Seconds(), r.rss>>20)
		fmt.Fprintf(os.Stderr, "huge: %s %.0f s, %d MiB\n", name, r.wall.Seconds(), r.rss>>20)
		return err
	}
	r, err := b.create(ctx, manifest, host)
	if err := show("create", r, err); err != nil {
		return err
	}
	path, err := b.keep()
	if err != nil {
		return err
	}
	r, err = b.measure(ctx, []string{b.program, "verify", path, "--key", b.pub(), "--root", filepath.Join(b.dir, "none")})
	if err := show("verify", r, err); err != nil {
		return err
	}
	r, err = b.install(ctx, path)
	return show("install", r, err)
}
