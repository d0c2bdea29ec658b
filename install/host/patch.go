package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// patchFile applies a JSON merge patch to the content of a file, which may be empty, and
// returns the new content, indented. Errors wrap ErrValues.
func patchFile(m bundle.Merge, content, patch []byte) ([]byte, error) {
	if len(bytes.TrimSpace(content)) == 0 {
		content = []byte("{}")
	}
	if _, err := decodeNumbers(content); err != nil {
		return nil, fmt.Errorf("%w: %s is not a JSON document: %w", ErrValues, m.File, err)
	}
	if _, err := decodeNumbers(patch); err != nil {
		return nil, fmt.Errorf("%w: the patch %s for %s is not a JSON document: %w", ErrValues, m.Patch, m.File, err)
	}
	merged, err := mergePatch(content, patch)
	if err != nil {
		return nil, fmt.Errorf("%w: merging %s into %s: %w", ErrValues, m.Patch, m.File, err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, merged, "", "    "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// mergePatch applies a patch to a document (RFC 7396, section 2). Members that the patch does
// not name keep their order and spelling, including numbers. If a name occurs twice, the last
// one counts, as most readers do.
func mergePatch(target, patch jsontext.Value) (jsontext.Value, error) {
	if patch.Kind() != '{' {
		return patch, nil
	}
	out, err := members(target)
	if err != nil {
		return nil, err
	}
	changes, err := members(patch)
	if err != nil {
		return nil, err
	}
	for _, name := range changes.names {
		value := changes.values[name]
		if value.Kind() == 'n' {
			out.remove(name)
			continue
		}
		if value, err = mergePatch(out.values[name], value); err != nil {
			return nil, err
		}
		out.set(name, value)
	}
	return out.encode()
}

// object is a JSON object that preserves the order of its members.
type object struct {
	names  []string
	values map[string]jsontext.Value
}

func (o *object) set(name string, v jsontext.Value) {
	if _, ok := o.values[name]; !ok {
		o.names = append(o.names, name)
	}
	o.values[name] = v
}

// remove deletes the value of a name. encode skips names without a value.
func (o *object) remove(name string) { delete(o.values, name) }

// members decodes an object. Any other value has no members.
func members(v jsontext.Value) (*object, error) {
	o := &object{values: map[string]jsontext.Value{}}
	if v.Kind() != '{' {
		return o, nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(v), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		text := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		o.set(text, value.Clone())
	}
	_, err := dec.ReadToken()
	return o, err
}

func (o *object) encode() (jsontext.Value, error) {
	var b bytes.Buffer
	enc := jsontext.NewEncoder(&b, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	err := enc.WriteToken(jsontext.BeginObject)
	written := map[string]bool{} // a name that was removed and set again occurs twice in names
	for _, name := range o.names {
		v, ok := o.values[name]
		if !ok || written[name] {
			continue
		}
		written[name] = true
		err = errors.Join(err, enc.WriteToken(jsontext.String(name)), enc.WriteValue(v))
	}
	err = errors.Join(err, enc.WriteToken(jsontext.EndObject))
	return bytes.TrimSpace(b.Bytes()), err
}

// sameJSON reports whether two texts are equal JSON documents.
func sameJSON(a, b []byte) bool {
	x, errX := decodeNumbers(a)
	y, errY := decodeNumbers(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

// decodeNumbers decodes one document and keeps the spelling of numbers.
func decodeNumbers(data []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	return v, nil
}
