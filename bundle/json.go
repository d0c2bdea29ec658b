package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// DecodeStrict decodes an oob-bundle document. It refuses, with ErrFormat, duplicate keys
// (also keys that differ only in case), unknown fields, null, trailing data, invalid UTF-8,
// NUL, and numbers that are not plain integers in range. It refuses more than MaxObjects
// objects with ErrLimit. If the fields do not fit and the document has another apiVersion of
// oob-bundle, the error wraps ErrNewer.
func DecodeStrict(data []byte, v any) error { return decode(data, v, ours) }

// DecodeRecord decodes a document that this program has written for itself. Unlike
// DecodeStrict, it does not limit the number of objects. Keys may differ only in case, or be
// spelled like a field of OCI: they are names of channels, tags and values, and no other
// parser reads them. A field in another case is still an unknown field.
func DecodeRecord(data []byte, v any) error { return decode(data, v, record) }

func decode(data []byte, v any, who author) error {
	if err := checkTokens(data, who); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v, json.RejectUnknownMembers(true)); err != nil {
		if other, _ := KindOf(data); newer(other) {
			return fmt.Errorf("%w: it is of %q", ErrNewer, other)
		}
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// KindOf returns the apiVersion and kind that a document names, or "" for each that is
// missing.
func KindOf(document []byte) (apiVersion, kind string) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if json.Unmarshal(document, &head) != nil {
		return "", ""
	}
	return head.APIVersion, head.Kind
}

// newer reports whether an apiVersion belongs to oob-bundle, but not to this version of it.
func newer(apiVersion string) bool {
	return apiVersion != APIVersion && strings.HasPrefix(apiVersion, "oobbundle.dev/")
}

// decodeForeign decodes an upstream document. It accepts unknown fields and null. It refuses
// documents that two parsers could read differently (duplicate and case-folded keys, trailing
// data, invalid UTF-8).
func decodeForeign(data []byte, v any) error {
	if err := checkTokens(data, foreign); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// Encode encodes an oob-bundle document: compact, fields in the order of the type, map keys
// sorted bytewise, no needless escapes (RFC 8259).
func Encode(v any) ([]byte, error) {
	return json.Marshal(v, json.Deterministic(true))
}

type author int

const (
	ours author = iota
	foreign
	record
)

// ociFields are the names of fields in OCI documents. A parser that ignores case takes
// "Layers" for "layers", and this package does not. A key that differs from one of these only
// in case is therefore refused.
var ociFields = map[string]bool{
	"schemaversion": true, "mediatype": true, "artifacttype": true, "config": true, "layers": true,
	"manifests": true, "subject": true, "annotations": true, "digest": true, "size": true, "urls": true,
	"data": true, "platform": true, "architecture": true, "os": true, "os.version": true, "os.features": true, "variant": true,
}

var exactFields = map[string]bool{"schemaVersion": true, "mediaType": true, "artifactType": true}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 0x7f }) < 0
}

func foldsToField(key string) bool {
	low := strings.ToLower(key)
	return ociFields[low] && key != low && !exactFields[key]
}

// checkTokens checks data for errors that the decoder accepts. Jsontext itself refuses
// duplicate names, invalid UTF-8 and lone surrogates. Errors wrap ErrFormat or ErrLimit.
func checkTokens(data []byte, who author) error {
	objects := 0
	err := eachToken(data, who, func() error {
		if objects++; objects > MaxObjects && who != record {
			return fmt.Errorf("%w: more than %d objects in a document", ErrLimit, MaxObjects)
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrLimit) {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return err
}

// level is an object or array that is being read.
type level struct {
	keys map[string]bool // lower-cased; nil in an array
	free bool            // keys may have any spelling (annotations)
	name string          // the key whose value is being read
}

// eachToken checks every token of data for checkTokens. It calls object for each JSON object.
func eachToken(data []byte, who author, object func() error) error {
	dec := jsontext.NewDecoder(bytes.NewReader(data))
	var stack []level
	for {
		tok, err := dec.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errors.New(strings.TrimPrefix(err.Error(), "jsontext: ")) // the prefix means nothing to an operator
		}
		if len(stack) == 0 && tok.Kind() != '{' {
			return errors.New("not a JSON object")
		}
		switch tok.Kind() {
		case '{':
			free := len(stack) > 0 && stack[len(stack)-1].name == "annotations"
			stack = append(stack, level{keys: map[string]bool{}, free: free})
			err = object()
		case '[':
			stack = append(stack, level{})
		case '}', ']':
			stack = stack[:len(stack)-1]
			if len(stack) == 0 && len(bytes.TrimLeft(data[dec.InputOffset():], " \t\r\n")) > 0 {
				err = errors.New("data after the document")
			}
		case '"':
			top := &stack[len(stack)-1]
			_, n := dec.StackIndex(dec.StackDepth())
			err = top.check(tok.String(), top.keys != nil && n%2 == 1, who)
		default:
			err = checkScalar(tok, who)
		}
		if err != nil && !errors.Is(err, ErrLimit) {
			return fmt.Errorf("%w at %q", err, dec.StackPointer())
		}
		if err != nil {
			return err
		}
	}
}

// checkScalar refuses null and -0, except from foreign authors. -0 is 0 in another spelling.
func checkScalar(tok jsontext.Token, who author) error {
	switch {
	case who == foreign:
		return nil
	case tok.Kind() == 'n':
		return errors.New("null")
	case tok.Kind() == '0' && tok.String() == "-0":
		return errors.New("the number -0")
	}
	return nil
}

// check checks a string. If the string is a key, check records it.
func (l *level) check(s string, key bool, who author) error {
	if strings.IndexByte(s, 0) >= 0 {
		return errors.New("NUL in a string")
	}
	if !key {
		return nil
	}
	l.name = s
	if who == record {
		return nil
	}
	low := strings.ToLower(s)
	if l.keys[low] {
		return errors.New("keys that differ in case only")
	}
	if !l.free && (foldsToField(s) || !isASCII(s)) { // in Unicode case folding, layerſ is layers
		return fmt.Errorf("key %q, which some parsers take for another", s)
	}
	l.keys[low] = true
	return nil
}
