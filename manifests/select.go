package manifests

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Choice is what the command line says about a manifest. The zero value takes
// what the manifest has as its defaults.
type Choice struct {
	Deployment string            // one of Manifest.Deployments; empty means the first
	Platforms  []bundle.Platform // none means the manifest's first, if it says any
	With       []string          // optional components
	Without    []string          // components that the site has already
	Set        map[string]string // versions.NAME, settings.NAME, sha256.NAME, or keys.NAME (a path)
}

// Selection is what a manifest means once everything is chosen: no placeholder
// is left, and every rule that needs no network has been applied.
type Selection struct {
	Name, Version string
	Manifest      bundle.Digest
	Deployment    string            // empty if the manifest knows none
	Platforms     []bundle.Platform // never empty
	Versions      map[string]string
	Settings      map[string]string
	Components    []WantedComponent
	Images        []WantedImage // each reference once
	Plugins       []WantedPlugin
	Charts        []WantedChart
	Files         []WantedFile
	VerifyImages  []WantedSignature
	External      []External

	releases []Releases
	versions map[string]string // as chosen
}

// WantedComponent is a component that is carried. Of its content it has the
// indexes into the lists of the selection.
type WantedComponent struct {
	Name, Title, Source            string
	Optional                       bool
	Images, Plugins, Charts, Files []int
}

// WantedImage is a reference to resolve.
type WantedImage struct {
	Reference bundle.Reference
	Follows   *Follows

	version string // name of the version that is its tag
}

// WantedPlugin is a plugin to fetch and look into.
type WantedPlugin struct {
	URL       string // or an absolute path on this machine
	Signature string // the same; empty for none
	Keys      []Key  // of which one has to have signed
	SHA256    string // 64 digits, or empty
	ID        string // as plugin.json must say; empty takes any
	Version   string
	Server    string // version of the server it runs in; empty if that is unknown

	version, server string // names of the versions
}

// Key is a public key with the name that the manifest gives it.
type Key struct {
	Name string
	Data []byte
}

// WantedChart is a chart to fetch and look into.
type WantedChart struct {
	Repository, Name, Version string
	SHA256                    string // 64 digits, or empty
	Values                    map[string]any
	UnusedImages              []string
}

// WantedFile is a file to carry.
type WantedFile struct {
	Source   string // a URL, or an absolute path on this machine
	Path     string // on the site, relative, slashes
	Mode     uint32 // permissions
	SHA256   string // 64 digits; empty for a local file, or with FirstUse
	FirstUse bool   // whatever comes is accepted, and locked
	Size     int64  // bytes; 0 if unknown
	Pin      string // the name by which --set sha256.NAME gives its hash; may be empty
}

// WantedSignature asks for a signature on images.
type WantedSignature struct {
	Images string // pattern
	Keys   []Key
}

// selector turns a manifest into a selection.
type selector struct {
	m        *Manifest
	c        Choice
	out      *Selection
	values   map[string]string // by name in placeholders
	keys     map[string][]byte
	problems []error
	refused  []error // what is well-formed and cannot be had
	missing  int     // how many of these do not exist for a platform
}

// Select applies a choice. Errors wrap ErrInvalid or bundle.ErrPolicy.
func (m *Manifest) Select(c Choice) (*Selection, error) {
	s, err := m.newSelector(c)
	if err != nil {
		return nil, err
	}
	chosen, err := s.choose()
	if err != nil {
		return nil, err
	}
	s.collect(chosen, false)
	s.signatures()
	s.metadata()
	if len(s.problems) > 0 {
		return nil, join(s.problems)
	}
	s.rules()
	if len(s.refused) > 0 {
		return nil, s.refusal()
	}
	return s.out, nil
}

func choiceError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

func (m *Manifest) newSelector(c Choice) (*selector, error) {
	s := &selector{m: m, c: c, out: &Selection{Manifest: m.Digest}, keys: map[string][]byte{}, values: map[string]string{}}
	var err error
	if s.out.Deployment, err = m.deployment(c.Deployment); err != nil {
		return nil, err
	}
	if s.out.Platforms, err = m.platforms(c.Platforms); err != nil {
		return nil, err
	}
	list := m.all()
	slices.Reverse(list)
	for _, n := range list {
		for name, key := range n.keys {
			s.keys[name] = key
		}
		s.out.releases = slices.Concat(n.Releases, s.out.releases)
	}
	return s, s.set()
}

func (m *Manifest) deployment(asked string) (string, error) {
	switch {
	case len(m.Deployments) == 0 && asked == "":
		return "", nil
	case len(m.Deployments) == 0:
		return "", choiceError("%s knows no deployments; leave --deployment out", m.doc.name)
	case asked == "":
		return m.Deployments[0], nil
	case !slices.Contains(m.Deployments, asked):
		return "", choiceError("--deployment %q: %s has %s", asked, m.doc.name, strings.Join(m.Deployments, ", "))
	}
	return asked, nil
}

func (m *Manifest) platforms(asked []bundle.Platform) ([]bundle.Platform, error) {
	var have []bundle.Platform
	for i, s := range m.Platforms {
		p, err := bundle.ParsePlatform(s)
		if err != nil {
			return nil, at{document: m.doc}.of("platforms", i).problem("%v", err)
		}
		have = append(have, p)
	}
	if len(asked) == 0 && len(have) > 0 {
		return have[:1], nil
	}
	for _, p := range asked {
		if len(have) > 0 && !slices.ContainsFunc(have, p.Matches) {
			return nil, fmt.Errorf("%w: %s is for %s, and %s is asked for with --platform", bundle.ErrPolicy, m.doc.name, strings.Join(m.Platforms, ", "), p)
		}
	}
	return asked, nil
}

// set puts versions, settings and hashes together: first what the documents
// say, then the row of the chosen release, then the command line.
func (s *selector) set() error {
	versions := s.m.merged(func(m *Manifest) map[string]string { return m.Versions })
	settings := s.m.merged(func(m *Manifest) map[string]string { return m.Settings })
	hashes := s.m.merged(func(m *Manifest) map[string]string { return m.SHA256 })
	chosen := map[string]map[string]string{"versions": {}, "settings": {}, "sha256": {}}
	for _, key := range sortedKeys(s.c.Set) {
		group, name, ok := strings.Cut(key, ".")
		value := s.c.Set[key]
		switch known := map[string]map[string]string{"versions": versions, "settings": settings}[group]; {
		case ok && group == "keys":
			data, err := readFile(value, maxKey)
			if err != nil {
				return choiceError("--set %s: %v", key, err)
			}
			s.keys[name] = data
			continue
		case ok && group == "sha256":
		case !ok || known == nil:
			return choiceError("--set %s: say versions.NAME, settings.NAME, sha256.NAME or keys.NAME", key)
		case known[name] == "":
			return choiceError("--set %s: there is no %q among the %s, which are %s", key, name, group, strings.Join(sortedKeys(known), ", "))
		}
		if value == "" || strings.Contains(value, "${") {
			return choiceError("--set %s: %q is not a value", key, value)
		}
		chosen[group][name] = value
	}
	for _, r := range s.out.releases {
		of := cmp.Or(chosen["versions"][r.Of], versions[r.Of])
		row, exact := r.row(of)
		if row == nil {
			continue
		}
		for k, v := range row.Versions {
			versions[k] = v
		}
		if exact {
			for k, v := range row.SHA256 {
				hashes[k] = v
			}
		}
	}
	for group, into := range map[string]map[string]string{"versions": versions, "settings": settings, "sha256": hashes} {
		for k, v := range chosen[group] {
			into[k] = v
		}
		for k, v := range into {
			s.values[group+"."+k] = v
		}
	}
	s.out.versions, s.out.Versions, s.out.Settings = versions, map[string]string{}, settings
	return nil
}

// row returns the row of a release, or that of the newest one before it.
func (r *Releases) row(version string) (best *Release, exact bool) {
	v, err := parseVersion(version)
	if err != nil {
		return nil, false
	}
	var at *semver.Version
	for i := range r.Rows {
		w, err := parseVersion(r.Rows[i].Release)
		if err != nil || w.GreaterThan(v) || best != nil && w.LessThan(at) {
			continue
		}
		best, at = &r.Rows[i], w
	}
	return best, best != nil && at.Equal(v)
}

// parseVersion reads a version as a tag says it; what follows a hyphen, such as
// -alpine, counts for nothing.
func parseVersion(s string) (*semver.Version, error) {
	v, err := semver.NewVersion(s)
	if err != nil {
		return nil, err
	}
	return semver.New(v.Major(), v.Minor(), v.Patch(), "", ""), nil
}

// choose returns the components that are carried, in the manifest's order.
func (s *selector) choose() ([]Component, error) {
	all := s.m.resolved()
	byName := map[string]*Component{}
	var optional []string
	for i := range all {
		byName[all[i].Name] = &all[i]
		if all[i].Optional && s.applies(all[i].Deployments) {
			optional = append(optional, all[i].Name)
		}
	}
	picked := map[string]bool{}
	for _, c := range all {
		if len(c.When) > 0 {
			picked[c.Name] = s.applies(c.Deployments) && s.holds(c.When)
		} else {
			picked[c.Name] = !c.Optional && s.applies(c.Deployments)
		}
	}
	for _, name := range s.c.With {
		c := byName[name]
		if c == nil {
			return nil, choiceError("--with %q: there is no such component; optional ones are %s", name, cmp.Or(strings.Join(optional, ", "), "not to be had"))
		}
		if !s.applies(c.Deployments) {
			return nil, choiceError("--with %q: it is for --deployment %s", name, strings.Join(c.Deployments, " or "))
		}
		picked[name] = true
	}
	for _, name := range s.c.Without {
		if byName[name] == nil {
			return nil, choiceError("--without %q: there is no such component; there are %s", name, strings.Join(sortedKeys(byName), ", "))
		}
		if slices.Contains(s.c.With, name) {
			return nil, choiceError("%q is asked for --with and --without", name)
		}
		picked[name] = false
	}
	for again := true; again; {
		again = false
		for _, name := range sortedKeys(picked) {
			c := byName[name]
			if !picked[name] {
				continue
			}
			for _, need := range c.Needs {
				if slices.Contains(s.c.Without, need) {
					return nil, choiceError("--without %q: %q needs it; leave that out too", need, name)
				}
				if byName[need] == nil {
					all = append(all, *s.m.component(need))
					byName[need] = &all[len(all)-1]
				}
				if !picked[need] && s.applies(byName[need].Deployments) {
					picked[need], again = true, true
				}
			}
		}
	}
	var list []Component
	for _, c := range all {
		if picked[c.Name] {
			list = append(list, c)
		}
	}
	return list, nil
}

// applies reports whether something limited to deployments is meant.
func (s *selector) applies(deployments []string) bool {
	return len(deployments) == 0 || slices.Contains(deployments, s.out.Deployment)
}

func (s *selector) holds(when map[string]string) bool {
	for k, v := range when {
		if s.out.Settings[k] != v {
			return false
		}
	}
	return true
}

var placeholder = regexp.MustCompile(`\$\{([^}]*)\}?`)

// expansion is a text without placeholders.
type expansion struct {
	text     string
	versions []string // names of the versions that stand in it
	platform bool     // it differs from platform to platform
}

// expand replaces placeholders; platform, which may be nil, gives os, arch and
// machine.
func (s *selector) expand(here at, text string, platform *bundle.Platform) expansion {
	e := expansion{}
	e.text = placeholder.ReplaceAllStringFunc(s.platformText(text, platform, &e), func(p string) string {
		name := strings.TrimSuffix(strings.TrimPrefix(p, "${"), "}")
		value, ok := s.values[name]
		if !ok && strings.HasPrefix(name, "sha256.") {
			return "" // a hash that nobody knows yet
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

// platformText replaces those placeholders that may stand inside of others.
func (s *selector) platformText(text string, p *bundle.Platform, e *expansion) string {
	if !strings.Contains(text, "${") {
		return text
	}
	e.platform = strings.Contains(text, "${os}") || strings.Contains(text, "${arch}") || strings.Contains(text, "${machine}")
	if p == nil || !e.platform {
		return text
	}
	return strings.NewReplacer("${os}", p.OS, "${arch}", p.Architecture, "${machine}", cmp.Or(machines[p.Architecture], p.Architecture)).Replace(text)
}

// collect puts the content of components into the selection. Everything takes
// what is for other platforms too: that is how a document is checked.
func (s *selector) collect(components []Component, everything bool) {
	images, paths := map[string]int{}, map[string]string{}
	for _, c := range components {
		if !s.applies(c.Deployments) {
			continue
		}
		w := WantedComponent{Name: c.Name, Title: c.Title, Source: c.Source, Optional: c.Optional}
		for i, x := range c.Images {
			if here := c.at.of("images", i); s.applies(x.Deployments) && (s.exists(here, c.Name, x.Reference, x.Platforms) || everything) {
				s.image(here, x, &w, images)
			}
		}
		for i, x := range c.Plugins {
			if here := c.at.of("plugins", i); s.applies(x.Deployments) && (s.exists(here, c.Name, cmp.Or(x.ID, x.URL), x.Platforms) || everything) {
				for _, p := range s.each(x.URL) {
					s.plugin(here, x, p, &w)
				}
			}
		}
		for i, x := range c.Charts {
			if s.applies(x.Deployments) {
				s.chart(c.at.of("charts", i), x, &w)
			}
		}
		for i, x := range c.Files {
			if here := c.at.of("files", i); s.applies(x.Deployments) && (s.exists(here, c.Name, x.Source, x.Platforms) || everything) {
				for _, p := range s.each(x.Source + x.Path) {
					s.file(here, x, p, &w, paths)
				}
			}
		}
		s.out.Components = append(s.out.Components, w)
	}
	for _, m := range s.m.all() {
		for _, x := range m.External {
			if s.applies(x.Deployments) {
				s.out.External = append(s.out.External, x)
			}
		}
	}
}

// each returns the platforms that an item is carried for: each one if its text
// differs from one to the next, else none in particular.
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

// exists notes a refusal where upstream has nothing for a platform asked for.
func (s *selector) exists(here at, component, what string, platforms []string) bool {
	var have []bundle.Platform
	for _, p := range platforms {
		q, err := bundle.ParsePlatform(p)
		if err != nil {
			s.problems = append(s.problems, here.of("platforms").problem("%v", err))
			return false
		}
		have = append(have, q)
	}
	ok := true
	for _, p := range s.out.Platforms {
		if len(have) > 0 && !slices.ContainsFunc(have, p.Matches) {
			ok = false
			s.missing++
			s.refused = append(s.refused, fmt.Errorf("%w: %s, of component %s, exists for %s only, not for %s", bundle.ErrPolicy,
				s.expand(here, what, &p).text, component, strings.Join(platforms, ", "), p))
		}
	}
	return ok
}

func (s *selector) image(here at, x Image, w *WantedComponent, seen map[string]int) {
	e := s.expand(here, x.Reference, nil)
	if e.platform {
		s.problems = append(s.problems, here.problem("an image is chosen by --platform, not by ${arch} in its reference"))
		return
	}
	ref, err := bundle.ParseReference(e.text)
	if err != nil {
		s.problems = append(s.problems, here.problem("component %q: %v", w.Name, err))
		return
	}
	i, ok := seen[ref.String()]
	if !ok {
		i = len(s.out.Images)
		seen[ref.String()] = i
		s.out.Images = append(s.out.Images, WantedImage{Reference: ref})
	}
	if x.Follows != nil {
		s.out.Images[i].Follows = x.Follows
		if len(e.versions) > 0 {
			s.out.Images[i].version = e.versions[len(e.versions)-1]
		}
	}
	if !slices.Contains(w.Images, i) {
		w.Images = append(w.Images, i)
	}
}

var hexSyntax = regexp.MustCompile(`^[0-9a-f]{64}$`)

// source makes a URL or an absolute path of what a document says.
func (s *selector) source(here at, text string, platform *bundle.Platform) expansion {
	e := s.expand(here, text, platform)
	switch {
	case text == "" || len(s.problems) > 0 && e.text == "":
	case isURL(e.text):
		s.checkURL(here, e.text, "http", "https")
	default:
		path, err := here.local(e.text)
		if err != nil {
			s.problems = append(s.problems, here.problem("%v", err))
		}
		e.text = path
	}
	return e
}

// checkURL refuses what is no URL, and one with a password without repeating it.
func (s *selector) checkURL(here at, text string, schemes ...string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme):
		s.problems = append(s.problems, here.problem("it is not a URL that begins with %s://", strings.Join(schemes, ":// or ")))
	case u.User != nil:
		s.problems = append(s.problems, here.problem("a login in a URL would end up in lock files and bundles; take it out"))
	}
}

func (s *selector) hash(here at, text string, platform *bundle.Platform) string {
	h := strings.ToLower(strings.TrimPrefix(s.expand(here, text, platform).text, "sha256:"))
	if h != "" && h != firstUse && !hexSyntax.MatchString(h) {
		s.problems = append(s.problems, here.of("sha256").problem("%q is not 64 hexadecimal digits", h))
	}
	return h
}

// firstUse stands in the place of a hash that the publisher does not give.
const firstUse = "first-use"

func (s *selector) plugin(here at, x Plugin, p *bundle.Platform, w *WantedComponent) {
	from := s.source(here.of("url"), x.URL, p)
	server := s.expand(here.of("server"), x.Server, p)
	out := WantedPlugin{
		URL: from.text, Signature: s.source(here.of("signature"), x.Signature, p).text, Keys: s.keyList(here.of("keys"), x.Keys),
		SHA256: s.hash(here, x.SHA256, p), ID: x.ID, Version: s.expand(here.of("version"), x.Version, p).text, Server: server.text,
	}
	if len(x.Keys) == 0 && out.Signature != "" {
		out.Keys = s.mattermostKey()
	}
	if len(from.versions) > 0 {
		out.version = from.versions[0]
	}
	if len(server.versions) > 0 {
		out.server = server.versions[0]
	}
	if out.SHA256 == firstUse {
		s.problems = append(s.problems, here.of("sha256").problem("a plugin is signed or pinned; first-use is for files"))
	}
	if out.Signature == "" && out.SHA256 == "" && !strings.Contains(x.SHA256, "${") {
		s.problems = append(s.problems, here.problem("the plugin %s has neither a signature nor sha256; one of them has to say that it is the right one", out.URL))
	}
	w.Plugins = append(w.Plugins, len(s.out.Plugins))
	s.out.Plugins = append(s.out.Plugins, out)
}

// mattermostKey is what plugins are signed with where the manifest names no key.
func (s *selector) mattermostKey() []Key {
	const name = "mattermost-plugins"
	data, ok := s.keys[name]
	if !ok {
		var err error
		if data, err = catalogueFiles.ReadFile("catalogue/keys/" + name + ".asc"); err != nil {
			s.problems = append(s.problems, err)
		}
	}
	return []Key{{name, data}}
}

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

func (s *selector) chart(here at, x Chart, w *WantedComponent) {
	out := WantedChart{
		Repository: s.expand(here, x.Repository, nil).text, Name: s.expand(here, x.Name, nil).text, Version: s.expand(here, x.Version, nil).text,
		SHA256: s.hash(here, x.SHA256, nil), Values: s.expandValues(here.of("values"), x.Values).(map[string]any),
	}
	s.checkURL(here.of("repository"), out.Repository, "http", "https", "oci")
	for _, u := range x.UnusedImages {
		out.UnusedImages = append(out.UnusedImages, s.expand(here.of("unusedImages"), u, nil).text)
	}
	w.Charts = append(w.Charts, len(s.out.Charts))
	s.out.Charts = append(s.out.Charts, out)
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

func (s *selector) file(here at, x File, p *bundle.Platform, w *WantedComponent, paths map[string]string) {
	out := WantedFile{Path: s.expand(here.of("path"), x.Path, p).text, Mode: 0o644, SHA256: s.hash(here, x.SHA256, p), Size: x.Size}
	out.Source = s.source(here.of("source"), x.Source, p).text
	if x.Mode != "" {
		if _, err := fmt.Sscanf(x.Mode, "%o", &out.Mode); err != nil {
			s.problems = append(s.problems, here.of("mode").problem("%q is not a mode", x.Mode))
		}
	}
	if !cleanPath(out.Path) {
		s.problems = append(s.problems, here.of("path").problem("%q is not a relative path with slashes, such as etc/nginx/nginx.conf", out.Path))
	}
	if other, ok := paths[out.Path]; ok && other != out.Source {
		s.problems = append(s.problems, here.of("path").problem("two files would be %s", out.Path))
	}
	paths[out.Path] = out.Source
	if out.SHA256 == firstUse {
		out.SHA256, out.FirstUse = "", true
	}
	var e expansion
	if name, ok := strings.CutPrefix(s.platformText(x.SHA256, p, &e), "${sha256."); ok {
		out.Pin = strings.TrimSuffix(name, "}")
	}
	if isURL(out.Source) && out.SHA256 == "" && !out.FirstUse {
		s.unpinned(here, out)
	}
	w.Files = append(w.Files, len(s.out.Files))
	s.out.Files = append(s.out.Files, out)
}

// unpinned refuses a file of which nobody says what it has to be.
func (s *selector) unpinned(here at, out WantedFile) {
	if out.Pin == "" {
		s.problems = append(s.problems, here.problem("%s needs sha256: a file that comes over the network is pinned", out.Source))
		return
	}
	s.refused = append(s.refused, fmt.Errorf("%w: nothing says what %s has to be; give its hash with --set sha256.%s=HEX, or accept what the server sends now, and lock it, with --set sha256.%s=%s",
		bundle.ErrPolicy, out.Source, out.Pin, out.Pin, firstUse))
}

func (s *selector) signatures() {
	for _, m := range s.m.all() {
		for _, v := range m.VerifyImages {
			s.out.VerifyImages = append(s.out.VerifyImages, WantedSignature{s.expand(v.at, v.Images, nil).text, s.keyList(v.at.of("keys"), v.Keys)})
		}
	}
}

func (s *selector) metadata() {
	here := at{document: s.m.doc}.of("metadata")
	s.out.Name, s.out.Version = s.m.Metadata.Name, s.expand(here.of("version"), s.m.Metadata.Version, nil).text
	any := bundle.Info{Name: s.out.Name, Version: s.out.Version, Channel: "any", Platforms: make([]bundle.Platform, 1)}
	if err := any.Check(); err != nil {
		s.problems = append(s.problems, here.problem("%v", err))
	}
}

// refusal says what cannot be had, and where it can.
func (s *selector) refusal() error {
	err := s.refused[0]
	for _, r := range s.refused[1:] {
		if !strings.Contains(err.Error(), r.Error()) {
			err = fmt.Errorf("%w\n%w", err, r)
		}
	}
	for _, d := range s.m.Deployments {
		if s.missing > 0 && d != s.out.Deployment && s.exist(d) {
			return fmt.Errorf("%w\nwith --deployment %s everything that is required exists for it", err, d)
		}
	}
	return err
}

// exist reports whether what another deployment requires exists for the
// platforms asked for.
func (s *selector) exist(deployment string) bool {
	t, err := s.m.newSelector(Choice{Deployment: deployment, Platforms: s.c.Platforms})
	if err != nil {
		return false
	}
	chosen, err := t.choose()
	if err != nil {
		return false
	}
	t.collect(chosen, false)
	return t.missing == 0
}
