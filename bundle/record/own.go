package record

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/oob-bundle/oob-bundle/bundle"
)

const (
	// maxOwn is the maximum size of the bundle's own SBOM, in bytes.
	maxOwn = 8 << 20
	// maxComponent is the maximum size of one component in that SBOM, in bytes.
	maxComponent = 1 << 20
)

// ownSBOM contains the sources and checks recorded in the bundle's own SBOM.
type ownSBOM map[ownKey]said

type ownKey struct {
	digest bundle.Digest
	name   string
}

type said struct {
	source string
	checks []string // checks that create made and that passed
}

func (o ownSBOM) of(d bundle.Digest, name string) said { return o[ownKey{d, name}] }

// readOwn reads the bundle's own SBOM. It returns nil if the SBOM is missing or unreadable.
func (d *describer) readOwn() ownSBOM {
	data, err := d.Document(bundle.TypeSBOM, maxOwn)
	d.note(err)
	if data == nil {
		return nil
	}
	own := ownSBOM{}
	if own.read(data) != nil {
		return nil
	}
	return own
}

// read decodes one component at a time, because an unsigned document may be built to
// exhaust memory.
func (o ownSBOM) read(data []byte) error {
	in := json.NewDecoder(bytes.NewReader(data))
	if t, err := in.Token(); err != nil || t != json.Delim('{') {
		return cmp.Or(err, bundle.ErrFormat)
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return err
		}
		if key == "components" {
			err = o.components(in)
		} else {
			err = in.Decode(new(json.RawMessage))
		}
		if err != nil {
			return err
		}
	}
	_, err := in.Token()
	return err
}

func (o ownSBOM) components(in *json.Decoder) error {
	if t, err := in.Token(); err != nil || t != json.Delim('[') {
		return cmp.Or(err, bundle.ErrFormat)
	}
	var component json.RawMessage // reused, to avoid allocations
	for n := 0; in.More(); n++ {
		if err := in.Decode(&component); err != nil {
			return err
		}
		if len(component) > maxComponent || n == bundle.MaxMembers {
			return fmt.Errorf("%w: the SBOM of the bundle is too large", bundle.ErrLimit)
		}
		if err := o.add(component); err != nil {
			return err
		}
	}
	_, err := in.Token()
	return err
}

// add decodes a component (CycloneDX 1.6) and adds it to o.
func (o ownSBOM) add(component []byte) error {
	var c struct {
		Name   string `json:"name"`
		Hashes []struct {
			Content string `json:"content"`
		} `json:"hashes"`
		Properties []struct {
			Name  string `json:"name"`
			Value string `json:"value"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(component, &c); err != nil || len(c.Hashes) != 1 {
		return err
	}
	var s said
	for _, p := range c.Properties {
		switch p.Name {
		case "oobbundle:source":
			s.source = p.Value
		case "oobbundle:check":
			s.checks = append(s.checks, p.Value)
		}
	}
	o[ownKey{bundle.Digest("sha256:" + c.Hashes[0].Content), c.Name}] = s
	return nil
}
