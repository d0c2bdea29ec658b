//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// pullers copy all images from the registry into one file or directory each.
func (b *bench) pullers(ctx context.Context, host, manifest, plan string) []contender {
	return []contender{
		{"floor", func() (run, error) {
			dir, err := b.fresh("floor")
			if err != nil {
				return run{}, err
			}
			return b.measure(ctx, []string{b.self, "floor-pull", plan, filepath.Join(dir, "out")})
		}},
		{"oob-bundle create", func() (run, error) { return b.create(ctx, manifest, host) }},
		{"crane pull --format oci", func() (run, error) {
			dir, err := b.fresh("crane")
			if err != nil {
				return run{}, err
			}
			args := []string{filepath.Join(b.tools, "crane"), "pull", "--insecure", "--format", "oci"}
			for _, i := range imageNames {
				args = append(args, host+"/"+i)
			}
			return b.measure(ctx, append(args, filepath.Join(dir, "layout")))
		}},
		{"skopeo copy to oci:", func() (run, error) {
			dir, err := b.fresh("skopeo")
			if err != nil {
				return run{}, err
			}
			return b.measure(ctx, b.skopeo(func(i string) (from, to string) {
				_, tag, _ := cut(i)
				name, _, _ := cut(i)
				return "docker://" + host + "/" + i, "oci:" + dir + ":" + name + "-" + tag
			})...)
		}},
	}
}

// skopeo returns the commands that copy the images one after the other.
func (b *bench) skopeo(places func(image string) (from, to string)) [][]string {
	var list [][]string
	for _, i := range imageNames {
		from, to := places(i)
		list = append(list, []string{
			"skopeo",
			"--insecure-policy",
			"copy",
			"-q",
			"--preserve-digests",
			"--src-tls-verify=false",
			"--dest-tls-verify=false",
			from, to,
		})
	}
	return list
}

// pushers copy all images from the disk into a registry. Skopeo and crane push what they
// pulled before, to a distribution server.
func (b *bench) pushers(ctx context.Context, path, plan string) []contender {
	served := func(do func(host string) (run, error)) func() (run, error) {
		return func() (run, error) {
			dir, err := b.fresh("target")
			if err != nil {
				return run{}, err
			}
			host, stop, err := b.serve(ctx, filepath.Join(dir, "registry"))
			if err != nil {
				return run{}, err
			}
			defer stop()
			return do(host)
		}
	}
	return []contender{
		{"floor", func() (run, error) {
			dir, err := b.fresh("floor")
			if err != nil {
				return run{}, err
			}
			return b.measure(ctx, []string{b.self, "floor-copy", plan, path, filepath.Join(dir, "out")})
		}},
		{"oob-bundle install, embedded", func() (run, error) { return b.install(ctx, path) }},
		{"oob-bundle install --registry", served(func(host string) (run, error) {
			dir, err := b.fresh("site-of-registry")
			if err != nil {
				return run{}, err
			}
			return b.measure(
				ctx,
				[]string{b.program, "install", path, "--key", b.pub(), "--root", filepath.Join(dir, "root"), "--registry", host, "--plain-http", host},
			)
		})},
		{"crane push", served(func(host string) (run, error) {
			// crane's layout has all images in one index, and crane pushes it as one
			return b.measure(
				ctx,
				[]string{filepath.Join(b.tools, "crane"), "push", "--insecure", "--index", filepath.Join(b.dir, "crane", "layout"), host + "/all:1"},
			)
		})},
		{"skopeo copy", served(func(host string) (run, error) {
			return b.measure(ctx, b.skopeo(func(i string) (from, to string) {
				name, tag, _ := cut(i)
				return "oci:" + filepath.Join(b.dir, "skopeo") + ":" + name + "-" + tag, "docker://" + host + "/" + i
			})...)
		})},
	}
}

// scalingBytes is the total size of the images in a scaling row, in bytes.
const scalingBytes = 256_000_000

// many serves images with this many blobs in total and writes a manifest that names them.
func (b *bench) many(ctx context.Context, blobs int) (host, manifest string, stop func(), err error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("many-%d", blobs))
	if _, err := os.Stat(dir); err != nil {
		if err := b.seed(ctx, dir, strconv.Itoa(blobs)); err != nil {
			return "", "", nil, err
		}
	}
	if host, stop, err = b.serve(ctx, filepath.Join(dir, "registry")); err != nil {
		return "", "", nil, err
	}
	manifest, err = b.manifest(fmt.Sprintf("many-%d", blobs), host, manyNames(blobs))
	return host, manifest, stop, err
}

// scaling measures the same number of bytes in more and more blobs.
func (b *bench) scaling(ctx context.Context) error {
	b.printf(
		"\n## The same %d MB in more and more blobs\n\n| layers | images | floor pull, s | create, s | create, MiB | verify, "+
			"s | verify, MiB | install, s | install, MiB |\n|---|---|---|---|---|---|---|---|---|\n",
		int64(scalingBytes/1e6),
	)
	for _, blobs := range []int{1, 10, 100, 1000, 20000} {
		if err := b.scalingRow(ctx, blobs); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) scalingRow(ctx context.Context, blobs int) error {
	host, manifest, stop, err := b.many(ctx, blobs)
	if err != nil {
		return err
	}
	defer stop()
	var floors, creates, verifies, installs []run
	for round := range min(b.rounds, 3) {
		c, err := b.create(ctx, manifest, host)
		if err != nil {
			return err
		}
		path, err := b.keep()
		if err != nil {
			return err
		}
		plan, err := b.plan(ctx, path, host)
		if err != nil {
			return err
		}
		f, err := b.measure(ctx, []string{b.self, "floor-pull", plan.File, filepath.Join(b.dir, "floor-out")})
		if err != nil {
			return err
		}
		v, err := b.measure(ctx, []string{b.program, "verify", path, "--key", b.pub(), "--root", filepath.Join(b.dir, "none")})
		if err != nil {
			return err
		}
		i, err := b.install(ctx, path)
		if err != nil {
			return err
		}
		// Rename instead of removing: ext4 creates files slowly for a while after removing
		// many.
		if err := os.Rename(filepath.Join(b.dir, "site"), filepath.Join(b.dir, fmt.Sprintf("old-site-%d-%d", blobs, round))); err != nil {
			return err
		}
		fmt.Fprintf(
			os.Stderr,
			"%d layers: floor %.2f create %.2f (%d MiB) verify %.2f (%d MiB) install %.2f s (%d MiB)\n",
			blobs, f.wall.Seconds(), c.wall.Seconds(), c.rss>>20, v.wall.Seconds(), v.rss>>20, i.wall.Seconds(),
			i.rss>>20,
		)
		floors, creates, verifies, installs = append(floors, f), append(creates, c), append(verifies, v), append(installs, i)
	}
	f, c, v, i := medianOf(floors), medianOf(creates), medianOf(verifies), medianOf(installs)
	b.printf("| %d | %d | %.2f | %.2f | %d | %.2f | %d | %.2f | %d |\n", blobs, (blobs+layersPerImage-1)/layersPerImage,
		f.wall.Seconds(), c.wall.Seconds(), c.rss>>20, v.wall.Seconds(), v.rss>>20, i.wall.Seconds(), i.rss>>20)
	return nil
}

const (
	slowLatency = 20 * time.Millisecond
	slowRate    = 50_000_000 // bytes per second
)

// slow measures create with an upstream of limited latency and rate.
func (b *bench) slow(ctx context.Context) error {
	b.printf(
		"\n## A slow upstream: %s for each request, %d MB/s in all\n\nThe same %d MB would take %.2f s at that rate "+
			"alone.\n\n| layers | images | create, s | ratio to the rate alone |\n|---|---|---|---|\n",
		slowLatency, int64(slowRate/1e6), int64(scalingBytes/1e6), float64(scalingBytes)/slowRate,
	)
	for _, blobs := range []int{1, 10, 100, 1000} {
		host, _, stop, err := b.many(ctx, blobs)
		if err != nil {
			return err
		}
		far, end, err := slow(ctx, host, slowLatency, slowRate)
		if err != nil {
			return err
		}
		names := manyNames(blobs)
		manifest, err := b.manifest("slow", far, names)
		if err != nil {
			return err
		}
		r, err := b.create(ctx, manifest, far)
		end()
		stop()
		if err != nil {
			return err
		}
		b.printf("| %d | %d | %.2f | %.2f |\n", blobs, len(names), r.wall.Seconds(), r.wall.Seconds()*slowRate/scalingBytes)
		fmt.Fprintf(os.Stderr, "slow upstream, %d layers: %.2f s\n", blobs, r.wall.Seconds())
	}
	return nil
}
