package host

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// mergePatch applies a patch to a document (RFC 7396, section 2). What the patch
// does not speak of stays as it is written and where it stands: numbers are not
// counted anew. Of a name that is there twice the last counts, as for most readers.
func mergePatch(target, patch jsontext.Value) (jsontext.Value, error) {
	if patch.Kind() != '{' {
		return patch, nil
	}
	out, err := members(target)
	if err != nil {
		return nil, err
	}
	changes, err := members(patch)
	if err != nil {
		return nil, err
	}
	for _, name := range changes.names {
		value := changes.values[name]
		if value.Kind() == 'n' {
			out.remove(name)
			continue
		}
		if value, err = mergePatch(out.values[name], value); err != nil {
			return nil, err
		}
		out.set(name, value)
	}
	return out.encode()
}

// object is a JSON object in the order in which it is written.
type object struct {
	names  []string
	values map[string]jsontext.Value
}

func (o *object) set(name string, v jsontext.Value) {
	if _, ok := o.values[name]; !ok {
		o.names = append(o.names, name)
	}
	o.values[name] = v
}

// remove leaves the name where it stood; what has no value is not written.
func (o *object) remove(name string) { delete(o.values, name) }

// members reads an object; anything else has none.
func members(v jsontext.Value) (*object, error) {
	o := &object{values: map[string]jsontext.Value{}}
	if v.Kind() != '{' {
		return o, nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(v), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		text := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		o.set(text, value.Clone())
	}
	_, err := dec.ReadToken()
	return o, err
}

func (o *object) encode() (jsontext.Value, error) {
	var b bytes.Buffer
	enc := jsontext.NewEncoder(&b, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	err := enc.WriteToken(jsontext.BeginObject)
	written := map[string]bool{} // a name that was removed and came back stands in names twice
	for _, name := range o.names {
		v, ok := o.values[name]
		if !ok || written[name] {
			continue
		}
		written[name] = true
		err = errors.Join(err, enc.WriteToken(jsontext.String(name)), enc.WriteValue(v))
	}
	err = errors.Join(err, enc.WriteToken(jsontext.EndObject))
	return bytes.TrimSpace(b.Bytes()), err
}

// sameJSON reports whether two texts are documents that say the same.
func sameJSON(a, b []byte) bool {
	x, errX := decodeNumbers(a)
	y, errY := decodeNumbers(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

// decodeNumbers reads one document, whose numbers stay as they are written.
func decodeNumbers(data []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	return v, nil
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
	var data []byte
	_, errOld := decodeNumbers(old)
	_, errPatch := decodeNumbers(patch)
	if err = errors.Join(errOld, errPatch); err == nil {
		data, err = mergePatch(old, patch)
	}
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
	old, fi, err := readData(root, m.File, bundle.MaxTemplate)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	patched, err := a.merged(base, m, old)
	if err != nil {
		return err
	}
	secret := slices.ContainsFunc(a.Files, func(f File) bool { return f.Path == m.Patch && f.Secret })
	open := !missing && secret && fi.Mode().Perm()&0o077 != 0
	if !missing && sameJSON(old, patched) && !open {
		return nil
	}
	mode, err := parseMode(m.Mode, 0o600)
	if err != nil {
		return err
	}
	kept := a.before(base, n)
	_, err = os.Lstat(kept)
	if errors.Is(err, fs.ErrNotExist) { // a run that is repeated has kept it
		if err = mkdirAll(filepath.Dir(kept)); err == nil {
			err = bundle.WriteFile(kept, old, 0o600)
		}
	}
	if err != nil {
		return err
	}
	if err := makeDirs(root, path.Dir(m.File)); err != nil {
		return err
	}
	owner := m.Owner
	if !missing {
		mode = fi.Mode().Perm()
		owner = cmp.Or(owner, ownerOf(fi))
	}
	if secret {
		mode &= 0o600
	}
	return writeIn(root, m.File, patched, mode, owner)
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
	if err := unmergeIn(base, a, m, old); err != nil {
		return err
	}
	return errors.Join(os.Remove(kept), bundle.SyncDir(filepath.Dir(kept)))
}

func unmergeIn(base string, a *About, m bundle.Merge, old []byte) (err error) {
	// A directory that is gone, and a file that is none any more, are not ours either.
	root, err := os.OpenRoot(a.Data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	now, fi, err := readData(root, m.File, bundle.MaxTemplate)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrData) {
		return nil
	}
	if err != nil {
		return err
	}
	ours, err := a.merged(base, m, old)
	if err != nil || !bytes.Equal(now, ours) {
		return err
	}
	if len(old) == 0 {
		return root.Remove(m.File)
	}
	return writeIn(root, m.File, old, fi.Mode().Perm(), cmp.Or(m.Owner, ownerOf(fi)))
}

// CheckMerges reads the files into which the release is going to merge, so that this
// does not fail when everything else is switched. Errors wrap ErrData or ErrValues, or
// are the file system's.
func (r *Release) CheckMerges() error { return checkMerges(r.data, r.host.Merges) }

// CheckMerges does that for a release that is going to be put back.
func (a *About) CheckMerges() error { return checkMerges(a.Data, a.Merges) }

func checkMerges(data string, merges []bundle.Merge) (err error) {
	if len(merges) == 0 {
		return nil
	}
	root, err := os.OpenRoot(data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	var problems []error
	for _, m := range merges {
		old, _, err := readData(root, m.File, bundle.MaxTemplate)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(bytes.TrimSpace(old)) > 0 {
			if _, err = decodeNumbers(old); err != nil {
				err = fmt.Errorf("%w: merging into %s: %w", ErrValues, filepath.Join(data, filepath.FromSlash(m.File)), err)
			}
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
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
