package manifests

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// Schema is the published JSON Schema of a manifest.
//
//go:embed manifest.schema.json
var Schema string

// schemaURL is only an identifier; the library would look for a relative name on the disk.
const schemaURL = "https://oobbundle.dev/manifest.schema.json"

var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(Schema))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(schemaURL, doc); err != nil {
		return nil, err
	}
	return c.Compile(schemaURL)
})

// document is one document that was read, with its location and its line numbers.
type document struct {
	name  string         // for messages
	files fs.FS          // resolves relative paths in the catalogue
	dir   string         // resolves relative paths on this machine; empty in the catalogue
	lines map[string]int // JSON pointer → line

	invalid error // schema violations, or nil
}

// Problems lists all problems of one document. It wraps ErrInvalid.
type Problems struct {
	Name string
	List []Problem
}

// Problem is one problem of a document.
type Problem struct {
	Line int // 0 if the problem concerns the whole document
	Text string
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.Text
	}
	return fmt.Sprintf("line %d: %s", p.Line, p.Text)
}

func (p *Problems) Error() string {
	if len(p.List) == 1 {
		return p.Name + ": " + p.List[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s has %d problems:", p.Name, len(p.List))
	for _, x := range p.List {
		b.WriteString("\n  " + x.String())
	}
	return b.String()
}

// Unwrap returns ErrInvalid.
func (p *Problems) Unwrap() error { return ErrInvalid }

// at is a place in a document.
type at struct {
	*document
	pointer string
}

func (a at) of(parts ...any) at {
	for _, p := range parts {
		a.pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(fmt.Sprint(p))
	}
	return a
}

func (a at) line() int {
	for p := a.pointer; ; p = p[:strings.LastIndexByte(p, '/')] {
		if n, ok := a.lines[p]; ok || p == "" {
			return n
		}
	}
}

// problem returns an error with the line of the place.
func (a at) problem(format string, args ...any) error {
	return &Problems{a.name, []Problem{{a.line(), fmt.Sprintf(format, args...)}}}
}

// join merges the problems of each document and sorts them by line.
func join(list []error) error {
	var others []error
	byName := map[string]*Problems{}
	for _, err := range list {
		var p *Problems
		if !errors.As(err, &p) {
			others = append(others, err)
			continue
		}
		if byName[p.Name] == nil {
			byName[p.Name] = &Problems{Name: p.Name}
			others = append(others, byName[p.Name])
		}
		for _, x := range p.List {
			if !slices.Contains(byName[p.Name].List, x) {
				byName[p.Name].List = append(byName[p.Name].List, x)
			}
		}
	}
	for _, p := range byName {
		slices.SortStableFunc(p.List, func(a, b Problem) int { return a.Line - b.Line })
	}
	if len(others) == 1 {
		return others[0]
	}
	return errors.Join(others...)
}

// decode reads one YAML document, validates it against the schema, and decodes it into out.
// Schema violations are kept in d.invalid if the document can be decoded nevertheless.
func (d *document) decode(data []byte, out any) error {
	if err := checkHead(data, "Manifest"); err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	var node yaml.Node
	if err := yaml.Load(data, &node); err != nil {
		return fmt.Errorf("%s: %w: %s", d.name, ErrInvalid, plain(err))
	}
	d.lines = map[string]int{}
	value, err := d.value(&node, at{document: d}, 0)
	if err != nil {
		return err
	}
	d.invalid = d.validate(value)
	if err := yaml.Load(data, out); err != nil {
		if d.invalid != nil {
			return d.invalid
		}
		return fmt.Errorf("%s: %w: %s", d.name, ErrInvalid, plain(err))
	}
	return nil // check reports d.invalid together with the other problems
}

// value converts a node into a value for the schema validator, and records the line of each
// part. Numbers become strings, because a version such as 1.10 must not be read as a number.
func (d *document) value(n *yaml.Node, here at, depth int) (any, error) {
	if depth > 50 {
		return nil, here.problem("it is nested too deeply")
	}
	if n.Kind != yaml.DocumentNode {
		d.lines[here.pointer] = n.Line
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return d.value(n.Content[0], here, depth+1)
	case yaml.AliasNode:
		return nil, here.problem("aliases are not used here; write it out")
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, child := n.Content[i], here.of(n.Content[i].Value)
			v, err := d.value(n.Content[i+1], child, depth+1)
			if err != nil {
				return nil, err
			}
			d.lines[child.pointer] = key.Line
			m[key.Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			v, err := d.value(c, here.of(i), depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	switch n.ShortTag() {
	case "!!bool":
		return n.Value == "true", nil
	case "!!null":
		return nil, nil
	}
	return n.Value, nil
}

func (d *document) validate(value any) error {
	s, err := compiled()
	if err != nil {
		return err
	}
	err = s.Validate(value)
	var v *jsonschema.ValidationError
	if !errors.As(err, &v) {
		return err
	}
	var list []error
	d.explain(v, &list)
	return join(list)
}

// explain translates schema violations into messages for users.
func (d *document) explain(v *jsonschema.ValidationError, list *[]error) {
	here := at{document: d}
	for _, p := range v.InstanceLocation {
		here = here.of(p)
	}
	say := func(format string, args ...any) { *list = append(*list, here.problem(format, args...)) }
	switch k := v.ErrorKind.(type) {
	case *kind.Required:
		say("%s is missing", strings.Join(k.Missing, " and "))
	case *kind.AdditionalProperties:
		for _, p := range k.Properties {
			*list = append(*list, here.of(p).problem("the field %s is not known here", p))
		}
	case *kind.Type:
		say("%s is expected here, and this is %s", shape(k.Want...), shape(k.Got))
	case *kind.Enum:
		say("%q is not one of %s", k.Got, join2(k.Want))
	case *kind.Const:
		say("%q must be %v", k.Got, k.Want)
	case *kind.Pattern:
		say("%q cannot stand here; it has to be %s", k.Got, inWords(k.Want))
	case *kind.MinLength:
		say("it is empty")
	case *kind.MinItems:
		say("the list is empty")
	case *kind.OneOf:
		say("a component has either a name, or use and the name of an included one")
	case *kind.AnyOf: // a string or a map
		for _, c := range v.Causes {
			if _, ok := deepest(c).ErrorKind.(*kind.Type); !ok || len(deepest(c).InstanceLocation) > len(v.InstanceLocation) {
				d.explain(c, list)
				return
			}
		}
		say("a text or a map is expected here")
	default:
		if len(v.Causes) == 0 {
			say("%s", v.Error())
		}
		for _, c := range v.Causes {
			d.explain(c, list)
		}
	}
}

// inWords describes a pattern of the schema in words.
func inWords(pattern string) string {
	words := map[string]string{
		"^[a-z0-9]+([._-][a-z0-9]+)*$":       "lower-case letters and digits, with single . _ - between them",
		"^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$": "OS/ARCHITECTURE, such as linux/amd64",
		"^0?[0-7]{3}$":                       "permissions in octal, such as 0644",
		"^[0-9]{1,14}$":                      "a number of bytes",
		"^[0-9]{1,9}:[0-9]{1,9}$":            "UID:GID, such as 2000:2000",
		"^[a-z][A-Za-z0-9]{0,62}$":           "a name of letters and digits that begins with a lower-case one",
		"^(https?|oci)://":                   "a URL that begins with https://, http:// or oci://",
	}
	if w, ok := words[pattern]; ok {
		return w
	}
	return "like " + pattern
}

func deepest(v *jsonschema.ValidationError) *jsonschema.ValidationError {
	for len(v.Causes) > 0 {
		v = v.Causes[0]
	}
	return v
}

func join2(list []any) string {
	var s []string
	for _, x := range list {
		s = append(s, fmt.Sprint(x))
	}
	return strings.Join(s, ", ")
}

func shape(types ...string) string {
	names := map[string]string{"object": "a map", "array": "a list", "string": "a text", "boolean": "true or false", "null": "nothing"}
	var s []string
	for _, t := range types {
		if names[t] == "" {
			names[t] = "a " + t
		}
		s = append(s, names[t])
	}
	return strings.Join(s, " or ")
}

// read reads a file that the document names. On this machine the file may have at most limit
// bytes.
func (d *document) read(name string, limit int64) ([]byte, error) {
	if d.dir != "" && filepath.IsAbs(name) {
		return readFile(name, limit)
	}
	if d.dir != "" {
		return readFile(filepath.Join(d.dir, filepath.FromSlash(name)), limit)
	}
	return fs.ReadFile(d.files, path.Clean(name))
}

func readFile(path string, limit int64) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a file; give the document itself", ErrInvalid, path)
	}
	if fi.Size() > limit {
		return nil, fmt.Errorf("%w: %s has %s bytes, at most %d are read", ErrInvalid, path, strconv.FormatInt(fi.Size(), 10), limit)
	}
	return disk.ReadFile(path, limit)
}

func readDocument(path string) ([]byte, error) { return readFile(path, maxDocument) }

// checkHead returns an error that wraps ErrInvalid unless the document has the expected
// apiVersion and kind.
func checkHead(data []byte, kind string) error {
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
	return nil
}
