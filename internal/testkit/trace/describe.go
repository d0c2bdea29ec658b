//go:build linux && amd64

package trace

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// shape describes where a call has its files: argument numbers, or -1.
type shape struct {
	name             string
	dir, path        int // directory descriptor of the path, and the path
	fd               int // descriptor
	toDir, to, flags int
}

// describe returns the call with its files. It returns false if no file is below
// Options.Below.
func (t *tracer) describe(tid int, s shape, args [6]uint64) (Call, bool) {
	c := Call{Name: s.name}
	if s.fd >= 0 {
		c.Path = t.descriptor(tid, int32(args[s.fd]))
	} else {
		c.Path = t.path(tid, s.dir, args[s.path], args)
	}
	if s.to >= 0 {
		c.To = t.path(tid, s.toDir, args[s.to], args)
	}
	if s.flags >= 0 {
		c.Flags = int(args[s.flags])
	}
	for _, b := range t.o.Below {
		if within(c.Path, b) || within(c.To, b) {
			return c, true
		}
	}
	return c, false
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// descriptor returns the path that a descriptor was opened with.
func (t *tracer) descriptor(tid int, fd int32) string {
	name := fmt.Sprintf("/proc/%d/fd/%d", tid, fd)
	if fd == unix.AT_FDCWD {
		name = fmt.Sprintf("/proc/%d/cwd", tid)
	}
	path, err := os.Readlink(name)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(path, " (deleted)")
}

func (t *tracer) path(tid, dir int, at uint64, args [6]uint64) string {
	p := t.text(tid, at)
	if filepath.IsAbs(p) {
		return p
	}
	fd := int32(unix.AT_FDCWD)
	if dir >= 0 {
		fd = int32(args[dir])
	}
	return filepath.Join(t.descriptor(tid, fd), p)
}

// text reads a null-terminated string from the program's memory.
func (t *tracer) text(tid int, at uint64) string {
	var out []byte
	for len(out) < 4096 {
		// Stop at a 256-byte boundary, so that no read crosses a page: the next page may not
		// exist.
		part := t.read(tid, at+uint64(len(out)), int(256-(at+uint64(len(out)))%256))
		if i := bytes.IndexByte(part, 0); i >= 0 {
			return string(append(out, part[:i]...))
		}
		if len(part) == 0 {
			break
		}
		out = append(out, part...)
	}
	return string(out)
}

// read reads up to n bytes of the program's memory.
func (t *tracer) read(tid int, at uint64, n int) []byte {
	if n <= 0 {
		return nil
	}
	part := make([]byte, n)
	local := []unix.Iovec{{Base: &part[0], Len: uint64(n)}}
	got, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: n}}, 0)
	if err != nil {
		return nil
	}
	return part[:got]
}
