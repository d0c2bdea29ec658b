package create

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// job is Options completed from the lock, the defaults and the manifest's own choices.
type job struct {
	Options
	selection *manifests.Selection
	sequence  int64
}

// newJob completes o. Errors wrap manifests.ErrInvalid or ErrMismatch.
func newJob(o Options) (*job, error) {
	j := &job{Options: o}
	if err := j.setDefaults(); err != nil {
		return nil, err
	}
	return j, j.setTime()
}

// resolve resolves the selection. It warns of moved tags, of referrers that are not
// carried, of verifyImages rules that match nothing, and of images that charts name and
// the selection lacks.
func (j *job) resolve(ctx context.Context, dir string) (*pull.Resolved, error) {
	r, err := j.Source.Resolve(ctx, pull.Request{
		Selection: j.selection, Jobs: j.Jobs, Dir: dir, WithoutReferrers: j.WithoutReferrers, Pinned: j.pinned,
	})
	if err != nil {
		return nil, err
	}
	locked := slices.Clone(r.Images)
	for _, c := range r.Charts {
		if c.OCI != nil {
			locked = append(locked, c.OCI)
		}
	}
	for _, i := range locked {
		if i.Moved != "" {
			j.Warn(
				"%s: the lock has %s, and %s; if that is a surprise, compare the lock with the one that was reviewed",
				i.Reference, i.Top.Digest, i.Moved,
			)
		}
	}
	carried := map[string]bool{}
	for _, i := range r.Images {
		carried[i.Reference.Repository()] = true
		j.warnOf(i)
	}
	for _, c := range r.Charts {
		j.warnOf(c.OCI)
	}
	for _, v := range j.selection.VerifyImages {
		if !slices.ContainsFunc(r.Images, func(i *pull.Image) bool { return i.Called(v.Images) }) &&
			!slices.ContainsFunc(r.Charts, func(c *pull.Chart) bool { return c.OCI != nil && c.OCI.Called(v.Images) }) {
			j.Warn("verifyImages asks for signatures on %s, and no image is called that: nothing was checked by it", v.Images)
		}
	}
	for _, c := range r.Charts {
		for _, image := range c.Images {
			ref, err := bundle.ParseReference(image)
			unused := func(p string) bool { return manifests.MatchImages(p, ref.Repository()) }
			if err != nil || carried[ref.Repository()] || slices.ContainsFunc(c.Wanted.UnusedImages, unused) {
				continue
			}
			j.Warn(
				"chart %s %s names the image %s, which is not carried; add it, or name it in unusedImages",
				c.Wanted.Name, c.Wanted.Version, image,
			)
		}
	}
	return r, j.warnUnquoted(r.Files)
}

// warnUnquoted warns of templates that print values without quotes.
func (j *job) warnUnquoted(files []*pull.Blob) error {
	for _, f := range files {
		found, err := j.selection.Host.Unquoted(f.Wanted.Path, f.Text)
		if err != nil {
			return err
		}
		for _, u := range found {
			j.Warn("template %s, line %d: %s is not quoted for this kind of file; "+
				"print it with the function %s (docs/host.md, Quoting)", f.Wanted.Path, u.Line, u.Value, u.Use)
		}
	}
	return nil
}

// warnOf prints the warnings about i: the referrers that are not carried. i may be nil.
func (j *job) warnOf(i *pull.Image) {
	if i == nil {
		return
	}
	for _, w := range i.Warnings {
		j.Warn("%s: %s", i.Reference, w)
	}
}

// setDefaults sets the options that are unset, from the lock if there is one, and
// refuses options that contradict the lock.
func (j *job) setDefaults() error {
	if j.Jobs == 0 {
		j.Jobs = 8
	}
	if j.Warn == nil {
		j.Warn = func(string, ...any) {}
	}
	if j.Lock != nil {
		if err := j.followLock(); err != nil {
			return err
		}
	}
	if len(j.Platforms) == 0 && len(j.Manifest.Platforms) == 0 {
		j.Platforms = []bundle.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	j.Choice.Platforms = j.Platforms
	var err error
	if j.selection, err = j.Manifest.Select(j.Choice); err != nil {
		return err
	}
	j.Platforms = j.selection.Platforms
	if j.Channel == "" {
		parts := []string{j.selection.Name}
		if j.selection.Deployment != "" {
			parts = append(parts, j.selection.Deployment)
		}
		for _, p := range j.Platforms {
			parts = append(parts, p.String())
		}
		j.Channel = strings.Join(parts, "/")
	}
	if j.Output == "" {
		var p []string
		for _, platform := range j.Platforms {
			p = append(p, strings.ReplaceAll(platform.String(), "/", "-"))
		}
		j.Output = fmt.Sprintf("%s_%s_%s.oob.tar", j.selection.Name, j.selection.Version, strings.Join(p, "_"))
	}
	return nil
}

// setTime sets time and sequence. Both come from this run, from flags or from the lock,
// never from the journal of an interrupted run.
func (j *job) setTime() error {
	j.Now = j.Now.UTC().Truncate(time.Second)
	if j.sequence = j.Now.Unix(); j.Sequence != nil {
		j.sequence = *j.Sequence
	}
	if j.sequence > maxSequence {
		return fmt.Errorf(
			"%w: the sequence %d leaves no room for later bundles of the channel; at most %d are used",
			manifests.ErrInvalid, j.sequence, int64(maxSequence),
		)
	}
	if err := j.info().Check(); err != nil {
		return fmt.Errorf("%w: %w", manifests.ErrInvalid, err)
	}
	return nil
}

// maxSequence is the highest sequence that create signs. The format allows more, but a
// host that has installed the highest sequence refuses every later bundle.
const maxSequence = 1 << 62

func (j *job) beginning() beginning {
	return beginning{
		APIVersion: bundle.APIVersion,
		Kind:       "CreateJournal",
		Manifest:   j.Manifest.Digest,
		Program:    j.Program,
		Channel:    j.Channel,
		Platforms:  bundle.Info{Platforms: j.Platforms}.PlatformNames(),
		VolumeSize: j.VolumeSize,
		Choice: bundle.DigestOf(
			fmt.Appendf(nil, "%q", []any{j.Choice.Deployment, j.Choice.With, j.Choice.Without, j.Choice.Set, j.WithoutReferrers, j.Lock != nil}),
		),
	}
}

func (j *job) info() bundle.Info {
	return bundle.Info{
		Name: j.selection.Name, Version: j.selection.Version,
		Channel: j.Channel, Sequence: j.sequence, Created: j.Now, Platforms: j.Platforms,
	}
}
