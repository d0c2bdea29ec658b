package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// ErrValues reports site values that are missing or wrong.
var ErrValues = errors.New("the site's values do not fit")

// Names of values that this package uses, if a bundle asks for them.
const (
	valueData     = bundle.ValueData
	valueRegistry = "registry" // address at which hosts reach the registry
)

// maxValues limits a file of values, in bytes.
const maxValues = 1 << 20

// ReadValues reads a site's values: a YAML map from names to texts. Errors wrap ErrValues, or
// come from the file system.
func ReadValues(path string) (map[string]string, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxValues {
		return nil, fmt.Errorf("%w: %s is not a file of at most %d bytes", ErrValues, path, maxValues)
	}
	data, err := disk.ReadFile(path, maxValues)
	if err != nil {
		return nil, err
	}
	values, err := parseValues(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrValues, path, err)
	}
	return values, nil
}

func parseValues(data []byte) (map[string]string, error) {
	values := map[string]string{}
	docs, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var doc, more yaml.Node
	if err := docs.Load(&doc); errors.Is(err, io.EOF) {
		return values, nil // only comments, as in an unchanged template
	} else if err != nil {
		return nil, err
	}
	if err := docs.Load(&more); !errors.Is(err, io.EOF) {
		return nil, errors.Join(errors.New("more than one document"), err)
	}
	if len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null" {
		return values, nil
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: a map of names to texts is expected", top.Line)
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: a name is expected", key.Line)
		}
		if value.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: %s has to be a text", value.Line, key.Value)
		}
		if _, ok := values[key.Value]; ok {
			return nil, fmt.Errorf("line %d: %s is there twice", key.Line, key.Value)
		}
		if value.ShortTag() == "!!null" {
			continue // left empty
		}
		values[key.Value] = value.Value
	}
	return values, nil
}

// complete checks a site's values against those that the bundle asks for, and adds defaults.
// It returns all problems.
func complete(asked []bundle.Value, given map[string]string) (values map[string]string, problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	values = map[string]string{}
	for _, v := range asked {
		s, ok := given[v.Name]
		if !ok || s == "" {
			s = v.Default
		}
		if s == "" && v.Required {
			bad("%s is needed: %s", v.Name, v.About)
			continue
		}
		if s != "" {
			if err := checkKind(v.Kind, s); err != nil {
				bad("%s: %v", v.Name, err)
			}
		}
		values[v.Name] = s
	}
	for _, name := range sortedKeys(given) {
		if _, ok := values[name]; ok {
			continue
		}
		known := false
		var names []string
		for _, v := range asked {
			known = known || v.Name == name
			names = append(names, v.Name)
		}
		switch {
		case known: // required and empty, already reported
		case len(names) == 0:
			bad("%s is given, and this bundle asks for nothing", name)
		default:
			bad("%s is not known to this bundle, which asks for %s", name, strings.Join(names, ", "))
		}
	}
	return values, problems
}

// checkKind checks a value, and whether a file exists and is readable.
func checkKind(kind, s string) error {
	if err := bundle.CheckValue(kind, s); err != nil || kind != "file" {
		return err
	}
	return readable(s)
}

func readable(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// Template returns the YAML file that a site fills in, with a comment for each value.
func Template(d *bundle.Deployment) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# What only this site knows, for %s %s.\n", d.Name, d.Version)
	if d.Host == nil || len(d.Host.Values) == 0 {
		b.WriteString("# This bundle asks for nothing.\n")
		return []byte(b.String())
	}
	b.WriteString(
		"# Fill in what is needed, take the # away where you want something else than the\n# default, and give this file to: " +
			"oob-bundle install BUNDLE --values FILE\n",
	)
	kinds := map[string]string{
		"host":      "a host name or an address",
		"port":      "a port",
		"number":    "a number",
		"name":      "a name",
		"file":      "the absolute path of a file that is there",
		"directory": "an absolute path",
		"flag":      "true or false",
		"email":     "an address",
		"registry":  "HOST[:PORT][/PREFIX]",
	}
	for _, v := range d.Host.Values {
		fmt.Fprintf(&b, "\n# %s\n", strings.TrimSuffix(v.About, "."))
		if k := kinds[v.Kind]; k != "" {
			fmt.Fprintf(&b, "# It is %s.", k)
		} else {
			b.WriteString("# It is a text.")
		}
		if v.Example != "" {
			fmt.Fprintf(&b, " Example: %s", v.Example)
		}
		b.WriteString("\n")
		switch {
		case v.Required && v.Default == "":
			fmt.Fprintf(&b, "%s:   # needed\n", v.Name)
		default:
			fmt.Fprintf(&b, "#%s: %s\n", v.Name, quoted(v.Default))
		}
	}
	return []byte(b.String())
}

func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, "\"'#{}[],&*!|>%@`: ") {
		return strconv.Quote(s)
	}
	return s
}
