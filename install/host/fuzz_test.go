package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestSeeds counts the seeds of each fuzz target and how many are accepted.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzMerge", "FuzzTemplate", "FuzzValues")
	seeds.Count(t, "FuzzMerge", mergeSeeds(), 17, 8, 0, fuzzMerge(t.TempDir()))
	seeds.Count(t, "FuzzTemplate", templateSeeds(), 18, 13, 0, fuzzTemplate)
	seeds.Count(t, "FuzzValues", valueSeeds(), 8, 12, 0, fuzzValues(t.TempDir()))
}

func valueSeeds() seeds.Of[[]byte] {
	var s seeds.Of[[]byte]
	for _, text := range []string{
		"", "# nothing\n", "a: b\nc: 1.10\nd:\n", "a: !!int 1\n", "a: |\n  b\n  c\n",
		"domain: chat.site.mil\nport: \"80\"\n", `{"adminPassword":"abc","b":"\u00fc"}`, "{}",
	} {
		s.Taken = append(s.Taken, []byte(text))
	}
	for _, text := range []string{
		"a: [1]\n", "a: b\na: c\n", "- a\n", "a: &x b\nc: *x\n", "\x00", "a: b\n---\nc: d\n", "a: {b: c}\n", "text",
		"a: \"\n", "\xff: a\n", "? [a]\n: b\n", "<<: {a: b}\n",
	} {
		s.Refused = append(s.Refused, []byte(text))
	}
	return s
}

// FuzzValues checks that values from any file are single strings that survive writing and
// reading, and the same for stored passwords.
func FuzzValues(f *testing.F) {
	for _, s := range valueSeeds().All() {
		f.Add(s)
	}
	check := fuzzValues(f.TempDir())
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}

func fuzzValues(dir string) func(t *testing.T, data []byte) bool {
	return func(t *testing.T, data []byte) bool {
		keptSecrets(t, dir, data)
		values, err := parseValues(data)
		if err != nil {
			return false
		}
		asked := []bundle.Value{}
		for _, name := range sortedKeys(values) {
			asked = append(asked, bundle.Value{Name: name})
		}
		_, problems := complete(asked, values)
		for name, v := range values {
			if strings.ContainsAny(v, "\n\x00") && len(problems) == 0 {
				t.Errorf("%q: %q", name, v)
			}
			for _, kind := range bundle.ValueKinds {
				checkValue(t, kind, v)
			}
		}
		for name := range values {
			if len(problems) > 0 || checkKind("", name) != nil {
				return true
			}
		}
		written, err := yaml.Dump(values)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseValues(written)
		if err != nil || !maps.Equal(values, again) {
			t.Errorf("%q is %q, and that is %q: %v", data, values, again, err)
		}
		return true
	}
}

// checkValue checks that a value that a kind accepts contains nothing that can break out of
// quotes.
func checkValue(t *testing.T, kind, v string) {
	t.Helper()
	if checkKind(kind, v) != nil || kind == "" || kind == "email" {
		return
	}
	if strings.ContainsAny(v, "\n\r\t\x00\"'`$\\;|&<>(){}[]#*?!^=,") {
		t.Errorf("%q is taken for a %s", v, kind)
	}
	if kind == "directory" && (!filepath.IsAbs(v) || filepath.Clean(v) != v) {
		t.Errorf("%q is taken for a directory", v)
	}
}

// keptSecrets checks that secrets.json survives reading and writing.
func keptSecrets(t *testing.T, dir string, data []byte) {
	t.Helper()
	if err := os.WriteFile(secretsPath(dir), data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := readSecrets(dir)
	if err != nil {
		if !errors.Is(err, bundle.ErrFormat) && !errors.Is(err, bundle.ErrNewer) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return
	}
	var other map[string]string
	if err := json.Unmarshal(data, &other); err != nil || !maps.Equal(other, s) {
		t.Fatalf("%q is %q, and by encoding/json %q: %v", data, s, other, err)
	}
	if err := s.keep(dir); err != nil {
		t.Fatal(err)
	}
	if again, err := readSecrets(dir); err != nil || !maps.Equal(s, again) {
		t.Fatalf("%q was kept as %q: %v", s, again, err)
	}
}

// mergeInput is a document that a program wrote, and a patch.
type mergeInput struct{ old, patch []byte }

func mergeSeeds() seeds.Of[mergeInput] {
	var s seeds.Of[mergeInput]
	for _, x := range [][2]string{
		{`{"S":{"Keep":12345678901234567890,"On":true,"Gone":1}}`, `{"S":{"On":false,"Gone":null,"New":"x"}}`},
		{``, `{"a":1}`}, {"\n", `{"a":{"b":null}}`},
		// The examples of RFC 7396, appendix A, that are about objects.
		{`{"a":"b"}`, `{"a":"c"}`}, {`{"a":"b"}`, `{"b":"c"}`}, {`{"a":"b"}`, `{"a":null}`},
		{`{"a":["b"]}`, `{"a":"c"}`}, {`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`}, {`{"e":null}`, `{"a":1}`}, {`{}`, `{"a":{"bb":{"ccc":null}}}`},
		{`{}`, `{"a":[{"b":null}]}`}, {`{"a":"foo"}`, `null`}, {`[1,2]`, `{"a":"b","c":null}`}, {`null`, `{"a":1}`},
		{`{"a":1,"a":{"b":2}}`, `{"a":{"b":null}}`}, {`{"x":{"a":1,"a":2},"y":"ÿ"}`, `{"b":1}`},
	} {
		s.Taken = append(s.Taken, mergeInput{[]byte(x[0]), []byte(x[1])})
	}
	for _, x := range [][2]string{
		{`{`, `{"a":1}`}, {`{}`, `{`}, {`{}`, ``}, {`{} {}`, `{"a":1}`}, {`text`, `{}`}, {`{"a":1,}`, `{"a":1}`},
		{"\xef\xbb\xbf{}", `{"a":1}`}, {`{"a":nul}`, `{"b":1}`},
	} {
		s.Refused = append(s.Refused, mergeInput{[]byte(x[0]), []byte(x[1])})
	}
	return s
}

// FuzzMerge checks that a patch is merged as in RFC 7396, that a second merge changes nothing,
// and that undoing the merge restores the original bytes.
func FuzzMerge(f *testing.F) {
	for _, s := range mergeSeeds().All() {
		f.Add(s.old, s.patch)
	}
	check := fuzzMerge(f.TempDir())
	f.Fuzz(func(t *testing.T, old, patch []byte) { check(t, mergeInput{old, patch}) })
}

func fuzzMerge(root string) func(t *testing.T, in mergeInput) bool {
	m := bundle.Merge{File: "config.json", Patch: "patch.json"}
	a := &About{Name: "app", ID: "0123456789abcdef", Data: filepath.Join(root, "data"), Merges: []bundle.Merge{m}}
	base := Base(root, a.Name)
	release, config := filepath.Join(base, "releases", a.ID), filepath.Join(a.Data, m.File)
	for _, dir := range []string{release, a.Data} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			panic(err)
		}
	}
	none := (*About)(nil).merges(base)
	return func(t *testing.T, in mergeInput) bool {
		if err := os.WriteFile(filepath.Join(release, m.Patch), in.patch, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(config, in.old, 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(filepath.Join(base, "replaced"))
		read := func() []byte {
			data, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		if err := switchMerges(base, none, a.merges(base), false); err != nil {
			if got := read(); !bytes.Equal(got, in.old) {
				t.Fatalf("refused (%v), and %q became %q", err, in.old, got)
			}
			return false
		}
		got := read()
		old := in.old
		if len(bytes.TrimSpace(old)) == 0 {
			old = []byte("{}")
		}
		if want, ok := expected(t, old, in.patch); !ok || !reflect.DeepEqual(decoded(t, got), want) {
			t.Fatalf("%q with %q is %q", in.old, in.patch, got)
		}
		if err := switchMerges(base, none, a.merges(base), false); err != nil || !bytes.Equal(read(), got) {
			t.Fatalf("a second time %q with %q is %q and then %q: %v", in.old, in.patch, got, read(), err)
		}
		if err := switchMerges(base, a.merges(base), none, true); err != nil {
			t.Fatal(err)
		}
		if now, err := os.ReadFile(config); errors.Is(err, os.ErrNotExist) && len(in.old) > 0 || err == nil && !bytes.Equal(now, in.old) {
			t.Fatalf("taken back %q with %q is %q: %v", in.old, in.patch, now, err)
		}
		return true
	}
}

// decoded decodes JSON and keeps the spelling of numbers.
func decoded(t *testing.T, data []byte) any {
	t.Helper()
	v, err := decodeNumbers(data)
	if err != nil {
		t.Fatalf("%v in %q", err, data)
	}
	return v
}

// expected is the algorithm of RFC 7396, section 2.
func expected(t *testing.T, target, patch []byte) (any, bool) {
	t.Helper()
	a, errA := decodeNumbers(target)
	b, errB := decodeNumbers(patch)
	if errA != nil || errB != nil {
		return nil, false
	}
	return rfc7396(a, b), true
}

func rfc7396(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(t, k)
		} else {
			t[k] = rfc7396(t[k], v)
		}
	}
	return t
}

// templateInput is an author's template, a site's value, and a document in which images are
// replaced.
type templateInput struct {
	template, value string
	document        []byte
}

func templateSeeds() seeds.Of[templateInput] {
	const document = "image: docker.io/library/nginx:1\nother: [\"nginx\", 'quay.io/a/b:2']\n---\n# nginx:1\nimage: " +
		"nginx:2\nlist: [nginx:1-alpine, \"\u00fc\", nginx:1, 'nginx:1']\nflow: {about: \"see nginx:1 here\", image: nginx:1}\n"
	s := seeds.Of[templateInput]{}
	for _, text := range []string{
		"", "plain", "{{ .Values.v }}", "{{ json .Values.v }}\n{{ image \"docker.io/library/nginx\" }}", "{{ if has \"web\" " +
			"}}{{ .Name }}{{ end }}{{ range plugins }}{{ .ID }}{{ end }}",
		"{{ environ \"P\" `{\"A\":{\"b\":[1,\"c\"]}}` }}", "{{ base .Data }} {{ dir .Data }} {{ tag " +
			"\"docker.io/library/nginx:1\" }}", "{{ $x := .Secrets.p }}{{ printf \"%q\" $x }}",
	} {
		s.Taken = append(s.Taken, templateInput{text, "a value: with # all \"that' YAML knows", []byte(document)})
	}
	for _, text := range []string{
		"{{", "{{ .Values.none }}", "{{ .None }}", "{{ image \"none\" }}", "{{ fail \"why\" }}", "{{ template \"x\" }}", "{{ define \"x\" " +
			"}}{{ template \"x\" }}{{ end }}{{ template \"x\" }}",
		"{{ index .Values 1 }}", "{{ environ \"P\" \"[]\" }}", "{{ call .Name }}", "{{ printf \"%9999999d\" 1 }}",
	} {
		s.Refused = append(s.Refused, templateInput{text, "v", []byte(document)})
	}
	s.Refused = append(s.Refused, templateInput{"", "v", []byte("a: [\n")}, templateInput{"", "v", []byte("a: \"nginx\\x3a1\"\n")})
	for _, value := range []string{"a\u0085b", "a\u2028b", "\ufeffa", "\uffff", "\u009b31m", "\u200c\u00a0"} { // valid in one line or not
		s.Taken = append(s.Taken, templateInput{"plain", value, []byte(document)})
	}
	for _, line := range []string{"\u0085", "\u2028", "\r", "\r\n"} {
		s.Taken = append(s.Taken, templateInput{"plain", "v", []byte("# a" + line + "b: c" + line + "image: docker.io/library/nginx:1" + line)})
	}
	return s
}

// FuzzTemplate checks that a template ends with a text of limited size or with ErrTemplate,
// that a quoted value is read back unchanged, and that replacing images changes nothing else.
func FuzzTemplate(f *testing.F) {
	for _, s := range templateSeeds().All() {
		f.Add(s.template, s.value, s.document)
	}
	f.Fuzz(func(t *testing.T, template, value string, document []byte) {
		fuzzTemplate(t, templateInput{template, value, document})
	})
}

const siteRegistry = "registry.site:5000/mirror"

var siteImage = siteRegistry + "/docker.io/library/nginx@" + string(bundle.DigestOf([]byte("manifest")))

func fuzzRenderer(value string) *renderer {
	digest := bundle.DigestOf([]byte("manifest"))
	const ref = "docker.io/library/nginx:1"
	return &renderer{
		limits: newLimits(),
		view: view{
			Name:     "demo",
			Version:  "1",
			Registry: siteRegistry,
			Data:     "/var/lib/x",
			Values:   map[string]string{"v": value},
			Secrets:  map[string]string{"p": "secret"},
			Platform: "linux/amd64",
			Settings: map[string]string{},
		},
		platform: bundle.Platform{OS: "linux", Architecture: "amd64"},
		d: &bundle.Deployment{
			Components: []bundle.Component{{Name: "web"}},
			Plugins:    []bundle.Plugin{{ID: "com.example.demo"}},
			Images: []bundle.Image{
				{Reference: ref, Repository: "docker.io/library/nginx", Tag: "1", Digest: digest, Manifests: []bundle.Digest{digest}},
			},
		},
		g: &bundle.Geometry{
			Index:     &bundle.Index{Manifests: []bundle.Descriptor{{Digest: digest, Annotations: map[string]string{bundle.AnnotationRef: ref}}}},
			Manifests: map[bundle.Digest]*bundle.Manifest{digest: {Config: &bundle.Descriptor{MediaType: bundle.TypeOCIConfig}}},
		},
		file: func(string) (string, error) { return "", errors.New("not here") },
	}
}

func fuzzTemplate(t *testing.T, in templateInput) bool {
	if len(in.template) > 4096 {
		return false
	}
	r := fuzzRenderer(in.value)
	out, err := r.render("t", in.template)
	if err != nil && !errors.Is(err, ErrTemplate) || len(out) > bundle.MaxTemplate {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	r.limits = newLimits()
	if utf8.ValidString(in.value) && checkKind("", in.value) == nil {
		quotedValue(t, r, in.value)
	}
	return replaceImages(t, r, in.document) && err == nil
}

// quotedValue checks that a value quoted with json is read back unchanged from YAML and JSON.
func quotedValue(t *testing.T, r *renderer, value string) {
	t.Helper()
	out, err := r.render("t", "a: {{ json .Values.v }}\nb: end\n")
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]string
	if err := yaml.Load(out, &doc); err != nil || doc["a"] != value || doc["b"] != "end" || len(doc) != 2 {
		t.Fatalf("%q is %q in YAML: %v\n%s", value, doc["a"], err, out)
	}
	out, err = r.render("t", `{"a":{{ json .Values.v }}}`)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]string
	if err := json.Unmarshal(out, &object); err != nil || object["a"] != value || len(object) != 1 {
		t.Fatalf("%q is %q in JSON: %v", value, object["a"], err)
	}
}

// replaceImages checks that every node of a YAML document is unchanged or replaced by the
// site's image.
func replaceImages(t *testing.T, r *renderer, document []byte) bool {
	t.Helper()
	out, _, err := r.siteImages("d", document)
	if err != nil {
		if !errors.Is(err, bundle.ErrFormat) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	before, errB := scalars(document)
	after, errA := scalars(out)
	if errB != nil || errA != nil || len(before) != len(after) {
		t.Fatalf("%q became %q: %v, %v", document, out, errB, errA)
	}
	for i := range before {
		ref, err := bundle.ParseReference(before[i])
		carried := err == nil && ref.Repository() == "docker.io/library/nginx"
		changed := before[i] != after[i]
		if changed && (!carried || after[i] != siteImage) || !changed && before[i] == "docker.io/library/nginx:1" {
			t.Fatalf("%q became %q: %q is %q", document, out, before[i], after[i])
		}
	}
	return true
}

// scalars returns the scalars of all documents, and the tags of the other nodes.
func scalars(data []byte) (list []string, err error) {
	dec, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var visit func(n *yaml.Node)
	visit = func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode {
			list = append(list, n.Value)
		} else {
			list = append(list, n.ShortTag())
		}
		for _, c := range n.Content {
			visit(c)
		}
	}
	for {
		var doc yaml.Node
		if err := dec.Load(&doc); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		visit(&doc)
	}
}
