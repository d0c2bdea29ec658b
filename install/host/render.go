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

// view is what a template sees.
type view struct {
	Name, Version, Form string
	Platform, OS, Arch  string // of this release: linux/amd64, linux, amd64
	Registry            string // HOST[:PORT][/PREFIX] under which hosts reach the registry
	Data                string // absolute path of the data directory
	Release             string // absolute path of the release
	Current             string // absolute path that leads to whatever release is current
	Values              map[string]string
	Secrets             map[string]string
	Settings            map[string]string // the author's
}

// renderer fills in templates of one release.
type renderer struct {
	view
	d        *bundle.Deployment
	g        *bundle.Geometry
	platform bundle.Platform
	plugins  []string // file names of plugins' keys
	file     func(path string) (string, error)
	depth    int     // of templates that include others
	limits   *limits // shared by all templates of a release
	cluster  bool    // the file is for machines of several platforms
	steps    []Step  // of the cluster
	shown    bool    // what is secret is replaced by its name
	plain    bool    // nothing secret may be asked for: everybody may see the result
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

// maxSiteFile bounds a file of the site that a template includes, in bytes: the objects of
// Kubernetes have 1 MiB at most.
const maxSiteFile = 512 << 10

// siteFile returns the content of the file that a value of kind file names, or "" if the site
// has not given one. It may be a licence or a login, so what has it in it is secret.
func (r *renderer) siteFile(value string) (string, error) {
	switch {
	case r.plain:
		return "", errors.New("siteFile: everybody may see this text")
	case !slices.ContainsFunc(r.d.Host.Values, func(v bundle.Value) bool { return v.Name == value && v.Kind == "file" }):
		return "", fmt.Errorf("siteFile: %q is not a value of the kind file", value)
	case r.Values[value] == "":
		return "", nil
	case r.shown:
		return "<file " + value + ">", nil
	}
	data, err := disk.ReadFile(r.Values[value], maxSiteFile)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrValues, value, err)
	}
	if !utf8.Valid(data) {
		return "", fmt.Errorf("%w: %s: %s is not text", ErrValues, value, r.Values[value])
	}
	return string(data), nil
}

// toJSON quotes a value; what it returns is YAML too.
func toJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// environ turns a JSON object of objects into lines PREFIX_SECTION_KEY=value, as
// programs read them that take their configuration from the environment.
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

// environMap is environ as a map. Lists become words; what is nested deeper is
// left to the document itself.
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

// image returns the name by which this host runs an image that is carried, such
// as registry.site:5000/docker.io/library/nginx@sha256:…, given upstream's name
// with or without its tag.
func (r *renderer) image(name string) (string, error) {
	i, d, err := r.find(name)
	return r.Registry + "/" + i.Repository + "@" + string(d), err
}

// find returns a carried image and the digest by which machines pull it.
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

// named returns the digest by which machines that read the file pull an image, or "" if it
// cannot run there: on this host the manifest for its platform, in a cluster an index, from
// which each machine takes its own.
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

// pinned returns the digest of the runnable manifest for this platform, or "". Of several
// variants it is the nearest.
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
	for n := 0; n < len(candidates); n++ { // indexes are followed, each once
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

// chart returns what is known of a chart, with its name on the site.
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

// siteImages replaces, in YAML documents, each text that is the name of a carried
// image by its name on the site, and leaves all else as it is written. Where only
// one tag of a name is carried it is meant by every other tag too: what upstream
// publishes often says latest. Foreign are the images that are not carried.
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
	for _, x := range slices.Backward(f.found) { // what is replaced moves only what stands behind it
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

// siteNames returns the names that images have on the site: by reference, and by repository
// where only one tag of it is carried.
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
	names   map[string]string // as siteNames returns them
	own     string            // prefix of what the site has
	lines   []string
	found   []replacement // in the order of the documents
	foreign []string      // images that are not carried
}

// replacement is a text to replace, and what by.
type replacement struct {
	node *yaml.Node
	site string
}

// visit looks at a node below a key, and at what it contains.
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

// lineBreak is what ends a line for the library that counts them (YAML 1.1, 4.2).
var lineBreak = regexp.MustCompile(`\r\n|[\n\r\x{85}\x{2028}\x{2029}]`)

// splitLines cuts a text behind every line break.
func splitLines(text string) (lines []string) {
	at := 0
	for _, m := range lineBreak.FindAllStringIndex(text, -1) {
		lines, at = append(lines, text[at:m[1]]), m[1]
	}
	return append(lines, text[at:])
}

// replaceAt replaces a scalar, perhaps in quotes or behind a tag, that begins at a
// column of a line, which counts characters from 1.
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
