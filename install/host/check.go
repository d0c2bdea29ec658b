package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// CheckSwitch reports everything that would make Switch to the release fail, and data
// directories that cannot be created. It changes nothing. Errors wrap ErrData, ErrValues or
// bundle.ErrPolicy, or come from the file system.
func (r *Release) CheckSwitch() error {
	id, err := Current(r.site.Root, r.Name)
	if err != nil {
		return err
	}
	var from *About
	if id != "" {
		if from, err = ReadRelease(r.site.Root, r.Name, id); err != nil && !Lost(err) {
			return err
		}
	}
	if err := checkDirectories(r.data, r.host.Directories); err != nil {
		return err
	}
	return checkSwitch(r.base, from.merges(r.base), r.merges(), r.Links(), false)
}

// CheckSwitch reports everything that would make Switch back to a staged release fail. Errors
// are those of Release.CheckSwitch.
func (a *About) CheckSwitch(root string, from *About) error {
	base, err := filepath.Abs(Base(root, a.Name))
	if err != nil {
		return err
	}
	return checkSwitch(base, from.merges(base), a.merges(base), a.LinkPaths(), true)
}

func checkSwitch(base string, from, to *merges, links []string, undo bool) error {
	plan, err := planMerges(base, from, to, undo)
	problems := []error{err}
	for _, f := range plan {
		if f.changed {
			path := filepath.Join(f.data, filepath.FromSlash(f.file))
			problems = append(problems, disk.Writable(filepath.Dir(path)), replaceable(path))
		}
	}
	for _, l := range links {
		problems = append(problems, disk.Writable(filepath.Dir(l)), replaceable(l))
	}
	return errors.Join(append(problems, replaceable(filepath.Join(base, "current")))...)
}

// replaceable refuses a directory at the temporary name that a replacement of the file uses.
// The error wraps bundle.ErrPolicy.
func replaceable(path string) error {
	fresh := disk.TempName(path)
	if fi, err := os.Lstat(fresh); err == nil && fi.IsDir() {
		return fmt.Errorf("%w: %s is a directory, and a file is written there for a moment; move it away", bundle.ErrPolicy, fresh)
	}
	return nil
}

// checkDirectories refuses data directories whose path is taken by something else.
func checkDirectories(data string, directories []bundle.Directory) error {
	if _, err := os.Lstat(data); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var problems []error
	for _, d := range directories {
		at := data
		for _, part := range strings.Split(d.Path, "/") {
			at = filepath.Join(at, part)
			fi, err := os.Lstat(at)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // a program may make its directory unreadable
				break
			}
			if err == nil && !fi.IsDir() {
				err = fmt.Errorf("%w: %s has to be a directory; move away what is there", ErrData, at)
			}
			if err != nil {
				problems = append(problems, err)
				break
			}
		}
	}
	return errors.Join(problems...)
}
