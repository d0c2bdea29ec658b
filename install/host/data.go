package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// ErrData reports an unexpected file in a data directory. Programs may write there while root
// runs this program. Therefore this package follows no links there, opens no pipes in a way
// that blocks, and limits all reads.
var ErrData = errors.New("what programs keep is not as it has to be")

// checkData refuses a data directory that contains ROOT, or is in ROOT at another place than
// the deployment's own: merges into its files could change the files of ROOT. It compares the
// paths after resolving the links of their existing parts.
func checkData(root, base, data string) error {
	own := filepath.Join(base, "data")
	if data == own {
		return nil
	}
	root, data, own = resolved(root), resolved(data), resolved(own)
	if data == own {
		return nil
	}
	if within(root, data) || within(data, root) {
		return fmt.Errorf(
			"%w:\n  %s: %s and %s, where this program keeps its own, hold one another; name a directory outside of it",
			ErrValues, bundle.ValueData, data, root,
		)
	}
	return nil
}

// within reports whether p is dir or below it.
func within(dir, p string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// resolved resolves the links in the existing part of a path.
func resolved(p string) string {
	if to, err := filepath.EvalSymlinks(p); err == nil {
		return to
	}
	dir := filepath.Dir(p)
	if dir == p {
		return p
	}
	return filepath.Join(resolved(dir), filepath.Base(p))
}

// descend opens the directory dir, with slashes, below root. Each part of dir must be a
// directory, not a link. The error wraps ErrData or fs.ErrNotExist, or comes from the file
// system.
func descend(root *os.Root, dir string) (*os.Root, error) {
	here, err := root.OpenRoot(".")
	if err != nil || dir == "." {
		return here, err
	}
	for _, part := range strings.Split(dir, "/") {
		next, err := descendOne(here, part)
		if err = errors.Join(err, here.Close()); err != nil {
			return nil, err
		}
		here = next
	}
	return here, nil
}

func descendOne(here *os.Root, part string) (*os.Root, error) {
	seen, err := here.Lstat(part)
	if err != nil {
		return nil, err
	}
	if !seen.IsDir() {
		return nil, fmt.Errorf("%w: %s is no directory", ErrData, filepath.Join(here.Name(), part))
	}
	next, err := here.OpenRoot(part)
	if err != nil {
		return nil, err
	}
	if got, err := next.Stat("."); err != nil || !os.SameFile(seen, got) {
		return nil, errors.Join(
			fmt.Errorf("%w: %s was replaced while it was opened", ErrData, filepath.Join(here.Name(), part)), err,
			next.Close(),
		)
	}
	return next, nil
}

// readData reads a regular file of at most limit bytes below root. The error wraps ErrData or
// fs.ErrNotExist, or comes from the file system.
func readData(root *os.Root, name string, limit int64) (data []byte, fi fs.FileInfo, err error) {
	dir, err := descend(root, path.Dir(name))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	bad := func(why string) error {
		return fmt.Errorf("%w: %s %s", ErrData, filepath.Join(root.Name(), filepath.FromSlash(name)), why)
	}
	seen, err := dir.Lstat(path.Base(name))
	if err != nil {
		return nil, nil, err
	}
	if !seen.Mode().IsRegular() {
		return nil, nil, bad("is no regular file")
	}
	f, err := dir.OpenFile(path.Base(name), os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if fi, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	if !os.SameFile(seen, fi) {
		return nil, nil, bad("was replaced while it was opened")
	}
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = bad(fmt.Sprintf("has more than %d bytes", limit))
	}
	return data, fi, err
}
