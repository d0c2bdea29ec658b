package ledger

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// Receipt describes an installation for people and for programs of the site. No decision
// depends on a receipt, except when state.json is lost (see Read).
type Receipt struct {
	APIVersion string   `json:"apiVersion"` // bundle.APIVersion
	Kind       string   `json:"kind"`       // "Receipt"
	Bundle     Bundle   `json:"bundle"`
	Signers    []string `json:"signers"`  // fingerprints of the trusted keys
	Registry   string   `json:"registry"` // prefix of image references
	Images     []Image  `json:"images"`
	Files      []File   `json:"files"`
	Release    string   `json:"release"` // ID below deployments/NAME/releases
	// Tags are the tags that were moved, and their values before any deployment of this host
	// set them.
	Tags      []TagMove `json:"tags"`
	Installed string    `json:"installed"` // RFC 3339, by this host's clock
}

// Bundle identifies a bundle.
type Bundle struct {
	Digest   bundle.Digest `json:"digest"`
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Channel  string        `json:"channel"`
	Sequence int64         `json:"sequence"`
}

// Image is an image on the site.
type Image struct {
	Reference string        `json:"reference"` // on the site
	Upstream  string        `json:"upstream"`
	Digest    bundle.Digest `json:"digest"` // what the reference resolves to
	// Index is the upstream index if only some of its manifests are carried. IndexStored
	// reports whether the registry accepted that index nevertheless.
	Index       bundle.Digest   `json:"index,omitempty"`
	IndexStored bool            `json:"indexStored,omitempty"`
	Manifests   []bundle.Digest `json:"manifests"` // for digest references by hosts, one per platform
}

// File is a file on the host.
type File struct {
	Path   string        `json:"path"` // absolute
	Mode   string        `json:"mode"` // four octal digits
	SHA256 bundle.Digest `json:"sha256"`
}

// TagMove is one tag before and after a change.
type TagMove struct {
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"`
	From       bundle.Digest `json:"from,omitempty"` // "" if the tag is new
	To         bundle.Digest `json:"to"`
}

func (t TagMove) place(registry string) Place { return Tag(registry, t.Repository, t.Tag) }

// Receipt returns the receipt of a release of a deployment. About describes the release's
// content.
func (l *Ledger) Receipt(root string, d Deployment, r Release, about *host.About) (*Receipt, error) {
	files, err := Files(root, about)
	if err != nil {
		return nil, err
	}
	out := &Receipt{
		APIVersion: bundle.APIVersion, Kind: "Receipt", Registry: r.Address, Signers: r.Signers, Images: r.Images, Files: files,
		Bundle:  Bundle{Digest: r.Identity, Name: d.Name, Version: r.Version, Channel: r.Channel, Sequence: r.Sequence},
		Release: r.ID, Tags: []TagMove{}, Installed: r.Installed,
	}
	if r.InPlace {
		return out, nil
	}
	for _, t := range l.Tags(d, r.ID) {
		_, repository, tag, _ := t.Place.Split()
		out.Tags = append(out.Tags, TagMove{Repository: repository, Tag: tag, From: l.Before[t.Place], To: t.Value})
	}
	return out, nil
}

// Files returns the files of a release with absolute paths.
func Files(root string, about *host.About) ([]File, error) {
	dir, err := filepath.Abs(filepath.Join(host.Base(root, about.Name), "releases", about.ID))
	if err != nil {
		return nil, err
	}
	files := []File{}
	for _, f := range about.Files {
		files = append(files, File{Path: filepath.Join(dir, filepath.FromSlash(f.Path)), Mode: f.Mode, SHA256: f.SHA256})
	}
	return files, nil
}

// ReceiptName returns the file name of a release's receipt, below receipts/.
func ReceiptName(name, registry, release string) string {
	return name + "-" + release + "-" + bundle.DigestOf([]byte(registry)).Short()[:8] + ".json"
}

// ReceiptPath returns the path of a receipt with the given file name.
func ReceiptPath(root, name string) string { return filepath.Join(root, "receipts", name) }

// ReadReceipt reads a receipt by its file name. Errors are those of host.ReadRecord.
func ReadReceipt(root, name string) (*Receipt, error) {
	var r Receipt
	if err := host.ReadRecord(ReceiptPath(root, name), "Receipt", &r); err != nil {
		return nil, err
	}
	if r.Bundle.Sequence < 0 {
		return nil, fmt.Errorf("%w: %w: %s has the sequence %d", host.ErrState, bundle.ErrFormat, ReceiptPath(root, name), r.Bundle.Sequence)
	}
	return &r, nil
}

// embedded is the name of the target below the root.
const embedded = "embedded"

// target returns the name of the target that a receipt with this file name is about, or "".
func (r *Receipt) target(file string) string {
	for _, t := range []string{embedded, r.Registry} {
		if ReceiptName(r.Bundle.Name, t, r.Release) == file {
			return t
		}
	}
	return ""
}

// entry returns the release that a receipt is about, and its tags.
func (r *Receipt) entry() (Release, []TagMove) {
	tags, inPlace := r.Tags, len(r.Tags) == 0
	if inPlace { // another host stored the images; the release still claims their tags
		for _, i := range r.Images {
			name := strings.TrimPrefix(i.Reference, r.Registry+"/")
			if colon := strings.LastIndexByte(name, ':'); colon > 0 && !strings.Contains(name, "@") {
				tags = append(tags, TagMove{Repository: name[:colon], Tag: name[colon+1:], To: i.Digest})
			}
		}
	}
	return Release{
		ID: r.Release, Identity: r.Bundle.Digest, Version: r.Bundle.Version, Channel: r.Bundle.Channel, Sequence: r.Bundle.Sequence,
		Installed: r.Installed, Signers: r.Signers, Address: r.Registry, InPlace: inPlace, Images: r.Images,
	}, tags
}
