// Command demo is the world around make demo: an upstream registry with real
// images in it, made from the program itself, and an independent client that
// pulls an image back.
//
//	demo serve DIR PROGRAM-AMD64 PROGRAM-ARM64   prints the address, serves until its input ends
//	demo pull REFERENCE FILE                     writes the program found in an image, prints the digest
package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/oob-bundle/oob-bundle/bundle/bundletest"
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
		return serve(ctx, args[1], args[2], args[3])
	case len(args) == 3 && args[0] == "pull":
		return pull(args[1], args[2])
	}
	return errors.New("usage: demo serve DIR PROGRAM-AMD64 PROGRAM-ARM64 | pull REFERENCE FILE")
}

func serve(ctx context.Context, dir, amd64, arm64 string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: bundletest.NewHandler(ctx, dir), ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	if err := seed(ctx, l.Addr().String(), amd64, arm64); err != nil {
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

// seed pushes an image for two platforms, and a second one that shares a layer
// with it.
func seed(ctx context.Context, host, amd64, arm64 string) error {
	notes := bundletest.Layer(bundletest.File{Name: "notes.txt", Mode: 0o644, Data: []byte("carried by hand\n")})
	image := func(platform, path string) (v1.Image, error) {
		program, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return bundletest.Image(platform, notes, bundletest.Layer(bundletest.File{Name: "oob-bundle", Mode: 0o755, Data: program})), nil
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
		bundletest.Push(ctx, host+"/tools/oob-bundle:1", bundletest.Index(a, b)),
		bundletest.Push(ctx, host+"/tools/notes:1", bundletest.DockerImage("linux/amd64", notes)),
	)
}

func pull(reference, file string) (err error) {
	ref, err := name.ParseReference(reference, name.Insecure)
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
			return fmt.Errorf("no program in %s: %w", reference, err)
		}
		if h.Name != "oob-bundle" {
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
