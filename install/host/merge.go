package host

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// merges are the JSON patches of one release, with access to their content.
type merges struct {
	release string // ID
	data    string // absolute path of the data directory
	list    []bundle.Merge
	patch   func(path string) ([]byte, error)
	secret  func(path string) bool // the patch contains a password of the site
}

// merges returns those of a release that is on the disk.
func (a *About) merges(base string) *merges {
	if a == nil {
		return &merges{}
	}
	return &merges{
		release: a.ID, data: a.Data, list: a.Merges,
		patch: func(p string) ([]byte, error) {
			return disk.ReadFile(filepath.Join(base, "releases", a.ID, filepath.FromSlash(p)), bundle.MaxTemplate)
		},
		secret: func(p string) bool {
			return slices.ContainsFunc(a.Files, func(f File) bool { return f.Path == p && f.Secret })
		},
	}
}

// merges returns those of a release that is not on the disk yet.
func (r *Release) merges() *merges {
	find := func(p string) (file, bool) {
		at := slices.IndexFunc(r.files, func(f file) bool { return f.path == p && f.as != bundle.AsArchive })
		if at < 0 {
			return file{}, false
		}
		return r.files[at], true
	}
	return &merges{
		release: r.ID, data: r.data, list: r.host.Merges,
		patch: func(p string) ([]byte, error) {
			f, ok := find(p)
			switch {
			case !ok:
				return nil, fmt.Errorf("%w: the patch %s is not among the files for this host", bundle.ErrPolicy, p)
			case f.data != nil:
				return f.data, nil
			}
			return r.bundle.ReadBlob(f.blob, bundle.MaxTemplate)
		},
		secret: func(p string) bool {
			f, ok := find(p)
			return ok && f.secret
		},
	}
}

// kept returns where the content of a file is kept as it was before merge n.
func (m *merges) kept(base string, n int) string {
	return filepath.Join(base, "replaced", fmt.Sprintf("%s-merge-%d.json", m.release, n))
}

// first returns the index of the first merge into a file, or -1.
func (m *merges) first(data, file string) int {
	if m.data != data {
		return -1
	}
	return slices.IndexFunc(m.list, func(x bundle.Merge) bool { return x.File == file })
}

// original returns where the content of a file is kept as it was before any release of
// the deployment was merged into it. Merge n is the first one into the file.
func (m *merges) original(base string, n int) string {
	return filepath.Join(base, "replaced", fmt.Sprintf("%s-merge-original-%d.json", m.release, n))
}

// undoAll returns the content of a file without the patches of m and of the releases
// before it, or as it is if other programs have changed it since. Errors are the file
// system's.
func (m *merges) undoAll(base, file string, content []byte) ([]byte, error) {
	earlier, err := m.undo(base, file, content)
	if err != nil || bytes.Equal(earlier, content) {
		return content, err
	}
	original, err := disk.ReadFile(m.original(base, m.first(m.data, file)), bundle.MaxTemplate)
	if errors.Is(err, fs.ErrNotExist) { // made by a version that kept only the content before each patch
		return earlier, nil
	}
	return original, err
}

// undo returns the content of a file without the patches of m, or as it is if other
// programs have changed it since, or what was kept is lost. Errors are the file system's.
func (m *merges) undo(base, file string, content []byte) ([]byte, error) {
	for n, merge := range slices.Backward(m.list) {
		if merge.File != file {
			continue
		}
		earlier, err := disk.ReadFile(m.kept(base, n), bundle.MaxTemplate)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		patch, err := m.patch(merge.Patch)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if patched, err := patchFile(merge, earlier, patch); err == nil && bytes.Equal(patched, content) {
			content = earlier
		}
	}
	return content, nil
}

// merged is one file of a data directory before and after a change of release.
type merged struct {
	data, file string
	missing    bool // there is no such file now
	remove     bool // there is none afterwards
	changed    bool // its content, its mode, or whether it exists
	was, will  []byte
	mode       fs.FileMode
	owner      string            // UID:GID, or "" for whoever runs this
	keep       map[string][]byte // path below base: content to restore later
}

// planMerges computes what becomes of every file that from or to merges into. Nothing is
// written. The patches of to are applied on top of those of from; with undo those of from
// are undone first. A file into which to does not merge gets back its original content.
// What other programs have changed since is never undone.
//
// The error joins one for each file that cannot be changed; they wrap ErrData or
// ErrValues, or are the file system's.
func planMerges(base string, from, to *merges, undo bool) ([]merged, error) {
	type place struct{ data, file string }
	var places []place
	for _, m := range []*merges{to, from} {
		for _, x := range m.list {
			if p := (place{m.data, x.File}); !slices.Contains(places, p) {
				places = append(places, p)
			}
		}
	}
	var plan []merged
	var problems []error
	for _, p := range places {
		f, err := planFile(base, merged{data: p.data, file: p.file}, from, to, undo)
		if err == nil {
			plan = append(plan, *f)
		}
		problems = append(problems, err)
	}
	return plan, errors.Join(problems...)
}

func planFile(base string, f merged, from, to *merges, undo bool) (*merged, error) {
	inTo := to.first(f.data, f.file) >= 0
	info, err := f.read()
	if err != nil {
		if !inTo { // what is not a file any more has nothing to undo
			return &f, ignoreData(err)
		}
		return nil, err
	}
	f.keep, f.mode = map[string][]byte{}, 0o600
	content, original, err := f.undone(base, from, to, undo)
	if err != nil {
		return nil, err
	}
	if original != nil {
		f.keep[to.original(base, to.first(f.data, f.file))] = original
	}
	f.remove = len(content) == 0
	secret := false
	for n, m := range to.list {
		if !inTo || m.File != f.file {
			continue
		}
		patch, err := to.patch(m.Patch)
		if err != nil {
			return nil, err
		}
		f.keep[to.kept(base, n)] = content
		if content, err = patchFile(m, content, patch); err != nil {
			return nil, err
		}
		if f.mode, err = parseMode(m.Mode, 0o600); err != nil {
			return nil, err
		}
		f.remove = false
		f.owner = cmp.Or(f.owner, m.Owner)
		secret = secret || to.secret(m.Patch)
	}
	f.will = content
	if f.missing && secret {
		f.mode &= 0o600
	}
	if f.missing {
		f.changed = !f.remove
		return &f, nil
	}
	f.mode = info.Mode().Perm()
	f.owner = cmp.Or(f.owner, ownerOf(info))
	if secret {
		f.mode &= 0o600
	}
	if !f.remove && sameJSON(f.was, f.will) {
		f.will = f.was
	}
	f.changed = f.remove || !bytes.Equal(f.was, f.will) || f.mode != info.Mode().Perm()
	return &f, nil
}

// undone returns the content to which the patches of to are applied, and what is kept as the
// original content, or nil where that is kept already.
func (f *merged) undone(base string, from, to *merges, undo bool) (content, original []byte, err error) {
	inFrom, inTo := from.first(f.data, f.file) >= 0, to.first(f.data, f.file) >= 0
	content = f.was
	if !inTo {
		if inFrom {
			content, err = from.undoAll(base, f.file, content)
		}
		return content, nil, err
	}
	if content, err = to.undo(base, f.file, content); err != nil {
		return nil, nil, err
	}
	repeated := !bytes.Equal(content, f.was) // an interrupted run has applied them
	original = append([]byte{}, content...)
	if inFrom {
		if original, err = from.undoAll(base, f.file, content); err != nil {
			return nil, nil, err
		}
	}
	if inFrom && undo {
		content, err = from.undo(base, f.file, content)
		if err == nil {
			content, err = to.undo(base, f.file, content)
		}
	}
	if undo || repeated {
		return content, nil, err
	}
	return content, append([]byte{}, original...), err
}

// read reads the file as it is now.
func (f *merged) read() (info fs.FileInfo, err error) {
	root, err := os.OpenRoot(f.data)
	if errors.Is(err, fs.ErrNotExist) {
		f.missing = true
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	f.was, info, err = readData(root, f.file, bundle.MaxTemplate)
	if errors.Is(err, fs.ErrNotExist) {
		f.missing = true
		return nil, nil
	}
	return info, err
}

// ignoreData drops an ErrData.
func ignoreData(err error) error {
	if errors.Is(err, ErrData) {
		return nil
	}
	return err
}

// write makes the file what it will be. What it was before each patch is kept first, so
// that an interrupted run can be undone.
func (f *merged) write() (err error) {
	for _, path := range sortedKeys(f.keep) {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, f.keep[path]) {
			continue
		}
		if err := mkdirAll(filepath.Dir(path)); err != nil {
			return err
		}
		if err := disk.WriteFile(path, f.keep[path], 0o600); err != nil {
			return err
		}
	}
	if !f.changed {
		return nil
	}
	if err := mkdirAll(f.data); err != nil {
		return err
	}
	// Programs may write here, so no link in it is followed to another place.
	root, err := os.OpenRoot(f.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if f.remove {
		return root.Remove(f.file)
	}
	if err := makeDirs(root, path.Dir(f.file)); err != nil {
		return err
	}
	return writeIn(root, f.file, f.will, f.mode, f.owner)
}

// switchMerges carries out planMerges. With undo a file that cannot be changed is left as
// it is, because taking a change back must not fail, and what was kept for from is removed.
func switchMerges(base string, from, to *merges, undo bool) error {
	plan, err := planMerges(base, from, to, undo)
	cannot := errors.Is(err, ErrData) || errors.Is(err, ErrValues) // and will not, however often it is tried
	if err != nil && (!undo || !cannot) {
		return err
	}
	for _, f := range plan {
		if err := f.write(); err != nil {
			return err
		}
	}
	if !undo || from.release == "" || from.release == to.release {
		return nil
	}
	return forgetMerges(filepath.Join(base, "replaced"), from.release)
}

// writeIn replaces a file below root as a whole, in a directory to which no link leads.
func writeIn(root *os.Root, name string, data []byte, mode fs.FileMode, owner string) error {
	dir, err := descend(root, path.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(writeOwned(dir, path.Base(name), data, mode, owner), dir.Close())
}

// writeOwned replaces a file as a whole, with its owner.
func writeOwned(root *os.Root, name string, data []byte, mode fs.FileMode, owner string) (err error) {
	fresh := disk.TempName(name)
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
	return disk.SyncDir(filepath.Dir(filepath.Join(root.Name(), filepath.FromSlash(name))))
}

// forgetMerges removes what merged files were before a release.
func forgetMerges(dir, id string) error {
	kept, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, k := range kept {
		if !strings.HasPrefix(k.Name(), id+"-merge-") {
			continue
		}
		if err := os.Remove(filepath.Join(dir, k.Name())); err != nil {
			return err
		}
	}
	return nil
}
