package record

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

const (
	// maxValue bounds a text of a document, in bytes: a bundle may be looked into that
	// nobody has signed.
	maxValue = maxEnvelope
	// maxPackage bounds what is decoded as a whole: a package, or a component, in bytes.
	maxPackage = 1 << 20
	// maxDepth bounds how deep values are nested, each level of which is remembered.
	maxDepth = 1000
)

// decoder reads JSON piece by piece, and none that is larger than its kind may be. Errors
// wrap bundle.ErrLimit, or are the reader's or the decoder's.
type decoder struct {
	*json.Decoder
	from *pieces
}

func newDecoder(r io.Reader) *decoder {
	p := &pieces{r: r}
	return &decoder{json.NewDecoder(p), p}
}

func (d *decoder) Token() (json.Token, error) {
	d.from.left = maxValue
	return d.Decoder.Token()
}

func (d *decoder) Decode(v any) error {
	d.from.left = maxPackage
	return d.Decoder.Decode(v)
}

// pieces ends a read in which nothing ends.
type pieces struct {
	r    io.Reader
	left int64
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, fmt.Errorf("%w: one value has too many bytes", bundle.ErrLimit)
	}
	n, err := p.r.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	return n, err
}

// counter reads SPDX 2 (JSON) and CycloneDX, also as the predicate of an in-toto
// statement, also in a DSSE envelope or a Sigstore bundle, without holding more
// than one package in memory.
type counter struct {
	*SBOM
	licenses                          map[string]int
	size                              int64 // of the whole document, bytes
	spdxVersion, bomFormat, bomModern string
}

func (c *counter) isSBOM() bool {
	return c.spdxVersion != "" || c.bomFormat == "CycloneDX"
}

func (c *counter) format() string {
	if c.spdxVersion != "" {
		return strings.Replace(c.spdxVersion, "SPDX-", "SPDX ", 1)
	}
	return strings.TrimSpace("CycloneDX " + c.bomModern)
}

// maxNesting is envelope, statement, predicate, and one to spare.
const maxNesting = 4

func (c *counter) document(d *decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return skipRest(d, t)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if err := c.field(d, fmt.Sprint(key), depth); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func (c *counter) field(d *decoder, key string, depth int) error {
	switch key {
	case "predicate", "dsseEnvelope":
		if depth < maxNesting {
			return c.document(d, depth+1)
		}
	case "packages":
		return each(d, func() error {
			var p spdxPackage
			err := d.Decode(&p)
			c.add(p.license())
			return err
		})
	case "components":
		return each(d, func() error { return c.component(d, depth) })
	case "payload":
		if c.size > maxEnvelope {
			return fmt.Errorf("%w: an envelope of %d bytes", bundle.ErrLimit, c.size)
		}
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	text, isText := t.(string)
	if !isText {
		return skipRest(d, t)
	}
	switch key {
	case "spdxVersion":
		c.spdxVersion = shorten(text)
	case "bomFormat":
		c.bomFormat = text
	case "specVersion":
		c.bomModern = shorten(text)
	case "payload":
		if inner, err := base64.StdEncoding.DecodeString(text); err == nil && depth < maxNesting {
			return c.document(newDecoder(bytes.NewReader(inner)), depth+1)
		}
	}
	return nil
}

// each calls element for each element of the array that follows.
func each(d *decoder, element func() error) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('[') {
		return skipRest(d, t)
	}
	for d.More() {
		if err := element(); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// skipRest reads on to the end of the value that begins with t.
func skipRest(d *decoder, t json.Token) error {
	depth := 0
	for {
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
		if depth > maxDepth {
			return fmt.Errorf("%w: nested more than %d deep", bundle.ErrLimit, maxDepth)
		}
		var err error
		if t, err = d.Token(); err != nil {
			return err
		}
	}
}

func (c *counter) add(license string) {
	c.Packages++
	license = shorten(license)
	_, known := c.licenses[license]
	switch {
	case license == "":
		c.Unknown++
	case known || len(c.licenses) < maxLicenses:
		c.licenses[license]++
	default:
		c.licenses["others"]++
	}
}

// shorten keeps what fits on a line.
func shorten(s string) string {
	const most = 100
	s = strings.ToValidUTF8(s[:min(len(s), 10*most)], "")
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// spdxPackage is a package (SPDX 2.3, clause 7).
type spdxPackage struct {
	Concluded string `json:"licenseConcluded"`
	Declared  string `json:"licenseDeclared"`
}

func (p spdxPackage) license() string {
	for _, l := range []string{p.Concluded, p.Declared} {
		if l != "" && l != "NOASSERTION" && l != "NONE" {
			return l
		}
	}
	return ""
}

// cdxLicense is one of a component's licences (CycloneDX 1.6).
type cdxLicense struct {
	Expression string `json:"expression"`
	License    struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"license"`
}

// maxNames bounds the licences of one component that are named.
const maxNames = 20

// component counts a component (CycloneDX 1.6) and those in it, one after the other.
func (c *counter) component(d *decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return skipRest(d, t)
	}
	var names []string
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		switch {
		case key == "licenses":
			err = each(d, func() error {
				var l cdxLicense
				if err := d.Decode(&l); err != nil {
					return err
				}
				if name := cmp.Or(l.Expression, l.License.ID, l.License.Name); name != "" && len(names) < maxNames {
					names = append(names, shorten(name))
				}
				return nil
			})
		case key == "components" && depth < maxComponents:
			err = each(d, func() error { return c.component(d, depth+1) })
		default:
			if t, err = d.Token(); err == nil {
				err = skipRest(d, t)
			}
		}
		if err != nil {
			return err
		}
	}
	c.add(strings.Join(names, " AND "))
	_, err = d.Token()
	return err
}

// maxComponents bounds the nesting of components.
const maxComponents = 100
