package install

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// Receipt says what an installation left behind.
type Receipt struct {
	APIVersion string         `json:"apiVersion"` // bundle.APIVersion
	Kind       string         `json:"kind"`       // "Receipt"
	Bundle     ReceiptBundle  `json:"bundle"`
	Signers    []string       `json:"signers"` // fingerprints of the trusted keys
	Registry   string         `json:"registry"`
	Images     []ReceiptImage `json:"images"`
	Files      []ReceiptFile  `json:"files"`
	Release    string         `json:"release"` // ID below deployments/NAME/releases
	// Tags are those that were moved, and what they were before any deployment of this host
	// had them.
	Tags      []TagMove `json:"tags"`
	Installed string    `json:"installed"` // RFC 3339, by this host's clock
}

// ReceiptBundle identifies the bundle.
type ReceiptBundle struct {
	Digest   bundle.Digest `json:"digest"`
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Channel  string        `json:"channel"`
	Sequence int64         `json:"sequence"`
}

// ReceiptImage is an image on the site.
type ReceiptImage struct {
	Reference string        `json:"reference"` // on the site
	Upstream  string        `json:"upstream"`
	Digest    bundle.Digest `json:"digest"` // what the reference resolves to
	// Index is upstream's index where only some of its manifests are here, and
	// IndexStored says whether the registry took it nevertheless.
	Index       bundle.Digest   `json:"index,omitempty"`
	IndexStored bool            `json:"indexStored,omitempty"`
	Manifests   []bundle.Digest `json:"manifests"` // by which hosts pin it, a platform each
}

// ReceiptFile is a file on the host.
type ReceiptFile struct {
	Path   string        `json:"path"` // absolute
	Mode   string        `json:"mode"` // four octal digits
	SHA256 bundle.Digest `json:"sha256"`
}

func receiptName(name, target, release string) string {
	return name + "-" + release + "-" + bundle.DigestOf([]byte(target)).Short()[:8] + ".json"
}

func receiptPath(root, name string) string { return filepath.Join(root, "receipts", name) }

// ReadReceipt reads a receipt by the name in the state.
func ReadReceipt(root, name string) (*Receipt, error) {
	var r Receipt
	if err := host.ReadRecord(receiptPath(root, name), "Receipt", &r); err != nil {
		return nil, err
	}
	if r.Bundle.Sequence < 0 {
		return nil, fmt.Errorf("%w: %w: %s has the sequence %d", ErrState, bundle.ErrFormat, receiptPath(root, name), r.Bundle.Sequence)
	}
	return &r, nil
}

// Retaining returns the tags that only keep content alive.
func (r *Receipt) Retaining() []TagMove {
	var list []TagMove
	for _, t := range r.Tags {
		if strings.HasPrefix(t.Tag, retentionTag(r.Bundle.Digest, 0)) {
			list = append(list, t)
		}
	}
	return list
}
