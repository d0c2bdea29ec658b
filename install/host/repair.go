package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// Drift is a file or link that differs from its state at installation.
type Drift struct {
	Path string `json:"path"`
	What string `json:"what"` // missing, changed, mode, link
}

// Check hashes the files of a release and returns those that have changed.
func Check(ctx context.Context, root string, a *About) ([]Drift, error) {
	dir := filepath.Join(Base(root, a.Name), "releases", a.ID)
	var list []Drift
	for _, f := range a.Files {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p := filepath.Join(dir, filepath.FromSlash(f.Path))
		what, err := drifted(ctx, p, f)
		if err != nil {
			return nil, err
		}
		if what != "" {
			list = append(list, Drift{p, what})
		}
	}
	return list, nil
}

// CheckLinks returns the links of a release that have changed.
func CheckLinks(root string, a *About) ([]Drift, error) {
	base, err := filepath.Abs(Base(root, a.Name))
	if err != nil {
		return nil, err
	}
	var list []Drift
	for _, l := range a.Links {
		p := filepath.Join(a.HostRoot, l.Path)
		if ours, err := leadsTo(p, linkTarget(base, l)); err != nil {
			return nil, err
		} else if !ours {
			list = append(list, Drift{p, "link"})
		}
	}
	return list, nil
}

// CheckSecrets checks that a release's passwords exist and are readable by their owner only.
func CheckSecrets(root string, a *About) ([]Drift, error) {
	if !a.Secrets {
		return nil, nil
	}
	p := secretsPath(Base(root, a.Name))
	fi, err := os.Lstat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Drift{{p, "missing"}}, nil
	case err != nil:
		return nil, err
	case runtime.GOOS != "windows" && fi.Mode().Perm() != 0o600:
		return []Drift{{p, "mode"}}, nil
	}
	return nil, nil
}

func drifted(ctx context.Context, p string, f File) (string, error) {
	fi, err := os.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing", nil
	}
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() {
		return "changed", nil
	}
	in, err := os.Open(p)
	if err != nil {
		return "", err
	}
	digest, _, err := bundle.Copy(ctx, io.Discard, in, make([]byte, bufferSize))
	if err := errors.Join(err, in.Close()); err != nil {
		return "", err
	}
	if digest != f.SHA256 {
		return "changed", nil
	}
	if runtime.GOOS != "windows" &&
		(fmt.Sprintf("%04o", fi.Mode().Perm()) != f.Mode || fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0) {
		return "mode", nil
	}
	return "", nil
}

// replace moves a file of the release to its path, from a directory that contains all files.
func (r *Release) replace(path, from string, fresh *About) error {
	rel, err := filepath.Rel(r.Dir, path)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(fresh.Files, func(f File) bool { return f.Path == filepath.ToSlash(rel) }) {
		return fmt.Errorf("%w: %s is not in the bundle", bundle.ErrFormat, rel)
	}
	if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := mkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Rename(filepath.Join(from, rel), path)
}

// Repair atomically replaces the files that have changed, and returns them. The bundle must
// produce the same release. The release's record may be missing, too.
func (r *Release) Repair(ctx context.Context) ([]Drift, error) {
	// Remove the temporary file of an interrupted run.
	if err := os.Remove(filepath.Join(r.Dir, "."+bundle.ReleaseFile+".new")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	about, lost := ReadRelease(r.site.Root, r.Name, r.ID)
	var drift []Drift
	var err error
	if lost == nil {
		if drift, err = Check(ctx, r.site.Root, about); err != nil || len(drift) == 0 {
			return nil, err
		}
	}
	// Write all files to a directory beside the release, so that each replacement is complete.
	beside := r.Dir + ".repair"
	if err := os.RemoveAll(beside); err != nil {
		return nil, err
	}
	if err := disk.Need(r.base, r.Size(), int64(len(r.files)), 0); err != nil {
		return nil, err
	}
	if err := mkdirAll(beside); err != nil {
		return nil, err
	}
	fresh, err := r.write(ctx, beside, r.files)
	if err == nil && lost != nil {
		drift, err = Check(ctx, r.site.Root, fresh)
	}
	if err == nil { // sync before the renames: a power cut must not leave an empty file
		err = disk.SyncFilesystem(beside)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(beside))
	}
	for _, d := range drift {
		if err := r.replace(d.Path, beside, fresh); err != nil {
			return nil, err
		}
	}
	if err := r.finish(fresh); err != nil { // the record is the same unless a newer program renders differently
		return nil, err
	}
	return drift, errors.Join(os.RemoveAll(beside), disk.SyncFilesystem(r.Dir))
}
