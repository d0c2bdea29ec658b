package host

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Change describes the change to one file.
type Change struct {
	Path string `json:"path"` // absolute
	What string `json:"what"` // new, changed, same, removed
	Diff string `json:"diff,omitempty"`
}

// Changes compares the release with the current one. It does not open archives: an archive is
// the same if its digest is the same.
func (r *Release) Changes() ([]Change, error) {
	before := map[string]File{}
	dir := ""
	if id, err := Current(r.site.Root, r.Name); err != nil {
		return nil, err
	} else if id != "" {
		about, err := ReadRelease(r.site.Root, r.Name, id)
		if errors.Is(err, fs.ErrNotExist) { // the record is lost, so everything is new
			about = &About{}
		} else if err != nil {
			return nil, err
		}
		dir = filepath.Join(r.base, "releases", id)
		for _, f := range about.Files {
			before[f.Path] = f
		}
		for _, a := range about.Archives {
			before[a.Path+"/"] = a
		}
	}
	var list []Change
	for _, f := range r.files {
		c := Change{Path: filepath.Join(r.Dir, filepath.FromSlash(f.path)), What: "new"}
		key, digest := f.path, f.blob.Digest
		if f.data != nil {
			digest = bundle.DigestOf(f.data)
		}
		if f.as == bundle.AsArchive {
			key += "/"
		}
		if old, ok := before[key]; ok {
			c.What = "same"
			if old.SHA256 != digest {
				c.What = "changed"
				var err error
				if c.Diff, err = r.diff(dir, f); err != nil {
					return nil, err
				}
			}
		}
		delete(before, key)
		list = append(list, c)
	}
	for _, key := range sortedKeys(before) {
		if f := before[key]; f.Archive == "" { // an archive's files are listed with the archive
			list = append(list, Change{Path: filepath.Join(dir, filepath.FromSlash(key)), What: "removed"})
		}
	}
	return list, nil
}

// maxDiff limits the size of files that are compared line by line, in bytes.
const maxDiff = 256 << 10

func (r *Release) diff(dir string, f file) (string, error) {
	if f.data == nil && f.blob.Size > maxDiff || f.as == bundle.AsArchive {
		return "", nil
	}
	text := f.data
	if text == nil {
		var err error
		if text, err = r.bundle.ReadBlob(f.blob, maxDiff); err != nil {
			return "", err
		}
	}
	old, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.path)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if bytes.IndexByte(old, 0) >= 0 || bytes.IndexByte(text, 0) >= 0 || len(old) > maxDiff || len(text) > maxDiff {
		return "", nil
	}
	hidden := func(b []byte) []byte { return []byte(r.secrets.hide(string(b))) }
	if f.secret && !bytes.Equal(hidden(text), f.shown) {
		return "", nil // it contains passwords in a form that cannot be masked
	}
	return string(diff.Diff("installed/"+f.path, hidden(old), "bundle/"+f.path, hidden(text))), nil
}
