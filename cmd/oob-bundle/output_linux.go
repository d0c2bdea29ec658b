package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// outputClosed reports whether the program was started without a standard output. In this case,
// the Go runtime has opened /dev/null for reading and writing as descriptor 1. The parent may
// also pass /dev/null on purpose, which is valid. To tell the two apart, outputClosed requires
// that this process and its parent have descriptor 1's open file nowhere else, and that the
// parent passes its own descriptors to its children. Other parents open /dev/null between fork
// and exec, or close it afterwards (Python's subprocess.DEVNULL, Node's "ignore"). In doubt,
// outputClosed returns false.
func outputClosed() bool {
	if !isNull(unix.Stdout) {
		return false
	}
	self, parent := os.Getpid(), os.Getppid()
	if !passesItsOwn(parent) {
		return false
	}
	for _, fd := range []int{unix.Stdin, unix.Stderr} {
		if differs, err := differs(self, fd); err != nil || !differs {
			return false
		}
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", parent))
	if err != nil {
		return false
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return false
		}
		if differs, err := differs(parent, fd); err != nil || !differs {
			return false
		}
	}
	return true
}

// isNull reports whether fd is /dev/null, opened for reading and writing.
func isNull(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDWR
}

// shells are programs that pass their own descriptors to their children.
var shells = []string{"sh", "ash", "bash", "busybox", "dash", "fish", "ksh", "ksh93", "mksh", "yash", "zsh"}

// passesItsOwn reports whether a process is a shell or a Go program. A Go program may have
// started a shell that replaced itself with this process (sh -c COMMAND).
func passesItsOwn(pid int) bool {
	link := fmt.Sprintf("/proc/%d/exe", pid)
	exe, err := os.Readlink(link)
	if err != nil {
		return false
	}
	if slices.Contains(shells, filepath.Base(exe)) {
		return true
	}
	_, err = buildinfo.ReadFile(link)
	return err == nil
}

// differs reports whether fd of process pid is a different open file than standard output
// (kcmp(2), KCMP_FILE). It returns an error if the kernel refuses to compare them.
func differs(pid, fd int) (bool, error) {
	const kcmpFile = 0
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), kcmpFile, uintptr(unix.Stdout), uintptr(fd), 0)
	switch errno {
	case 0:
		return order != 0, nil
	case unix.EBADF: // closed in the meantime, or never open
		return true, nil
	default:
		return false, errno
	}
}
