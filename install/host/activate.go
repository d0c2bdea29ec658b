package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
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

// Switch makes the staged release to current instead of from. Either may be nil. Switch
// applies JSON patches, switches with one rename, and then makes and removes links. It can be
// repeated after an interruption. With undo it reverts a change: it leaves a file that cannot
// be patched unchanged.
func Switch(root, name string, from, to *About, undo bool) error {
	base, err := filepath.Abs(Base(root, name))
	if err != nil {
		return err
	}
	if err := switchMerges(base, from.merges(base), to.merges(base), undo); err != nil {
		return err
	}
	if to == nil {
		return removeCurrent(base, from)
	}
	if err := symlink(filepath.Join("releases", to.ID), filepath.Join(base, "current")); err != nil {
		return err
	}
	// Make the links after the rename: before it, a link could point to a missing file.
	for _, l := range to.Links {
		if err := makeLink(base, to.HostRoot, l); err != nil {
			return err
		}
	}
	if from == nil {
		return nil
	}
	return removeLinks(base, from, to)
}

func removeCurrent(base string, from *About) error {
	if from != nil {
		if err := removeLinks(base, from, nil); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(base, "current")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return disk.SyncDir(base)
}

// RemoveLost removes the links and the current link of a release whose record is lost. paths
// are absolute; those that are not links into the deployment stay. The host's files that the
// links replaced are restored.
func RemoveLost(root, name string, paths []string) error {
	base, err := filepath.Abs(Base(root, name))
	if err != nil {
		return err
	}
	for _, p := range paths {
		to, err := os.Readlink(p)
		file, ours := strings.CutPrefix(to, filepath.Join(base, "current")+string(filepath.Separator))
		if err != nil || !ours {
			continue // the path belongs to the host again, or is missing
		}
		at := strings.LastIndex(p, "/etc/") // links are only below etc/ (bundle.Link)
		if at < 0 {
			continue
		}
		a := &About{Name: name, HostRoot: p[:at+1], Links: []bundle.Link{{Path: p[at:], File: filepath.ToSlash(file)}}}
		if err := removeLinks(base, a, nil); err != nil {
			return err
		}
	}
	err = os.Remove(filepath.Join(base, "current"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, disk.SyncDir(base))
}

// symlink atomically and durably replaces name, whatever it is, by a link to target.
func symlink(target, name string) error {
	if to, err := os.Readlink(name); err == nil && to == target {
		return nil
	}
	fresh := disk.TempName(name)
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, name); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return disk.SyncDir(filepath.Dir(name))
}

// Prune removes the releases of a deployment except those to keep.
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
		// Remove the record first: without it the release counts as incomplete.
		if err := os.Remove(filepath.Join(p, bundle.ReleaseFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// The files from before this release's patches are not needed any more. Remove the
		// directory last, so that the next run still finds it if this one is interrupted.
		if err := forgetMerges(filepath.Join(Base(root, name), "replaced"), e.Name()); err != nil {
			return err
		}
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes a deployment except its data, secrets and backups. It returns the paths that
// are left.
func Remove(root, name string) ([]string, error) {
	base := Base(root, name)
	if err := Prune(root, name, nil); err != nil {
		return nil, err
	}
	for _, sub := range []string{"releases", "replaced"} {
		if err := disk.RemoveEmpty(filepath.Join(base, sub)); err != nil {
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
