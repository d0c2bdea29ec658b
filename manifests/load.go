package manifests

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Read reads and checks the manifest at path and the documents it includes. The error names
// every problem found. It wraps ErrInvalid, or the file system's error.
func Read(path string) (*Manifest, error) {
	data, err := readDocument(path)
	if err != nil {
		return nil, err
	}
	return open(data, &document{name: path, dir: filepath.Dir(path)})
}

// Parse reads and checks a manifest. Its paths are relative to the current directory.
func Parse(data []byte) (*Manifest, error) {
	return open(data, &document{name: "manifest", dir: "."})
}

// open reads a document and the documents it includes, and checks them all.
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
	parts []string // digests of all documents and key files
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

// construct matches the library's error for a value of the wrong shape, such as a scalar
// instead of a list.
var construct = regexp.MustCompile("cannot construct !![a-z]+ (`[^`]*`) into .*")

// position matches the prefix of the library's syntax errors: the component of the library,
// and the position.
var position = regexp.MustCompile(`^go-yaml load error in \w+(?: \(while [^)]*\))?(?: at (?:L(\d+)\.[^:]*|<unknown position>))?: `)

// plain rewrites the library's errors without the names of Go types.
func plain(err error) string {
	s := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "construct errors: ")
	if strings.Contains(s, "no documents in stream") {
		return "it is empty"
	}
	s = strings.Replace(position.ReplaceAllString(s, "line $1: it is no YAML: "), "line : ", "", 1)
	s = construct.ReplaceAllString(s, "$1 cannot stand here: another shape is expected, see the example in the README")
	return typeName.ReplaceAllString(s, "is not known here")
}

var typeName = regexp.MustCompile(`not found in type manifests\.[A-Za-z]+`)

// isURL reports whether a source is a URL rather than a local path.
func isURL(s string) bool { return strings.Contains(s, "://") }

// local returns the source of a file that the document names: an absolute or relative path on
// this machine, or the name of a catalogue file. An error that is an *fs.PathError concerns
// the machine, not the document.
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
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no file %s", full)
	}
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file", full)
	}
	return full, nil
}

// cleanPath reports whether a path is allowed in a bundle: relative, with slashes, and inside
// its base directory on every operating system.
func cleanPath(p string) bool {
	if p == "" || len(p) > 1024 || path.IsAbs(p) || path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return false
	}
	return strings.IndexFunc(p, func(r rune) bool {
		return r < ' ' || r > '~' || strings.ContainsRune(`\:*?"<>|`, r)
	}) < 0
}
