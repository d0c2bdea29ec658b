package pull

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
)

const (
	// maxChartIndex bounds a repository's index.yaml, in bytes.
	maxChartIndex = 256 << 20
	// maxWholeIndex bounds the part of an index that is decoded in one piece, in bytes.
	maxWholeIndex = 8 << 20
	// maxChartVersions bounds the versions, URLs and digests of one chart, in bytes.
	maxChartVersions = 4 << 20
)

// chartVersion is one version of a chart in an index.
type chartVersion struct {
	Version string   `yaml:"version"`
	URLs    []string `yaml:"urls"`
	Digest  string   `yaml:"digest"`
}

// versionList collects the versions of one chart, within maxChartVersions.
type versionList struct {
	list []chartVersion
	size int
}

func (l *versionList) add(versions ...chartVersion) error {
	const overhead = 64 // bytes charged for each entry besides its strings
	for _, v := range versions {
		l.size += overhead + len(v.Version) + len(v.Digest)
		for _, u := range v.URLs {
			l.size += overhead + len(u)
		}
		if l.size > maxChartVersions {
			return fmt.Errorf("%w: the versions of the chart take more than %d bytes in the index",
				bundle.ErrLimit, maxChartVersions)
		}
		l.list = append(l.list, v)
	}
	return nil
}

// errIndexForm marks an index in a form that a reader does not handle.
var errIndexForm = errors.New("another form of index")

// chartEntries returns the versions of one chart, or none if the index lacks the chart.
// Indexes reach tens of megabytes, and a decoded document takes fifteen times its size in
// memory. JSON and YAML block style, the forms that tools write, are therefore read as
// streams that skip other charts. An index in any other form is decoded in one piece.
// Errors wrap bundle.ErrFormat or bundle.ErrLimit, or are those of r.
func chartEntries(r io.ReadSeeker, name string) ([]chartVersion, error) {
	forms := []func(io.Reader, string) ([]chartVersion, error){jsonEntries, blockEntries}
	for _, read := range forms {
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		list, err := read(r, name)
		if !errors.Is(err, errIndexForm) {
			return list, err
		}
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return wholeEntries(r, name)
}

// wholeEntries decodes the first document of an index, as Helm does.
func wholeEntries(r io.Reader, name string) ([]chartVersion, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxWholeIndex+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxWholeIndex {
		return nil, fmt.Errorf("%w: the repository's index has more than %d bytes and is neither JSON nor YAML in block style",
			bundle.ErrLimit, maxWholeIndex)
	}
	var document struct {
		Entries map[string]yaml.Node `yaml:"entries"`
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err == nil {
		err = loader.Load(&document)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, indexError(err)
	}
	node, ok := document.Entries[name]
	if !ok {
		return nil, nil
	}
	var versions []chartVersion
	if err := node.Load(&versions); err != nil {
		return nil, indexError(err)
	}
	var kept versionList
	err = kept.add(versions...)
	return kept.list, err
}

func indexError(err error) error {
	return fmt.Errorf("%w: the repository's index: %w", bundle.ErrFormat, err)
}

// jsonEntries reads an index in JSON.
func jsonEntries(r io.Reader, name string) ([]chartVersion, error) {
	var kept versionList
	in := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	err := members(in, func(key string) error {
		if key != "entries" {
			return in.SkipValue()
		}
		return members(in, func(key string) error {
			if key != name {
				return in.SkipValue()
			}
			return elements(in, func() error {
				v, err := jsonVersion(in)
				return errors.Join(err, kept.add(v))
			})
		})
	})
	if err == nil {
		if _, err = in.ReadToken(); errors.Is(err, io.EOF) {
			return kept.list, nil
		}
		err = errIndexForm // there is data after the document
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errIndexForm
	}
	return nil, err
}

// jsonVersion reads one version of a chart. It keeps only the version, the digest and
// the first URL, which is the one that Helm uses.
func jsonVersion(in *jsontext.Decoder) (v chartVersion, err error) {
	err = members(in, func(key string) (err error) {
		switch key {
		case "version":
			v.Version, err = scalar(in)
		case "digest":
			v.Digest, err = scalar(in)
		case "urls":
			v.URLs = nil
			err = elements(in, func() error {
				u, err := scalar(in)
				if len(v.URLs) == 0 {
					v.URLs = []string{u}
				}
				return err
			})
		default:
			err = in.SkipValue()
		}
		return err
	})
	return v, err
}

// scalar reads a string, or a number in its original spelling.
func scalar(in *jsontext.Decoder) (string, error) {
	if kind := in.PeekKind(); kind != '"' && kind != '0' {
		return "", errIndexForm
	}
	token, err := in.ReadToken()
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

// members calls use for each key of an object; use must read the value.
func members(in *jsontext.Decoder, use func(key string) error) error {
	if in.PeekKind() != '{' {
		return errIndexForm
	}
	if _, err := in.ReadToken(); err != nil {
		return err
	}
	for in.PeekKind() != '}' {
		key, err := in.ReadToken()
		if err != nil {
			return err
		}
		if err := use(key.String()); err != nil {
			return err
		}
	}
	_, err := in.ReadToken()
	return err
}

// elements calls use for each element of an array; use must read the element.
func elements(in *jsontext.Decoder, use func() error) error {
	if in.PeekKind() != '[' {
		return errIndexForm
	}
	if _, err := in.ReadToken(); err != nil {
		return err
	}
	for in.PeekKind() != ']' {
		if err := use(); err != nil {
			return err
		}
	}
	_, err := in.ReadToken()
	return err
}
