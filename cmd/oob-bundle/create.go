package main

import (
	"fmt"
	"io"
	"runtime/debug"
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

// resolveFlags say what is wanted and where it comes from; create and lock have
// them.
type resolveFlags struct {
	channel, caFile, deployment   string
	platforms, mirrors, plainHTTP []string
	with, without, set            []string
	withoutReferrers              bool
	sequence                      int64
	jobs                          int
}

func (f *resolveFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.platforms, "platform", nil, "platform to carry, OS/ARCH[/VARIANT]; may be repeated (default the manifest's first, or linux on this machine's architecture)")
	c.Flags().StringVar(&f.deployment, "deployment", "", "compose, linux or kubernetes (default the manifest's first)")
	c.Flags().StringArrayVar(&f.with, "with", nil, "carry this optional component too; may be repeated")
	c.Flags().StringArrayVar(&f.without, "without", nil, "leave out this component, which the site has; may be repeated")
	c.Flags().StringArrayVar(&f.set, "set", nil, "change a value, such as versions.mattermost=11.10.0; may be repeated")
	c.Flags().BoolVar(&f.withoutReferrers, "without-referrers", false, "leave upstream's signatures, attestations and SBOMs behind")
	c.Flags().StringVar(&f.channel, "channel", "", "line of succession (default NAME/DEPLOYMENT/PLATFORM)")
	c.Flags().Int64Var(&f.sequence, "sequence", 0, "place in the channel (default the creation time in Unix seconds)")
	c.Flags().StringArrayVar(&f.mirrors, "mirror", nil, "fetch from elsewhere what a registry or web server has, UPSTREAM=HOST[:PORT][/PREFIX]; may be repeated")
	c.Flags().StringArrayVar(&f.plainHTTP, "plain-http", nil, "speak to HOST[:PORT] without TLS; may be repeated")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "PEM file with further certificate authorities")
	c.Flags().IntVar(&f.jobs, "jobs", 8, "connections at a time")
}

type createFlags struct {
	resolveFlags
	key, output, lock, volumeSize string
	reuse                         []string
}

// minVolume is the smallest part of a bundle that anybody can mean, in bytes.
const minVolume = 64 << 10

func createCommand(u *ui) *cobra.Command {
	var f createFlags
	c := &cobra.Command{
		Use:   "create ARCHITECTURE|MANIFEST.yaml --key KEY",
		Short: "Pull what a reference architecture or a manifest names into one signed file",
		Long: `Pull what a reference architecture or a manifest names into one signed file. The
architectures are listed by oob-bundle architectures. Blobs arrive in FILE.partial
and get their name when the file is complete. If a run is interrupted, run the
same command again: it goes on where the first one stopped.`,
		Example: `  oob-bundle create out-of-band --key oob.key
  oob-bundle create ddil --key oob.key --deployment compose --with ollama --platform linux/amd64
  oob-bundle create app.yaml --key oob.key --reuse last-month.oob.tar --volume-size 4GB`,
		Args: needs("ARCHITECTURE|MANIFEST.yaml"),
		RunE: func(c *cobra.Command, args []string) error { return u.create(c, args[0], f) },
	}
	f.add(c)
	c.Flags().StringVar(&f.key, "key", "", "private key that signs (needed)")
	c.Flags().StringVarP(&f.output, "output", "o", "", "file to write (default NAME_VERSION_OS-ARCH.oob.tar)")
	c.Flags().StringVar(&f.lock, "lock", "", "reproduce the bundle of this lock file")
	c.Flags().StringArrayVar(&f.reuse, "reuse", nil, "earlier bundle whose blobs need not be fetched; may be repeated")
	c.Flags().StringVar(&f.volumeSize, "volume-size", "", "write FILE.001, FILE.002 ... of at most so many bytes, such as 4294967295, 4.7GB or 25GB")
	u.jsonFlag(c)
	return c
}

// createJSON is the result of create.
type createJSON struct {
	Bundle bundleJSON        `json:"bundle"`
	File   string            `json:"file"` // the path by which it is opened
	Bytes  int64             `json:"bytes"`
	Images []createImageJSON `json:"images"`
	Lock   string            `json:"lock"`
	// Volumes are the paths of all parts; none for one file.
	Volumes []string `json:"volumes,omitempty"`
}

type createImageJSON struct {
	Reference string        `json:"reference"`
	Digest    bundle.Digest `json:"digest"`
}

func (u *ui) create(c *cobra.Command, manifestPath string, f createFlags) error {
	o, err := f.options(c, manifestPath)
	if err != nil {
		return err
	}
	if f.key == "" {
		return fmt.Errorf("%w: a bundle is always signed; give --key KEY, or make one with oob-bundle key generate", errUsage)
	}
	debug.FreeOSMemory() // what reading the manifest took, before the password takes more
	if o.Signer, err = sign.Load(f.key, u.password(c.Context())); err != nil {
		return err
	}
	debug.FreeOSMemory() // what stretching the password took
	begun := time.Now()
	var p *progress
	o.Warn = u.warn
	o.Resolved = func(g *bundle.Geometry, l *manifests.Lock) bundle.Watch {
		u.note("Resolved %s for %s in %.1f s: %s", contents(l), strings.Join(g.Info.PlatformNames(), ", "), time.Since(begun).Seconds(), human(g.PayloadSize()))
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
		Images: []createImageJSON{}, Lock: r.LockFile, Volumes: r.Volumes,
	}
	for _, i := range r.Lock.Images {
		out.Images = append(out.Images, createImageJSON{i.Reference, i.Digest})
	}
	return u.result(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s   %s bytes\n", out.File, commas(out.Bytes))
		for _, v := range out.Volumes {
			fmt.Fprintf(w, "  volume    %s\n", v)
		}
		out.Bundle.print(w)
		fmt.Fprintf(w, "  signed    %s  (%s)\n", o.Signer.Fingerprint, f.key)
		fmt.Fprintf(w, "  lock      %s\n", out.Lock)
		fmt.Fprintf(w, "On the isolated side: oob-bundle install %s --key %s\n", out.File, strings.TrimSuffix(f.key, ".key")+".pub")
	})
}

// contents says how much of what there is.
func contents(l *manifests.Lock) string {
	var parts []string
	for _, p := range []struct {
		n    int
		name string
	}{{len(l.Images), "image"}, {len(l.Plugins), "plugin"}, {len(l.Charts), "chart"}, {len(l.Files), "file"}} {
		switch {
		case p.n == 1:
			parts = append(parts, "1 "+p.name)
		case p.n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", p.n, p.name))
		}
	}
	return strings.Join(parts, ", ")
}

func (f createFlags) options(c *cobra.Command, manifest string) (create.Options, error) {
	o, err := f.resolveFlags.options(c, manifest)
	if err != nil {
		return o, err
	}
	o.Output, o.Reuse = f.output, f.reuse
	if c.Flags().Changed("output") && (f.output == "" || f.output == "-") {
		return o, fmt.Errorf("%w: -o %q is not a file name; a bundle is written to a file, because its parts arrive in any order", errUsage, f.output)
	}
	if f.volumeSize != "" {
		n, err := humanize.ParseBytes(f.volumeSize)
		if err != nil || n < minVolume || n > 1<<60 {
			return o, fmt.Errorf("%w: --volume-size %q is not a size of at least %s, such as 4GB or 4294967295", errUsage, f.volumeSize, human(minVolume))
		}
		o.VolumeSize = int64(n)
	}
	if f.lock != "" {
		o.Lock, err = manifests.ReadLock(f.lock)
	}
	return o, err
}

func (f resolveFlags) options(c *cobra.Command, manifest string) (create.Options, error) {
	o := create.Options{
		Channel: f.channel, Jobs: f.jobs, Program: buildVersion(), Now: time.Now(), WithoutReferrers: f.withoutReferrers,
		Choice: manifests.Choice{Deployment: f.deployment, With: f.with, Without: f.without, Set: map[string]string{}},
	}
	if f.jobs < 1 || f.jobs > 64 {
		return o, fmt.Errorf("%w: --jobs %d must be between 1 and 64", errUsage, f.jobs)
	}
	for _, s := range f.set {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return o, fmt.Errorf("%w: --set %q is not KEY=VALUE, such as versions.mattermost=11.10.0", errUsage, s)
		}
		o.Choice.Set[key] = value
	}
	for _, h := range f.plainHTTP {
		if strings.Contains(h, "/") {
			return o, fmt.Errorf("%w: --plain-http %q is not HOST[:PORT]", errUsage, h)
		}
	}
	if c.Flags().Changed("sequence") {
		if f.sequence < 0 {
			return o, fmt.Errorf("%w: --sequence %d must not be negative", errUsage, f.sequence)
		}
		o.Sequence = &f.sequence
	}
	for _, s := range f.platforms {
		p, err := bundle.ParsePlatform(s)
		if err != nil {
			return o, fmt.Errorf("%w: --platform: %w", errUsage, err)
		}
		o.Platforms = append(o.Platforms, p)
	}
	mirrors, err := parseMirrors(f.mirrors)
	if err != nil {
		return o, err
	}
	client, err := remote.New(remote.Options{PlainHTTP: f.plainHTTP, CAFile: f.caFile, UserAgent: userAgent(), Connections: f.jobs})
	if err != nil {
		return o, fmt.Errorf("%w: --ca-file: %w", errUsage, err)
	}
	o.Source = &pull.Source{Client: client, Mirrors: mirrors}
	o.Manifest, err = manifests.Open(manifest)
	return o, err
}

func parseMirrors(list []string) (map[string]string, error) {
	mirrors := map[string]string{}
	for _, s := range list {
		from, to, ok := strings.Cut(s, "=")
		host, _, _ := strings.Cut(to, "/")
		if !ok || from == "" || !isHost(host) || strings.Contains(from, "/") || strings.Contains(to, "://") {
			return nil, fmt.Errorf("%w: --mirror %q is not UPSTREAM=HOST[:PORT][/PREFIX], such as docker.io=mirror.example.com:5000/hub", errUsage, s)
		}
		mirrors[from] = to
	}
	return mirrors, nil
}
