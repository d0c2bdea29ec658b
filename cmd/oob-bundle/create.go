package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// resolveFlags are the flags of create and lock that select content and its sources.
type resolveFlags struct {
	channel, caFile, deployment   string
	platforms, mirrors, plainHTTP []string
	with, without, set            []string
	withoutReferrers              bool
	sequence                      int64
	jobs                          int
}

func (f *resolveFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(
		&f.platforms,
		"platform",
		nil,
		"include this platform, `OS/ARCH`, such as linux/arm64; may be repeated (default the first in the manifest, or linux on this "+
			"machine's architecture)",
	)
	c.Flags().StringVar(
		&f.deployment,
		"deployment",
		"",
		"`FORM` of the deployment: compose, linux or kubernetes (default the first in the manifest)",
	)
	c.Flags().StringArrayVar(&f.with, "with", nil, "include this optional `COMPONENT`; may be repeated")
	c.Flags().StringArrayVar(&f.without, "without", nil, "omit this `COMPONENT`, because the site already has it; may be repeated")
	c.Flags().StringArrayVar(&f.set, "set", nil, "change a value, `KEY=VALUE`, such as versions.mattermost=11.10.0; may be repeated")
	c.Flags().BoolVar(&f.withoutReferrers, "without-referrers", false, "omit upstream's signatures, attestations and SBOMs")
	c.Flags().StringVar(
		&f.channel,
		"channel",
		"",
		"update channel `NAME`: a host refuses a bundle older than the newest it has installed from the same channel "+
			"(default NAME/DEPLOYMENT/PLATFORM)",
	)
	c.Flags().Int64Var(&f.sequence, "sequence", 0, "sequence number `N` in the channel (default the creation time in Unix seconds)")
	c.Flags().StringArrayVar(
		&f.mirrors,
		"mirror",
		nil,
		"`FROM=TO`: fetch from TO (HOST[:PORT][/PREFIX]) instead of the registry or web server FROM; may be repeated",
	)
	c.Flags().StringArrayVar(&f.plainHTTP, "plain-http", nil, "use plain HTTP for `HOST[:PORT]`; may be repeated")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "PEM `FILE` with additional certificate authorities")
	c.Flags().IntVar(&f.jobs, "jobs", 8, "number `N` of parallel connections")
}

type createFlags struct {
	resolveFlags
	key, output, lock, volumeSize string
	installer                     string
	reuse                         []string
}

// ownProgram is the value of --with-installer without a path: this program.
const ownProgram = "self"

// minVolume is the smallest accepted --volume-size, in bytes.
const minVolume = 64 << 10

func createCommand(u *ui) *cobra.Command {
	var f createFlags
	c := &cobra.Command{
		Use:   "create ARCHITECTURE|MANIFEST.yaml --key KEY",
		Short: "Pull images, charts, plugins and files into one signed bundle",
		Long: `ARCHITECTURE is a reference architecture from the list that oob-bundle architectures
prints. MANIFEST.yaml is a manifest that you wrote.

create writes the bundle to FILE.partial and renames the file when it is complete. To
resume an interrupted command, run the same command again.`,
		Example: `  oob-bundle create out-of-band --key oob.key
  oob-bundle create ddil --key oob.key --deployment compose --with ollama
  oob-bundle create app.yaml --key oob.key --reuse old.oob.tar --volume-size 4GB
  oob-bundle create app.yaml --key oob.key -o medium/a.oob.tar --with-installer`,
		Args: needs("ARCHITECTURE|MANIFEST.yaml"),
		RunE: func(c *cobra.Command, args []string) error { return u.create(c, args[0], f) },
	}
	f.add(c)
	c.Flags().StringVar(&f.key, "key", "", "private `KEY` to sign with (required)")
	c.Flags().StringVarP(&f.output, "output", "o", "", "`FILE` to write (default NAME_VERSION_OS-ARCH.oob.tar)")
	c.Flags().StringVar(&f.lock, "lock", "", "make the same bundle again from this lock `FILE`")
	c.Flags().StringArrayVar(&f.reuse, "reuse", nil, "copy blobs from this earlier `BUNDLE` instead of fetching them; may be repeated")
	c.Flags().StringVar(
		&f.volumeSize,
		"volume-size",
		"",
		"split the bundle into FILE.001, FILE.002 ... of at most `SIZE` bytes each, such as 4294967295, 4.7GB or 25GB",
	)
	c.Flags().StringVar(
		&f.installer,
		"with-installer",
		"",
		"put an installer beside the bundle, with its signature and instructions: this program (self), or for another platform the "+
			"program at `PATH`",
	)
	c.Flags().Lookup("with-installer").NoOptDefVal = ownProgram
	u.jsonFlag(c)
	return c
}

// createJSON is the result of create --json.
type createJSON struct {
	Bundle bundleJSON        `json:"bundle"`
	File   string            `json:"file"` // the path to open
	Bytes  int64             `json:"bytes"`
	Images []createImageJSON `json:"images"`
	Lock   string            `json:"lock"`
	// Volumes are the paths of all parts; empty for a single file.
	Volumes []string `json:"volumes,omitempty"`
	// Record is the path of the transfer record, a page to print that lists the content.
	Record string `json:"record"`
	// Reused is the number of bytes taken from the bundles of --reuse.
	Reused int64 `json:"reused,omitempty"`
	// Installer describes the installer beside the bundle; nil without --with-installer.
	Installer *installerJSON `json:"installer,omitempty"`
}

type installerJSON struct {
	Digest bundle.Digest `json:"digest"` // of the program
	Files  []string      `json:"files"`  // paths: program, checksum, signature, instructions
}

type createImageJSON struct {
	Reference string        `json:"reference"`
	Digest    bundle.Digest `json:"digest"`
}

func (u *ui) create(c *cobra.Command, manifestPath string, f createFlags) error {
	o, err := f.options(c, manifestPath, u.warn)
	if err != nil {
		return err
	}
	if f.key == "" {
		return wrongUsage("a bundle is always signed; give --key KEY, or make one with oob-bundle key generate")
	}
	debug.FreeOSMemory() // free the manifest's memory before key derivation
	if o.Signer, err = sign.Load(f.key, u.password(c.Context())); err != nil {
		return err
	}
	debug.FreeOSMemory() // free the memory of key derivation
	begun := time.Now()
	var p *progress
	o.Resolved = func(g *bundle.Geometry, l *manifests.Lock) bundle.Watch {
		u.note(
			"Resolved %s for %s in %.1f s: %s",
			contents(l), strings.Join(g.Info.PlatformNames(), ", "), time.Since(begun).Seconds(),
			human(g.PayloadSize()),
		)
		p = u.progress("fetch", g)
		return p.watch()
	}
	r, err := create.Run(c.Context(), o)
	if p != nil {
		p.stop()
	}
	if err != nil {
		return err
	}
	out := createJSON{
		Bundle: describeBundle(r.Identity, r.Geometry.Info), File: r.Output, Bytes: r.Geometry.Size,
		Images: []createImageJSON{}, Lock: r.LockFile, Volumes: r.Volumes, Record: r.Record, Reused: r.Reused,
	}
	if len(r.Kit) > 0 {
		out.Installer = &installerJSON{Digest: r.Kit[0].Digest}
		for _, k := range r.Kit {
			out.Installer.Files = append(out.Installer.Files, k.Path)
		}
	}
	for _, i := range r.Lock.Images {
		out.Images = append(out.Images, createImageJSON{i.Reference, i.Digest})
	}
	return u.result(out, func(w io.Writer) {
		if len(out.Volumes) > 0 {
			fmt.Fprintf(w, "%d volumes   %s bytes together\n", len(out.Volumes), commas(out.Bytes))
		} else {
			fmt.Fprintf(w, "%s   %s bytes\n", out.File, commas(out.Bytes))
		}
		for _, v := range out.Volumes {
			fmt.Fprintf(w, "  volume    %s\n", v)
		}
		out.Bundle.print(w)
		if len(f.reuse) > 0 {
			fmt.Fprintf(w, "  reused    %s of %s came from %s\n", human(out.Reused), human(r.Geometry.PayloadSize()), strings.Join(f.reuse, ", "))
		}
		fmt.Fprintf(w, "  signed    %s  (%s)\n", o.Signer.Fingerprint, f.key)
		fmt.Fprintf(w, "  lock      %s\n", out.Lock)
		fmt.Fprintf(w, "  record    %s  (to print)\n", out.Record)
		if out.Installer != nil {
			fmt.Fprintf(w, "  program   %s\n            %s\n", out.Installer.Files[0], out.Installer.Digest)
			fmt.Fprintf(w, "  read me   %s\n", out.Installer.Files[3])
		}
		public, values := create.PublicName(f.key), ""
		if len(r.Needs) > 0 {
			values = " --values site.yaml"
			fmt.Fprintf(
				w,
				"On the isolated side: oob-bundle values %s --key %s >site.yaml, fill in %s, then\n ",
				out.File, public, strings.Join(r.Needs, ", "),
			)
		} else {
			fmt.Fprint(w, "On the isolated side:")
		}
		fmt.Fprintf(w, " oob-bundle install %s --key %s%s\n", out.File, public, values)
	})
}

// contents returns the number of images, plugins, charts and files in a lock, as text.
func contents(l *manifests.Lock) string {
	var parts []string
	for _, p := range []struct {
		n    int
		name string
	}{{len(l.Images), "image"}, {len(l.Plugins), "plugin"}, {len(l.Charts), "chart"}, {len(l.Files), "file"}} {
		if p.n > 0 {
			parts = append(parts, count(p.n, p.name))
		}
	}
	return strings.Join(parts, ", ")
}

func (f createFlags) options(c *cobra.Command, manifest string, warn func(string, ...any)) (create.Options, error) {
	o, err := f.resolveFlags.options(c, manifest, warn)
	if err != nil {
		return o, err
	}
	o.Output, o.Reuse, o.KeyFile, o.Installer = f.output, f.reuse, f.key, f.installer
	if f.installer == ownProgram {
		if o.Installer, err = os.Executable(); err != nil {
			return o, err
		}
	}
	if f.output == "-" {
		return o, wrongUsage("-o %q is not a file name; a bundle is written to a file, because its parts arrive in any order", f.output)
	}
	if f.volumeSize != "" {
		if o.VolumeSize, err = parseVolumeSize(f.volumeSize); err != nil {
			return o, err
		}
	}
	if f.lock != "" {
		o.Lock, err = manifests.ReadLock(f.lock)
	}
	return o, err
}

func (f resolveFlags) options(c *cobra.Command, manifest string, warn func(string, ...any)) (create.Options, error) {
	o := create.Options{
		Channel: f.channel, Jobs: f.jobs, Program: buildVersion(), Now: time.Now(), WithoutReferrers: f.withoutReferrers, Warn: warn,
		Choice: manifests.Choice{Deployment: f.deployment, With: f.with, Without: f.without, Set: map[string]string{}},
	}
	if f.jobs < 1 || f.jobs > 64 {
		return o, wrongUsage("--jobs %d must be between 1 and 64", f.jobs)
	}
	for _, s := range f.set {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return o, wrongUsage("--set %q is not KEY=VALUE, such as versions.mattermost=11.10.0", s)
		}
		o.Choice.Set[key] = value
	}
	for _, h := range f.plainHTTP {
		if strings.Contains(h, "/") {
			return o, wrongUsage("--plain-http %q is not HOST[:PORT]", h)
		}
	}
	if c.Flags().Changed("sequence") {
		if f.sequence < 0 {
			return o, wrongUsage("--sequence %d must not be negative", f.sequence)
		}
		o.Sequence = &f.sequence
	}
	for _, s := range f.platforms {
		p, err := bundle.ParsePlatform(s)
		if err != nil {
			return o, wrongUsage("--platform: %w", err)
		}
		if !slices.ContainsFunc(o.Platforms, func(q bundle.Platform) bool { return q.String() == p.String() }) {
			o.Platforms = append(o.Platforms, p)
		}
	}
	mirrors, err := parseMirrors(f.mirrors)
	if err != nil {
		return o, err
	}
	client, err := remote.New(
		remote.Options{PlainHTTP: f.plainHTTP, CAFile: f.caFile, UserAgent: userAgent(), Connections: f.jobs, Warn: warn},
	)
	if err != nil {
		return o, wrongUsage("--ca-file: %w", err)
	}
	o.Source = &pull.Source{Client: client, Mirrors: mirrors}
	o.Manifest, err = manifests.Open(manifest)
	return o, err
}

// parseVolumeSize parses a number of bytes, with or without a unit.
func parseVolumeSize(s string) (int64, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n < minVolume || n > 1<<60 {
		return 0, wrongUsage("--volume-size %q is not a size of at least %s bytes, such as 4GB or 4294967295", s, commas(minVolume))
	}
	return int64(n), nil
}

func parseMirrors(list []string) (map[string]string, error) {
	mirrors := map[string]string{}
	for _, s := range list {
		from, to, ok := strings.Cut(s, "=")
		host, _, _ := strings.Cut(to, "/")
		if !ok || from == "" || !isHost(host) || strings.Contains(from, "/") || strings.Contains(to, "://") {
			return nil, wrongUsage("--mirror %q is not UPSTREAM=HOST[:PORT][/PREFIX], such as docker.io=mirror.example.com:5000/hub", s)
		}
		mirrors[from] = to
	}
	return mirrors, nil
}
