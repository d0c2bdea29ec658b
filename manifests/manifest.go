// Package manifests contains the documents that people write and read on the connected side:
// the Manifest, which states the wanted content, and the Lock, which records how the Manifest
// was resolved. Both are YAML and are read strictly.
//
//	Manifest ─Select(Choice)→ Selection ─(package pull)→ Lock
//
// The catalogue of reference architectures is a set of embedded manifests in the same format.
package manifests

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// ErrInvalid marks a document that is malformed or asks for something impossible.
var ErrInvalid = errors.New("invalid document")

// ErrMismatch marks a lock that does not match the manifest or options it is used with.
var ErrMismatch = fmt.Errorf("%w: the lock does not fit", bundle.ErrPolicy)

const (
	// maxDocument is the size limit of a document, in bytes.
	maxDocument = 16 << 20
	// maxKey is the size limit of a public key, in bytes.
	maxKey = 1 << 20
	// maxIncludes is the greatest number of documents that a manifest may include.
	maxIncludes = 32
)

// Manifest states the content that an author wants in a bundle. Its JSON Schema describes each
// field. Texts still contain their placeholders.
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

	// Digest is the digest of the document. If it includes documents or key files, Digest
	// covers their digests too.
	Digest bundle.Digest `yaml:"-"`

	included []*Manifest // nearest first
	doc      *document
	keys     map[string][]byte
}

// Metadata names and describes the bundle.
type Metadata struct {
	Name        string `yaml:"name"`
	Version     string `yaml:"version"`
	Title       string `yaml:"title,omitempty"`
	Description string `yaml:"description,omitempty"`
	Source      string `yaml:"source,omitempty"`
}

// Releases maps each release of one version, named by Of, to the other versions that belong to
// it.
type Releases struct {
	Of   string    `yaml:"of"`
	Rows []Release `yaml:"rows"`

	at at
}

// Release is one row of Releases.
type Release struct {
	Release  string            `yaml:"release"`
	Note     string            `yaml:"note"`
	Source   string            `yaml:"source"`
	Versions map[string]string `yaml:"versions"`
	SHA256   map[string]string `yaml:"sha256"`
}

// Rule requires versions or components where its conditions hold.
type Rule struct {
	When        map[string]string `yaml:"when"`
	With        string            `yaml:"with"`
	Deployments []string          `yaml:"deployments"`
	Require     map[string]string `yaml:"require"`
	Carry       []string          `yaml:"carry"` // components
	Because     string            `yaml:"because"`
	Source      string            `yaml:"source"`

	at at
}

// External is something that the site must provide itself.
type External struct {
	Name        string   `yaml:"name" json:"name"`
	Why         string   `yaml:"why" json:"why"`
	Source      string   `yaml:"source" json:"source,omitempty"`
	Deployments []string `yaml:"deployments" json:"deployments,omitempty"`
}

// VerifyImages requires signatures on images.
type VerifyImages struct {
	Images string   `yaml:"images"`
	Keys   []string `yaml:"keys"`

	at at
}

// Component groups content that belongs together on the site.
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

// HostPart is a component's contribution to the bundle's host data. Its fields are those of
// bundle.Host.
type HostPart struct {
	Deployments []string `yaml:"deployments"`
	bundle.Host `yaml:",inline"`
}

// Image is a container image. In YAML, a string is short for an image with this reference.
type Image struct {
	Reference   string   `yaml:"reference"` // short references are read as Docker reads them
	Platforms   []string `yaml:"platforms"`
	Deployments []string `yaml:"deployments"`
	Follows     *Follows `yaml:"follows"`
	Source      string   `yaml:"source"`
}

// UnmarshalYAML accepts a map or a string.
func (i *Image) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		i.Reference = n.Value
		return nil
	}
	type plainImage Image
	return n.Load((*plainImage)(i))
}

// Follows binds an image's tag to a property in a plugin's manifest.
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

// all returns the manifest and its included documents, nearest first.
func (m *Manifest) all() []*Manifest {
	list := []*Manifest{m}
	for _, n := range m.included {
		list = append(list, n.all()...)
	}
	return list
}

// merged merges a map of all documents; the nearest document takes precedence.
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

// component returns the component with that name from any of the documents, or nil.
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

// resolved returns the manifest's own components in order, with each use replaced by the
// component it names. Unknown names are skipped; check reports them.
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

func sortedKeys[V any](m map[string]V) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}
