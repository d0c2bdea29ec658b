package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/foreign"
)

// Space returns the disk space that the release needs: none if it is already staged.
func (r *Release) Space() disk.Demand {
	if _, err := os.Stat(filepath.Join(r.Dir, bundle.ReleaseFile)); err == nil {
		return disk.Demand{Dir: r.base}
	}
	return disk.Demand{Dir: r.base, Bytes: r.Size(), Files: int64(len(r.files)) + 16}
}

// Writes returns the directories outside the root that Stage and Switch write to.
func (r *Release) Writes() []string {
	dirs := []string{r.data}
	for _, l := range r.Links() {
		dirs = append(dirs, filepath.Dir(l))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Stage writes the release and makes it durable, unless it already exists. The release is not
// in use yet. If a digest is wrong, Stage removes what it has written. Errors wrap
// bundle.ErrDigest, bundle.ErrFormat, bundle.ErrLimit or disk.ErrSpace, or come from the file
// system.
func (r *Release) Stage(ctx context.Context) (*About, error) {
	if err := r.prepare(); err != nil {
		return nil, err
	}
	about, err := ReadRelease(r.site.Root, r.Name, r.ID)
	if err == nil || errors.Is(err, ErrState) {
		return r.again(ctx, about)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.RemoveAll(r.Dir); err != nil { // left by an interrupted run
		return nil, err
	}
	if err := mkdirAll(r.Dir); err != nil {
		return nil, err
	}
	if about, err = r.write(ctx, r.Dir, r.files); err != nil {
		if errors.Is(err, bundle.ErrDigest) || errors.Is(err, bundle.ErrFormat) || errors.Is(err, bundle.ErrLimit) {
			err = errors.Join(err, os.RemoveAll(r.Dir))
		}
		return nil, err
	}
	if err := disk.SyncFilesystem(r.Dir); err != nil {
		return nil, err
	}
	return about, r.finish(about)
}

// again repairs a release that already exists, except a current release whose record is
// readable: that is left to the repair command. about is nil if the record is damaged.
func (r *Release) again(ctx context.Context, about *About) (*About, error) {
	current, err := Current(r.site.Root, r.Name)
	if err != nil || about != nil && current == r.ID {
		return about, err
	}
	if _, err := r.Repair(ctx); err != nil {
		return nil, err
	}
	return ReadRelease(r.site.Root, r.Name, r.ID)
}

// finish writes the record, which marks the release as complete.
func (r *Release) finish(about *About) error {
	data, err := bundle.Encode(about)
	if err != nil {
		return err
	}
	if err := disk.WriteFile(filepath.Join(r.Dir, bundle.ReleaseFile), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(r.Dir))
}

// prepare creates the secrets and the data directories, which all releases of the deployment
// share.
func (r *Release) prepare() error {
	if err := mkdirAll(r.base); err != nil {
		return err
	}
	if len(r.secrets) > 0 {
		old, err := readSecrets(r.base)
		if err != nil {
			return err
		}
		if len(old) != len(r.secrets) {
			if err := r.secrets.keep(r.base); err != nil {
				return err
			}
		}
	}
	for _, d := range r.host.Directories {
		if err := r.directory(d); err != nil {
			return err
		}
	}
	return nil
}

// directory creates a directory below the data directory, unless it exists: an existing one
// belongs to the programs. They can replace files there at any moment, so directory follows no
// links out of the data directory.
func (r *Release) directory(d bundle.Directory) (err error) {
	if err := mkdirAll(r.data); err != nil {
		return err
	}
	root, err := os.OpenRoot(r.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	full := filepath.Join(r.data, filepath.FromSlash(d.Path))
	if fi, err := root.Lstat(d.Path); err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("%s has to be a directory, and is not", full)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	mode, err := parseMode(d.Mode, 0o755)
	if err != nil {
		return err
	}
	if err := makeDirs(root, path.Dir(d.Path)); err != nil {
		return err
	}
	// Use a temporary name until the directory has its owner and mode: the next run does not
	// change an existing directory.
	fresh := filepath.ToSlash(disk.TempName(d.Path))
	if err := root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	err = r.give(root, fresh, d)
	if err == nil && runtime.GOOS != "windows" {
		err = root.Chmod(fresh, mode)
	}
	if err == nil {
		err = root.Rename(fresh, d.Path)
	}
	if err != nil {
		return errors.Join(err, root.Remove(fresh))
	}
	return disk.SyncDir(filepath.Dir(full))
}

// give changes the owner of the directory name to the user of a container. Without the
// permission to do that, it adds a note.
func (r *Release) give(root *os.Root, name string, d bundle.Directory) error {
	if d.Owner == "" || runtime.GOOS == "windows" {
		return nil
	}
	var uid, gid int
	if _, err := fmt.Sscanf(d.Owner, "%d:%d", &uid, &gid); err != nil {
		return fmt.Errorf("%w: owner %q", bundle.ErrFormat, d.Owner)
	}
	if os.Geteuid() != 0 && os.Geteuid() != uid {
		full := filepath.Join(r.data, filepath.FromSlash(d.Path))
		r.Notes = append(
			r.Notes,
			fmt.Sprintf("%s has to belong to %s, and only root can give it away: chown %s %s", full, d.Owner, d.Owner, full),
		)
		return nil
	}
	return root.Lchown(name, uid, gid)
}

// write writes files below dir and returns the release's record.
func (r *Release) write(ctx context.Context, dir string, files []file) (about *About, err error) {
	d := r.bundle.Deployment
	about = &About{
		APIVersion: bundle.APIVersion,
		Kind:       "Release",
		ID:         r.ID,
		Identity:   r.bundle.Identity,
		Name:       r.Name,
		Version:    d.Version,
		Form:       d.Form,
		Registry:   r.site.Registry,
		Data:       r.data,
		Values:     r.values,
		Given:      r.given,
		Images:     []string{},
		HostRoot:   r.site.HostRoot,
		Links:      r.Linked(),
		Merges:     r.host.Merges,
		Health:     r.health,
		Database:   r.host.Database,
		Cluster:    r.cluster,
		Platforms:  r.clusterPlatforms(),
		Files:      []File{},
		Secrets:    len(r.host.Secrets) > 0,
	}
	if about.Postgres, err = r.postgresMajor(); err != nil {
		return nil, err
	}
	render := &renderer{view: view{Registry: r.site.Registry}, d: d, g: r.bundle.Geometry, platform: r.platform}
	for _, i := range d.Images {
		if p := render.pinned(i); p != "" {
			about.Images = append(about.Images, r.site.Registry+"/"+i.Repository+"@"+string(p))
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, f := range files {
		if f.as == bundle.AsArchive {
			if err := r.unpack(ctx, root, f, about); err != nil {
				return nil, fmt.Errorf("%s: %w", f.path, err)
			}
			continue
		}
		content, err := r.content(f)
		if err != nil {
			return nil, err
		}
		digest, err := writeFile(ctx, root, f.path, f.mode, content)
		if err == nil && f.data == nil && digest != f.blob.Digest {
			err = r.mismatch(f)
		}
		if err != nil {
			return nil, err
		}
		about.Files = append(about.Files, File{Path: f.path, Mode: fmt.Sprintf("%04o", f.mode), SHA256: digest, Secret: f.secret})
	}
	return about, nil
}

func (r *Release) mismatch(f file) error {
	m, _ := r.bundle.Place(f.blob.Digest)
	return r.bundle.Mismatch(m)
}

// unpack extracts an archive below its path and hashes the archive meanwhile.
func (r *Release) unpack(ctx context.Context, root *os.Root, f file, about *About) error {
	content, err := r.content(f)
	if err != nil {
		return err
	}
	own := map[string]bool{}
	for _, x := range r.files {
		own[x.path] = true
	}
	h := sha256.New()
	hashed := io.TeeReader(content, h)
	var files []File
	err = foreign.Walk(ctx, hashed, f.blob.Size, func(e foreign.Entry) error {
		name := e.Name
		for range f.strip {
			_, rest, deep := strings.Cut(name, "/")
			if !deep {
				return nil
			}
			name = rest
		}
		name = path.Join(f.path, name)
		if own[name] {
			return nil // a file of the bundle replaces the archive's
		}
		if e.Dir {
			return makeDirs(root, name)
		}
		in, err := e.Open()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if e.Mode&0o111 != 0 {
			mode = 0o755
		}
		digest, err := writeFile(ctx, root, name, mode, in)
		files = append(files, File{Path: name, Mode: fmt.Sprintf("%04o", mode), SHA256: digest, Archive: f.path})
		return errors.Join(err, in.Close())
	})
	if errors.Is(err, bundle.ErrFormat) || err == nil { // hash the rest: a wrong digest means damage, not the author's mistake
		if _, copyErr := io.Copy(h, content); copyErr != nil {
			return copyErr
		}
		if bundle.DigestFrom(h.Sum(nil)) != f.blob.Digest {
			return r.mismatch(f)
		}
	}
	if err != nil {
		return err
	}
	about.Files = append(about.Files, files...)
	about.Archives = append(about.Archives, File{Path: f.path, Mode: "0755", SHA256: f.blob.Digest})
	return nil
}

// bufferSize is the size of the copy buffer, in bytes.
const bufferSize = 256 << 10

// writeFile writes a new file and returns its digest. It sets the mode regardless of the
// umask.
func writeFile(ctx context.Context, root *os.Root, name string, mode fs.FileMode, content io.Reader) (d bundle.Digest, err error) {
	if err := makeDirs(root, path.Dir(name)); err != nil {
		return "", err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if d, _, err = bundle.Copy(ctx, f, content, make([]byte, bufferSize)); err != nil {
		return "", err
	}
	if runtime.GOOS != "windows" {
		err = f.Chmod(mode)
	}
	return d, err
}

func makeDirs(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if fi, err := root.Lstat(dir); err == nil && fi.IsDir() {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDirs(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil
	}
	return root.Chmod(dir, 0o755)
}

// mkdirAll creates a directory with mode 0755 regardless of the umask, and its parents.
func mkdirAll(dir string) error {
	if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // an existing directory keeps its mode
	}
	if err := mkdirAll(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o755)
}

func parseMode(s string, otherwise fs.FileMode) (fs.FileMode, error) {
	if s == "" {
		return otherwise, nil
	}
	var m uint32
	if _, err := fmt.Sscanf(s, "%o", &m); err != nil {
		return 0, fmt.Errorf("%w: mode %q", bundle.ErrFormat, s)
	}
	return fs.FileMode(m), nil
}
