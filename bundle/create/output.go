package create

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// output is the bundle during writing: OUTPUT.partial, or its volumes
// OUTPUT.partial.001 and so on, with the journal beside it.
type output struct {
	path    string // without volume number
	partial string
	each    int64 // volume size in bytes; 0 means one file
	beside  int64 // size of the files beside the bundle, bytes
	journal *journal
	before  bundle.Digest // identity of the replaced bundle, or ""
	file    *bundle.File  // nil until the size is known
}

// first returns the path to open the finished bundle by.
func (o *output) first() string {
	if o.each > 0 {
		return bundle.VolumeName(o.path, 1)
	}
	return o.path
}

// intake returns the directory for downloads that must be inspected.
func (o *output) intake() string { return o.partial + ".d" }

// took reports whether the intake directory contains a complete download.
func (o *output) took() bool {
	list, err := os.ReadDir(o.intake())
	return err == nil && slices.ContainsFunc(list, func(e os.DirEntry) bool { return !strings.HasSuffix(e.Name(), ".new") })
}

// openOutput checks the place of the output and locks it, before anything is fetched.
// Errors wrap ErrLocked, manifests.ErrInvalid, bundle.ErrNewer, disk.ErrNotFile, or are
// the file system's.
func openOutput(path string, each int64) (*output, error) {
	o := &output{path: path, partial: path + ".partial", each: each}
	var err error
	if o.before, err = checkPlace(o.first()); err != nil {
		return nil, err
	}
	if err := o.refusePlanted(); err != nil {
		return nil, err
	}
	if o.journal, err = openJournal(o.partial); err != nil {
		return nil, err
	}
	if len(o.leftovers()) == 0 {
		o.journal.forget()
	}
	if err := errors.Join(o.checkParts(), o.checkLock()); err != nil {
		if len(o.leftovers()) > 0 { // keep the files of an interrupted run
			return nil, errors.Join(err, o.journal.close())
		}
		return nil, errors.Join(err, o.journal.remove())
	}
	return o, nil
}

// refusePlanted refuses leftovers beside the output that another user may have planted:
// earlier downloads are used as they are, and a directory may be a link. The owner is
// compared with the owner of a new directory, because on some file systems every file
// belongs to the user who mounted it. The error wraps manifests.ErrInvalid, or is the
// file system's.
func (o *output) refusePlanted() (err error) {
	names := append(o.leftovers(), o.partial+".journal", o.intake())
	names = slices.DeleteFunc(names, func(name string) bool {
		_, err := os.Lstat(name)
		return errors.Is(err, fs.ErrNotExist)
	})
	if len(names) == 0 {
		return nil
	}
	probe, err := os.MkdirTemp(filepath.Dir(o.partial), ".owner")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(probe)) }()
	ours, err := disk.OwnerOf(probe)
	if err != nil {
		return err
	}
	for _, name := range names {
		fi, err := os.Lstat(name)
		if err != nil {
			return err
		}
		owner, err := disk.OwnerOf(name)
		if err != nil {
			return err
		}
		if wanted := name == o.intake(); owner != ours || fi.IsDir() != wanted || !wanted && !fi.Mode().IsRegular() {
			return fmt.Errorf(
				"%w: %s was not made by an earlier run of this user; remove it, or choose another name with -o",
				manifests.ErrInvalid, name,
			)
		}
	}
	return nil
}

// checkPlace refuses a path that names anything but a bundle, before anything is
// fetched. It returns the identity of the bundle at path, or "" if there is none.
func checkPlace(path string) (bundle.Digest, error) {
	fi, err := os.Stat(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err != nil || !fi.IsDir() {
		return "", fmt.Errorf(
			"%w: there is no directory %s to write to; make it, or choose another place with -o",
			manifests.ErrInvalid, filepath.Dir(path),
		)
	}
	fi, err = os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%w: %s exists and is not a file; choose another name with -o", manifests.ErrInvalid, path)
	}
	other := fmt.Errorf("%w: %s exists and is not a bundle; move it away, or choose another name with -o", manifests.ErrInvalid, path)
	f, err := bundle.OpenFile(path, os.O_RDONLY)
	if errors.Is(err, bundle.ErrFormat) {
		return "", other
	}
	if err != nil {
		return "", err
	}
	head, err := bundle.ReadHead(f, f.Size())
	if err != nil {
		return "", errors.Join(other, f.Close())
	}
	return head.Identity(), f.Close()
}

// otherForm returns the path of an existing bundle of the same name in the other form
// (one file or volumes), or "". Both forms share the names of the files beside them.
func (o *output) otherForm() string {
	other := bundle.VolumeName(o.path, 1)
	if o.each > 0 {
		other = o.path
	}
	if _, err := os.Lstat(other); err != nil {
		return ""
	}
	return other
}

// checkLock refuses to replace a file that has the name of the lock but is no lock.
func (o *output) checkLock() error {
	if _, err := manifests.ReadLock(LockFile(o.path)); errors.Is(err, manifests.ErrInvalid) {
		return fmt.Errorf("%w: %s is there and is no lock; move it away, or choose another name with -o", manifests.ErrInvalid, LockFile(o.path))
	}
	return nil
}

// parts returns the numbers of the existing volumes of path, in order.
func parts(path string) (list []int) {
	for n := 1; n <= bundle.MaxVolumes; n++ {
		if _, err := os.Lstat(bundle.VolumeName(path, n)); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// checkParts refuses to write among volumes that do not belong to the replaced bundle:
// those after a gap in the numbers, unless an interrupted run of this bundle has made
// the gap.
func (o *output) checkParts() error {
	if o.each == 0 || o.journal.begun != nil {
		return nil
	}
	for i, n := range parts(o.path) {
		if n != i+1 {
			return fmt.Errorf(
				"%w: %s is there, and %s is not, so it is of no bundle that can be replaced; move it away, or choose another name with -o",
				manifests.ErrInvalid, bundle.VolumeName(o.path, n), bundle.VolumeName(o.path, i+1),
			)
		}
	}
	return nil
}

// leftovers returns the paths of the existing partial files.
func (o *output) leftovers() []string {
	var list []string
	if _, err := os.Lstat(o.partial); err == nil {
		list = append(list, o.partial)
	}
	for _, n := range parts(o.partial) {
		list = append(list, bundle.VolumeName(o.partial, n))
	}
	return list
}

// begin creates the partial file in the size of the bundle, if the disk has enough
// space. Errors wrap disk.ErrSpace, manifests.ErrInvalid if there would be too many
// volumes, or are the file system's.
func (o *output) begin(b beginning, g *bundle.Geometry) error {
	if o.each > 0 && (g.Size+o.each-1)/o.each > bundle.MaxVolumes {
		return fmt.Errorf(
			"%w: %d bytes in volumes of %d bytes are more than %d files; choose larger volumes",
			manifests.ErrInvalid, g.Size, o.each, bundle.MaxVolumes,
		)
	}
	if was := o.journal.begun; was != nil && was.VolumeSize != o.each {
		for _, name := range o.leftovers() { // of another volume size
			if err := os.Remove(name); err != nil {
				return err
			}
		}
		o.journal.forget()
	}
	if o.each > 0 { // the bundle may be smaller than before
		for _, n := range parts(o.partial) {
			if int64(n-1)*o.each < g.Size {
				continue
			}
			if err := os.Remove(bundle.VolumeName(o.partial, n)); err != nil {
				return err
			}
		}
	}
	if err := o.checkRoom(g); err != nil {
		return err
	}
	if err := o.journal.begin(b, g); err != nil {
		return err
	}
	var err error
	o.file, err = bundle.CreateFile(o.partial, g.Size, o.each)
	return err
}

// checkRoom compares the missing bytes and files with the free space.
func (o *output) checkRoom(g *bundle.Geometry) error {
	missing, files := g.Size, int64(1)
	largest := g.Size
	if o.each > 0 {
		largest = min(g.Size, o.each)
		files = (g.Size + o.each - 1) / o.each
	}
	for _, name := range o.leftovers() {
		have, err := disk.Allocated(name)
		if err != nil {
			return err
		}
		missing -= have
		files--
	}
	const more = 8 // lock, record, kit, and one temporary file
	return disk.Need(filepath.Dir(o.partial), missing+o.beside, max(files, 0)+more, largest)
}

// place syncs the finished file and renames it to its final name, or its volumes to
// theirs, and returns the names of the volumes. The first volume is renamed last: without
// it, the others are not taken for a bundle.
func (o *output) place() (volumes []string, err error) {
	if err := o.file.Sync(); err != nil {
		return nil, err
	}
	made := o.file.Parts()
	if err := o.file.Close(); err != nil {
		return nil, err
	}
	o.file = nil
	names := []string{o.path}
	if o.each > 0 {
		if err := o.removeOld(); err != nil {
			return nil, err
		}
		names = nil
		for n := range made {
			names = append(names, bundle.VolumeName(o.path, n+1))
		}
		volumes = names
	}
	for n := len(made) - 1; n >= 0; n-- {
		if err := os.Rename(made[n], names[n]); err != nil {
			return nil, err
		}
	}
	return volumes, errors.Join(disk.SyncDir(filepath.Dir(o.path)), os.RemoveAll(o.intake()), o.journal.remove())
}

// removeOld removes an earlier bundle's volumes, the first one last, so that remaining
// volumes can be recognized as that bundle's until all are gone.
func (o *output) removeOld() error {
	for _, n := range slices.Backward(parts(o.path)) {
		if err := os.Remove(bundle.VolumeName(o.path, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// abandon ends a run that did not finish. It keeps claimed bytes and complete downloads
// for the next run. Without any, it removes the files of this run.
func (o *output) abandon() error {
	var err error
	if o.file != nil {
		err = o.file.Close()
	}
	if len(o.journal.claims) > 0 || o.took() {
		return errors.Join(err, o.journal.close())
	}
	err = errors.Join(err, os.RemoveAll(o.intake()))
	for _, name := range o.leftovers() {
		err = errors.Join(err, os.Remove(name))
	}
	return errors.Join(err, o.journal.remove())
}
