package record

import (
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Changes are the differences between a bundle and another bundle. Neither bundle is
// verified.
type Changes struct {
	Against  About    `json:"against"`  // the other bundle
	NewBytes int64    `json:"newBytes"` // size of the blobs that the other bundle lacks
	Images   []Change `json:"images"`
	Charts   []Change `json:"charts"`
	Plugins  []Change `json:"plugins"`
	Files    []Change `json:"files"`
	Same     int      `json:"same"` // number of unchanged images, charts, plugins and files
}

// Kinds of change.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// Change is an image, chart, plugin or file that differs.
type Change struct {
	What     string        `json:"what"`          // Added, Removed or Changed
	Name     string        `json:"name"`          // reference, chart, plugin id or path
	Was      string        `json:"was,omitempty"` // old version, or the old name if the name changed
	Now      string        `json:"now,omitempty"`
	Old      bundle.Digest `json:"old,omitempty"`
	New      bundle.Digest `json:"new,omitempty"`
	NewBytes int64         `json:"newBytes"` // bytes that the other bundle lacks
}

// thing is an image, a chart, a plugin or a file, reduced to the compared fields.
type thing struct {
	name    string // identifies the thing in both bundles
	like    string // identifies a renamed thing, such as the repository of an image; or empty
	version string
	digest  bundle.Digest
	also    string // other compared properties, such as the manifests of an image
	roots   []bundle.Descriptor
}

// Compare sets s.Changes to the differences from old. Both summaries must come from
// Read or Describe, and their files must still be open. The error wraps bundle.ErrLimit.
func (s *Summary) Compare(old *Summary) error {
	c := &Changes{Against: old.Bundle}
	for _, m := range s.reader.Blobs() {
		if _, ok := old.reader.Place(m.Digest); !ok {
			c.NewBytes += m.Size
		}
	}
	d := newDescriber(s.reader, &bundle.Deployment{})
	for _, of := range []struct {
		to     *[]Change
		things func(*Summary) []thing
	}{{&c.Images, imagesOf}, {&c.Charts, chartsOf}, {&c.Plugins, pluginsOf}, {&c.Files, filesOf}} {
		list, same, err := d.changes(of.things(old), of.things(s), old.reader)
		if err != nil {
			return err
		}
		*of.to = list
		c.Same += same
	}
	s.Changes = c
	return nil
}

// changes compares things of one kind. Things match by name, or by like if exactly one
// thing on each side has that like.
func (d *describer) changes(before, after []thing, old *bundle.Reader) (list []Change, same int, err error) {
	list = []Change{}
	gone := map[*thing]bool{} // matched with a thing in after
	earlier := earlierOf(before, after)
	for k := range after {
		t := &after[k]
		o := earlier[t]
		if o != nil && !gone[o] {
			gone[o] = true
		} else {
			o = nil
		}
		if o != nil && o.digest == t.digest && o.name == t.name && o.version == t.version && o.also == t.also {
			same++
			continue
		}
		c := t.change(o)
		err := d.walk(t.roots, func(b bundle.Digest) {
			if _, ok := old.Place(b); !ok {
				c.NewBytes += d.size(b)
			}
		})
		if err != nil {
			return nil, 0, err
		}
		list = append(list, c)
	}
	for k := range before {
		if o := &before[k]; !gone[o] {
			list = append(list, Change{What: Removed, Name: o.name, Old: o.digest, Was: o.version})
		}
	}
	return list, same, nil
}

// change describes the change from o to t; o is nil if t is new.
func (t *thing) change(o *thing) Change {
	c := Change{What: Added, Name: t.name, New: t.digest, Now: t.version}
	if o != nil {
		c.What, c.Old, c.Was = Changed, o.digest, o.version
		if o.name != t.name {
			c.Was = o.name
		}
	}
	return c
}

// earlierOf returns the thing in before for each thing in after: the thing with the same
// name, or else the only removed thing with the same like, if no other new thing has it.
func earlierOf(before, after []thing) map[*thing]*thing {
	was, is := map[string]*thing{}, map[string]bool{} // by name
	for k := range before {
		was[before[k].name] = &before[k]
	}
	added := map[string]int{} // number of new things by like
	for _, t := range after {
		is[t.name] = true
		if was[t.name] == nil {
			added[t.like]++
		}
	}
	removed := map[string][]*thing{}
	for k := range before {
		if t := &before[k]; !is[t.name] && t.like != "" {
			removed[t.like] = append(removed[t.like], t)
		}
	}
	earlier := map[*thing]*thing{}
	for k := range after {
		t := &after[k]
		earlier[t] = was[t.name]
		if others := removed[t.like]; earlier[t] == nil && len(others) == 1 && added[t.like] == 1 {
			earlier[t] = others[0]
		}
	}
	return earlier
}

func imagesOf(s *Summary) []thing {
	var list []thing
	named := map[string][]bundle.Descriptor{}
	for _, m := range s.reader.Index.Manifests {
		if ref := m.Annotations[bundle.AnnotationRef]; ref != "" {
			named[ref] = append(named[ref], m)
		}
	}
	for _, i := range s.Images {
		if i.Kind != KindImage && i.Kind != KindArtifact {
			continue
		}
		t := thing{name: i.Reference, digest: i.Digest, roots: named[i.Reference]}
		for _, m := range i.Manifests {
			t.also += string(m.Digest) + " "
		}
		if ref, err := bundle.ParseReference(i.Reference); err == nil {
			t.like = ref.Repository()
		}
		list = append(list, t)
	}
	return list
}

func (s *Summary) manifest(d bundle.Digest) []bundle.Descriptor {
	if m := s.reader.Manifests[d]; m != nil {
		return []bundle.Descriptor{m.Descriptor}
	}
	return nil
}

func chartsOf(s *Summary) []thing {
	var list []thing
	for _, c := range s.Charts {
		name := strings.TrimSuffix(c.Repository, "/") + "/" + c.Name
		list = append(list, thing{name: name, version: c.Version, digest: c.Digest, roots: []bundle.Descriptor{{Digest: c.Digest}}})
	}
	return list
}

func pluginsOf(s *Summary) []thing {
	var list []thing
	for _, p := range s.Plugins {
		list = append(
			list,
			thing{name: p.ID, version: p.Version, digest: p.Archive, also: string(p.Signature + " " + p.Key), roots: s.manifest(p.Manifest)},
		)
	}
	return list
}

func filesOf(s *Summary) []thing {
	var list []thing
	for _, f := range s.Files {
		list = append(list, thing{name: f.Path, version: "mode " + f.Mode, digest: f.Digest, also: f.As, roots: s.manifest(f.Manifest)})
	}
	return list
}
