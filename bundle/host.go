package bundle

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Host describes what a host does with the content: the values that it needs, the secrets that
// it generates, and the use of files beyond writing them. Nothing in it is a program; all of
// it is data for an installer.
//
// Texts marked as templates are those of Go's text/template; docs/host.md describes what they
// may contain.
type Host struct {
	Values      []Value     `json:"values,omitempty"`
	Secrets     []Secret    `json:"secrets,omitempty"`
	Directories []Directory `json:"directories,omitempty"`
	Merges      []Merge     `json:"merges,omitempty"`
	Links       []Link      `json:"links,omitempty"`
	Health      []string    `json:"health,omitempty"` // URLs that return 200 if the deployment is healthy; templates
	Database    *Database   `json:"database,omitempty"`
	Cluster     []Step      `json:"cluster,omitempty"` // what a Kubernetes cluster gets
	// Plugins is the directory of the release where archives and signatures of
	// plugins go; a template. "" means plugins.
	Plugins string `json:"plugins,omitempty"`
}

// Value is a setting that only the site knows.
type Value struct {
	Name     string `json:"name"`
	About    string `json:"about"`          // one sentence for the person who fills it in
	Kind     string `json:"kind,omitempty"` // one of ValueKinds; "" is any line of text
	Default  string `json:"default,omitempty"`
	Example  string `json:"example,omitempty"`
	Required bool   `json:"required,omitempty"`
}

// Needed returns the values that an installation requires.
func Needed(values []Value) []Value {
	return slices.DeleteFunc(slices.Clone(values), func(v Value) bool { return !v.Required })
}

// ValueData names the value with the directory in which programs keep their data. Only the
// site sets it: otherwise a merge into files of that directory could become a merge into other
// files.
const ValueData = "dataDirectory"

// ValueKinds are the kinds of values. A file or directory is an absolute path; a file must
// exist.
var ValueKinds = []string{"", "host", "port", "number", "name", "file", "directory", "flag", "email", "registry"}

// Secret is a password that the site generates once and keeps.
type Secret struct {
	Name   string `json:"name"`
	Length int    `json:"length"` // characters, of A-Z a-z 0-9
}

// Directory is a directory below the data directory. It is created once and never changed
// again.
type Directory struct {
	Path  string `json:"path"`
	Owner string `json:"owner,omitempty"` // UID:GID; "" is the installing user
	Mode  string `json:"mode,omitempty"`  // "" is 0755
}

// Merge is a JSON document below the data directory that other programs write too. The
// installer merges a patch of the release into it (RFC 7396).
type Merge struct {
	File  string `json:"file"`  // below the data directory; created if it is missing
	Patch string `json:"patch"` // path of a file of the release
	Owner string `json:"owner,omitempty"`
	Mode  string `json:"mode,omitempty"` // "" is 0600
}

// Link makes a file of the release known to the host at a place that IsLinkPlace accepts.
type Link struct {
	Path string `json:"path"`         // absolute
	File string `json:"file"`         // of the release
	If   string `json:"if,omitempty"` // name of a value of the kind flag that must be true
}

// linkPlaces are the places outside of the release where links may be. They allow plain names
// only, so that no link changes, enables or hides a unit of another program (as in NAME.d and
// NAME.wants).
var linkPlaces = []*regexp.Regexp{
	regexp.MustCompile(`^/etc/systemd/system/[A-Za-z0-9:_.@-]+\.(service|socket|timer|path|mount|target)$`),
	regexp.MustCompile(`^/etc/containers/systemd/[A-Za-z0-9:_.@-]+\.(container|network|volume|pod|kube|image|build)$`),
	regexp.MustCompile(`^/etc/nginx/(conf\.d|sites-enabled)/[A-Za-z0-9:_.@-]+$`),
	regexp.MustCompile(`^/etc/containerd/certs\.d/[A-Za-z0-9:_.-]+/hosts\.toml$`),
	regexp.MustCompile(`^/etc/containers/registries\.conf\.d/[A-Za-z0-9:_.-]+\.conf$`),
	regexp.MustCompile(`^/etc/rancher/k3s/registries\.yaml$`),
}

// IsLinkPlace reports whether a link may be at an absolute path.
func IsLinkPlace(p string) bool {
	return slices.ContainsFunc(linkPlaces, func(re *regexp.Regexp) bool { return re.MatchString(p) })
}

// Database is the deployment's own PostgreSQL database. It is dumped before an upgrade.
type Database struct {
	Service   string `json:"service"`   // container service; in a cluster the container of the pod
	Directory string `json:"directory"` // below the data directory; holds PG_VERSION. In a cluster ""
	User      string `json:"user"`
	Name      string `json:"name"`
	// In a cluster: the label selector of the primary's pod and its namespace, both templates,
	// and when there is such a database (as Step.If).
	Selector  string `json:"selector,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	If        string `json:"if,omitempty"`
}

// Values of HostFile.As: how an installer treats a file of the release.
const (
	AsTemplate = "template" // text/template, rendered on the site
	AsArchive  = "archive"  // a .tar.gz, unpacked; path is the directory
	AsImages   = "images"   // YAML; references to carried images are replaced by the site's
)

var (
	valueName = regexp.MustCompile(`^[a-z][A-Za-z0-9]{0,62}$`)
	ownerIDs  = regexp.MustCompile(`^[0-9]{1,9}:[0-9]{1,9}$`)
	plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
)

// Check reports what is not valid in the document. Files is what the release has, charts what
// the bundle has, or nil if that is not known yet. The error wraps ErrFormat.
func (h *Host) Check(files []HostFile, charts []Chart) error {
	content := map[string]bool{} // paths of files, not of archives
	for _, f := range files {
		content[f.Path] = content[f.Path] || f.As != AsArchive
	}
	for _, check := range []func() error{
		h.checkValues, h.checkSecrets, h.checkDirectories,
		func() error { return h.checkMerges(content) },
		func() error { return h.checkLinks(content) },
		func() error { return h.checkCluster(content, charts) },
		h.checkDatabase,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// invalidHost returns an error about the host part of a document. The error wraps ErrFormat.
func invalidHost(format string, args ...any) error {
	return invalid("host: %s", fmt.Sprintf(format, args...))
}

func (h *Host) checkValues() error {
	names := map[string]bool{}
	for _, v := range h.Values {
		switch {
		case !valueName.MatchString(v.Name):
			return invalidHost("invalid value name %q", v.Name)
		case names[v.Name]:
			return invalidHost("duplicate value %q", v.Name)
		case !slices.Contains(ValueKinds, v.Kind):
			return invalidHost("the value %q is of the kind %q, which this version does not know", v.Name, v.Kind)
		case strings.ContainsFunc(v.About+v.Default+v.Example, notText):
			return invalidHost("the description, default or example of the value %q contains control characters", v.Name)
		case v.Name == ValueData && (v.Kind != "directory" || v.Default != ""):
			return invalidHost("the value %q has to be a directory without a default", v.Name)
		}
		names[v.Name] = true
	}
	return nil
}

func (h *Host) checkSecrets() error {
	names := map[string]bool{}
	for _, s := range h.Secrets {
		switch {
		case !valueName.MatchString(s.Name):
			return invalidHost("invalid secret name %q", s.Name)
		case names[s.Name]:
			return invalidHost("duplicate secret %q", s.Name)
		case s.Length < 16 || s.Length > 256:
			return invalidHost("the secret %q has %d characters; it must have 16 to 256", s.Name, s.Length)
		}
		names[s.Name] = true
	}
	return nil
}

// checkPlace checks the path, owner and mode of a file or directory below the data directory.
func checkPlace(path, owner, mode string) error {
	switch {
	case !validPath(path):
		return invalidHost("invalid path %q", path)
	case !validOwner(owner):
		return invalidHost("%q has the owner %q; it must be UID:GID in digits", path, owner)
	case mode != "" && !dataMode.MatchString(mode):
		return invalidHost("%q has the mode %q; it must be four octal digits, and others may not write", path, mode)
	}
	return nil
}

func (h *Host) checkDirectories() error {
	for _, d := range h.Directories {
		if err := checkPlace(d.Path, d.Owner, d.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) checkMerges(content map[string]bool) error {
	for _, m := range h.Merges {
		if err := checkPlace(m.File, m.Owner, m.Mode); err != nil {
			return err
		}
		if !content[m.Patch] {
			return invalidHost("the patch %q for %q is not a file of the bundle", m.Patch, m.File)
		}
	}
	if file, other := h.overlap(); file != "" {
		return invalidHost("%q is both a file and a directory, because of %q", file, other)
	}
	return nil
}

func (h *Host) checkLinks(content map[string]bool) error {
	paths := map[string]bool{}
	isFlag := func(name string) bool {
		return slices.ContainsFunc(h.Values, func(v Value) bool { return v.Name == name && v.Kind == "flag" })
	}
	for _, l := range h.Links {
		switch {
		case !IsLinkPlace(l.Path) || path.Clean(l.Path) != l.Path || !validPath(l.Path[1:]):
			return invalidHost("no link may be at %q", l.Path)
		case paths[l.Path]:
			return invalidHost("duplicate link %q", l.Path)
		case !content[l.File]:
			return invalidHost("the link %q leads to %q, which is not a file of the bundle", l.Path, l.File)
		case l.If != "" && !isFlag(l.If):
			return invalidHost("the link %q depends on %q, which is not a flag", l.Path, l.If)
		}
		paths[l.Path] = true
	}
	return nil
}

func (h *Host) checkDatabase() error {
	d := h.Database
	if d == nil {
		return nil
	}
	if !plainName.MatchString(d.Service) || !plainName.MatchString(d.User) || !plainName.MatchString(d.Name) {
		return invalidHost("the database has the service %q, user %q and name %q; "+
			"only lower-case letters, digits, _ and - are allowed", d.Service, d.User, d.Name)
	}
	if inCluster := d.Selector != ""; inCluster != (d.Directory == "") || inCluster != (d.Namespace != "") {
		return invalidHost("the database has the directory %q, the selector %q and the namespace %q; "+
			"it needs the first on a host, and the others in a cluster", d.Directory, d.Selector, d.Namespace)
	}
	if d.Selector == "" && !validPath(d.Directory) {
		return invalidHost("invalid directory %q of the database", d.Directory)
	}
	return nil
}

// overlap returns a file that is merged into and is also a directory. Other is the reason: the
// same path as a declared directory, or a path below the file. Both are "" if there is no such
// file.
func (h *Host) overlap() (file, other string) {
	files := map[string]bool{}
	var paths []string
	for _, m := range h.Merges {
		p := strings.ToLower(m.File)
		files[p] = true
		paths = append(paths, p)
	}
	for _, d := range h.Directories {
		p := strings.ToLower(d.Path)
		if files[p] {
			return p, p
		}
		paths = append(paths, p)
	}
	for _, p := range paths {
		for end := strings.LastIndexByte(p, '/'); end > 0; end = strings.LastIndexByte(p[:end], '/') {
			if files[p[:end]] {
				return p[:end], p
			}
		}
	}
	return "", ""
}

// Installable returns an error if no installation could use the document although the format
// allows it: a default does not fit its kind, a template or plugin directory is invalid, or a
// public name or address contains a password.
func (h *Host) Installable() error {
	for _, v := range h.Values {
		if v.Default == "" {
			continue
		}
		if err := CheckValue(v.Kind, v.Default); err != nil {
			return fmt.Errorf("the default of the value %q: %w", v.Name, err)
		}
	}
	for _, u := range append([]string{h.Plugins}, h.Health...) {
		if strings.Contains(u, ".Secrets") {
			return fmt.Errorf("%q contains a password, and everybody may see a directory's name and an address; use a value instead", u)
		}
	}
	for _, u := range h.Health {
		if err := CheckTemplate("health", u); err != nil {
			return fmt.Errorf("an address to ask whether all is well: %w", err)
		}
	}
	if err := h.checkClusterTemplates(); err != nil {
		return err
	}
	if err := CheckTemplate("plugins", h.Plugins); err != nil {
		return fmt.Errorf("plugins are to be in %q: %w", h.Plugins, err)
	}
	if h.Plugins != "" && !strings.Contains(h.Plugins, "{{") && !validPath(h.Plugins) {
		return fmt.Errorf("plugins are to be in %q, which is no directory of a release", h.Plugins)
	}
	return nil
}

// Unseen reports whether a character is not displayed as itself. These are control and format
// characters, including those that change the direction of text, and separators of lines and
// paragraphs.
func Unseen(r rune) bool { return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) }

// notText reports whether a line of text must not contain r. It refuses line ends, including
// those of YAML, the control and format characters that a terminal obeys, and the replacement
// character.
func notText(r rune) bool {
	return Unseen(r) || r == unicode.ReplacementChar
}

func validOwner(s string) bool { return s == "" || ownerIDs.MatchString(s) }
