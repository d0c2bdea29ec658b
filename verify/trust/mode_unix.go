//go:build unix

package trust

import (
	"fmt"
	"os"
	"syscall"
)

// RefuseWritable reports with ErrWritable whether somebody other than the
// superuser and the user who runs this can change path.
func RefuseWritable(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not to be trusted: %w (mode %04o); run chmod go-w %s", path, ErrWritable, fi.Mode().Perm(), path)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not to be trusted: %w (it belongs to user %d); run chown root %s", path, ErrWritable, st.Uid, path)
	}
	return nil
}
