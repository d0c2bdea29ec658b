package kit

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	_ "embed"
	"text/template"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/record"
)

// ReadMe is the content of the page to read first. The page depends on nothing else.
type ReadMe struct {
	Bundle    record.About
	Name      string   // of the bundle file; the common name if there are volumes
	Volumes   []string // names of the volumes; empty if the bundle is one file
	Public    string   // name of the public key's file
	Record    string   // name of the transfer record
	Values    []bundle.Value
	Startable bool // whether install --start has something to start

	Program        string // name
	ProgramVersion string
	ProgramDigest  bundle.Digest
	Fingerprint    bundle.Fingerprint
	public         crypto.PublicKey
}

//go:embed readme.txt
var readMeTemplate string

func (r ReadMe) text() ([]byte, error) {
	t, err := template.New("readme").Funcs(template.FuncMap{"word": disk.ShellWord}).Parse(readMeTemplate)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	buf.WriteString(readMeTitle(r.Name))
	if err := t.Execute(&buf, r); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// First returns the file name for use in commands: the first volume, or the bundle file.
func (r ReadMe) First() string {
	if len(r.Volumes) > 0 {
		return r.Volumes[0]
	}
	return r.Name
}

// Ed25519 reports whether the key is an Ed25519 key, which needs another openssl command.
func (r ReadMe) Ed25519() bool {
	_, ok := r.public.(ed25519.PublicKey)
	return ok
}

// Needed returns the values that install requires.
func (r ReadMe) Needed() []bundle.Value { return bundle.Needed(r.Values) }
