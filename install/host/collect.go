package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// collect lists the release's files and renders the templates.
func (r *Release) collect() error {
	d := r.bundle.Deployment
	render := &renderer{
		view: view{
			Name: d.Name, Version: d.Version, Form: d.Form, Platform: r.platform.String(), OS: r.platform.OS, Arch: r.platform.Architecture,
			Registry: r.site.Registry, Data: r.data, Release: r.Dir, Current: filepath.Join(r.base, "current"),
			Values: r.values, Secrets: r.secrets, Settings: d.Settings,
		},
		d: d, g: r.bundle.Geometry, platform: r.platform, limits: newLimits(),
	}
	render.file = func(p string) (string, error) { return r.included(render, p) }
	public := render.public()
	public.file = func(p string) (string, error) { return r.included(public, p) }
	if err := r.addPlugins(public); err != nil {
		return err
	}
	render.plugins = public.plugins
	if err := r.collectCluster(public); err != nil {
		return err
	}
	render.steps = r.cluster
	var err error
	if r.health, err = r.healthURLs(public); err != nil {
		return err
	}
	runtimes, err := mirrors(d.Images, r.site.Registry, r.plain)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(runtimes) {
		r.files = append(r.files, file{path: name, mode: 0o644, data: runtimes[name]})
	}
	var problems []error
	for _, f := range d.Files {
		if f.Platform != "" && f.Platform != r.platform.String() {
			continue
		}
		out, err := r.render(render, f)
		problems = append(problems, err)
		r.files = append(r.files, out)
	}
	return errors.Join(append(problems, r.checkNames())...)
}

// render returns a file of the bundle in the form that the release contains.
func (r *Release) render(render *renderer, f bundle.HostFile) (out file, err error) {
	mode, err := strconv.ParseUint(f.Mode, 8, 32)
	if err != nil {
		return out, fmt.Errorf("%w: mode %q", bundle.ErrFormat, f.Mode)
	}
	out = file{path: f.Path, mode: fs.FileMode(mode), blob: bundle.Descriptor{Digest: f.Digest, Size: f.Size}, as: f.As, strip: f.Strip}
	if f.As != bundle.AsTemplate && f.As != bundle.AsImages {
		return out, nil
	}
	text, err := r.bundle.ReadBlob(out.blob, bundle.MaxTemplate)
	if err != nil {
		return out, err
	}
	render.cluster = r.bundle.Deployment.Form == "kubernetes" || f.As == bundle.AsImages || kubernetesObject.Match(text)
	if f.As == bundle.AsTemplate {
		out.data, out.shown, out.secret, err = r.ownText(render, f.Path, string(text))
	} else {
		var foreign []string
		out.data, foreign, err = render.siteImages(f.Path, text)
		for _, image := range foreign {
			r.Notes = append(r.Notes, fmt.Sprintf("%s names the image %s, which is not in the bundle", f.Path, image))
		}
	}
	if out.data == nil {
		out.data = []byte{}
	}
	if out.secret {
		out.mode &= 0o600
	}
	return out, err
}

// checkNames refuses duplicate paths, invalid paths, and paths that this program uses itself.
func (r *Release) checkNames() error {
	var problems []error
	seen := map[string]bool{}
	for _, f := range r.files {
		if err := bundle.CheckPath(f.path); err != nil { // the path may contain a value of the site
			problems = append(problems, fmt.Errorf("%w: %w", ErrValues, err))
		}
		if low := strings.ToLower(f.path); seen[low] || strings.HasPrefix(low, ".") || low == bundle.ReleaseFile {
			problems = append(problems, fmt.Errorf("%w: %q is a name that this program uses itself", bundle.ErrFormat, f.path))
		} else {
			seen[low] = true
		}
	}
	return errors.Join(problems...)
}

// kubernetesObject matches the apiVersion and kind of every Kubernetes object. A Compose file
// has neither.
var kubernetesObject = regexp.MustCompile(`(?m)^apiVersion:[^\n]*$(?s:.*)^kind:|^kind:[^\n]*$(?s:.*)^apiVersion:`)

// maxIncluded limits how deep templates may include each other.
const maxIncluded = 4

// included returns the rendered text of another template of the bundle.
func (r *Release) included(render *renderer, p string) (string, error) {
	if render.depth == maxIncluded {
		return "", errors.New("templates that include each other")
	}
	for _, f := range r.bundle.Deployment.Files {
		if f.Path != p || f.As != bundle.AsTemplate {
			continue
		}
		text, err := r.bundle.ReadBlob(bundle.Descriptor{Digest: f.Digest, Size: f.Size}, bundle.MaxTemplate)
		if err != nil {
			return "", err
		}
		render.depth++
		out, err := render.render(p, string(text))
		render.depth--
		return string(out), err
	}
	return "", fmt.Errorf("the template %s is not in the bundle", p)
}

func (r *Release) addPlugins(render *renderer) error {
	dir := "plugins"
	if r.host.Plugins != "" {
		text, err := render.render("the directory of plugins", r.host.Plugins)
		if err != nil {
			return err
		}
		dir = string(text)
		if !fs.ValidPath(dir) {
			return fmt.Errorf("%w: plugins are to be in %q", bundle.ErrFormat, dir)
		}
	}
	for _, p := range r.bundle.Deployment.Plugins {
		m := r.bundle.Manifests[p.Manifest]
		for _, l := range m.Layers {
			f := file{path: path.Join(dir, p.Name), mode: 0o644, blob: l}
			switch l.MediaType {
			case bundle.TypePluginSignature:
				f.path += ".sig"
			case bundle.TypePluginKey:
				name := "plugin-" + l.Digest.Short() + ".asc"
				f.path = "plugin-keys/" + name
				if slices.Contains(render.plugins, name) {
					continue
				}
				render.plugins = append(render.plugins, name)
			}
			r.files = append(r.files, f)
		}
	}
	return nil
}

// public returns a renderer without the passwords. Its results are addresses and directory
// names, which are not secret.
func (r *renderer) public() *renderer {
	p := *r
	p.Secrets, p.plain = nil, true
	return &p
}

// healthURLs renders the addresses that answer when the deployment is healthy.
func (r *Release) healthURLs(render *renderer) ([]string, error) {
	var urls []string
	for _, h := range r.host.Health {
		text, err := render.render("health", h)
		if err != nil {
			return nil, err
		}
		urls = append(urls, string(text))
	}
	return urls, nil
}
