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

// output is a bundle that is being written: OUTPUT.partial, or its volumes
// OUTPUT.partial.001 and so on, with the journal beside it.
type output struct {
	path    string // without a volume's number
	partial string
	each    int64 // bytes of a volume; 0 means one file
	beside  int64 // bytes that go beside it
	journal *journal
	before  bundle.Digest // identity of the bundle that is replaced, or ""
	file    *bundle.File  // nil until the size is known
}

// first returns the path by which the finished bundle is opened.
func (o *output) first() string {
	if o.each > 0 {
		return bundle.VolumeName(o.path, 1)
	}
	return o.path
}

// intake is the directory of what had to be fetched to be looked into.
func (o *output) intake() string { return o.partial + ".d" }

// took reports whether something stands there that need not be fetched again.
func (o *output) took() bool {
	list, err := os.ReadDir(o.intake())
	return err == nil && slices.ContainsFunc(list, func(e os.DirEntry) bool { return !strings.HasSuffix(e.Name(), ".new") })
}

// openOutput takes the right to write, before anything else is done. Errors wrap
// ErrLocked, manifests.ErrInvalid, or are the file system's.
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
		if len(o.leftovers()) > 0 { // what an interrupted run has is not given up for it
			return nil, errors.Join(err, o.journal.close())
		}
		return nil, errors.Join(err, o.journal.remove())
	}
	return o, nil
}

// refusePlanted refuses to go on with what another user has put beside the output: files
// that were fetched are used as they are, and a directory may be a link. The owner is
// compared with that of a new directory, because some file systems give every file to the
// one who mounted them. The error wraps manifests.ErrInvalid, or is the file system's.
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

// checkPlace refuses to replace what is not a bundle, before anything is fetched. It
// returns the identity of the bundle that is there, or "".
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

// otherForm returns what is there of the same name in the other form, one file or volumes,
// or "". What is written beside a bundle has one name for both.
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

// checkLock refuses to replace a lock that is none.
func (o *output) checkLock() error {
	if _, err := manifests.ReadLock(LockFile(o.path)); errors.Is(err, manifests.ErrInvalid) {
		return fmt.Errorf("%w: %s is there and is no lock; move it away, or choose another name with -o", manifests.ErrInvalid, LockFile(o.path))
	}
	return nil
}

// parts returns the numbers of the volumes that are at a place, in order.
func parts(path string) (list []int) {
	for n := 1; n <= bundle.MaxVolumes; n++ {
		if _, err := os.Lstat(bundle.VolumeName(path, n)); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// checkParts refuses to replace volumes, or to stand among them, that are not those of
// the bundle that is replaced: with a gap before them, unless an interrupted run of this
// one has made that.
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

// leftovers returns the partial files that are there.
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

// begin makes the partial file as large as the bundle will be, if the disk has
// the room. Errors wrap disk.ErrSpace, or are the file system's.
func (o *output) begin(b beginning, g *bundle.Geometry) error {
	if o.each > 0 && (g.Size+o.each-1)/o.each > bundle.MaxVolumes {
		return fmt.Errorf(
			"%w: %d bytes in volumes of %d bytes are more than %d files; choose larger volumes",
			manifests.ErrInvalid, g.Size, o.each, bundle.MaxVolumes,
		)
	}
	if was := o.journal.begun; was != nil && was.VolumeSize != o.each {
		for _, name := range o.leftovers() { // of another shape
			if err := os.Remove(name); err != nil {
				return err
			}
		}
		o.journal.forget()
	}
	if o.each > 0 { // it may have become smaller
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

// checkRoom compares what is missing of the bundle with what is free.
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
	const more = 8 // lock, record and what goes along, and one while it is written
	return disk.Need(filepath.Dir(o.partial), missing+o.beside, max(files, 0)+more, largest)
}

// place syncs the finished file, and gives it its name, or its volumes theirs,
// which it returns. Of those the first comes last: while it is missing nobody
// takes the others for a bundle.
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

// removeOld takes away an earlier bundle's volumes, the first one last: by that it is
// known for one as long as anything of it is there.
func (o *output) removeOld() error {
	for _, n := range slices.Backward(parts(o.path)) {
		if err := os.Remove(bundle.VolumeName(o.path, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// abandon ends a run that did not finish. What it has stays for the next one, if
// there is anything.
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
