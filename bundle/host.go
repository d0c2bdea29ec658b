package bundle

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Host says what a host makes of the content: what it has to be told, what it
// generates itself, and what it does with files besides writing them. Nothing in
// it is a program; all of it is data for an installer that knows what to do.
//
// Texts marked as templates are those of Go's text/template; what stands in them
// is described in docs/host.md.
type Host struct {
	Values      []Value     `json:"values,omitempty"`
	Secrets     []Secret    `json:"secrets,omitempty"`
	Directories []Directory `json:"directories,omitempty"`
	Merges      []Merge     `json:"merges,omitempty"`
	Links       []Link      `json:"links,omitempty"`
	Health      []string    `json:"health,omitempty"` // URLs that answer 200 when all is well; templates
	Database    *Database   `json:"database,omitempty"`
	// Plugins is the directory of the release where archives and signatures of
	// plugins go; a template. "" means plugins.
	Plugins string `json:"plugins,omitempty"`
}

// Value is something that only the site knows.
type Value struct {
	Name     string `json:"name"`
	About    string `json:"about"`          // one sentence for the one who fills it in
	Kind     string `json:"kind,omitempty"` // one of ValueKinds; "" is any line of text
	Default  string `json:"default,omitempty"`
	Example  string `json:"example,omitempty"`
	Required bool   `json:"required,omitempty"`
}

// ValueKinds are the kinds of values. file and directory are absolute paths; a
// file has to be there.
var ValueKinds = []string{"", "host", "port", "number", "name", "file", "directory", "flag", "email", "registry"}

// Secret is a password that the site generates once and keeps.
type Secret struct {
	Name   string `json:"name"`
	Length int    `json:"length"` // characters, of A-Z a-z 0-9
}

// Directory is one below the data directory, made once and never touched again.
type Directory struct {
	Path  string `json:"path"`
	Owner string `json:"owner,omitempty"` // UID:GID; "" is who installs
	Mode  string `json:"mode,omitempty"`  // "" is 0755
}

// Merge is a JSON document below the data directory that other programs write
// too: a patch of the release is merged into it (RFC 7396).
type Merge struct {
	File  string `json:"file"`  // below the data directory; made if it is missing
	Patch string `json:"patch"` // path of a file of the release
	Owner string `json:"owner,omitempty"`
	Mode  string `json:"mode,omitempty"` // "" is 0600
}

// Link makes a file of the release known to the host at one of the places in
// LinkPlaces.
type Link struct {
	Path string `json:"path"`         // absolute
	File string `json:"file"`         // of the release
	If   string `json:"if,omitempty"` // name of a flag among the values that has to be true
}

// LinkPlaces are the directories outside of the release where links may stand.
var LinkPlaces = []string{
	"/etc/systemd/system/",
	"/etc/containers/systemd/",
	"/etc/nginx/conf.d/",
	"/etc/nginx/sites-enabled/",
	"/etc/containerd/certs.d/",
	"/etc/containers/registries.conf.d/",
	"/etc/rancher/k3s/registries.yaml",
}

// Database is a PostgreSQL of the deployment's own, which is dumped before an
// upgrade.
type Database struct {
	Service   string `json:"service"`   // container service
	Directory string `json:"directory"` // below the data directory; holds PG_VERSION
	User      string `json:"user"`
	Name      string `json:"name"`
}

// What a file of the release is besides content.
const (
	AsTemplate = "template" // text/template, rendered on the site
	AsArchive  = "archive"  // a .tar.gz, unpacked; path is the directory
	AsImages   = "images"   // YAML; images that are carried are replaced by the site's
)

var (
	valueName = regexp.MustCompile(`^[a-z][A-Za-z0-9]{0,62}$`)
	ownerIDs  = regexp.MustCompile(`^[0-9]{1,9}:[0-9]{1,9}$`)
	plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
)

// Check reports what cannot stand in such a document. Files is what the release
// has. The error wraps ErrFormat.
func (h *Host) Check(files []HostFile) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: what is said about the host: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	has := func(p string) bool {
		return slices.ContainsFunc(files, func(f HostFile) bool { return f.Path == p && f.As != AsArchive })
	}
	names := map[string]bool{}
	for _, v := range h.Values {
		if !valueName.MatchString(v.Name) || names[v.Name] || !slices.Contains(ValueKinds, v.Kind) || strings.ContainsAny(v.About+v.Default+v.Example, "\n\r") {
			return bad("the value %q (%q) is there twice, or is none", v.Name, v.Kind)
		}
		names[v.Name] = true
	}
	names = map[string]bool{}
	for _, s := range h.Secrets {
		if !valueName.MatchString(s.Name) || names[s.Name] || s.Length < 16 || s.Length > 256 {
			return bad("the secret %q (%d characters) is there twice, or is none", s.Name, s.Length)
		}
		names[s.Name] = true
	}
	for _, d := range h.Directories {
		if !validPath(d.Path) || !validOwner(d.Owner) || d.Mode != "" && !fileMode.MatchString(d.Mode) {
			return bad("the directory %q (owner %q, mode %q)", d.Path, d.Owner, d.Mode)
		}
	}
	for _, m := range h.Merges {
		if !validPath(m.File) || !has(m.Patch) || !validOwner(m.Owner) || m.Mode != "" && !fileMode.MatchString(m.Mode) {
			return bad("%q is to be merged into %q", m.Patch, m.File)
		}
	}
	for _, l := range h.Links {
		ok := slices.ContainsFunc(LinkPlaces, func(p string) bool { return l.Path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(l.Path, p) })
		if l.If != "" && !slices.ContainsFunc(h.Values, func(v Value) bool { return v.Name == l.If && v.Kind == "flag" }) {
			return bad("%q is to be linked if %q, which is no flag", l.File, l.If)
		}
		if !ok || path.Clean(l.Path) != l.Path || !validPath(l.Path[1:]) || !has(l.File) {
			return bad("%q is to be linked at %q", l.File, l.Path)
		}
	}
	if d := h.Database; d != nil && (!plainName.MatchString(d.Service) || !validPath(d.Directory) || !plainName.MatchString(d.User) || !plainName.MatchString(d.Name)) {
		return bad("the database %q", d.Name)
	}
	return nil
}

func validOwner(s string) bool { return s == "" || ownerIDs.MatchString(s) }
