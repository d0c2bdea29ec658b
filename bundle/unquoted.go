package bundle

import (
	"maps"
	"path"
	"slices"
	"strings"
	"text/template/parse"
)

// Unquoted is a place where a template prints a site's value into a file of another language
// without quoting it for that language.
type Unquoted struct {
	Line  int
	Value string // .Values.NAME, .Secrets.NAME, or the call that returns values
	Use   string // the functions that quote
}

// Unquoted returns the unquoted places of the template for the file at path. It leaves out
// values of kinds without special characters. It returns nil if the file's name and links do
// not determine its language. H may be nil.
func (h *Host) Unquoted(path, text string) ([]Unquoted, error) {
	if h == nil {
		h = &Host{}
	}
	language := h.languageOf(path)
	if language == nil {
		return nil, nil
	}
	t, err := parseTemplate(path, text)
	if err != nil {
		return nil, err
	}
	w := &flowWalk{language: language, templates: t, seen: map[string]bool{}, found: map[Unquoted]bool{}}
	w.report = func(node parse.Node, origin string) {
		if !h.harmless(origin, language) {
			line := 1 + strings.Count(text[:node.Position()], "\n")
			w.found[Unquoted{line, origin, strings.Join(language.quotes, " or ")}] = true
		}
	}
	if t.Tree != nil {
		w.template(t.Tree, operand{place: "."})
	}
	return slices.SortedFunc(maps.Keys(w.found), func(a, b Unquoted) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Value, b.Value)
	}), nil
}

// language is a language of files in a release.
type language struct {
	quotes []string // functions whose result is safe in it
	words  bool     // a space ends a word
}

var (
	inJSON    = &language{quotes: []string{"json"}}
	inYAML    = &language{quotes: []string{"yaml", "json", "podEnv"}}
	inCompose = &language{quotes: []string{"compose"}}
	inEnv     = &language{quotes: []string{"env"}}
	inUnit    = &language{quotes: []string{"systemd", "systemdExec", "systemdLine"}, words: true}
	inNginx   = &language{quotes: []string{"nginx"}}
	inShell   = &language{quotes: []string{"shell"}, words: true}
	inSQL     = &language{quotes: []string{"sql"}}
)

// unitSuffixes are the suffixes of systemd's and podman's units.
var unitSuffixes = []string{
	".service", ".socket", ".timer", ".path", ".mount", ".automount", ".swap", ".target", ".slice",
	".container", ".network", ".volume", ".pod", ".kube", ".image", ".build",
}

// envDirectories are the directories in which systemd's units look for env files.
var envDirectories = []string{"/etc/default", "/etc/sysconfig", "/etc/environment.d"}

// languageOf returns the language of a file by its declared uses and its name, or nil if these
// do not determine it.
func (h *Host) languageOf(file string) *language {
	for _, m := range h.Merges {
		if m.Patch == file {
			return inJSON
		}
	}
	for _, l := range h.Links {
		if l.File != file {
			continue
		}
		if found := languageByName(l.Path); found != nil {
			return found
		}
	}
	return languageByName(file)
}

func languageByName(file string) *language {
	file = strings.ToLower(file)
	if dir, dropIn := strings.CutSuffix(path.Dir(file), ".d"); dropIn && slices.Contains(unitSuffixes, path.Ext(dir)) {
		return inUnit // x.service.d/y.conf, systemd.unit(5)
	}
	base, suffix := path.Base(file), path.Ext(file)
	isYAML := suffix == ".yaml" || suffix == ".yml"
	isCompose := slices.ContainsFunc([]string{"compose", "docker-compose", "podman-compose"}, func(prefix string) bool {
		return strings.HasPrefix(base, prefix)
	})
	switch {
	case isYAML && isCompose:
		return inCompose
	case isYAML:
		return inYAML
	case suffix == ".json":
		return inJSON
	case suffix == ".env", strings.HasPrefix(base, ".env."), slices.Contains(envDirectories, path.Dir(file)):
		return inEnv
	case suffix == ".sh":
		return inShell
	case suffix == ".sql":
		return inSQL
	case slices.Contains(unitSuffixes, suffix):
		return inUnit
	case strings.HasPrefix(file, "/etc/nginx/"), strings.Contains(file, "nginx") && suffix == ".conf":
		return inNginx
	}
	return nil
}

// plainKinds are the kinds of values without a character that needs quoting. Values of
// pathKinds may contain spaces.
var (
	plainKinds = []string{"host", "port", "number", "name", "flag", "registry"}
	pathKinds  = []string{"file", "directory"}
)

// harmless reports whether a value cannot contain a character that needs quoting. An
// undeclared value is harmless: a site refuses to render a template that prints it.
func (h *Host) harmless(origin string, in *language) bool {
	name, ok := strings.CutPrefix(origin, ".Values.")
	if !ok {
		return false
	}
	i := slices.IndexFunc(h.Values, func(v Value) bool { return v.Name == name })
	if i < 0 {
		return true
	}
	kind := h.Values[i].Kind
	return slices.Contains(plainKinds, kind) || !in.words && slices.Contains(pathKinds, kind)
}
