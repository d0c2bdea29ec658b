package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// view is the data of a template.
type view struct {
	Name, Version, Form string
	Platform, OS, Arch  string // of this release, such as linux/amd64, linux and amd64
	Registry            string // HOST[:PORT][/PREFIX] at which hosts reach the registry
	Data                string // absolute path of the data directory
	Release             string // absolute path of the release
	Current             string // absolute path of the link to the current release
	Values              map[string]string
	Secrets             map[string]string
	Settings            map[string]string // settings of the author
}

// renderer renders the templates of one release.
type renderer struct {
	view
	d        *bundle.Deployment
	g        *bundle.Geometry
	platform bundle.Platform
	plugins  []string // file names of the plugins' keys
	file     func(path string) (string, error)
	depth    int     // nesting depth of included templates
	limits   *limits // shared by all templates of a release
	cluster  bool    // machines of several platforms read the file
	steps    []Step  // of the cluster
	shown    bool    // secrets are replaced by their names
	plain    bool    // secrets are not available: the result is public
}

func (r *renderer) functions() template.FuncMap {
	return template.FuncMap{
		"image":  r.image,
		"digest": func(name string) (string, error) { _, d, err := r.find(name); return string(d), err },
		"repository": func(name string) (string, error) {
			i, _, err := r.find(name)
			return r.Registry + "/" + i.Repository, err
		},
		"tag":   func(name string) (string, error) { i, _, err := r.find(name); return i.Tag, err },
		"chart": r.chart,
		"has": func(component string) bool {
			return slices.ContainsFunc(r.d.Components, func(c bundle.Component) bool { return c.Name == component })
		},
		"plugins":     func() []bundle.Plugin { return r.d.Plugins },
		"pluginKeys":  func() []string { return r.plugins },
		"json":        toJSON,
		"yaml":        toJSON,
		"podEnv":      quoteDoubled,
		"compose":     quoteDoubled,
		"env":         quoteEnv,
		"systemd":     UnitWord,
		"systemdExec": UnitArgument,
		"systemdLine": quoteSystemdLine,
		"nginx":       quoteNginx,
		"shell":       quoteShell,
		"sql":         quoteSQL,
		"urlHost":     urlHost,
		"base":        path.Base,
		"dir":         path.Dir,
		"file":        r.file,
		"fail":        func(why string) (string, error) { return "", fmt.Errorf("%w: %s", ErrValues, why) },
		"environ":     environ,
		"environMap":  environMap,
		"siteFile":    r.siteFile,
		"words":       strings.Fields,
		"steps":       func() []Step { return r.steps },
	}
}

// maxSiteFile limits a file of the site that a template includes, in bytes. Kubernetes objects
// have at most 1 MiB.
const maxSiteFile = 512 << 10

// siteFile returns the content of the file that a value of kind file names, or "" if the site
// has not set the value. The file may be a license or a credential, so text that contains it
// is secret.
func (r *renderer) siteFile(value string) (string, error) {
	switch {
	case r.plain:
		return "", errors.New("siteFile is not allowed here: every user can read the result")
	case !slices.ContainsFunc(r.d.Host.Values, func(v bundle.Value) bool { return v.Name == value && v.Kind == "file" }):
		return "", fmt.Errorf("siteFile: %q is not a value of the kind file", value)
	case r.Values[value] == "":
		return "", nil
	}
	data, err := disk.ReadFile(r.Values[value], maxSiteFile)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrValues, value, err)
	}
	if !utf8.Valid(data) {
		return "", fmt.Errorf("%w: %s: %s is not text", ErrValues, value, r.Values[value])
	}
	if r.shown {
		return "<file " + value + ">", nil
	}
	return string(data), nil
}

// toJSON returns a value as JSON, which is also YAML.
func toJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// environ converts a JSON object of objects to lines PREFIX_SECTION_KEY=value, for programs
// that take their configuration from the environment.
func environ(prefix, document string) (string, error) {
	names, err := environMap(prefix, document)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, name := range sortedKeys(names) {
		fmt.Fprintf(&b, "%s=%s\n", name, names[name])
	}
	return b.String(), nil
}

// environMap is environ with a map as the result. It joins the elements of lists with spaces
// and skips values that are objects.
func environMap(prefix, document string) (map[string]string, error) {
	var sections map[string]map[string]any
	dec := json.NewDecoder(strings.NewReader(document))
	dec.UseNumber()
	if err := dec.Decode(&sections); err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, section := range sortedKeys(sections) {
		for _, key := range sortedKeys(sections[section]) {
			var text string
			switch v := sections[section][key].(type) {
			case nil, map[string]any:
				continue
			case []any:
				words := make([]string, len(v))
				for i, w := range v {
					words[i] = fmt.Sprint(w)
				}
				text = strings.Join(words, " ")
			default:
				text = fmt.Sprint(v)
			}
			names[prefix+"_"+strings.ToUpper(section)+"_"+strings.ToUpper(key)] = text
		}
	}
	return names, nil
}

// image returns the name by which this host runs an image of the bundle, such as
// registry.site:5000/docker.io/library/nginx@sha256:…. name is upstream's name, with or
// without its tag.
func (r *renderer) image(name string) (string, error) {
	i, d, err := r.find(name)
	return r.Registry + "/" + i.Repository + "@" + string(d), err
}

// find returns an image of the bundle and the digest by which machines pull it.
func (r *renderer) find(name string) (bundle.Image, bundle.Digest, error) {
	var found []bundle.Image
	for _, i := range r.d.Images {
		ref, err := bundle.ParseReference(i.Reference)
		if err != nil {
			return bundle.Image{}, "", err
		}
		if i.Reference != name && ref.Repository() != name {
			continue
		}
		if r.named(i) != "" {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return bundle.Image{}, "", fmt.Errorf("the image %s is not in the bundle, or not for %s", name, r.Platform)
	case 1:
		return found[0], r.named(found[0]), nil
	}
	return bundle.Image{}, "", fmt.Errorf("%s is the name of %d images in the bundle; say which, with its tag", name, len(found))
}

// named returns the digest by which the machines that read the file pull an image, or "" if
// they cannot run the image. On this host it is the manifest for the host's platform. In a
// cluster it is an index, from which each machine selects its manifest.
func (r *renderer) named(i bundle.Image) bundle.Digest {
	pinned := r.pinned(i)
	if !r.cluster || pinned == "" {
		return pinned
	}
	if d, _, ok := r.g.CarriedIndex(i); ok {
		return d.Digest
	}
	return i.Manifests[0]
}

// pinned returns the digest of the runnable manifest for this platform, or "". If several
// variants run, it returns the nearest.
func (r *renderer) pinned(i bundle.Image) bundle.Digest {
	var candidates []bundle.Descriptor
	for _, d := range r.g.Index.Manifests {
		if slices.Contains(i.Manifests, d.Digest) && d.Annotations[bundle.AnnotationRef] == i.Reference {
			candidates = append(candidates, d)
		}
	}
	var nearest bundle.Digest
	least := math.MaxInt
	seen := map[bundle.Digest]bool{}
	for n := 0; n < len(candidates); n++ { // follow each index once
		d := candidates[n]
		m := r.g.Manifests[d.Digest]
		if m == nil || m.Config == nil && seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		if m.Config == nil {
			candidates = append(candidates, m.Manifests...)
			continue
		}
		distance, runs := 0, d.Platform == nil
		if !runs {
			distance, runs = r.platform.Runs(*d.Platform)
		}
		if runs && m.Runnable() && distance < least {
			nearest, least = d.Digest, distance
		}
	}
	return nearest
}

// chart returns the name, the version and the site's reference of a chart.
func (r *renderer) chart(name string) (map[string]string, error) {
	for _, c := range r.d.Charts {
		if c.Name != name {
			continue
		}
		for _, i := range r.d.Images {
			if i.Reference == c.Reference {
				return map[string]string{"Name": c.Name, "Version": c.Version, "Reference": "oci://" + r.Registry + "/" + i.Repository}, nil
			}
		}
	}
	return nil, fmt.Errorf("the chart %s is not in the bundle", name)
}

// siteImages replaces, in YAML documents, each scalar that names an image of the bundle by the
// image's name on the site. It changes nothing else. If the bundle has only one tag of a
// repository, that image replaces every tag: upstream documents often use latest. foreign
// contains the images that are not in the bundle.
func (r *renderer) siteImages(name string, data []byte) (out []byte, foreign []string, err error) {
	names, err := r.siteNames()
	if err != nil {
		return nil, nil, err
	}
	f := imageFinder{names: names, own: r.Registry + "/", lines: splitLines(string(data))}
	dec, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", bundle.ErrFormat, name, err)
	}
	for {
		var doc yaml.Node
		err := dec.Load(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %s: %w", bundle.ErrFormat, name, err)
		}
		f.visit(&doc, "")
	}
	for _, x := range slices.Backward(f.found) { // from the end: a replacement moves only the text after it
		n := x.node
		line, ok := replaceAt(f.lines[n.Line-1], n.Column, n.Value, x.site)
		if !ok {
			return nil, nil, fmt.Errorf(
				"%w: %s, line %d: the image %s has to stand there as it is, in one line",
				bundle.ErrFormat, name, n.Line, n.Value,
			)
		}
		f.lines[n.Line-1] = line
	}
	return []byte(strings.Join(f.lines, "")), f.foreign, nil
}

// siteNames maps image references to names on the site. It also maps each repository of which
// the bundle has only one tag.
func (r *renderer) siteNames() (map[string]string, error) {
	names, tags := map[string]string{}, map[string]int{}
	for _, i := range r.d.Images {
		ref, err := bundle.ParseReference(i.Reference)
		if err != nil {
			return nil, err
		}
		if d := r.named(i); d != "" {
			site := r.Registry + "/" + i.Repository + "@" + string(d)
			names[i.Reference], names[ref.Repository()] = site, site
			tags[ref.Repository()]++
		}
	}
	for repository, n := range tags {
		if n > 1 {
			delete(names, repository)
		}
	}
	return names, nil
}

// imageFinder finds images in YAML documents.
type imageFinder struct {
	names   map[string]string // result of siteNames
	own     string            // prefix of images in the site's registry
	lines   []string
	found   []replacement // in the order of the documents
	foreign []string      // images that are not in the bundle
}

// replacement is a scalar to replace and its new text.
type replacement struct {
	node *yaml.Node
	site string
}

// visit examines a node below a key, and the node's children.
func (f *imageFinder) visit(n *yaml.Node, key string) {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			key = n.Content[i-1].Value
		}
		f.visit(c, key)
	}
	inText := n.Kind == yaml.ScalarNode && n.Line >= 1 && n.Line <= len(f.lines)
	if !inText || !strings.ContainsAny(n.Value, ":@") || strings.ContainsAny(n.Value, " \n") {
		return
	}
	ref, err := bundle.ParseReference(n.Value)
	if err != nil {
		return
	}
	site, ok := f.names[ref.String()]
	if !ok {
		site, ok = f.names[ref.Repository()]
	}
	if ok {
		f.found = append(f.found, replacement{n, site})
	} else if key == "image" && !strings.HasPrefix(n.Value, f.own) {
		f.foreign = append(f.foreign, n.Value)
	}
}

// lineBreak matches the line breaks that the YAML library counts (YAML 1.1, 4.2).
var lineBreak = regexp.MustCompile(`\r\n|[\n\r\x{85}\x{2028}\x{2029}]`)

// splitLines splits a text after every line break.
func splitLines(text string) (lines []string) {
	at := 0
	for _, m := range lineBreak.FindAllStringIndex(text, -1) {
		lines, at = append(lines, text[at:m[1]]), m[1]
	}
	return append(lines, text[at:])
}

// replaceAt replaces a scalar that starts at a column of a line. The scalar may have quotes or
// a tag. column counts characters from 1.
func replaceAt(line string, column int, old, new string) (string, bool) {
	at := 0
	for range column - 1 {
		_, n := utf8.DecodeRuneInString(line[at:])
		at += n
	}
	before, after, ok := strings.Cut(line[at:], old)
	if !ok {
		return line, false
	}
	return line[:at] + before + new + after, true
}
