//go:build unix

package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// RefuseWritable returns an error that wraps ErrWritable if a user other than root and the
// current user can change or replace path. It checks every directory and every link on the
// way. It returns nil if path does not exist.
func RefuseWritable(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	const top = string(filepath.Separator)
	rest, at := split(path), top
	for links := 0; ; {
		fi, err := os.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := owned(at, fi); err != nil {
			return err
		}
		if fi.Mode()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(at)
			if err != nil {
				return err
			}
			if links++; links > maxLinks {
				return &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
			}
			rest = append(split(to), rest...)
			if at = filepath.Dir(at); filepath.IsAbs(to) {
				at = top
			}
			continue
		}
		// In a sticky directory, others can create names but not replace those of another
		// user.
		shared := fi.Mode()&fs.ModeSticky != 0 && len(rest) > 0
		if fi.Mode().Perm()&0o022 != 0 && !shared {
			advice := disk.ModeAdvice(at, "chmod go-w", "umask=022")
			return fmt.Errorf("%s is not to be trusted: %w (mode %04o); %s", at, ErrWritable, fi.Mode().Perm(), advice)
		}
		if len(rest) == 0 {
			return nil
		}
		at, rest = filepath.Join(at, rest[0]), rest[1:] // at contains no links, so Join may resolve .. lexically
	}
}

// maxLinks is the number of links that Linux follows (path_resolution(7)).
const maxLinks = 40

func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator })
}

// owned refuses a file that belongs to another user.
func owned(path string, fi fs.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 || int(st.Uid) == os.Geteuid() || st.Uid == overflowUser && inUserNamespace() {
		return nil
	}
	advice := disk.ModeAdvice(path, "chown root", "uid=0")
	return fmt.Errorf(
		"%s is not to be trusted: %w (it belongs to user %d); use a directory below one of root, or %s",
		path, ErrWritable, st.Uid, advice,
	)
}

// overflowUser is the owner shown for files whose user has no mapping in the current user
// namespace, such as root outside of it (user_namespaces(7)).
const overflowUser = 65534

func inUserNamespace() bool {
	all, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(all)), " ") != "0 0 4294967295"
}
