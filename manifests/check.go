package manifests

import (
	"strings"
)

// check reports every problem that exists whatever the choice.
func (m *Manifest) check() error {
	var problems []error
	for _, n := range m.all() {
		if n.doc.invalid != nil {
			problems = append(problems, n.doc.invalid)
		}
	}
	here := at{document: m.doc}
	if len(m.Components) == 0 {
		problems = append(problems, here.problem("it has no components"))
	}
	names := map[string]bool{}
	for _, c := range m.Components {
		name := c.Name
		if c.Use != "" {
			name = c.Use
			if m.component(c.Use) == nil {
				problems = append(problems, c.at.of("use").problem("no included document has a component %q", c.Use))
				continue
			}
			if len(c.Images)+len(c.Plugins)+len(c.Charts)+len(c.Files)+len(c.Host) > 0 {
				problems = append(problems, c.at.problem("what %q consists of is said where it is defined, not here", c.Use))
			}
		} else if len(c.Images)+len(c.Plugins)+len(c.Charts)+len(c.Files)+len(c.Host) == 0 {
			problems = append(problems, c.at.problem("component %q has nothing in it: no images, plugins, charts, files or host", c.Name))
		}
		if names[name] {
			problems = append(problems, c.at.problem("there are two components %q", name))
		}
		names[name] = true
	}
	for k, c := range m.resolved() {
		if only := c.onlyFor(); len(m.Deployments) == 0 && only != nil && k < len(m.Components) {
			problems = append(problems, m.Components[k].at.problem(
				"%q is for --deployment %s; say which this document is for, such as deployments: [%s]",
				c.Name, strings.Join(only, " or "), only[0],
			))
		}
		for i, n := range c.Needs {
			if m.component(n) == nil {
				problems = append(problems, c.at.of("needs", i).problem("%q needs %q, and there is no such component", c.Name, n))
			}
		}
	}
	return join(append(problems, m.checkAll()...))
}

// onlyFor returns the deployments to which the component or part of its content is limited, or
// nil.
func (c *Component) onlyFor() []string {
	only := [][]string{c.Deployments}
	for _, x := range c.Images {
		only = append(only, x.Deployments)
	}
	for _, x := range c.Plugins {
		only = append(only, x.Deployments)
	}
	for _, x := range c.Charts {
		only = append(only, x.Deployments)
	}
	for _, x := range c.Files {
		only = append(only, x.Deployments)
	}
	for _, x := range c.Host {
		only = append(only, x.Deployments)
	}
	for _, list := range only {
		if len(list) > 0 {
			return list
		}
	}
	return nil
}

// checkAll expands the whole content for each deployment with the default values.
func (m *Manifest) checkAll() []error {
	deployments := m.Deployments
	if len(deployments) == 0 {
		deployments = []string{""}
	}
	var problems []error
	for _, d := range deployments {
		s, err := m.newSelector(Choice{Deployment: d})
		if err != nil {
			return []error{err}
		}
		s.collect(m.resolved(), true)
		problems = append(problems, s.problems...)
	}
	return problems
}
