package manifests

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

var placeholder = regexp.MustCompile(`\$\{([^}]*)\}?`)

// expansion is a text after its placeholders were replaced.
type expansion struct {
	text     string
	versions []string // names of the versions that the text uses
	platform bool     // whether the text depends on the platform
}

// expand replaces placeholders. Platform supplies os, arch and machine; with nil, these three
// are unknown placeholders.
func (s *selector) expand(here at, text string, platform *bundle.Platform) expansion {
	e := expansion{}
	e.text = placeholder.ReplaceAllStringFunc(s.platformText(text, platform, &e), func(p string) string {
		name := strings.TrimSuffix(strings.TrimPrefix(p, "${"), "}")
		value, ok := s.values[name]
		if hash, is := strings.CutPrefix(name, "sha256."); is {
			s.hashes[hash] = true
			if !ok {
				return "" // not known yet; pinned refuses it
			}
		}
		if !ok {
			s.problems = append(s.problems, here.problem("%s: nothing says what that is", p))
		}
		if v, ok := strings.CutPrefix(name, "versions."); ok {
			e.versions = append(e.versions, v)
			s.out.Versions[v] = value
		}
		return value
	})
	return e
}

var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// platformText replaces ${os}, ${arch} and ${machine}, which may occur inside other
// placeholders.
func (s *selector) platformText(text string, p *bundle.Platform, e *expansion) string {
	if !strings.Contains(text, "${") {
		return text
	}
	e.platform = strings.Contains(text, "${os}") || strings.Contains(text, "${arch}") || strings.Contains(text, "${machine}")
	if p == nil || !e.platform {
		return text
	}
	return strings.NewReplacer(
		"${os}",
		p.OS,
		"${arch}",
		p.Architecture,
		"${machine}",
		cmp.Or(machines[p.Architecture], p.Architecture),
	).Replace(
		text,
	)
}

// each returns the platforms for which an item is carried: every chosen platform if the text
// depends on the platform, otherwise a single nil.
func (s *selector) each(text string) []*bundle.Platform {
	var e expansion
	if s.platformText(text, nil, &e); !e.platform {
		return []*bundle.Platform{nil}
	}
	platforms := s.out.Platforms
	if len(platforms) == 0 {
		platforms = []bundle.Platform{{OS: "linux", Architecture: "amd64"}}
	}
	var list []*bundle.Platform
	for i := range platforms {
		list = append(list, &platforms[i])
	}
	return list
}

var hexSyntax = regexp.MustCompile(`^[0-9a-f]{64}$`)

// source expands a source to a URL, a path on this machine or the name of a catalogue file.
func (s *selector) source(here at, text string, platform *bundle.Platform) expansion {
	e := s.expand(here, text, platform)
	switch {
	case text == "" || len(s.problems) > 0 && e.text == "":
	case isURL(e.text):
		s.checkURL(here, e.text, "http", "https")
	default:
		path, err := here.local(e.text)
		var disk *fs.PathError
		switch {
		case errors.As(err, &disk):
			s.problems = append(s.problems, err)
		case err != nil:
			s.problems = append(s.problems, here.problem("%v", err))
		}
		e.text = path
	}
	return e
}

// checkURL refuses an invalid URL, and a URL that contains a login. The message does not
// repeat the URL.
func (s *selector) checkURL(here at, text string, schemes ...string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme):
		s.problems = append(s.problems, here.problem("it is not a URL that begins with %s://", strings.Join(schemes, ":// or ")))
	case u.User != nil:
		s.problems = append(
			s.problems,
			here.problem("a login in a URL would end up in lock files and bundles; take it out, and write it into a netrc file, such as ~/.netrc"),
		)
	}
}

func (s *selector) hash(here at, text string, platform *bundle.Platform) string {
	h := strings.ToLower(strings.TrimPrefix(s.expand(here, text, platform).text, "sha256:"))
	if h != "" && h != firstUse && !hexSyntax.MatchString(h) {
		s.problems = append(s.problems, here.of("sha256").problem("%q is not 64 hexadecimal digits", h))
	}
	return h
}

// firstUse takes the place of a hash for a file whose publisher provides none: the first
// download is accepted and locked.
const firstUse = "first-use"

// mattermostKey returns the key for signed plugins for which the manifest names no key.
func (s *selector) mattermostKey() []Key {
	const name = "mattermost-plugins"
	data, ok := s.keys[name]
	if !ok {
		data = serversKey()
	}
	return []Key{{name, data}}
}

func serversKey() []byte {
	data, err := catalogueFiles.ReadFile("catalogue/keys/mattermost-plugins.asc")
	if err != nil {
		panic(err) // the name is a constant
	}
	return data
}

// ServerHas reports whether key is the public key that every Mattermost server includes.
func ServerHas(key []byte) bool { return bytes.Equal(key, serversKey()) }

func (s *selector) keyList(here at, names []string) []Key {
	var list []Key
	for i, n := range names {
		data, ok := s.keys[n]
		if !ok {
			s.problems = append(s.problems, here.of(i).problem("there is no key %q", n))
		}
		list = append(list, Key{n, data})
	}
	return list
}

func (s *selector) expandValues(here at, v any) any {
	switch v := v.(type) {
	case string:
		return s.expand(here, v, nil).text
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = s.expandValues(here.of(i), x)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = s.expandValues(here.of(k), x)
		}
		return out
	}
	return v
}
