package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/oob-bundle/oob-bundle/bundle"
)

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

// Foreign lists the places of a release's links where the host has something of its
// own, and units of its distribution that a link would hide.
func (r *Release) Foreign() ([]string, error) {
	if r.site.HostRoot == "" {
		return nil, nil
	}
	var list []string
	for _, l := range r.host.Links {
		p := filepath.Join(r.site.HostRoot, l.Path)
		if ours, err := leadsTo(p, linkTarget(r.base, l)); err != nil {
			return nil, err
		} else if ours {
			continue
		}
		for _, dir := range []string{"usr/lib/systemd/system", "lib/systemd/system"} {
			hidden := filepath.Join(r.site.HostRoot, dir, filepath.Base(p))
			if _, err := os.Lstat(hidden); err == nil && filepath.Dir(l.Path) == "/etc/systemd/system" {
				list = append(list, hidden)
				break
			}
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
	case fi.Mode()&fs.ModeSymlink != 0 || fi.Mode().IsRegular():
		old, err := contentOf(p)
		if err != nil || fi.Mode()&fs.ModeSymlink != 0 && string(old) == target {
			return err
		}
		if err := keepAside(replaced(base, l), fi.Mode(), old); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is neither a file nor a link; move it away", p)
	}
	return symlink(target, p)
}

// removeLinks removes the links of a release except those that the next one, which
// may be nil, has too, and puts back what the host had.
func removeLinks(base string, a, next *About) error {
	for _, l := range a.Links {
		if next != nil && next.HostRoot == a.HostRoot && slices.ContainsFunc(next.Links, func(x bundle.Link) bool { return x.Path == l.Path }) {
			continue
		}
		p, kept := filepath.Join(a.HostRoot, l.Path), replaced(base, l)
		ours, err := leadsTo(p, linkTarget(base, l))
		if err == nil && !ours { // any more
			if err = forgetReplaced(kept, p); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
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

// keepAside keeps what the host had in a link's place; what is kept there already
// stays, and the new one gets a number.
func keepAside(kept string, mode fs.FileMode, content []byte) error {
	if err := mkdirAll(filepath.Dir(kept)); err != nil {
		return err
	}
	name := kept
	for n := 1; ; n++ {
		old, err := contentOf(name)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil || bytes.Equal(old, content) {
			return err
		}
		name = fmt.Sprintf("%s.%d", kept, n)
	}
	if mode&fs.ModeSymlink != 0 {
		return symlink(string(content), name)
	}
	return bundle.WriteFile(name, content, mode.Perm())
}

// contentOf returns what a file holds, or where a link leads.
func contentOf(p string) ([]byte, error) {
	fi, err := os.Lstat(p)
	if err != nil {
		return nil, err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		to, err := os.Readlink(p)
		return []byte(to), err
	}
	return os.ReadFile(p)
}

// forgetReplaced removes what is kept of the host's if it is in its place again: a
// run that put it there and was interrupted may not have come to that.
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
		return nil //nolint:nilerr // the host has something else there by now, and keeps both
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
