package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/diff"
	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/verify"
)

// Site is where, and for whom, a deployment is laid out.
type Site struct {
	Root string // as in install.Options
	// HostRoot is the directory whose etc/ gets links; "" for none at all.
	HostRoot  string
	Registry  string // the target's address
	PlainHTTP bool   // the registry speaks no TLS
	// Start says that the release is going to be started here.
	Start bool
	// Values are the site's; nil stands for those of the current release.
	Values map[string]string
}

// Release is a deployment as it will stand on this host.
type Release struct {
	ID    string
	Name  string
	Dir   string // absolute: NAME/releases/ID
	Notes []string

	bundle   *verify.Verified
	host     *bundle.Host
	site     Site
	base     string // absolute: ROOT/deployments/NAME
	data     string // absolute
	values   map[string]string
	platform bundle.Platform
	secrets  secrets
	files    []file
}

// file is one of a release before it is written.
type file struct {
	path  string // relative, slashes
	mode  fs.FileMode
	data  []byte            // what it consists of, if that is at hand
	blob  bundle.Descriptor // of the bundle, otherwise
	strip int               // of an archive
	as    string            // AsArchive, or anything else
}

// Base returns the directory of a deployment.
func Base(root, name string) string { return filepath.Join(root, "deployments", name) }

// New decides what a release consists of and writes nothing. The error holds
// every problem that was found; they wrap ErrValues, bundle.ErrFormat,
// bundle.ErrPolicy or the file system's.
func New(v *verify.Verified, site Site) (*Release, error) {
	root, err := filepath.Abs(site.Root)
	if err != nil {
		return nil, err
	}
	site.Root = root
	d := v.Deployment
	r := &Release{Name: d.Name, bundle: v, host: d.Host, site: site, base: Base(root, d.Name)}
	if r.host == nil {
		r.host = &bundle.Host{}
	}
	own := *r.host
	r.host = &own
	given := site.Values
	if given == nil {
		if given, err = r.earlierValues(); err != nil {
			return nil, err
		}
	}
	var problems []string
	r.values, problems = complete(r.host.Values, given)
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w:\n  %s\noob-bundle values BUNDLE writes what there is to fill in; give it with --values", ErrValues, strings.Join(problems, "\n  "))
	}
	r.data = r.values[valueData]
	if r.data == "" {
		r.data = filepath.Join(r.base, "data")
	}
	if a := r.values[valueRegistry]; a != "" {
		r.site.Registry = a
	}
	r.host.Links = nil
	if d.Host != nil {
		for _, l := range d.Host.Links {
			if l.If == "" || r.values[l.If] == "true" {
				r.host.Links = append(r.host.Links, l)
			}
		}
	}
	r.platform = hostPlatform(v.Info.Platforms)
	r.ID = r.id()
	r.Dir = filepath.Join(r.base, "releases", r.ID)
	old, err := readSecrets(r.base)
	if err != nil {
		return nil, err
	}
	if len(old) == 0 && len(r.host.Secrets) > 0 {
		if before, err := Current(root, r.Name); err != nil || before != "" {
			return nil, errors.Join(err, fmt.Errorf("%w: %s is gone, and release %s was made with it; put it back from a backup, or uninstall first", ErrValues, secretsPath(r.base), before))
		}
	}
	if r.secrets, err = old.add(r.host.Secrets); err != nil {
		return nil, err
	}
	if err := r.collect(); err != nil {
		return nil, err
	}
	return r, errors.Join(r.checkPostgres(), r.checkStart())
}

// checkStart looks whether this host can run the release: its platform, and the
// ports of a first one.
func (r *Release) checkStart() error {
	if !r.site.Start {
		return nil
	}
	var problems []error
	if own := (bundle.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}); !r.platform.Matches(own) {
		problems = append(problems, fmt.Errorf("%w: it carries %s, and this host is %s", bundle.ErrPolicy, strings.Join(r.bundle.Info.PlatformNames(), ", "), own))
	}
	if current, err := Current(r.site.Root, r.Name); err != nil || current != "" {
		return errors.Join(append(problems, err)...) // its ports are its own
	}
	for _, v := range r.host.Values {
		port := r.values[v.Name]
		if v.Kind != "port" || !slices.ContainsFunc(r.files, func(f file) bool {
			return f.path == "compose.yaml" && (bytes.Contains(f.data, []byte(`"`+port+":")) || bytes.Contains(f.data, []byte(":"+port+":")))
		}) {
			continue
		}
		l, err := net.Listen("tcp", ":"+port) //nolint:noctx // nothing is waited for
		if errors.Is(err, syscall.EADDRINUSE) {
			problems = append(problems, fmt.Errorf("%w: %s: something on this host listens on port %s already; stop it, or choose another port", ErrValues, v.Name, port))
		}
		if err == nil {
			problems = append(problems, l.Close())
		}
	}
	return errors.Join(problems...)
}

// hostPlatform chooses the platform for this machine: its own if it is carried,
// else the first.
func hostPlatform(carried []bundle.Platform) bundle.Platform {
	own := bundle.Platform{OS: "linux", Architecture: runtime.GOARCH}
	for _, p := range carried {
		if p.Matches(own) {
			return p
		}
	}
	return carried[0]
}

// id is a hash of everything that a release depends on.
func (r *Release) id() string {
	data, err := bundle.Encode(struct {
		Identity bundle.Digest     `json:"identity"`
		Values   map[string]string `json:"values"`
		Registry string            `json:"registry"`
		Plain    bool              `json:"plainHTTP"`
	}{r.bundle.Identity, r.values, r.site.Registry, r.site.PlainHTTP})
	if err != nil {
		panic(err) // texts only
	}
	return bundle.DigestOf(data).Short()
}

func (r *Release) earlierValues() (map[string]string, error) {
	id, err := Current(r.site.Root, r.Name)
	if err != nil || id == "" {
		return map[string]string{}, err
	}
	about, err := ReadRelease(r.site.Root, r.Name, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the values of release %s are lost with its %s; give them with --values", ErrValues, id, releaseFile)
	}
	if err != nil {
		return nil, err
	}
	// A newer bundle may ask for less.
	for name := range about.Values {
		if !slices.ContainsFunc(r.host.Values, func(v bundle.Value) bool { return v.Name == name }) {
			delete(about.Values, name)
		}
	}
	return about.Values, nil
}

// collect lists the files and renders those that are templates.
func (r *Release) collect() error {
	d := r.bundle.Deployment
	render := &renderer{
		view: view{
			Name: d.Name, Version: d.Version, Form: d.Form, Platform: r.platform.String(), OS: r.platform.OS, Arch: r.platform.Architecture,
			Registry: r.site.Registry, Data: r.data, Release: r.Dir, Current: filepath.Join(r.base, "current"),
			Values: r.values, Secrets: r.secrets, Settings: d.Settings,
		},
		d: d, g: r.bundle.Geometry, platform: r.platform,
	}
	render.file = func(p string) (string, error) { return r.included(render, p) }
	if err := r.addPlugins(render); err != nil {
		return err
	}
	runtimes, err := mirrors(d.Images, r.site.Registry, r.site.PlainHTTP)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(runtimes) {
		r.files = append(r.files, file{path: name, mode: 0o644, data: runtimes[name]})
	}
	var problems []error
	for _, f := range d.Files {
		mode, err := strconv.ParseUint(f.Mode, 8, 32)
		if err != nil {
			return fmt.Errorf("%w: mode %q", bundle.ErrFormat, f.Mode)
		}
		if f.Platform != "" && f.Platform != r.platform.String() {
			continue
		}
		out := file{path: f.Path, mode: fs.FileMode(mode), blob: bundle.Descriptor{Digest: f.Digest, Size: f.Size}, as: f.As, strip: f.Strip}
		if f.As == bundle.AsTemplate || f.As == bundle.AsImages {
			text, err := r.bundle.ReadBlob(out.blob, bundle.MaxTemplate)
			if err == nil && f.As == bundle.AsTemplate {
				out.data, err = render.render(f.Path, string(text))
			} else if err == nil {
				var foreign []string
				out.data, foreign, err = render.siteImages(f.Path, text)
				for _, image := range foreign {
					r.Notes = append(r.Notes, fmt.Sprintf("%s names the image %s, which is not in the bundle", f.Path, image))
				}
			}
			if err != nil {
				problems = append(problems, err)
			}
			if out.data == nil {
				out.data = []byte{}
			}
			if r.secrets.in(out.data) {
				out.mode &= 0o600
			}
		}
		r.files = append(r.files, out)
	}
	seen := map[string]bool{}
	for _, f := range r.files {
		if low := strings.ToLower(f.path); seen[low] || strings.HasPrefix(low, ".") || low == releaseFile {
			problems = append(problems, fmt.Errorf("%w: %q is a name that this program uses itself", bundle.ErrFormat, f.path))
		} else {
			seen[low] = true
		}
	}
	return errors.Join(problems...)
}

// maxIncluded bounds how deep templates may include each other.
const maxIncluded = 4

// included returns what comes of another template of the bundle.
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

// health fills in the addresses to ask whether all is well.
func (r *Release) health() ([]string, error) {
	render := &renderer{view: view{Name: r.Name, Values: r.values, Data: r.data}, file: func(string) (string, error) { return "", errors.New("not here") }, d: r.bundle.Deployment, g: r.bundle.Geometry, platform: r.platform}
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

// Size is how many bytes the release takes, archives as they are carried.
func (r *Release) Size() int64 {
	total := int64(0)
	for _, f := range r.files {
		total += max(int64(len(f.data)), f.blob.Size)
	}
	return total
}

// Change is what becomes of one file.
type Change struct {
	Path string `json:"path"` // absolute
	What string `json:"what"` // new, changed, same, removed
	Diff string `json:"diff,omitempty"`
}

// Changes compares the release with the one that is current. Archives are not
// opened: one is the same if the bundle carries the same.
func (r *Release) Changes() ([]Change, error) {
	before := map[string]File{}
	dir := ""
	if id, err := Current(r.site.Root, r.Name); err != nil {
		return nil, err
	} else if id != "" {
		about, err := ReadRelease(r.site.Root, r.Name, id)
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(r.base, "releases", id)
		for _, f := range about.Files {
			before[f.Path] = f
		}
		for _, a := range about.Archives {
			before[a.Path+"/"] = a
		}
	}
	var list []Change
	for _, f := range r.files {
		c := Change{Path: filepath.Join(r.Dir, filepath.FromSlash(f.path)), What: "new"}
		key, digest := f.path, f.blob.Digest
		if f.data != nil {
			digest = bundle.DigestOf(f.data)
		}
		if f.as == bundle.AsArchive {
			key += "/"
		}
		if old, ok := before[key]; ok {
			c.What = "same"
			if old.SHA256 != digest {
				c.What = "changed"
				var err error
				if c.Diff, err = r.diff(dir, f); err != nil {
					return nil, err
				}
			}
		}
		delete(before, key)
		list = append(list, c)
	}
	for _, key := range sortedKeys(before) {
		if f := before[key]; f.Archive == "" { // what an archive brought goes with it
			list = append(list, Change{Path: filepath.Join(dir, filepath.FromSlash(key)), What: "removed"})
		}
	}
	return list, nil
}

// maxDiff bounds what is compared line by line, in bytes.
const maxDiff = 256 << 10

func (r *Release) diff(dir string, f file) (string, error) {
	if f.data == nil && f.blob.Size > maxDiff || f.as == bundle.AsArchive {
		return "", nil
	}
	text := f.data
	if text == nil {
		var err error
		if text, err = r.bundle.ReadBlob(f.blob, maxDiff); err != nil {
			return "", err
		}
	}
	old, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.path)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if bytes.IndexByte(old, 0) >= 0 || bytes.IndexByte(text, 0) >= 0 || len(old) > maxDiff || len(text) > maxDiff {
		return "", nil
	}
	hidden := func(b []byte) []byte { return []byte(r.secrets.hide(string(b))) }
	return string(diff.Diff("installed/"+f.path, hidden(old), "bundle/"+f.path, hidden(text))), nil
}

// content opens what a file consists of.
func (r *Release) content(f file) (io.Reader, error) {
	if f.data != nil {
		return bytes.NewReader(f.data), nil
	}
	m, ok := r.bundle.Place(f.blob.Digest)
	if !ok {
		return nil, fmt.Errorf("%w: blob %s is not in the bundle", bundle.ErrFormat, f.blob.Digest)
	}
	return r.bundle.Content(m), nil
}

// Services lists what the release runs: the services of its compose file, or the
// units that it links.
func (r *Release) Services() []string {
	list := []string{}
	for _, f := range r.files {
		if f.path != "compose.yaml" || f.data == nil {
			continue
		}
		var doc struct {
			Services map[string]any `yaml:"services"`
		}
		if err := yaml.Load(f.data, &doc); err == nil {
			list = append(list, sortedKeys(doc.Services)...)
		}
	}
	for _, l := range r.host.Links {
		if strings.HasSuffix(l.Path, ".service") || strings.HasSuffix(l.Path, ".container") {
			list = append(list, path.Base(l.Path))
		}
	}
	return list
}
