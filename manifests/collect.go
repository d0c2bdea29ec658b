package manifests

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// collect adds the content of components to the selection. With everything, it also adds
// content that is missing for a chosen platform; this is how a document is checked.
func (s *selector) collect(components []Component, everything bool) {
	images, paths := map[string]int{}, map[string]string{}
	for _, c := range components {
		if s.applies(c.Deployments) {
			s.component(c, everything, images, paths)
		}
	}
	if s.out.Host != nil {
		s.checkHost()
	}
	for _, m := range s.m.all() {
		for _, x := range m.External {
			if s.applies(x.Deployments) {
				s.out.External = append(s.out.External, x)
			}
		}
	}
}

// component adds the content of one component to the selection. Images and paths are those of
// the components collected so far.
func (s *selector) component(c Component, everything bool, images map[string]int, paths map[string]string) {
	w := WantedComponent{Name: c.Name, Title: c.Title, Source: c.Source, Optional: c.Optional}
	takes := func(here at, what string, deployments, platforms []string) bool {
		return s.applies(deployments) && (s.exists(here, c.Name, what, platforms) || everything)
	}
	for i, x := range c.Images {
		if here := c.at.of("images", i); takes(here, x.Reference, x.Deployments, x.Platforms) {
			s.image(here, x, &w, images)
		}
	}
	for i, x := range c.Plugins {
		if here := c.at.of("plugins", i); takes(here, cmp.Or(x.ID, x.URL), x.Deployments, x.Platforms) {
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
		if here := c.at.of("files", i); takes(here, x.Source, x.Deployments, x.Platforms) {
			for _, p := range s.each(x.Source + x.Path) {
				s.file(here, x, p, &w, paths)
			}
		}
	}
	for i, x := range c.Host {
		if s.applies(x.Deployments) {
			s.host(c.at.of("host", i), &x.Host)
		}
	}
	s.out.Components = append(s.out.Components, w)
}

// exists records a refusal for each chosen platform for which upstream does not publish the
// item, and reports whether there was none.
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
		if len(have) > 0 && !slices.ContainsFunc(have, runsOn(p)) {
			ok = false
			s.missing++
			s.refused = append(s.refused, fmt.Errorf("%w: %s, of component %s, exists for %s only, not for %s", bundle.ErrPolicy,
				s.expand(here, what, &p).text, component, strings.Join(platforms, ", "), p))
		}
	}
	return ok
}

// runsOn returns a function that reports whether programs for a given platform run on p.
func runsOn(p bundle.Platform) func(bundle.Platform) bool {
	return func(q bundle.Platform) bool {
		_, ok := p.Runs(q)
		return ok
	}
}

// host merges the host data of one component into the host data of the selection.
func (s *selector) host(here at, h *bundle.Host) {
	if s.out.Host == nil {
		s.out.Host = &bundle.Host{}
	}
	out := s.out.Host
	for _, v := range h.Values { // several components may need the same value
		if !slices.ContainsFunc(out.Values, func(x bundle.Value) bool { return x == v }) {
			out.Values = append(out.Values, v)
		}
	}
	for _, v := range h.Secrets {
		if !slices.Contains(out.Secrets, v) {
			out.Secrets = append(out.Secrets, v)
		}
	}
	out.Directories = append(out.Directories, h.Directories...)
	out.Merges = append(out.Merges, h.Merges...)
	for i, l := range h.Links {
		l.Path, l.File = s.expand(here.of("links", i), l.Path, nil).text, s.expand(here.of("links", i), l.File, nil).text
		out.Links = append(out.Links, l)
	}
	out.Health = append(out.Health, h.Health...)
	for i, step := range h.Cluster {
		step.Release = s.expand(here.of("cluster", i), step.Release, nil).text
		out.Cluster = append(out.Cluster, step)
	}
	if h.Database != nil && out.Database != nil {
		s.problems = append(s.problems, here.of("database").problem("another component has a database to dump already"))
	}
	if h.Plugins != "" && out.Plugins != "" && h.Plugins != out.Plugins {
		s.problems = append(s.problems, here.of("plugins").problem("another component wants plugins in %q", out.Plugins))
	}
	out.Database = cmp.Or(out.Database, h.Database)
	out.Plugins = cmp.Or(out.Plugins, h.Plugins)
}

// checkHost applies the format's rules to the merged host data of all components.
func (s *selector) checkHost() {
	var files []bundle.HostFile
	for _, f := range s.out.Files {
		files = append(files, bundle.HostFile{Path: f.Path, As: f.As})
	}
	err := s.out.Host.Check(files, nil)
	if err == nil {
		err = s.out.Host.Installable()
	}
	if err != nil && len(s.problems) == 0 {
		s.problems = append(s.problems, at{document: s.m.doc}.problem("%s", strings.TrimPrefix(err.Error(), bundle.ErrFormat.Error()+": ")))
	}
}

func (s *selector) image(here at, x Image, w *WantedComponent, seen map[string]int) {
	before := len(s.problems)
	e := s.expand(here, x.Reference, nil)
	if len(s.problems) > before {
		return
	}
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
	s.pinned(here, out.URL, x.SHA256, out.SHA256)
	if out.SHA256 == firstUse {
		s.problems = append(s.problems, here.of("sha256").problem("a plugin is signed or pinned; first-use is for files"))
	}
	if out.Signature == "" && out.SHA256 == "" && !strings.Contains(x.SHA256, "${") {
		s.problems = append(
			s.problems,
			here.problem("the plugin %s has neither a signature nor sha256; one of them has to say that it is the right one", out.URL),
		)
	}
	w.Plugins = append(w.Plugins, len(s.out.Plugins))
	s.out.Plugins = append(s.out.Plugins, out)
}

func (s *selector) chart(here at, x Chart, w *WantedComponent) {
	out := WantedChart{
		Repository: s.expand(here, x.Repository, nil).text, Name: s.expand(here, x.Name, nil).text, Version: s.expand(here, x.Version, nil).text,
		SHA256: s.hash(here, x.SHA256, nil), Values: s.expandValues(here.of("values"), x.Values).(map[string]any),
	}
	s.checkURL(here.of("repository"), out.Repository, "http", "https", "oci")
	s.pinned(here, "chart "+out.Name, x.SHA256, out.SHA256)
	if out.SHA256 == firstUse {
		s.problems = append(s.problems, here.of("sha256").problem("a chart is pinned by its hash; the lock does that too"))
	}
	for _, u := range x.UnusedImages {
		out.UnusedImages = append(out.UnusedImages, s.expand(here.of("unusedImages"), u, nil).text)
	}
	w.Charts = append(w.Charts, len(s.out.Charts))
	s.out.Charts = append(s.out.Charts, out)
}

func (s *selector) file(here at, x File, p *bundle.Platform, w *WantedComponent, paths map[string]string) {
	out := WantedFile{
		Path:     s.expand(here.of("path"), x.Path, p).text,
		Mode:     0o644,
		As:       x.As,
		Strip:    x.Strip,
		Platform: p,
		SHA256:   s.hash(here, x.SHA256, p),
		Size:     x.Size,
	}
	out.Source = s.source(here.of("source"), x.Source, p).text
	if x.Mode != "" {
		if _, err := fmt.Sscanf(x.Mode, "%o", &out.Mode); err != nil {
			s.problems = append(s.problems, here.of("mode").problem("%q is not a mode", x.Mode))
		}
	}
	if !cleanPath(out.Path) {
		s.problems = append(s.problems, here.of("path").problem("%q is not a relative path with slashes, such as etc/nginx/nginx.conf", out.Path))
	}
	low := strings.ToLower(out.Path) // some target file systems ignore case
	if other, ok := paths[low]; ok {
		s.problems = append(
			s.problems,
			here.of("path").problem("two files would be %s, this one and %s; let one component have it, and the other need that", out.Path, other),
		)
	}
	paths[low] = out.Source
	if out.SHA256 == firstUse {
		out.SHA256, out.FirstUse = "", true
	}
	var e expansion
	if name, ok := strings.CutPrefix(s.platformText(x.SHA256, p, &e), "${sha256."); ok {
		out.Pin = strings.TrimSuffix(name, "}")
	}
	switch {
	case out.SHA256 != "" || out.FirstUse:
	case isURL(out.Source):
		s.unpinned(here, out)
	default:
		s.pinned(here, out.Source, x.SHA256, "")
	}
	w.Files = append(w.Files, len(s.out.Files))
	s.out.Files = append(s.out.Files, out)
}

// pinned refuses an item whose document asks for a hash that has no value.
func (s *selector) pinned(here at, what, asked, hash string) {
	if asked != "" && hash == "" {
		s.refused = append(s.refused, fmt.Errorf(
			"%w: %s, line %d: %s is to be pinned by %s, which nothing says; give it with --set",
			bundle.ErrPolicy, here.name, here.line(), what, asked,
		))
	}
}

// unpinned refuses a file to download that has no hash.
func (s *selector) unpinned(here at, out WantedFile) {
	if out.Pin == "" {
		s.problems = append(s.problems, here.problem("%s needs sha256: a file that comes over the network is pinned", out.Source))
		return
	}
	s.refused = append(s.refused, fmt.Errorf(
		"%w: nothing says what %s has to be; give its hash with --set sha256.%s=HEX, or accept what the server sends now, "+
			"and lock it, with --set sha256.%s=%s",
		bundle.ErrPolicy, out.Source, out.Pin, out.Pin, firstUse,
	))
}
