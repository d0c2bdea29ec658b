package manifests

import (
	"cmp"
	"slices"
	"strings"
)

// choose returns the selected components, in the manifest's order.
func (s *selector) choose() ([]Component, error) {
	p := picking{selector: s, all: s.m.resolved(), picked: map[string]bool{}}
	for _, c := range p.all {
		p.picked[c.Name] = s.applies(c.Deployments) && (len(c.When) > 0 && s.holds(c.When) || len(c.When) == 0 && !c.Optional)
	}
	if err := p.ask(); err != nil {
		return nil, err
	}
	for again := true; again; {
		again = false
		for _, name := range sortedKeys(p.picked) {
			if !p.picked[name] {
				continue
			}
			for _, need := range p.find(name).Needs {
				added, err := p.add(need, name)
				if err != nil {
					return nil, err
				}
				again = again || added
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(p.all), func(c Component) bool { return !p.picked[c.Name] }), nil
}

// picking is the state of choosing components.
type picking struct {
	*selector
	all    []Component
	picked map[string]bool // by name
}

// find returns the component with that name, or nil.
func (p *picking) find(name string) *Component {
	n := slices.IndexFunc(p.all, func(c Component) bool { return c.Name == name })
	if n < 0 {
		return nil
	}
	return &p.all[n]
}

// ask picks the components that the command line asks for.
func (p *picking) ask() error {
	var names, optional []string
	for _, c := range p.all {
		names = append(names, c.Name)
		if c.Optional && p.applies(c.Deployments) {
			optional = append(optional, c.Name)
		}
	}
	slices.Sort(names)
	for _, name := range p.c.With {
		c := p.find(name)
		if c == nil {
			return choiceError(
				"--with %q: there is no such component; optional ones are %s",
				name, cmp.Or(strings.Join(optional, ", "), "none"),
			)
		}
		if !p.applies(c.Deployments) {
			return choiceError("--with %q: it is for --deployment %s", name, strings.Join(c.Deployments, " or "))
		}
		p.picked[name] = true
	}
	for _, name := range p.c.Without {
		if p.find(name) == nil {
			return choiceError("--without %q: there is no such component; there are %s", name, strings.Join(slices.Compact(names), ", "))
		}
		if slices.Contains(p.c.With, name) {
			return choiceError("%q is asked for --with and --without", name)
		}
		p.picked[name] = false
	}
	return nil
}

// add picks a component that another one needs, and reports whether it was newly picked.
func (p *picking) add(need, by string) (bool, error) {
	if slices.Contains(p.c.Without, need) {
		return false, choiceError("--without %q: %q needs it; leave that out too", need, by)
	}
	c := p.find(need)
	if c == nil {
		if c = p.m.component(need); c == nil {
			return false, choiceError("%q needs %q, and there is no such component", by, need)
		}
		p.all = append(p.all, *c)
	}
	if p.picked[need] || !p.applies(c.Deployments) {
		return false, nil
	}
	p.picked[need] = true
	return true, nil
}
