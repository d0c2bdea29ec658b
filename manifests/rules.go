package manifests

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// rules applies the rules of all documents.
func (s *selector) rules() {
	for _, m := range s.m.all() {
		for _, r := range m.Rules {
			if !s.applies(r.Deployments) || !s.holds(r.When) {
				continue
			}
			if r.With != "" && !s.carried(r.With) {
				continue
			}
			for _, name := range sortedKeys(r.Require) {
				s.rule(r, name)
			}
			for _, name := range r.Carry {
				if !s.carried(name) {
					s.refused = append(
						s.refused,
						fmt.Errorf("%w: %s has to be carried%s: %s; --with %s would fit", bundle.ErrPolicy, name, r.reason(), r.Because, name),
					)
				}
			}
		}
	}
}

// carried reports whether a component is selected.
func (s *selector) carried(name string) bool {
	return slices.ContainsFunc(s.out.Components, func(c WantedComponent) bool { return c.Name == name })
}

// reason lists the settings under which the rule holds.
func (r Rule) reason() (text string) {
	for _, k := range sortedKeys(r.When) {
		text += fmt.Sprintf(" with %s=%s", k, r.When[k])
	}
	return text
}

func (s *selector) rule(r Rule, name string) {
	here := r.at.of("require", name)
	c, err := semver.NewConstraint(r.Require[name])
	if err != nil {
		s.problems = append(s.problems, here.problem("%q is not a constraint such as >=14", r.Require[name]))
		return
	}
	have, ok := s.out.versions[name]
	if !ok {
		s.problems = append(s.problems, here.problem("there is no version %q", name))
		return
	}
	v, err := parseVersion(have)
	if err == nil && c.Check(v) {
		return
	}
	s.refused = append(s.refused, fmt.Errorf(
		"%w: %s is %s and has to be %s%s: %s; %s",
		bundle.ErrPolicy, name, have, r.Require[name], r.reason(), r.Because, s.fitting(name, c),
	))
}

// fitting suggests a version that meets a constraint: one from the release table, or else the
// version in the constraint.
func (s *selector) fitting(name string, c *semver.Constraints) string {
	for _, r := range s.out.releases {
		if r.Of != name {
			continue
		}
		for _, row := range r.Rows {
			if v, err := parseVersion(row.Release); err == nil && c.Check(v) {
				return fmt.Sprintf("--set versions.%s=%s would fit", name, row.Release)
			}
		}
	}
	return fmt.Sprintf("--set versions.%s=%s would fit", name, strings.TrimLeft(c.String(), "<>=~^! "))
}

// FoundPlugin contains what a selected plugin's archive declares about itself.
type FoundPlugin struct {
	ID, Version, MinServer string
	Props                  map[string]any
}

// CheckPlugins applies the rules between plugins, their server, and the images whose tags
// follow a plugin. Found is in the order of s.Plugins. Errors wrap bundle.ErrPolicy.
func (s *Selection) CheckPlugins(found []FoundPlugin) error {
	ids := map[string]int{}
	for i, f := range found {
		if other, ok := ids[f.ID]; ok {
			return fmt.Errorf(
				"%w: %s and %s are both the plugin %s; leave one of them out",
				bundle.ErrPolicy, s.Plugins[other].URL, s.Plugins[i].URL, f.ID,
			)
		}
		ids[f.ID] = i
		if err := s.checkServer(s.Plugins[i], f); err != nil {
			return err
		}
	}
	for _, image := range s.Images {
		if image.Follows == nil {
			continue
		}
		i := slices.IndexFunc(found, func(f FoundPlugin) bool { return f.ID == image.Follows.Plugin })
		if i < 0 {
			return fmt.Errorf(
				"%w: the tag of %s follows the plugin %s, which is not carried",
				bundle.ErrPolicy, image.Reference, image.Follows.Plugin,
			)
		}
		if err := checkFollows(image, found[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Selection) checkServer(p WantedPlugin, f FoundPlugin) error {
	if f.MinServer == "" || p.Server == "" {
		return nil
	}
	least, err := parseVersion(f.MinServer)
	if err != nil {
		return fmt.Errorf("%w: plugin %s %s needs a server of version %q, which is none", bundle.ErrPolicy, f.ID, f.Version, f.MinServer)
	}
	server, err := parseVersion(p.Server)
	if err != nil {
		return fmt.Errorf(
			"%w: plugin %s needs a server of version %s or newer, and %q cannot be compared with that",
			bundle.ErrPolicy, f.ID, f.MinServer, p.Server,
		)
	}
	if !server.LessThan(least) {
		return nil
	}
	var fits []string
	for _, r := range s.releases {
		if r.Of != p.server {
			continue
		}
		if row, _ := r.row(p.Server); row != nil && p.version != "" && row.Versions[p.version] != "" && row.Versions[p.version] != f.Version {
			fits = append(fits, fmt.Sprintf("--set versions.%s=%s would fit this server", p.version, row.Versions[p.version]))
		}
		for _, row := range r.Rows {
			if v, err := parseVersion(row.Release); err == nil && !v.LessThan(least) {
				fits = append(fits, fmt.Sprintf("--set versions.%s=%s would fit this plugin", r.Of, row.Release))
				break
			}
		}
	}
	if len(fits) == 0 {
		fits = []string{"take an older plugin, or a server of " + f.MinServer}
	}
	return fmt.Errorf("%w: plugin %s %s needs a server of version %s or newer, and this one is for %s; %s",
		bundle.ErrPolicy, f.ID, f.Version, f.MinServer, p.Server, strings.Join(fits, ", "))
}

func checkFollows(image WantedImage, f FoundPlugin) error {
	want, ok := f.Props[image.Follows.Prop].(string)
	if !ok || want == "" {
		return fmt.Errorf(
			"%w: the tag of %s follows %s of plugin %s %s, which does not say it",
			bundle.ErrPolicy, image.Reference, image.Follows.Prop, f.ID, f.Version,
		)
	}
	tag := image.Reference.Tag
	if image.Follows.Rule == "equal" && tag == want {
		return nil
	}
	how := "exactly " + want
	if image.Follows.Rule == "minimum" {
		how = want + " or newer"
		have, err1 := parseVersion(tag)
		least, err2 := parseVersion(want)
		if err1 == nil && err2 == nil && !have.LessThan(least) {
			return nil
		}
	}
	fit := "use the tag " + want
	if image.version != "" {
		fit = fmt.Sprintf("--set versions.%s=%s would fit", image.version, want)
	}
	return fmt.Errorf(
		"%w: %s does not fit: plugin %s %s asks for %s (%s); %s",
		bundle.ErrPolicy, image.Reference, f.ID, f.Version, how, image.Follows.Prop, fit,
	)
}

// MatchImages reports whether a repository such as docker.io/library/nginx matches a pattern.
// In a pattern, * matches any text without slashes, and ** matches any text.
func MatchImages(pattern, repository string) bool {
	quoted := regexp.QuoteMeta(pattern)
	quoted = strings.ReplaceAll(quoted, `\*\*`, `.*`)
	quoted = strings.ReplaceAll(quoted, `\*`, `[^/]*`)
	ok, err := regexp.MatchString("^(?:"+quoted+")$", repository)
	return ok && err == nil
}

// ReleaseNote returns the note of the selected release of that version, or "" if the documents
// do not list this release.
func (s *Selection) ReleaseNote(of string) string {
	for _, r := range s.releases {
		if r.Of == of {
			if row, exact := r.row(s.versions[of]); exact {
				return row.Note
			}
		}
	}
	return ""
}
