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

// outputClosed reports whether the program was started without a standard output. The Go
// runtime has then opened /dev/null in its place, for reading and writing. Whoever starts
// the program may have passed the same on purpose, and that is in order: so descriptor 1
// must be none that this process or its parent has elsewhere, and the parent must be a
// program that passes on its own descriptors. Others open /dev/null between fork and exec,
// or close it afterwards (Python's subprocess.DEVNULL, Node's "ignore"). In doubt the
// answer is false.
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

// isNull reports whether a descriptor is /dev/null, for reading and writing.
func isNull(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDWR
}

// shells pass on descriptors of their own.
var shells = []string{"sh", "ash", "bash", "busybox", "dash", "fish", "ksh", "ksh93", "mksh", "yash", "zsh"}

// passesItsOwn reports whether a process is a shell, or a Go program, as these may have
// started a shell that became this process (sh -c COMMAND).
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

// differs reports whether a descriptor of a process is another open file than standard
// output (kcmp(2), KCMP_FILE). The error tells that the kernel does not say.
func differs(pid, fd int) (bool, error) {
	const kcmpFile = 0
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), kcmpFile, uintptr(unix.Stdout), uintptr(fd), 0)
	switch errno {
	case 0:
		return order != 0, nil
	case unix.EBADF: // closed since, or never open
		return true, nil
	default:
		return false, errno
	}
}
