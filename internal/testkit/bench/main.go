//go:build linux

// Command bench compares oob-bundle with the least that any program has to do for the same
// job, and with skopeo and crane. It runs them side by side on real images from a registry on
// loopback, and prints a table.
//
//	bench -dir DIR -program oob-bundle -tools BINDIR [-rounds N] [-only SECTION] [-out docs/benchmarks.md]
//
// It needs Debian (the images are made of its packages) and skopeo.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := start(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context) error {
	if ran, err := part(ctx, os.Args[1:]); ran {
		return err
	}
	dir := flag.String("dir", "", "scratch directory, on a disk")
	program := flag.String("program", "", "oob-bundle")
	tools := flag.String("tools", "", "directory with crane and registry")
	rounds := flag.Int("rounds", 5, "runs of each contender")
	only := flag.String("only", "", "real, scaling, slow or huge; empty means all but huge")
	hugeBytes := flag.Int64("huge", 100_000_000_000, "bytes of the huge bundle")
	out := flag.String("out", "", "file to write the table to")
	flag.Parse()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{world: world{dir: *dir, program: *program, tools: *tools, self: self}, rounds: *rounds, only: *only, hugeBytes: *hugeBytes}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for _, section := range []struct {
		name string
		run  func(context.Context) error
	}{{"real", b.real}, {"scaling", b.scaling}, {"slow", b.slow}} {
		if b.only == "" || b.only == section.name {
			if err := section.run(ctx); err != nil {
				return err
			}
		}
	}
	if b.only == "huge" {
		if err := b.huge(ctx); err != nil {
			return err
		}
	}
	old, err := filepath.Glob(filepath.Join(b.dir, "old-*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	fmt.Print(b.text.String())
	if *out == "" {
		return nil
	}
	return os.WriteFile(*out, []byte(b.text.String()), 0o644)
}

// part runs a step for which bench starts itself again, if the arguments name one.
func part(ctx context.Context, args []string) (ran bool, err error) {
	if len(args) == 1 && args[0] == "warm" {
		return true, warm()
	}
	if len(args) < 3 {
		return false, nil
	}
	switch name, args := args[0], args[1:]; name {
	case "floor-pull":
		return true, floorPull(args[0], args[1])
	case "floor-verify":
		return true, floorVerify(args[0], args[1])
	case "floor-copy":
		return true, floorCopy(args[0], args[1], args[2])
	case "plan":
		return true, writePlan(args[0], args[1])
	case "seed":
		return true, seed(ctx, args[0], args[1:]...)
	}
	return false, nil
}

// bench is one complete run.
type bench struct {
	world
	rounds int
	only   string

	hugeBytes int64

	text strings.Builder
}

func (b *bench) printf(format string, args ...any) { fmt.Fprintf(&b.text, format, args...) }

func (b *bench) prepare(ctx context.Context) error {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	upstream := filepath.Join(b.dir, "upstream")
	if _, err := os.Stat(upstream); err != nil && b.only != "huge" {
		if err := b.seed(ctx, upstream, "real"); err != nil {
			return err
		}
	}
	if _, err := os.Stat(b.key()); err != nil {
		_, err := b.measure(ctx, []string{b.program, "key", "generate", "--output-prefix", filepath.Join(b.dir, "oob")})
		if err != nil {
			return err
		}
	}
	version, err := exec.CommandContext(ctx, "skopeo", "--version").Output()
	if err != nil {
		return fmt.Errorf("skopeo: %w", err)
	}
	b.printf(
		"# Benchmarks\n\nMade by `make bench`: %s; %s, crane of the version in `.ci/tools`, distribution v3 on loopback.\n",
		machine(), strings.TrimSpace(string(version)),
	)
	b.printf(
		"Each contender ran %d times, alternating with the others; the figures are medians. The clock ends when the output is synced.\n",
		b.rounds,
	)
	b.printf(
		"The floor is the least that any program has to do: a small program without names, signatures, or a way to go on " +
			"after an interruption.\n",
	)
	return nil
}

func (b *bench) key() string { return filepath.Join(b.dir, "oob.key") }
func (b *bench) pub() string { return filepath.Join(b.dir, "oob.pub") }

// contender is one program in a race.
type contender struct {
	name string
	once func() (run, error) // also removes the output of the previous run
}

// race runs the contenders alternately and prints a table. The first contender is the
// baseline.
func (b *bench) race(title string, bytes int64, list []contender) error {
	results := make([][]run, len(list))
	for round := range b.rounds {
		for i := range list {
			c := list[(i+round)%len(list)]
			r, err := c.once()
			if err != nil {
				return fmt.Errorf("%s, %s: %w", title, c.name, err)
			}
			fmt.Fprintf(os.Stderr, "%s, round %d: %s %.2f s, %d MiB\n", title, round+1, c.name, r.wall.Seconds(), r.rss>>20)
			results[(i+round)%len(list)] = append(results[(i+round)%len(list)], r)
		}
	}
	b.printf("\n## %s\n\n| | seconds | ratio | MB/s | peak memory, MiB |\n|---|---|---|---|---|\n", title)
	base := medianOf(results[0]).wall
	for i, c := range list {
		m := medianOf(results[i])
		b.printf(
			"| %s | %.2f | %.2f | %.0f | %d |\n",
			c.name, m.wall.Seconds(), m.wall.Seconds()/base.Seconds(), float64(bytes)/1e6/m.wall.Seconds(), m.rss>>20,
		)
	}
	return nil
}

// medianOf returns the median time and the median memory, independently of each other.
func medianOf(runs []run) run {
	var walls []time.Duration
	var rss []int64
	for _, r := range runs {
		walls, rss = append(walls, r.wall), append(rss, r.rss)
	}
	slices.Sort(walls)
	slices.Sort(rss)
	return run{walls[len(walls)/2], rss[len(rss)/2]}
}

// fresh returns an empty directory. Each contender has its own and empties it just before it
// runs.
func (b *bench) fresh(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o755)
}

// create runs oob-bundle create into a fresh directory.
func (b *bench) create(ctx context.Context, manifest, host string) (run, error) {
	dir, err := b.fresh("ours")
	if err != nil {
		return run{}, err
	}
	return b.measure(
		ctx,
		[]string{
			b.program,
			"create",
			manifest,
			"--key",
			b.key(),
			"--plain-http",
			host,
			"--platform",
			"linux/amd64",
			"-o",
			filepath.Join(dir, "b.oob.tar"),
		},
	)
}

func (b *bench) install(ctx context.Context, path string) (run, error) {
	dir, err := b.fresh("site")
	if err != nil {
		return run{}, err
	}
	return b.measure(ctx, []string{b.program, "install", path, "--key", b.pub(), "--root", filepath.Join(dir, "root")})
}

// keep moves the last created bundle to another directory.
func (b *bench) keep() (string, error) {
	dir, err := b.fresh("kept")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "b.oob.tar")
	return path, os.Rename(filepath.Join(b.dir, "ours", "b.oob.tar"), path)
}

// real runs the races on the real images.
func (b *bench) real(ctx context.Context) error {
	host, stop, err := b.serve(ctx, filepath.Join(b.dir, "upstream", "registry"))
	if err != nil {
		return err
	}
	defer stop()
	manifest, err := b.manifest("real", host, imageNames)
	if err != nil {
		return err
	}
	if _, err := b.create(ctx, manifest, host); err != nil {
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
	payload := plan.Payload
	b.printf(
		"\n%d images of Debian's packages: %d blobs, %d bytes, the largest %d bytes. The bundle has %d bytes more than its payload (%.3f %%).\n",
		len(imageNames), plan.Blobs, payload, plan.Largest, plan.Size-payload,
		float64(plan.Size-payload)*100/float64(payload),
	)
	if err := b.race("Registry to one file", payload, b.pullers(ctx, host, manifest, plan.File)); err != nil {
		return err
	}
	if err := b.race("Verify everything", payload, []contender{
		{"floor", func() (run, error) { return b.measure(ctx, []string{b.self, "floor-verify", plan.File, path}) }},
		{"oob-bundle verify", func() (run, error) {
			return b.measure(ctx, []string{b.program, "verify", path, "--key", b.pub(), "--root", filepath.Join(b.dir, "none")})
		}},
	}); err != nil {
		return err
	}
	return b.race("File to registry", payload, b.pushers(ctx, path, plan.File))
}
