package create

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/foreign"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// hostFiles checks the content of the files for the host, so that files on which an
// installation would fail are refused before anything is signed.
type hostFiles struct {
	deployment *bundle.Deployment
	open       func(d bundle.Digest) (io.Reader, error)
}

// check refuses patches that are not JSON, and archives that cannot be unpacked beside
// the other files. Errors wrap manifests.ErrInvalid, or are the file system's.
func (h *hostFiles) check(ctx context.Context) error {
	if h.deployment.Host != nil {
		for _, m := range h.deployment.Host.Merges {
			if err := h.checkPatch(m); err != nil {
				return err
			}
		}
	}
	var unpacked []unpackedFiles
	for _, f := range h.deployment.Files {
		if f.As != bundle.AsArchive {
			continue
		}
		u, err := h.unpack(ctx, f)
		if err != nil {
			return err
		}
		for _, other := range unpacked {
			if err := u.overlap(other); err != nil {
				return err
			}
		}
		unpacked = append(unpacked, u)
	}
	return nil
}

// checkPatch requires that a patch is JSON if it is merged unchanged. The result of a
// template is known only on the site.
func (h *hostFiles) checkPatch(m bundle.Merge) error {
	for _, f := range h.deployment.Files {
		if f.Path != m.Patch || f.As != "" {
			continue
		}
		if f.Size > bundle.MaxTemplate {
			return fmt.Errorf("%w: the patch %s has %d bytes, at most %d are allowed", manifests.ErrInvalid, f.Path, f.Size, bundle.MaxTemplate)
		}
		r, err := h.open(f.Digest)
		if err != nil {
			return err
		}
		var v any
		decoder := json.NewDecoder(r)
		err = decoder.Decode(&v)
		if _, more := decoder.Token(); err == nil && !errors.Is(more, io.EOF) {
			err = errors.New("there is data behind it")
		}
		if err != nil {
			return fmt.Errorf("%w: the patch %s, which is merged into %s, is not a JSON document: %w", manifests.ErrInvalid, f.Path, m.File, err)
		}
	}
	return nil
}

// unpackedFiles contains the paths in an unpacked archive, in lower case.
type unpackedFiles struct {
	archive bundle.HostFile
	files   map[string]bool
	dirs    map[string]bool
}

// unpack returns the paths in an archive. Files of the bundle at the same paths replace
// those of the archive.
func (h *hostFiles) unpack(ctx context.Context, f bundle.HostFile) (unpackedFiles, error) {
	u := unpackedFiles{f, map[string]bool{}, map[string]bool{}}
	r, err := h.open(f.Digest)
	if err != nil {
		return u, err
	}
	err = foreign.Walk(ctx, r, f.Size, func(e foreign.Entry) error {
		name := e.Name
		for range f.Strip {
			_, rest, deep := strings.Cut(name, "/")
			if !deep {
				return nil
			}
			name = rest
		}
		u.add(path.Join(f.Path, name), e.Dir)
		return nil
	})
	if errors.Is(err, bundle.ErrFormat) || errors.Is(err, bundle.ErrLimit) {
		return u, fmt.Errorf("%w: %s cannot be unpacked: %s", manifests.ErrInvalid, f.Path, err) //nolint:errorlint // not a damaged bundle
	}
	if err != nil {
		return u, err
	}
	own := unpackedFiles{f, map[string]bool{}, map[string]bool{}}
	for _, o := range h.deployment.Files {
		if o.As != bundle.AsArchive && together(o, f) {
			own.add(o.Path, false)
			delete(u.files, strings.ToLower(o.Path))
		}
	}
	return u, u.overlap(own)
}

func (u *unpackedFiles) add(name string, dir bool) {
	name = strings.ToLower(name)
	if dir {
		u.dirs[name] = true
	} else {
		u.files[name] = true
	}
	for above := path.Dir(name); above != "." && !u.dirs[above]; above = path.Dir(above) {
		u.dirs[above] = true
	}
}

// together reports whether a host may receive both files.
func together(a, b bundle.HostFile) bool {
	return a.Platform == b.Platform || a.Platform == "" || b.Platform == ""
}

// overlap refuses two sets if one has a file at a path of the other.
func (u *unpackedFiles) overlap(other unpackedFiles) error {
	if !together(u.archive, other.archive) {
		return nil
	}
	for name := range u.files {
		if other.files[name] || other.dirs[name] {
			return fmt.Errorf("%w: %s of the archive %s is where something else of the bundle is", manifests.ErrInvalid, name, u.archive.Path)
		}
	}
	for name := range u.dirs {
		if other.files[name] {
			return fmt.Errorf("%w: the archive %s has a directory %s, where the bundle has a file", manifests.ErrInvalid, u.archive.Path, name)
		}
	}
	return nil
}
