package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// names reports whether a YAML file of the release contains an image digest.
func (r *Release) names(d bundle.Digest) bool {
	return slices.ContainsFunc(r.files, func(f file) bool { return strings.HasSuffix(f.path, ".yaml") && bytes.Contains(f.data, []byte(d)) })
}

// checkPostgres refuses a server whose major version cannot read the existing database files.
func (r *Release) checkPostgres() error {
	major, err := r.postgresMajor()
	if err != nil || major == "" || r.host.Database.Directory == "" {
		return err
	}
	dir := filepath.Join(r.data, filepath.FromSlash(r.host.Database.Directory))
	have, err := r.keptMajor()
	if err != nil || have == "" || have == major {
		return err
	}
	return fmt.Errorf("%w: the database in %s is of PostgreSQL %s, and this bundle brings %s, which does not read its files.\n"+
		"With the release that is installed: dump it (pg_dump --format=custom), stop everything, and move %s away; then "+
		"install and start this bundle, and restore the dump (pg_restore --clean --create). Or make the bundle with --set versions.postgres=%s",
		bundle.ErrPolicy, dir, have, major, dir, have)
}

// keptMajor returns the PostgreSQL version of the database on the disk, or "".
func (r *Release) keptMajor() (string, error) {
	root, err := os.OpenRoot(r.data)
	if unknown(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	data, _, err := readData(root, path.Join(r.host.Database.Directory, "PG_VERSION"), 64)
	err = errors.Join(err, root.Close())
	if unknown(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	have := strings.TrimSpace(string(data))
	if !postgresVersion.MatchString(have) {
		return "", fmt.Errorf(
			"%w: PG_VERSION in %s does not name a version of PostgreSQL",
			ErrData, filepath.Join(r.data, filepath.FromSlash(r.host.Database.Directory)),
		)
	}
	return have, nil
}

// unknown reports whether there is no database yet, or only its user may read it.
func unknown(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

var postgresVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)

// postgresMajor returns the major version of the database's server, or "". It reads PG_MAJOR
// from the configuration of the image, which the official images set.
func (r *Release) postgresMajor() (string, error) {
	if r.host.Database == nil {
		return "", nil
	}
	render := &renderer{d: r.bundle.Deployment, g: r.bundle.Geometry, platform: r.platform}
	for _, i := range r.bundle.Deployment.Images {
		p := render.pinned(i)
		if p == "" || !r.names(p) {
			continue
		}
		data, err := r.bundle.ReadBlob(*r.bundle.Manifests[p].Config, bundle.MaxManifest)
		if err != nil {
			return "", err
		}
		if _, after, ok := bytes.Cut(data, []byte(`"PG_MAJOR=`)); ok {
			major, _, _ := bytes.Cut(after, []byte(`"`))
			return string(major), nil
		}
	}
	return "", nil
}
