package pull

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/manifests"
)

const (
	// maxChart bounds a chart's archive, in bytes: the archive is held in memory.
	maxChart = 16 << 20
	// maxChartUnpacked bounds the unpacked size of a chart and all charts in it, in bytes.
	maxChartUnpacked = 64 << 20
	// maxChartParsed bounds the YAML documents of a chart and all charts in it, in bytes.
	// Parsed, they take fifty times as much memory.
	maxChartParsed = 2 << 20
	// maxChartDepth bounds how deep charts are packed into each other.
	maxChartDepth = 4
	// maxChartImages bounds the images that are reported for one chart.
	maxChartImages = 1000
)

// Media types of Helm's charts in registries (helm.sh/docs/topics/registries).
const (
	TypeChartConfig  = "application/vnd.cncf.helm.config.v1+json"
	TypeChartContent = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	// typeOldContent is the type that Helm before 3.7 pushed; later versions still pull it.
	typeOldContent = "application/tar+gzip"
)

// Chart is a chart that was fetched and inspected.
type Chart struct {
	Wanted    manifests.WantedChart
	Reference bundle.Reference // under which Helm pulls it from the site's registry
	Content   bundle.Descriptor
	Archive   []byte   // the .tgz; nil for a chart from a registry
	Config    []byte   // Helm's config document; nil for a chart from a registry
	Images    []string // images found in its values and templates; may be incomplete
	Check     string   // the check that it passed, for the lock
	OCI       *Image   // the upstream artifact; nil for a chart that is not from a registry
}

// chartReference returns the name of a chart on the site: the name of its repository,
// the chart's name, and its version as the tag. Like Helm, it replaces + with _ in tags.
func chartReference(w manifests.WantedChart) (bundle.Reference, error) {
	u, err := url.Parse(w.Repository)
	if err != nil || u.Host == "" {
		return bundle.Reference{}, fmt.Errorf("%w: %q is not a repository's URL", manifests.ErrInvalid, w.Repository)
	}
	if !isHost(u.Host) {
		return bundle.Reference{}, fmt.Errorf(
			"%w: write the host of %s with a dot or a port; without one it would be taken for a name on Docker Hub",
			manifests.ErrInvalid, w.Repository,
		)
	}
	r, err := bundle.ParseReference(strings.ToLower(u.Host) + path.Join("/", u.Path, w.Name) + ":" + strings.ReplaceAll(w.Version, "+", "_"))
	if err != nil {
		return r, fmt.Errorf("%w: chart %s: %w", manifests.ErrInvalid, w.Name, err)
	}
	return r, nil
}

// isHost reports whether the first part of a reference is a host, by Docker's rule.
func isHost(s string) bool { return strings.ContainsAny(s, ".:") || s == "localhost" }

func (s *Source) chart(ctx context.Context, w manifests.WantedChart, r Request) (*Chart, error) {
	ref, err := chartReference(w)
	if err != nil {
		return nil, err
	}
	c := &Chart{Wanted: w, Reference: ref, Check: "digest of the registry's manifest"}
	var archive []byte
	if strings.HasPrefix(w.Repository, "oci://") {
		archive, err = s.fromRegistry(ctx, c, ref, r)
	} else {
		archive, err = s.fromRepository(ctx, c, r)
	}
	if err != nil {
		return nil, err
	}
	if w.SHA256 != "" {
		if got := bundle.DigestOf(archive).Hex(); got != w.SHA256 {
			return nil, fmt.Errorf("%w: it has the sha256 %s, and the manifest says %s", bundle.ErrDigest, got, w.SHA256)
		}
		c.Check = checkPinned
	}
	loaded, err := loadChart(ctx, archive)
	if err != nil {
		return nil, err
	}
	if loaded.Metadata.Name != w.Name || loaded.Metadata.Version != w.Version {
		return nil, fmt.Errorf("%w: its Chart.yaml says %s %s", bundle.ErrFormat, loaded.Metadata.Name, loaded.Metadata.Version)
	}
	if err := checkDependencies(loaded); err != nil {
		return nil, err
	}
	c.Content = bundle.Descriptor{MediaType: TypeChartContent, Digest: bundle.DigestOf(archive), Size: int64(len(archive))}
	if c.OCI == nil {
		c.Archive = archive
		if c.Config, err = json.Marshal(loaded.Metadata); err != nil {
			return nil, err
		}
	}
	c.Images = chartImages(loaded, w.Values)
	return c, nil
}

// fromRegistry fetches a chart that is an OCI artifact, and returns its archive.
func (s *Source) fromRegistry(ctx context.Context, c *Chart, from bundle.Reference, r Request) ([]byte, error) {
	var err error
	if c.OCI, err = s.imageAt(ctx, from, c.Reference, r); err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(c.OCI.Top, c.OCI.Documents[c.OCI.Top.Digest])
	if err != nil {
		return nil, err
	}
	if m.Config == nil || m.Config.MediaType != TypeChartConfig {
		return nil, fmt.Errorf("%w: %s is not a Helm chart", bundle.ErrFormat, from)
	}
	i := slices.IndexFunc(m.Layers, func(d bundle.Descriptor) bool {
		return d.MediaType == TypeChartContent || d.MediaType == typeOldContent
	})
	if i < 0 {
		return nil, fmt.Errorf("%w: %s has no layer of a type that Helm pulls, such as %s; push it again with Helm 3.8 or newer",
			bundle.ErrFormat, from, TypeChartContent)
	}
	return c.OCI.small(ctx, m.Layers[i], maxChart)
}

// checkDependencies refuses a chart that Helm would not install because a dependency is
// missing from its charts/. Helm also requires dependencies whose condition is false.
func checkDependencies(c *chart.Chart) error {
	var missing []string
	for _, d := range c.Metadata.Dependencies {
		there := slices.ContainsFunc(c.Dependencies(), func(sub *chart.Chart) bool { return sub.Name() == d.Name })
		if !there {
			missing = append(missing, fmt.Sprintf("%s %s of %s", d.Name, d.Version, cmp.Or(d.Repository, "an unnamed repository")))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: it depends on charts that are not in its charts/ directory: %s; Helm could not install it: "+
		"run helm dependency update on its source, package it again, and carry that chart", bundle.ErrPolicy, strings.Join(missing, ", "))
}

// chartImages returns the images that a chart names: those in its values, merged with
// set, in the forms that charts commonly use, and those written literally in its
// templates. Names that templates compute are not found.
func chartImages(c *chart.Chart, set map[string]any) []string {
	var list []string
	seen := map[string]bool{}
	add := func(ref string) {
		if len(list) == maxChartImages {
			return
		}
		if r, err := bundle.ParseReference(ref); err == nil && !seen[r.String()] {
			seen[r.String()] = true
			list = append(list, r.String())
		}
	}
	values := merge(c.Values, set)
	valueImages(values, c.Metadata.AppVersion, add)
	for _, t := range c.Templates {
		for _, line := range strings.Split(string(t.Data), "\n") {
			rest, ok := strings.CutPrefix(strings.TrimLeft(strings.TrimSpace(line), "- "), "image:")
			if ref := strings.Trim(strings.TrimSpace(rest), `"'`); ok && ref != "" && !strings.ContainsAny(ref, "{} $") {
				add(ref)
			}
		}
	}
	for _, sub := range c.Dependencies() {
		inner, _ := values[sub.Name()].(map[string]any)
		for _, ref := range chartImages(sub, inner) {
			add(ref)
		}
	}
	slices.Sort(list)
	return list
}

// merge returns the values of under, overridden by those of over, as Helm does.
func merge(under, over map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range under {
		out[k] = v
	}
	for k, v := range over {
		a, okA := out[k].(map[string]any)
		b, okB := v.(map[string]any)
		if okA && okB {
			v = merge(a, b)
		}
		out[k] = v
	}
	return out
}

// valueImages finds images in values: maps with repository (or image) and tag, and
// optionally registry, and strings with the key image that are references.
func valueImages(values map[string]any, appVersion string, add func(string)) {
	if ref := mapImage(values, appVersion); ref != "" {
		add(ref)
	}
	_, hasTag := values["tag"]
	for key, v := range values {
		switch v := v.(type) {
		case map[string]any:
			valueImages(v, appVersion, add)
		case []any:
			for _, x := range v {
				if m, ok := x.(map[string]any); ok {
					valueImages(m, appVersion, add)
				}
			}
		case string:
			if strings.EqualFold(key, "image") && !hasTag && strings.ContainsAny(v, ":/") && !strings.ContainsAny(v, "{} ") {
				add(v)
			}
		}
	}
}

// mapImage returns the image that a map of values names, or "".
func mapImage(values map[string]any, appVersion string) string {
	text := func(key string) string {
		switch v := values[key].(type) {
		case string:
			return v
		case float64, int, int64:
			return fmt.Sprint(v)
		}
		return ""
	}
	repository := text("repository")
	_, hasTag := values["tag"]
	if repository == "" && hasTag {
		repository = text("image")
	}
	if repository == "" || strings.Contains(repository, "://") || !hasTag && text("pullPolicy") == "" {
		return ""
	}
	ref := repository
	if r := text("registry"); r != "" {
		ref = r + "/" + ref
	}
	if tag := cmp.Or(text("tag"), appVersion); tag != "" {
		ref += ":" + tag
	}
	return ref
}
