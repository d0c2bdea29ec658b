// Package manifests holds the documents that people write and read on the
// connected side: the Manifest, which says what is wanted, and the Lock, which
// says what that was resolved to. Both are YAML, both are read strictly.
//
//	Manifest ─Select(Choice)→ Selection ─(package pull)→ Lock
//
// The catalogue of reference architectures is a set of manifests like those
// that anybody can write; it is embedded.
package manifests

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// ErrInvalid says that a document is not one, or asks for something impossible.
var ErrInvalid = errors.New("invalid document")

// ErrMismatch says that a lock does not fit what it is used with.
var ErrMismatch = fmt.Errorf("%w: the lock does not fit", bundle.ErrPolicy)

const (
	// maxDocument bounds a document, in bytes.
	maxDocument = 16 << 20
	// maxKey bounds a public key, in bytes.
	maxKey = 1 << 20
	// maxIncludes bounds the documents that one manifest consists of.
	maxIncludes = 32
)

// Manifest is what an author asks for. Its JSON Schema says what each field
// means; texts are as written, with placeholders.
type Manifest struct {
	APIVersion   string            `yaml:"apiVersion"` // bundle.APIVersion
	Kind         string            `yaml:"kind"`       // "Manifest"
	Metadata     Metadata          `yaml:"metadata"`
	Include      []string          `yaml:"include"`
	Deployments  []string          `yaml:"deployments"`
	Platforms    []string          `yaml:"platforms"`
	Versions     map[string]string `yaml:"versions"`
	Settings     map[string]string `yaml:"settings"`
	SHA256       map[string]string `yaml:"sha256"`
	Keys         map[string]string `yaml:"keys"`
	Releases     []Releases        `yaml:"releases"`
	Rules        []Rule            `yaml:"rules"`
	Components   []Component       `yaml:"components"`
	External     []External        `yaml:"external"`
	VerifyImages []VerifyImages    `yaml:"verifyImages"`

	// Digest is of the document's bytes, and of those of all documents and keys
	// that it includes.
	Digest bundle.Digest `yaml:"-"`

	included []*Manifest // the nearest first
	doc      *document
	keys     map[string][]byte
}

// Metadata names the bundle that comes of it.
type Metadata struct {
	Name        string `yaml:"name"`
	Version     string `yaml:"version"`
	Title       string `yaml:"title,omitempty"`
	Description string `yaml:"description,omitempty"`
	Source      string `yaml:"source,omitempty"`
}

// Releases says which versions belong to which release of one of them.
type Releases struct {
	Of   string    `yaml:"of"`
	Rows []Release `yaml:"rows"`

	at at
}

// Release is one row.
type Release struct {
	Release  string            `yaml:"release"`
	Note     string            `yaml:"note"`
	Source   string            `yaml:"source"`
	Versions map[string]string `yaml:"versions"`
	SHA256   map[string]string `yaml:"sha256"`
}

// Rule says what versions have to be.
type Rule struct {
	When        map[string]string `yaml:"when"`
	With        string            `yaml:"with"`
	Deployments []string          `yaml:"deployments"`
	Require     map[string]string `yaml:"require"`
	Because     string            `yaml:"because"`
	Source      string            `yaml:"source"`

	at at
}

// External is what the site provides.
type External struct {
	Name        string   `yaml:"name" json:"name"`
	Why         string   `yaml:"why" json:"why"`
	Source      string   `yaml:"source" json:"source,omitempty"`
	Deployments []string `yaml:"deployments" json:"deployments,omitempty"`
}

// VerifyImages asks for signatures on images.
type VerifyImages struct {
	Images string   `yaml:"images"`
	Keys   []string `yaml:"keys"`

	at at
}

// Component groups what belongs together on the site.
type Component struct {
	Name        string            `yaml:"name"`
	Use         string            `yaml:"use"`
	Title       string            `yaml:"title"`
	Source      string            `yaml:"source"`
	Optional    bool              `yaml:"optional"`
	Deployments []string          `yaml:"deployments"`
	Needs       []string          `yaml:"needs"`
	When        map[string]string `yaml:"when"`
	Images      []Image           `yaml:"images"`
	Plugins     []Plugin          `yaml:"plugins"`
	Charts      []Chart           `yaml:"charts"`
	Files       []File            `yaml:"files"`
	Host        []HostPart        `yaml:"host"`

	at at
}

// HostPart is what a component adds to what the host is told; its fields are
// those of bundle.Host.
type HostPart struct {
	Deployments []string `yaml:"deployments"`
	bundle.Host `yaml:",inline"`
}

// Image is an image; a text in its place is its reference.
type Image struct {
	Reference   string   `yaml:"reference"` // short ones as Docker reads them
	Platforms   []string `yaml:"platforms"`
	Deployments []string `yaml:"deployments"`
	Follows     *Follows `yaml:"follows"`
	Source      string   `yaml:"source"`
}

// UnmarshalYAML takes a text too.
func (i *Image) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		i.Reference = n.Value
		return nil
	}
	type plainImage Image
	return n.Load((*plainImage)(i))
}

// Follows binds an image's tag to what a plugin says of it.
type Follows struct {
	Plugin string `yaml:"plugin"` // id
	Prop   string `yaml:"prop"`
	Rule   string `yaml:"rule"` // equal or minimum
}

// Plugin is a Mattermost plugin.
type Plugin struct {
	URL         string   `yaml:"url"`
	Signature   string   `yaml:"signature"`
	Keys        []string `yaml:"keys"`
	SHA256      string   `yaml:"sha256"`
	ID          string   `yaml:"id"`
	Version     string   `yaml:"version"`
	Server      string   `yaml:"server"`
	Platforms   []string `yaml:"platforms"`
	Deployments []string `yaml:"deployments"`
	Source      string   `yaml:"source"`
}

// Chart is a Helm chart.
type Chart struct {
	Repository   string         `yaml:"repository"`
	Name         string         `yaml:"name"`
	Version      string         `yaml:"version"`
	SHA256       string         `yaml:"sha256"`
	Values       map[string]any `yaml:"values"`
	UnusedImages []string       `yaml:"unusedImages"`
	Deployments  []string       `yaml:"deployments"`
	Source       string         `yaml:"source"`
}

// File is a file for the host.
type File struct {
	Source      string   `yaml:"source"`
	Path        string   `yaml:"path"`
	Mode        string   `yaml:"mode"`
	As          string   `yaml:"as"`
	Strip       int      `yaml:"strip"`
	SHA256      string   `yaml:"sha256"`
	Size        int64    `yaml:"size"`
	Platforms   []string `yaml:"platforms"`
	Deployments []string `yaml:"deployments"`
	Facts       string   `yaml:"facts"`
}

// Read reads and checks the manifest at path, with what it includes. The error
// names every problem that was found, and wraps ErrInvalid or the file's.
func Read(path string) (*Manifest, error) {
	data, err := readDocument(path)
	if err != nil {
		return nil, err
	}
	return open(data, &document{name: path, dir: filepath.Dir(path)})
}

// Parse reads and checks a manifest; paths in it are relative to the current
// directory.
func Parse(data []byte) (*Manifest, error) {
	return open(data, &document{name: "manifest", dir: "."})
}

// open reads a document, then those that it includes, and checks all.
func open(data []byte, doc *document) (*Manifest, error) {
	l := loader{seen: map[string]bool{}}
	m, err := l.load(data, doc)
	if err != nil {
		return nil, err
	}
	m.Digest = bundle.DigestOf(data)
	if len(l.parts) > 1 {
		m.Digest = bundle.DigestOf([]byte(strings.Join(l.parts, "\n")))
	}
	return m, m.check()
}

// loader reads the documents of one manifest.
type loader struct {
	seen  map[string]bool
	parts []string // digests of everything that was read
}

func (l *loader) load(data []byte, doc *document) (*Manifest, error) {
	m := &Manifest{doc: doc, keys: map[string][]byte{}}
	if err := doc.decode(data, m); err != nil {
		return nil, err
	}
	l.parts = append(l.parts, string(bundle.DigestOf(data)))
	here := at{document: doc}
	for i := range m.Components {
		m.Components[i].at = here.of("components", i)
	}
	for i := range m.Releases {
		m.Releases[i].at = here.of("releases", i)
	}
	for i := range m.Rules {
		m.Rules[i].at = here.of("rules", i)
	}
	for i := range m.VerifyImages {
		m.VerifyImages[i].at = here.of("verifyImages", i)
	}
	for _, name := range sortedKeys(m.Keys) {
		key := []byte(m.Keys[name])
		if !strings.Contains(m.Keys[name], "-----BEGIN ") {
			var err error
			if key, err = doc.read(m.Keys[name], maxKey); err != nil {
				return nil, here.of("keys", name).problem("the key %s: %v", name, err)
			}
			l.parts = append(l.parts, string(bundle.DigestOf(key)))
		}
		m.keys[name] = key
	}
	for i, name := range m.Include {
		data, sub, err := doc.include(name)
		if err != nil {
			return nil, here.of("include", i).problem("%v", err)
		}
		if l.seen[sub.name] {
			continue
		}
		if l.seen[sub.name] = true; len(l.seen) > maxIncludes {
			return nil, here.of("include", i).problem("more than %d documents are included", maxIncludes)
		}
		n, err := l.load(data, sub)
		if err != nil {
			return nil, err
		}
		m.included = append(m.included, n)
	}
	return m, nil
}

func (d *document) include(name string) ([]byte, *document, error) {
	if file, ok := strings.CutPrefix(name, "catalogue:"); ok {
		data, err := catalogueFiles.ReadFile("catalogue/" + file)
		if err != nil {
			return nil, nil, fmt.Errorf("the catalogue has no document %q", file)
		}
		return data, &document{name: name, files: catalogueFS()}, nil
	}
	if d.dir == "" {
		data, err := d.read(name, maxDocument)
		return data, &document{name: "catalogue:" + name, files: d.files}, err
	}
	full := filepath.Join(d.dir, filepath.FromSlash(name))
	data, err := readFile(full, maxDocument)
	return data, &document{name: full, dir: filepath.Dir(full)}, err
}

// all returns the manifest and what it includes, the nearest first.
func (m *Manifest) all() []*Manifest {
	list := []*Manifest{m}
	for _, n := range m.included {
		list = append(list, n.all()...)
	}
	return list
}

// merged puts the maps of all documents together; the nearest wins.
func (m *Manifest) merged(of func(*Manifest) map[string]string) map[string]string {
	out := map[string]string{}
	list := m.all()
	slices.Reverse(list)
	for _, n := range list {
		for k, v := range of(n) {
			out[k] = v
		}
	}
	return out
}

// component finds a component of the documents, or nil.
func (m *Manifest) component(name string) *Component {
	for _, n := range m.all() {
		for i := range n.Components {
			if n.Components[i].Name == name {
				return &n.Components[i]
			}
		}
	}
	return nil
}

// resolved returns the manifest's own components in its order, with what it uses
// in the place of the uses. Problems are left out; check reports them.
func (m *Manifest) resolved() []Component {
	var list []Component
	for _, c := range m.Components {
		if c.Use != "" {
			base := m.component(c.Use)
			if base == nil {
				continue
			}
			used := *base
			used.Optional = c.Optional
			if c.Title != "" {
				used.Title = c.Title
			}
			if c.Source != "" {
				used.Source = c.Source
			}
			if c.Deployments != nil {
				used.Deployments = c.Deployments
			}
			used.Needs = slices.Concat(base.Needs, c.Needs)
			c = used
		}
		list = append(list, c)
	}
	return list
}

// check reports everything that is wrong whatever will be chosen.
func (m *Manifest) check() error {
	var problems []error
	for _, n := range m.all() {
		if n.doc.invalid != nil {
			problems = append(problems, n.doc.invalid)
		}
	}
	here := at{document: m.doc}
	if len(m.Components) == 0 {
		problems = append(problems, here.problem("it has no components"))
	}
	names := map[string]bool{}
	for _, c := range m.Components {
		name := c.Name
		if c.Use != "" {
			name = c.Use
			if m.component(c.Use) == nil {
				problems = append(problems, c.at.of("use").problem("no included document has a component %q", c.Use))
				continue
			}
			if len(c.Images)+len(c.Plugins)+len(c.Charts)+len(c.Files)+len(c.Host) > 0 {
				problems = append(problems, c.at.problem("what %q consists of is said where it is defined, not here", c.Use))
			}
		} else if len(c.Images)+len(c.Plugins)+len(c.Charts)+len(c.Files)+len(c.Host) == 0 {
			problems = append(problems, c.at.problem("component %q has nothing in it: no images, plugins, charts, files or host", c.Name))
		}
		if names[name] {
			problems = append(problems, c.at.problem("there are two components %q", name))
		}
		names[name] = true
	}
	for k, c := range m.resolved() {
		if only := c.onlyFor(); len(m.Deployments) == 0 && only != nil && k < len(m.Components) {
			problems = append(problems, m.Components[k].at.problem("%q is for --deployment %s; say which this document is for, such as deployments: [%s]", c.Name, strings.Join(only, " or "), only[0]))
		}
		for i, n := range c.Needs {
			if m.component(n) == nil {
				problems = append(problems, c.at.of("needs", i).problem("%q needs %q, and there is no such component", c.Name, n))
			}
		}
	}
	return join(append(problems, m.checkAll()...))
}

// onlyFor returns the deployments that the component, or something in it, is
// limited to, or nil.
func (c *Component) onlyFor() []string {
	only := [][]string{c.Deployments}
	for _, x := range c.Images {
		only = append(only, x.Deployments)
	}
	for _, x := range c.Plugins {
		only = append(only, x.Deployments)
	}
	for _, x := range c.Charts {
		only = append(only, x.Deployments)
	}
	for _, x := range c.Files {
		only = append(only, x.Deployments)
	}
	for _, x := range c.Host {
		only = append(only, x.Deployments)
	}
	for _, list := range only {
		if len(list) > 0 {
			return list
		}
	}
	return nil
}

// checkAll expands everything there is with the values it comes with.
func (m *Manifest) checkAll() []error {
	deployments := m.Deployments
	if len(deployments) == 0 {
		deployments = []string{""}
	}
	var problems []error
	for _, d := range deployments {
		s, err := m.newSelector(Choice{Deployment: d})
		if err != nil {
			return []error{err}
		}
		s.collect(m.resolved(), true)
		problems = append(problems, s.problems...)
	}
	return problems
}

// construct is how the library says that a list or a map was expected.
var construct = regexp.MustCompile("cannot construct !![a-z]+ (`[^`]*`) into .*")

// plain words the library's errors without the names of Go types.
func plain(err error) string {
	s := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "construct errors: ")
	if strings.Contains(s, "no documents in stream") {
		return "it is empty"
	}
	s = construct.ReplaceAllString(s, "$1 cannot stand here: another shape is expected, see the example in the README")
	return typeName.ReplaceAllString(s, "is not known here")
}

var typeName = regexp.MustCompile(`not found in type manifests\.[A-Za-z]+`)

func sortedKeys[V any](m map[string]V) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// isURL reports whether a source is fetched, and not read from this machine.
func isURL(s string) bool { return strings.Contains(s, "://") }

// local returns where a file that the document names stands on this machine.
func (d *document) local(name string) (string, error) {
	if d.dir == "" {
		if _, err := fs.Stat(d.files, path.Clean(name)); err != nil {
			return "", fmt.Errorf("the catalogue has no file %q", name)
		}
		return fromCatalogue + path.Clean(name), nil
	}
	full := filepath.FromSlash(name)
	if !filepath.IsAbs(full) {
		full = filepath.Join(d.dir, full)
	}
	fi, err := os.Stat(full)
	if err != nil {
		return "", fmt.Errorf("there is no file %s", full)
	}
	if !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file", full)
	}
	return full, nil
}

// cleanPath reports whether a path may stand in a bundle: relative, slashes,
// nothing that leads elsewhere on any system.
func cleanPath(p string) bool {
	if p == "" || len(p) > 1024 || path.IsAbs(p) || path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return false
	}
	return strings.IndexFunc(p, func(r rune) bool {
		return r < ' ' || r > '~' || strings.ContainsRune(`\:*?"<>|`, r)
	}) < 0
}
