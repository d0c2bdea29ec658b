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
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// merges contains the JSON patches of one release and access to their content.
type merges struct {
	release string // ID
	data    string // absolute path of the data directory
	list    []bundle.Merge
	patch   func(path string) ([]byte, error)
	secret  func(path string) bool // the patch contains a password of the site
}

// merges returns the merges of a staged release.
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

// merges returns the merges of a release that is not yet staged.
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

// kept returns the path that keeps a file's content from before merge n.
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

// original returns the path that keeps a file's content from before all merges of the
// deployment. Merge n is the first one into the file.
func (m *merges) original(base string, n int) string {
	return filepath.Join(base, "replaced", fmt.Sprintf("%s-merge-original-%d.json", m.release, n))
}

// undoAll returns the content of a file without the patches of m and of all earlier releases.
// If other programs have changed the file since, undoAll returns content. Errors come from the
// file system.
func (m *merges) undoAll(base, file string, content []byte) ([]byte, error) {
	earlier, err := m.undo(base, file, content)
	if err != nil || bytes.Equal(earlier, content) {
		return content, err
	}
	original, err := disk.ReadFile(m.original(base, m.first(m.data, file)), bundle.MaxTemplate)
	if errors.Is(err, fs.ErrNotExist) { // an older version of this program kept only the content before each patch
		return earlier, nil
	}
	return original, err
}

// undo returns the content of a file without the patches of m. If other programs have changed
// the file since, or the kept content is lost, undo returns content. Errors come from the file
// system.
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
	missing    bool // the file does not exist now
	remove     bool // the file does not exist afterwards
	changed    bool // the content, the mode or the existence changes
	was, will  []byte
	mode       fs.FileMode
	owner      string            // UID:GID, or "" for the user who runs this program
	keep       map[string][]byte // path below base to content for a later undo
}

// planMerges computes the change to every file that from or to merges into. It writes nothing.
// The patches of to are applied on top of those of from; with undo, those of from are undone
// first. A file that only from merges into gets its original content back. Changes by other
// programs are never undone.
//
// The error joins the errors of all files that cannot be changed. They wrap ErrData or
// ErrValues, or come from the file system.
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
		if !inTo { // nothing to undo: the path is no regular file any more
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

// undone returns the content to which the patches of to are applied, and the original content
// to keep. original is nil if the original content is already kept.
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
	repeated := !bytes.Equal(content, f.was) // an interrupted run has applied the patches of to
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

// read reads the current file.
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

// ignoreData returns nil for an error that wraps ErrData.
func ignoreData(err error) error {
	if errors.Is(err, ErrData) {
		return nil
	}
	return err
}

// write writes the new content of the file. It first keeps the content from before each patch,
// so that an interrupted run can be undone.
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
	// Programs may write here, so do not follow links out of the directory.
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

// switchMerges executes planMerges. With undo it leaves files that cannot be changed as they
// are, because reverting a change must not fail, and removes the content that was kept for
// from.
func switchMerges(base string, from, to *merges, undo bool) error {
	plan, err := planMerges(base, from, to, undo)
	cannot := errors.Is(err, ErrData) || errors.Is(err, ErrValues) // permanent: trying again does not help
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

// forgetMerges removes the content that was kept from before a release's merges.
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
