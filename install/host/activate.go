package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Current returns the ID of a deployment's current release, or "".
func Current(root, name string) (string, error) {
	to, err := os.Readlink(filepath.Join(Base(root, name), "current"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return filepath.Base(to), nil
}

// Activate makes a staged release the current one: patches are merged, links are
// made, and then one rename switches. It may be repeated, and is when a run was
// interrupted in it. Before is the release that the links of are no longer
// wanted, or nil.
func Activate(root, hostRoot string, a, before *About) error {
	base, err := filepath.Abs(Base(root, a.Name))
	if err != nil {
		return err
	}
	for n, m := range a.Merges {
		if err := merge(base, a, m, n); err != nil {
			return err
		}
	}
	if hostRoot != "" {
		for _, l := range a.Links {
			if err := makeLink(base, hostRoot, l); err != nil {
				return err
			}
		}
	}
	if err := symlink(filepath.Join("releases", a.ID), filepath.Join(base, "current")); err != nil {
		return err
	}
	if hostRoot != "" && before != nil {
		return removeLinks(base, hostRoot, before.Links, a.Links)
	}
	return nil
}

// Deactivate takes a release back: the one before is current again, or none, and
// patches are undone where nobody has written to the file since.
func Deactivate(root, hostRoot string, a, before *About) error {
	base, err := filepath.Abs(Base(root, a.Name))
	if err != nil {
		return err
	}
	for n, m := range a.Merges {
		if err := unmerge(base, a, m, n); err != nil {
			return err
		}
	}
	if before != nil {
		return Activate(root, hostRoot, before, a)
	}
	if hostRoot != "" {
		if err := removeLinks(base, hostRoot, a.Links, nil); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(base, "current")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return bundle.SyncDir(base)
}

// symlink points a name to a target, whatever it was, at once and durably.
func symlink(target, name string) error {
	if to, err := os.Readlink(name); err == nil && to == target {
		return nil
	}
	fresh := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".new")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, name); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return bundle.SyncDir(filepath.Dir(name))
}

func linkTarget(base string, l bundle.Link) string {
	return filepath.Join(base, "current", filepath.FromSlash(l.File))
}

// Linked returns the links that the release makes, as the bundle names them.
func (r *Release) Linked() []bundle.Link {
	if r.site.HostRoot == "" {
		return nil
	}
	return r.host.Links
}

// Links returns where the release has links outside of the root, absolute.
func (r *Release) Links() []string {
	var list []string
	for _, l := range r.Linked() {
		list = append(list, filepath.Join(r.site.HostRoot, l.Path))
	}
	return list
}

// Foreign lists the places of a release's links where the host has something of
// its own.
func (r *Release) Foreign() ([]string, error) {
	if r.site.HostRoot == "" {
		return nil, nil
	}
	var list []string
	for _, l := range r.host.Links {
		p := filepath.Join(r.site.HostRoot, l.Path)
		to, err := os.Readlink(p)
		if err == nil && to == linkTarget(r.base, l) {
			continue
		}
		if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// replaced is where something that a link took the place of is kept.
func replaced(base string, l bundle.Link) string { return filepath.Join(base, "replaced", l.Path) }

// makeLink makes a link; what the host had there is kept first.
func makeLink(base, hostRoot string, l bundle.Link) error {
	p := filepath.Join(hostRoot, l.Path)
	target := linkTarget(base, l)
	fi, err := os.Lstat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := mkdirAll(filepath.Dir(p)); err != nil {
			return err
		}
	case err != nil:
		return err
	case fi.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(p)
		if err != nil || to == target {
			return err
		}
		kept := replaced(base, l)
		if err := mkdirAll(filepath.Dir(kept)); err != nil {
			return err
		}
		if err := symlink(to, kept); err != nil {
			return err
		}
	case fi.Mode().IsRegular():
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		kept := replaced(base, l)
		if err := mkdirAll(filepath.Dir(kept)); err != nil {
			return err
		}
		if err := bundle.WriteFile(kept, data, fi.Mode().Perm()); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is neither a file nor a link; move it away", p)
	}
	return symlink(target, p)
}

// removeLinks removes links of ours except those that are still wanted, and puts
// back what the host had.
func removeLinks(base, hostRoot string, links, except []bundle.Link) error {
	for _, l := range links {
		if slices.ContainsFunc(except, func(x bundle.Link) bool { return x.Path == l.Path }) {
			continue
		}
		p := filepath.Join(hostRoot, l.Path)
		if to, err := os.Readlink(p); err != nil || to != linkTarget(base, l) {
			continue // not ours any more
		}
		kept := replaced(base, l)
		fi, err := os.Lstat(kept)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = os.Remove(p)
		case err == nil && fi.Mode()&fs.ModeSymlink != 0:
			var to string
			if to, err = os.Readlink(kept); err == nil {
				err = symlink(to, p)
			}
		case err == nil:
			var data []byte
			if data, err = os.ReadFile(kept); err == nil {
				err = bundle.WriteFile(p, data, fi.Mode().Perm())
			}
		}
		if err != nil {
			return err
		}
		if err := bundle.SyncDir(filepath.Dir(p)); err != nil {
			return err
		}
		if err := os.Remove(kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// before returns where the content of a merged file is kept as it was.
func (a *About) before(base string, n int) string {
	return filepath.Join(base, "replaced", fmt.Sprintf("%s-merge-%d.json", a.ID, n))
}

func (a *About) merged(base string, m bundle.Merge, old []byte) ([]byte, error) {
	patch, err := os.ReadFile(filepath.Join(base, "releases", a.ID, filepath.FromSlash(m.Patch)))
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(old)) == 0 {
		old = []byte("{}")
	}
	data, err := jsonpatch.MergePatch(old, patch)
	if err != nil {
		return nil, fmt.Errorf("%w: merging %s into %s: %w", ErrValues, m.Patch, m.File, err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "    "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// merge merges a patch into a file that other programs write too (RFC 7396).
func merge(base string, a *About, m bundle.Merge, n int) error {
	if err := mkdirAll(a.Data); err != nil {
		return err
	}
	// The programs may write here, so nothing in it is followed to elsewhere.
	data, err := os.OpenRoot(a.Data)
	if err != nil {
		return err
	}
	return errors.Join(mergeIn(data, base, a, m, n), data.Close())
}

func mergeIn(root *os.Root, base string, a *About, m bundle.Merge, n int) error {
	old, err := root.ReadFile(m.File)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	patched, err := a.merged(base, m, old)
	if err != nil {
		return err
	}
	if !missing && sameJSON(old, patched) {
		return nil
	}
	mode, err := parseMode(m.Mode, 0o600)
	if err != nil {
		return err
	}
	kept := a.before(base, n)
	if _, err := os.Lstat(kept); errors.Is(err, fs.ErrNotExist) { // a run that is repeated has kept it
		if err := mkdirAll(filepath.Dir(kept)); err != nil {
			return err
		}
		if err := bundle.WriteFile(kept, old, 0o600); err != nil {
			return err
		}
	}
	if err := makeDirs(root, path.Dir(m.File)); err != nil {
		return err
	}
	if fi, err := root.Stat(m.File); err == nil {
		mode = fi.Mode().Perm()
	}
	return writeOwned(root, m.File, patched, mode, m.Owner)
}

// writeOwned replaces a file as a whole, with its owner.
func writeOwned(root *os.Root, name string, data []byte, mode fs.FileMode, owner string) (err error) {
	fresh := path.Join(path.Dir(name), "."+path.Base(name)+".new")
	if err := root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && runtime.GOOS != "windows" {
		err = f.Chmod(mode)
	}
	if err == nil && owner != "" && os.Geteuid() == 0 {
		var uid, gid int
		if _, err = fmt.Sscanf(owner, "%d:%d", &uid, &gid); err == nil {
			err = f.Chown(uid, gid)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(fresh, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(fresh))
	}
	return bundle.SyncDir(filepath.Dir(filepath.Join(root.Name(), filepath.FromSlash(name))))
}

func sameJSON(a, b []byte) bool { return jsonpatch.Equal(a, b) }

// unmerge puts a merged file back, unless somebody has written to it since: then
// it is newer than what is kept.
func unmerge(base string, a *About, m bundle.Merge, n int) (err error) {
	kept := a.before(base, n)
	old, err := os.ReadFile(kept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(a.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	now, err := root.ReadFile(m.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ours, err := a.merged(base, m, old)
	if err != nil {
		return err
	}
	if bytes.Equal(now, ours) {
		if len(old) == 0 {
			err = root.Remove(m.File)
		} else if fi, statErr := root.Stat(m.File); statErr == nil {
			err = writeOwned(root, m.File, old, fi.Mode().Perm(), m.Owner)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(os.Remove(kept), bundle.SyncDir(filepath.Dir(kept)))
}

// Prune removes the releases of a deployment that are not among those to keep.
func Prune(root, name string, keep []string) error {
	dir := filepath.Join(Base(root, name), "releases")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains(keep, e.Name()) {
			continue
		}
		p := filepath.Join(dir, e.Name())
		// First what says that it is complete.
		if err := os.Remove(filepath.Join(p, releaseFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.RemoveAll(p); err != nil {
			return err
		}
		// Nobody goes back to what was before it.
		kept, err := filepath.Glob(filepath.Join(Base(root, name), "replaced", e.Name()+"-merge-*.json"))
		if err != nil {
			return err
		}
		for _, k := range kept {
			if err := os.Remove(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove removes all of a deployment except its data, its secrets and its
// backups, and returns what is left.
func Remove(root, name string) ([]string, error) {
	base := Base(root, name)
	if err := Prune(root, name, nil); err != nil {
		return nil, err
	}
	for _, sub := range []string{"releases", "replaced"} {
		if err := removeEmpty(filepath.Join(base, sub)); err != nil {
			return nil, err
		}
	}
	var left []string
	entries, err := os.ReadDir(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		left = append(left, filepath.Join(base, e.Name()))
	}
	if len(left) == 0 {
		err = os.Remove(base)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	return left, nil
}

// removeEmpty removes directories that hold nothing.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	left := false
	for _, e := range entries {
		if !e.IsDir() {
			left = true
			continue
		}
		if err := removeEmpty(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
		_, err := os.Lstat(filepath.Join(dir, e.Name()))
		left = left || err == nil
	}
	if left {
		return nil
	}
	return os.Remove(dir)
}
