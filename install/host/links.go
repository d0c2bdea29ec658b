package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

func linkTarget(base string, l bundle.Link) string {
	return filepath.Join(base, "current", filepath.FromSlash(l.File))
}

// Linked returns the links that the release makes, with paths as in the bundle.
func (r *Release) Linked() []bundle.Link {
	if r.site.HostRoot == "" {
		return nil
	}
	return r.host.Links
}

// Links returns the absolute paths of the release's links.
func (r *Release) Links() []string {
	var list []string
	for _, l := range r.Linked() {
		list = append(list, filepath.Join(r.site.HostRoot, l.Path))
	}
	return list
}

// leadsTo reports whether p is a link to a target.
func leadsTo(p, target string) (bool, error) {
	fi, err := os.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return false, err
	}
	to, err := os.Readlink(p)
	return to == target, err
}

// replaced returns the path that keeps the file that a link has replaced.
func replaced(base, hostRoot string, l bundle.Link) string {
	return filepath.Join(base, "replaced", resolved(hostRoot), l.Path)
}

// makeLink makes a link. It first keeps the host's file at that path.
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
		if within(filepath.Join(base, "current"), to) {
			break // a link of an earlier release
		}
		// If another deployment took the path from this one, that deployment now keeps the
		// host's file.
		if err := passOn(base, hostRoot, l); err != nil {
			return err
		}
		if err := keepAside(replaced(base, hostRoot, l), p); err != nil {
			return err
		}
	case fi.Mode().IsRegular():
		if err := keepAside(replaced(base, hostRoot, l), p); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is neither a file nor a link; move it away", p)
	}
	return symlink(target, p)
}

// removeLinks removes the links of a release and restores the host's files. It leaves the
// links that next, which may be nil, has too.
func removeLinks(base string, a, next *About) error {
	for _, l := range a.Links {
		if next != nil && resolved(next.HostRoot) == resolved(a.HostRoot) &&
			slices.ContainsFunc(next.Links, func(x bundle.Link) bool { return x.Path == l.Path }) {
			continue
		}
		p, kept := filepath.Join(a.HostRoot, l.Path), replaced(base, a.HostRoot, l)
		ours, err := leadsTo(p, linkTarget(base, l))
		if err == nil && !ours { // the link is not ours any more
			if err = errors.Join(passOn(base, a.HostRoot, l), forgetReplaced(kept, p)); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if err = copyOf(kept, p); errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(p)
		}
		if err != nil {
			return err
		}
		if err := disk.SyncDir(filepath.Dir(p)); err != nil {
			return err
		}
		if err := os.Remove(kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// maxTaken limits how often deployments may have taken one path from each other.
const maxTaken = 100

// passOn moves the host's kept file to the deployment that took the link's path and that now
// keeps the link. Removing that deployment must restore the host's file, not a dangling link.
func passOn(base, hostRoot string, l bundle.Link) error {
	kept, at := replaced(base, hostRoot, l), filepath.Join(hostRoot, l.Path)
	for range maxTaken {
		to, err := os.Readlink(at)
		if err != nil {
			return nil //nolint:nilerr // the place is the host's
		}
		name, err := filepath.Rel(filepath.Dir(base), to)
		if err != nil || !filepath.IsLocal(name) {
			return nil //nolint:nilerr // the place is the host's
		}
		name, _, _ = strings.Cut(filepath.ToSlash(name), "/")
		at = replaced(filepath.Join(filepath.Dir(base), name), hostRoot, l)
		ours, err := leadsTo(at, linkTarget(base, l))
		if err != nil {
			return err
		}
		if !ours {
			continue
		}
		if err = os.Rename(kept, at); errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(at)
		}
		return errors.Join(err, disk.SyncDir(filepath.Dir(at)))
	}
	return nil
}

// keepAside keeps the host's file at a link's path. A different file that is already kept
// stays, and the new one gets a number.
func keepAside(kept, p string) error {
	content, err := contentOf(p)
	if err != nil {
		return err
	}
	if err := mkdirAll(filepath.Dir(kept)); err != nil {
		return err
	}
	name := kept
	for n := 1; ; n++ {
		old, err := contentOf(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(old, content) {
			return copyOf(p, name)
		}
		if err != nil {
			return err
		}
		name = numbered(kept, n)
	}
}

// numbered returns another name for a kept file.
func numbered(kept string, n int) string {
	dir, base := filepath.Split(kept)
	if len(base) > 240 { // the name with the number may be too long for the file system
		base = bundle.DigestOf([]byte(base)).Short()
	}
	return filepath.Join(dir, fmt.Sprintf("%s.%d", base, n))
}

// copyOf replaces to by a copy of from: a link, or a file with its content, mode and owner.
// Only root can preserve the owner.
func copyOf(from, to string) error {
	fi, err := os.Lstat(from)
	if err != nil {
		return err
	}
	content, err := contentOf(from)
	switch {
	case err != nil:
		return err
	case fi.Mode()&fs.ModeSymlink != 0:
		return symlink(string(content), to)
	}
	if err := disk.WriteFile(to, content, fi.Mode().Perm()); err != nil || os.Geteuid() != 0 {
		return err
	}
	var uid, gid int
	if _, err := fmt.Sscanf(ownerOf(fi), "%d:%d", &uid, &gid); err != nil {
		return err
	}
	return os.Lchown(to, uid, gid)
}

// contentOf returns the content of a file or the target of a link.
func contentOf(p string) ([]byte, error) {
	fi, err := os.Lstat(p)
	if err != nil {
		return nil, err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		to, err := os.Readlink(p)
		return []byte(to), err
	}
	return disk.ReadFile(p, bundle.MaxRecord)
}

// forgetReplaced removes a kept file if the host has the same content in its place again. An
// interrupted run may have restored the content without removing the kept file.
func forgetReplaced(kept, p string) error {
	old, err := contentOf(kept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	now, err := contentOf(p)
	if err != nil || !bytes.Equal(old, now) {
		return nil //nolint:nilerr // the host has another file there now; keep both
	}
	if err := copyOf(kept, p); err != nil { // restores the owner, too
		return err
	}
	return os.Remove(kept)
}

// LinkPaths returns the absolute paths at which a release is linked.
func (a *About) LinkPaths() []string {
	var list []string
	for _, l := range a.Links {
		list = append(list, filepath.Join(a.HostRoot, l.Path))
	}
	return list
}
