// Command demo provides the registry and the client for make demo: an upstream registry with
// images that contain oob-bundle, and an independent client that pulls an image back. For
// the transcripts in the handbook, it serves an upstream with the images of
// docs/examples/web.yaml, whose bytes are always the same.
//
//	demo serve DIR PROGRAM-AMD64 PROGRAM-ARM64   prints the address, serves until its input ends
//	demo example                                 the same, with the images of the example
//	demo pull REFERENCE FILE [NAME]              extracts the program, or the file NAME, from an image, prints the digest
package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"time"

	ggcrname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 4 && args[0] == "serve":
		return serve(ctx, args[1], func(host string) error { return seed(ctx, host, args[2], args[3]) })
	case len(args) == 1 && args[0] == "example":
		return serve(ctx, "", func(host string) error { return seedExample(ctx, host) })
	case len(args) == 3 && args[0] == "pull":
		return pull(args[1], args[2], "oob-bundle")
	case len(args) == 4 && args[0] == "pull":
		return pull(args[1], args[2], args[3])
	}
	return errors.New("usage: demo serve DIR PROGRAM-AMD64 PROGRAM-ARM64 | example | pull REFERENCE FILE [NAME]")
}

// serve serves a registry that keeps its content below dir, or in memory if dir is empty. Fill
// adds the content before the address is printed.
func serve(ctx context.Context, dir string, fill func(host string) error) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: world.NewHandler(ctx, dir), ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	if err := fill(l.Addr().String()); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, os.Stdin); ended <- err }()
	select {
	case err := <-failed:
		return err
	case err := <-ended:
		return errors.Join(err, s.Close())
	}
}

// seed pushes an image for two platforms, and a second image that shares a layer with the
// first.
func seed(ctx context.Context, host, amd64, arm64 string) error {
	notes := world.Layer(world.File{Name: "notes.txt", Mode: 0o644, Data: []byte("carried by hand\n")})
	image := func(platform, path string) (v1.Image, error) {
		program, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return world.Image(platform, notes, world.Layer(world.File{Name: "oob-bundle", Mode: 0o755, Data: program})), nil
	}
	a, err := image("linux/amd64", amd64)
	if err != nil {
		return err
	}
	b, err := image("linux/arm64", arm64)
	if err != nil {
		return err
	}
	return errors.Join(
		world.Push(ctx, host+"/tools/oob-bundle:1", world.Index(a, b)),
		world.Push(ctx, host+"/tools/notes:1", world.DockerImage("linux/amd64", notes)),
	)
}

// seedExample pushes the images of docs/examples/web.yaml and of its next version. The layers
// are uncompressed, so that their bytes do not depend on the version of a compressor.
func seedExample(ctx context.Context, host string) error {
	image := func(name, platform string, size int) v1.Image {
		noise := make([]byte, size)
		_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name + platform))).Read(noise) // never fails
		return world.Image(platform, world.PlainLayer(
			world.File{Name: "about.txt", Mode: 0o644, Data: []byte(name + " for " + platform + "\n")},
			world.File{Name: "program", Mode: 0o755, Data: noise},
		))
	}
	var problems []error
	for name, size := range map[string]int{"team/intranet:2.3.0": 2 << 20, "team/intranet:2.4.0": 2 << 20, "library/postgres:17": 5 << 20} {
		both := world.Index(image(name, "linux/amd64", size), image(name, "linux/arm64", size))
		problems = append(problems, world.Push(ctx, host+"/registry.example.com/"+name, both))
	}
	return errors.Join(problems...)
}

func pull(reference, file, name string) (err error) {
	ref, err := ggcrname.ParseReference(reference, ggcrname.Insecure)
	if err != nil {
		return err
	}
	img, err := remote.Image(ref)
	if err != nil {
		return err
	}
	files := mutate.Extract(img) // reads and verifies every layer
	defer func() { err = errors.Join(err, files.Close()) }()
	for r := tar.NewReader(files); ; {
		h, err := r.Next()
		if err != nil {
			return fmt.Errorf("no %s in %s: %w", name, reference, err)
		}
		if h.Name != name {
			continue
		}
		program, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, program, 0o755); err != nil {
			return err
		}
		d, err := img.Digest()
		fmt.Println(d)
		return err
	}
}
