// Package manifests holds the documents that people write and read on the
// connected side: the Manifest, which says what is wanted, and the Lock, which
// says what that was resolved to. Both are YAML, both are read strictly.
package manifests

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// ErrInvalid says that a document is not one, or asks for something impossible.
var ErrInvalid = errors.New("invalid document")

// ErrMismatch says that a lock does not fit what it is used with.
var ErrMismatch = fmt.Errorf("%w: the lock does not fit", bundle.ErrPolicy)

// maxDocument bounds a document, in bytes.
const maxDocument = 16 << 20

// Manifest is what an author asks for.
type Manifest struct {
	APIVersion string      `yaml:"apiVersion"` // bundle.APIVersion
	Kind       string      `yaml:"kind"`       // "Manifest"
	Metadata   Metadata    `yaml:"metadata"`
	Components []Component `yaml:"components"`

	Digest bundle.Digest `yaml:"-"` // of the document's bytes
}

// Metadata names the bundle that comes of it.
type Metadata struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
}

// Component groups what belongs together on the site.
type Component struct {
	Name   string   `yaml:"name"`
	Images []string `yaml:"images,omitempty"` // references, short ones as Docker reads them

	// What later versions carry. It is recognised, so that it is refused by
	// name and not taken for a spelling mistake.
	Plugins yaml.Node `yaml:"plugins,omitempty"`
	Charts  yaml.Node `yaml:"charts,omitempty"`
	Files   yaml.Node `yaml:"files,omitempty"`
}

// Read reads and checks the manifest at path. The error names every problem
// that was found, and wraps ErrInvalid or the file's.
func Read(path string) (*Manifest, error) {
	data, err := readDocument(path)
	if err != nil {
		return nil, err
	}
	m, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func readDocument(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a file; give the document itself", ErrInvalid, path)
	}
	if fi.Size() > maxDocument {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are read", ErrInvalid, path, fi.Size(), maxDocument)
	}
	return os.ReadFile(path)
}

// Parse reads and checks a manifest.
func Parse(data []byte) (*Manifest, error) {
	var m Manifest
	if err := load(data, &m, "Manifest"); err != nil {
		return nil, err
	}
	m.Digest = bundle.DigestOf(data)
	var problems []error
	problem := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...)))
	}
	any := bundle.Info{Name: m.Metadata.Name, Version: m.Metadata.Version, Channel: "any", Platforms: make([]bundle.Platform, 1)}
	if err := any.Check(); err != nil {
		problem("metadata: %v", err)
	}
	if len(m.Components) == 0 {
		problem("it has no components")
	}
	names := map[string]bool{}
	for i, c := range m.Components {
		if c.Name == "" || names[c.Name] {
			problem("component %d needs a name of its own, not %q", i+1, c.Name)
		}
		names[c.Name] = true
		for _, ref := range c.Images {
			if _, err := bundle.ParseReference(ref); err != nil {
				problem("component %q: %v", c.Name, err)
			}
		}
		for kind, node := range map[string]yaml.Node{"plugins": c.Plugins, "charts": c.Charts, "files": c.Files} {
			if !node.IsZero() {
				problem("line %d: component %q: this version carries images only, not %s", node.Line, c.Name, kind)
			}
		}
		if len(c.Images) == 0 && c.Plugins.IsZero() && c.Charts.IsZero() && c.Files.IsZero() {
			problem("component %q has no images", c.Name)
		}
	}
	return &m, errors.Join(problems...)
}

// load decodes one YAML document strictly and checks what it says it is.
func load(data []byte, out any, kind string) error {
	var head struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
	}
	if err := yaml.Load(data, &head); err != nil {
		return fmt.Errorf("%w: %s", ErrInvalid, plain(err))
	}
	if head.APIVersion != bundle.APIVersion {
		return fmt.Errorf("%w: apiVersion is %q and must be %s", ErrInvalid, head.APIVersion, bundle.APIVersion)
	}
	if head.Kind != kind {
		return fmt.Errorf("%w: kind is %q and must be %s", ErrInvalid, head.Kind, kind)
	}
	if err := yaml.Load(data, out, yaml.WithKnownFields()); err != nil {
		return fmt.Errorf("%w: %s", ErrInvalid, plain(err))
	}
	return nil
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
	for _, t := range []string{"manifests.Manifest", "manifests.Component", "manifests.Metadata", "manifests.Lock", "manifests.LockedImage"} {
		s = strings.ReplaceAll(s, "not found in type "+t, "is not known here")
	}
	return s
}

// References returns every reference once, in the order of the document.
func (m *Manifest) References() ([]bundle.Reference, error) {
	var refs []bundle.Reference
	seen := map[string]bool{}
	for _, c := range m.Components {
		for _, s := range c.Images {
			r, err := bundle.ParseReference(s)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
			}
			if !seen[r.String()] {
				refs, seen[r.String()] = append(refs, r), true
			}
		}
	}
	return refs, nil
}
