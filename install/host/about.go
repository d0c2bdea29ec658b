package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// About is release.json: the contents of a release. The file exists only if the release is
// complete.
type About struct {
	APIVersion string            `json:"apiVersion"` // bundle.APIVersion
	Kind       string            `json:"kind"`       // "Release"
	ID         string            `json:"id"`
	Identity   bundle.Digest     `json:"identity"` // of the bundle
	Name       string            `json:"name"`
	Version    string            `json:"version"`
	Form       string            `json:"form,omitempty"`
	Registry   string            `json:"registry"`
	Data       string            `json:"data"`               // absolute
	Values     map[string]string `json:"values"`             // the site's values, with defaults
	Given      map[string]string `json:"given"`              // the values that the site gave; the next release inherits them
	Images     []string          `json:"images"`             // as the files name them
	Health     []string          `json:"health,omitempty"`   // URLs
	HostRoot   string            `json:"hostRoot,omitempty"` // absolute; the links are in its etc/
	Links      []bundle.Link     `json:"links,omitempty"`
	Merges     []bundle.Merge    `json:"merges,omitempty"`
	Database   *bundle.Database  `json:"database,omitempty"`
	Postgres   string            `json:"postgres,omitempty"`  // major version of the database's image
	Platforms  []string          `json:"platforms,omitempty"` // carried, such as linux/amd64; for a cluster
	Cluster    []Step            `json:"cluster,omitempty"`   // steps for a cluster, in order
	Files      []File            `json:"files"`
	Archives   []File            `json:"archives,omitempty"`
	Secrets    bool              `json:"secrets,omitempty"` // the release was made with passwords of the site
}

// File is a file of a release.
type File struct {
	Path    string        `json:"path"`              // relative, with slashes; for an archive, its directory
	Mode    string        `json:"mode"`              // four octal digits
	SHA256  bundle.Digest `json:"sha256"`            // of the content; for an archive, of the archive file
	Archive string        `json:"archive,omitempty"` // the directory of the archive that contains the file
	Secret  bool          `json:"secret,omitempty"`  // the file contains a password of the site
}

// ReadRelease reads the record of a release. The error wraps fs.ErrNotExist if the release
// does not exist or is not complete.
func ReadRelease(root, name, id string) (*About, error) {
	p := filepath.Join(Base(root, name), "releases", id, bundle.ReleaseFile)
	var a About
	if err := ReadRecord(p, "Release", &a); err != nil {
		return nil, err
	}
	if a.ID != id {
		return nil, fmt.Errorf("%w: %s: %w: it is of release %q", ErrState, p, bundle.ErrFormat, a.ID)
	}
	return &a, nil
}

// Releases reads the records of all releases of a deployment on this host. The error joins
// those of the records that cannot be read.
func Releases(root, name string) ([]*About, error) {
	entries, err := os.ReadDir(filepath.Join(Base(root, name), "releases"))
	if err != nil {
		return nil, err
	}
	var list []*About
	var problems []error
	for _, e := range entries {
		a, err := ReadRelease(root, name, e.Name())
		if err == nil {
			list = append(list, a)
		} else if !errors.Is(err, fs.ErrNotExist) { // an incomplete release is skipped
			problems = append(problems, err)
		}
	}
	return list, errors.Join(problems...)
}
