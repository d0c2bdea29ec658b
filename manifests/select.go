package manifests

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// selector turns a manifest into a selection.
type selector struct {
	m        *Manifest
	c        Choice
	out      *Selection
	values   map[string]string // by placeholder name
	keys     map[string][]byte
	problems []error
	refused  []error         // valid requests that cannot be fulfilled
	missing  int             // number of refusals because of a missing platform
	hashes   map[string]bool // names of the hashes that documents ask for
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
	if len(s.out.Images)+len(s.out.Plugins)+len(s.out.Charts)+len(s.out.Files) == 0 && len(s.refused) == 0 {
		return nil, choiceError("nothing is left to carry: %s has nothing for this choice", m.doc.name)
	}
	if err := s.unknownHashes(); err != nil {
		return nil, err
	}
	s.rules()
	if len(s.refused) > 0 {
		return nil, s.refusal()
	}
	return s.out, nil
}

// choiceProblem is a problem with the command line rather than with a document. It wraps
// ErrInvalid too.
type choiceProblem string

func (c choiceProblem) Error() string { return string(c) }

func (c choiceProblem) Unwrap() error { return ErrInvalid }

func choiceError(format string, args ...any) error {
	return choiceProblem(fmt.Sprintf(format, args...))
}

func (m *Manifest) newSelector(c Choice) (*selector, error) {
	s := &selector{
		m:      m,
		c:      c,
		out:    &Selection{Manifest: m.Digest},
		keys:   map[string][]byte{},
		values: map[string]string{"name": m.Metadata.Name},
		hashes: map[string]bool{},
	}
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

// unknownHashes refuses --set sha256.NAME if no deployment or platform uses NAME: it would be
// a spelling mistake.
func (s *selector) unknownHashes() error {
	known := map[string]bool{}
	platforms := s.out.Platforms
	for _, p := range s.m.Platforms {
		if q, err := bundle.ParsePlatform(p); err == nil {
			platforms = append(slices.Clip(platforms), q)
		}
	}
	for _, d := range append([]string{""}, s.m.Deployments...) {
		t, err := s.m.newSelector(Choice{Deployment: d, Platforms: platforms})
		if err != nil {
			return err
		}
		t.collect(s.m.resolved(), true)
		for name := range t.hashes {
			known[name] = true
		}
	}
	for _, key := range sortedKeys(s.c.Set) {
		if name, ok := strings.CutPrefix(key, "sha256."); ok && !known[name] {
			return choiceError(
				"--set %s: nothing asks for that hash; those asked for are %s",
				key, cmp.Or(strings.Join(sortedKeys(known), ", "), "none"),
			)
		}
	}
	return nil
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
		if len(have) > 0 && !slices.ContainsFunc(have, runsOn(p)) {
			return nil, fmt.Errorf(
				"%w: %s is for %s, and %s is asked for with --platform",
				bundle.ErrPolicy, m.doc.name, strings.Join(m.Platforms, ", "), p,
			)
		}
	}
	return asked, nil
}

// set merges versions, settings and hashes. Later sources take precedence: the documents, the
// row of the chosen release, the command line.
func (s *selector) set() error {
	all := map[string]map[string]string{
		"versions": s.m.merged(func(m *Manifest) map[string]string { return m.Versions }),
		"settings": s.m.merged(func(m *Manifest) map[string]string { return m.Settings }),
		"sha256":   s.m.merged(func(m *Manifest) map[string]string { return m.SHA256 }),
	}
	chosen, err := s.chosen(all)
	if err != nil {
		return err
	}
	for _, r := range s.out.releases {
		row, exact := r.row(cmp.Or(chosen["versions"][r.Of], all["versions"][r.Of]))
		if row == nil {
			continue
		}
		own := slices.ContainsFunc(s.m.Releases, func(o Releases) bool { return o.Of == r.Of })
		for k, v := range row.Versions {
			if own || s.m.Versions[k] == "" { // the author's own version takes precedence over an included table
				all["versions"][k] = v
			}
		}
		if exact {
			maps.Copy(all["sha256"], row.SHA256)
		}
	}
	for group, into := range all {
		maps.Copy(into, chosen[group])
		for k, v := range into {
			s.values[group+"."+k] = v
		}
	}
	s.out.versions, s.out.Versions, s.out.Settings = all["versions"], map[string]string{}, all["settings"]
	return nil
}

// chosen returns the values that the command line sets, by group and name, and reads keys.
// Known contains the values of the documents.
func (s *selector) chosen(known map[string]map[string]string) (map[string]map[string]string, error) {
	chosen := map[string]map[string]string{"versions": {}, "settings": {}, "sha256": {}}
	for _, key := range sortedKeys(s.c.Set) {
		group, name, ok := strings.Cut(key, ".")
		value := s.c.Set[key]
		switch {
		case ok && group == "keys":
			data, err := readFile(value, maxKey)
			if err != nil {
				return nil, choiceError("--set %s: %v", key, err)
			}
			s.keys[name] = data
			continue
		case !ok || known[group] == nil:
			return nil, choiceError("--set %s: say versions.NAME, settings.NAME, sha256.NAME or keys.NAME", key)
		case group != "sha256" && known[group][name] == "":
			return nil, choiceError(
				"--set %s: there is no %q among the %s, which are %s",
				key, name, group, cmp.Or(strings.Join(sortedKeys(known[group]), ", "), "none"),
			)
		case value == "" || strings.Contains(value, "${"):
			return nil, choiceError("--set %s: %q is not a value", key, value)
		}
		chosen[group][name] = value
	}
	return chosen, nil
}

// row returns the row of a release, or else of the newest release before it. Exact reports
// which.
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

// parseVersion parses a version as used in tags. It ignores the suffix after a hyphen, such as
// -alpine.
func parseVersion(s string) (*semver.Version, error) {
	v, err := semver.NewVersion(s)
	if err != nil {
		return nil, err
	}
	return semver.New(v.Major(), v.Minor(), v.Patch(), "", ""), nil
}

// applies reports whether an item limited to these deployments applies to the chosen one. An
// empty list is no limit.
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

func (s *selector) signatures() {
	for _, m := range s.m.all() {
		for _, v := range m.VerifyImages {
			if host, _, _ := strings.Cut(v.Images, "/"); !strings.ContainsAny(host, ".:*$") && host != "localhost" {
				s.problems = append(
					s.problems,
					v.at.of("images").problem("%q names no host; images are called in full here, such as docker.io/library/nginx or **", v.Images),
				)
			}
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

// refusal returns all refusals, and suggests a deployment that has none for a missing
// platform.
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

// exist reports whether all content that another deployment requires exists for the chosen
// platforms.
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
