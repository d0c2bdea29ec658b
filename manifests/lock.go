package manifests

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Lock records how a manifest was resolved. A lock and the content from upstream determine a
// bundle completely, except for its signatures.
type Lock struct {
	APIVersion string        `yaml:"apiVersion"` // bundle.APIVersion
	Kind       string        `yaml:"kind"`       // "Lock"
	Metadata   LockMetadata  `yaml:"metadata"`
	Program    string        `yaml:"program"`  // version of the program that wrote the lock
	Manifest   bundle.Digest `yaml:"manifest"` // of the manifest and everything it includes
	Channel    string        `yaml:"channel"`
	Sequence   int64         `yaml:"sequence"`
	Created    time.Time     `yaml:"created"` // UTC, whole seconds
	Platforms  []string      `yaml:"platforms"`

	// The choice.
	Deployment       string            `yaml:"deployment,omitempty"`
	With             []string          `yaml:"with,omitempty"`
	Without          []string          `yaml:"without,omitempty"`
	Set              map[string]string `yaml:"set,omitempty"`
	WithoutReferrers bool              `yaml:"withoutReferrers,omitempty"`

	// The resolved content, in the order of the manifest.
	Components []string          `yaml:"components,omitempty"`
	Versions   map[string]string `yaml:"versions,omitempty"` // versions that the carried content uses
	Settings   map[string]string `yaml:"settings,omitempty"`
	Images     []LockedImage     `yaml:"images"`
	Charts     []LockedChart     `yaml:"charts,omitempty"`
	Plugins    []LockedPlugin    `yaml:"plugins,omitempty"`
	Files      []LockedFile      `yaml:"files,omitempty"`
}

// LockMetadata names the bundle.
type LockMetadata struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
}

// LockedImage is a reference and the image it was resolved to.
type LockedImage struct {
	Reference string        `yaml:"reference"` // in full form
	MediaType string        `yaml:"mediaType"`
	Digest    bundle.Digest `yaml:"digest"`
	Size      int64         `yaml:"size"`  // of the manifest or index, bytes
	Total     int64         `yaml:"total"` // of all carried blobs, each counted once, bytes
	// Carried lists the carried manifests of an index. It is empty if all are carried.
	Carried []LockedManifest `yaml:"carried,omitempty"`
	// Referrers are the signatures and attestations that upstream has for the image.
	Referrers []LockedReferrer `yaml:"referrers,omitempty"`
	Checks    []string         `yaml:"checks,omitempty"` // checks that the image passed
}

// LockedReferrer is a manifest that refers to an image, such as a signature.
type LockedReferrer struct {
	Tag          string        `yaml:"tag,omitempty"` // cosign finds the referrer by this tag
	ArtifactType string        `yaml:"artifactType,omitempty"`
	Digest       bundle.Digest `yaml:"digest"`
	Size         int64         `yaml:"size"` // of the manifest, bytes
}

// LockedChart is a Helm chart.
type LockedChart struct {
	Name       string        `yaml:"name"`
	Version    string        `yaml:"version"`
	Repository string        `yaml:"repository"`
	Reference  string        `yaml:"reference"`          // on the site, without the registry
	Manifest   bundle.Digest `yaml:"manifest,omitempty"` // upstream's manifest, for a chart from a registry
	Digest     bundle.Digest `yaml:"digest"`             // of the archive
	Size       int64         `yaml:"size"`               // of the archive, bytes
	Check      string        `yaml:"check"`              // check that the chart passed
	// Referrers are the signatures and attestations of a chart from a registry.
	Referrers []LockedReferrer `yaml:"referrers,omitempty"`
}

// LockedPlugin is a Mattermost plugin.
type LockedPlugin struct {
	ID        string        `yaml:"id"`
	Version   string        `yaml:"version"`
	Source    string        `yaml:"source"` // URL or file name
	Digest    bundle.Digest `yaml:"digest"`
	Size      int64         `yaml:"size"` // bytes
	Signature bundle.Digest `yaml:"signature,omitempty"`
	Key       bundle.Digest `yaml:"key,omitempty"` // public key carried along; empty if the server already has it
	Checks    []string      `yaml:"checks"`        // checks that the plugin passed
}

// LockedFile is a file for the host.
type LockedFile struct {
	Source string        `yaml:"source"` // URL or file name
	Path   string        `yaml:"path"`
	Mode   string        `yaml:"mode"` // octal
	Digest bundle.Digest `yaml:"digest"`
	Size   int64         `yaml:"size"`  // bytes
	Check  string        `yaml:"check"` // check that the file passed
}

// LockedManifest is one manifest of an index.
type LockedManifest struct {
	Platform string        `yaml:"platform,omitempty"` // empty for an attestation
	Digest   bundle.Digest `yaml:"digest"`
	Size     int64         `yaml:"size"` // bytes
}

// ReadLock reads and checks the lock at path.
func ReadLock(path string) (*Lock, error) {
	data, err := readDocument(path)
	if err != nil {
		return nil, err
	}
	var l Lock
	if err := checkHead(data, "Lock"); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := yaml.Load(data, &l, yaml.WithKnownFields()); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", path, ErrInvalid, plain(err))
	}
	for _, i := range l.Images {
		r, err := bundle.ParseReference(i.Reference)
		if err == nil && r.String() != i.Reference {
			err = fmt.Errorf("reference %q is not one in full", i.Reference)
		}
		if err == nil {
			_, err = bundle.ParseDigest(string(i.Digest))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
		}
	}
	return &l, nil
}

// Encode returns the lock as YAML. Control and invisible characters are escaped, so that the
// text has the same meaning wherever it is displayed.
func (l *Lock) Encode() ([]byte, error) {
	data, err := yaml.Dump(l, yaml.WithV4Defaults())
	if err != nil || !bytes.ContainsFunc(data, unseen) {
		return data, err
	}
	var n yaml.Node
	if err := yaml.Load(data, &n); err != nil {
		return nil, err
	}
	quote(&n)
	if data, err = yaml.Dump(&n, yaml.WithV4Defaults()); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, r := range string(data) {
		switch {
		case !unseen(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes(), nil
}

func unseen(r rune) bool { return r != '\n' && bundle.Unseen(r) }

// quote double-quotes every text that contains invisible characters: only this style has
// escapes (YAML 1.2 section 5.7).
func quote(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && strings.ContainsFunc(n.Value, unseen) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		quote(c)
	}
}

// Image returns the lock's entry for a reference.
func (l *Lock) Image(ref bundle.Reference) (LockedImage, bool) {
	for _, i := range l.Images {
		if i.Reference == ref.String() {
			return i, true
		}
	}
	return LockedImage{}, false
}

// Change is a difference between two locks.
type Change struct {
	Kind string `json:"kind"` // added, removed or changed
	What string `json:"what"` // choice, image, chart, plugin, file, version, setting or component
	Name string `json:"name"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// entry is one item of a lock: a summary to display, and its whole content to compare.
type entry struct{ text, whole string }

// Diff returns the differences between the bundles of two locks, in the order of kinds and
// names. It ignores times, sequences and the program version.
func Diff(from, to *Lock) []Change {
	var list []Change
	compare := func(what string, a, b map[string]entry) {
		names := map[string]string{}
		for k := range a {
			names[k] = ""
		}
		for k := range b {
			names[k] = ""
		}
		for _, n := range sortedKeys(names) {
			x, hadX := a[n]
			y, hasY := b[n]
			switch {
			case !hadX:
				list = append(list, Change{"added", what, n, "", y.text})
			case !hasY:
				list = append(list, Change{"removed", what, n, x.text, ""})
			case x.text != y.text:
				list = append(list, Change{"changed", what, n, x.text, y.text})
			case x.whole != y.whole:
				list = append(list, Change{"changed", what, n, other(x.whole, y.whole), other(y.whole, x.whole)})
			}
		}
	}
	texts := func(m map[string]string) map[string]entry {
		out := map[string]entry{}
		for k, v := range m {
			out[k] = entry{v, v}
		}
		return out
	}
	compare("choice", texts(from.choices()), texts(to.choices()))
	compare("component", texts(from.names()), texts(to.names()))
	compare("version", texts(from.Versions), texts(to.Versions))
	compare("setting", texts(from.Settings), texts(to.Settings))
	for _, what := range []string{"image", "chart", "plugin", "file"} {
		compare(what, from.entries(what), to.entries(what))
	}
	return list
}

// other returns the lines of a that are not in b, or a fixed text if there are none.
func other(a, b string) string {
	have := strings.Split(b, "\n")
	var list []string
	for _, line := range strings.Split(a, "\n") {
		if !slices.Contains(have, line) {
			list = append(list, strings.TrimSpace(line))
		}
	}
	if len(list) == 0 {
		return "without what the other one has"
	}
	return strings.Join(list, ", ")
}

// choices returns the choices and settings under which the lock was made.
func (l *Lock) choices() map[string]string {
	set := []string{}
	for _, k := range sortedKeys(l.Set) {
		set = append(set, k+"="+l.Set[k])
	}
	m := map[string]string{
		"manifest":   string(l.Manifest),
		"name":       l.Metadata.Name,
		"version":    l.Metadata.Version,
		"channel":    l.Channel,
		"deployment": l.Deployment,
		"platforms": strings.Join(
			l.Platforms,
			",",
		),
		"with":    strings.Join(l.With, ","),
		"without": strings.Join(l.Without, ","),
		"set":     strings.Join(set, ","),
	}
	if l.WithoutReferrers {
		m["referrers"] = "left out"
	}
	maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
	return m
}

func (l *Lock) names() map[string]string {
	m := map[string]string{}
	for _, c := range l.Components {
		m[c] = ""
	}
	return m
}

// entries returns the items of one kind by name. The name has no version, so that a new
// version counts as a change and not as another item.
func (l *Lock) entries(what string) map[string]entry {
	m := map[string]entry{}
	add := func(name, text string, v any) {
		whole, err := yaml.Dump(v, yaml.WithV4Defaults())
		if err != nil {
			panic(err) // contains only strings and numbers
		}
		m[name] = entry{text, string(whole)}
	}
	switch what {
	case "image":
		for _, i := range l.Images {
			name, version := i.Reference, ""
			if r, err := bundle.ParseReference(i.Reference); err == nil {
				name, version = r.Repository(), r.Tag
			}
			if _, two := m[name]; two {
				name = i.Reference
			}
			text := strings.TrimSpace(version + " " + string(i.Digest))
			for _, c := range i.Carried {
				text += " " + c.Platform
			}
			if n := len(i.Referrers); n > 0 {
				text += fmt.Sprintf(" (%d signatures and the like)", n)
			}
			add(name, text, i)
		}
	case "chart":
		for _, c := range l.Charts {
			add(strings.TrimSuffix(c.Repository, "/")+"/"+c.Name, c.Version+" "+string(c.Digest), c)
		}
	case "plugin":
		for _, p := range l.Plugins {
			add(p.ID, p.Version+" "+string(p.Digest), p)
		}
	case "file":
		for _, f := range l.Files {
			add(f.Path, f.Mode+" "+string(f.Digest), f)
		}
	}
	return m
}
