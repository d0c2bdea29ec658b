//go:build linux && amd64

// Package trace runs a program and decides what comes of each of its system calls
// on files: carried out, failed with an error of the kernel's, cut short, or the
// last thing that the program ever did. It also sees where the program connects
// to, and tells it what time it is. The program is the real one and knows nothing
// of it, so whatever it calls is covered, libraries included. It needs ptrace and
// no rights beyond that. Nothing but tests uses it.
package trace

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call that is about to be made on a file below Options.Below.
type Call struct {
	N    int    // which one of the run, from 1
	Name string // as in the manual's section 2
	Path string // absolute; where a descriptor stands for it, what it was opened as
	To   string // of a rename or link, absolute
	// Flags are those of an open.
	Flags int
}

// Changes reports whether the call can change what is on the disk, or promises
// that it is there.
func (c Call) Changes() bool {
	switch c.Name {
	case "open", "openat":
		return c.Flags&(unix.O_CREAT|unix.O_TRUNC) != 0
	case "read",
		"pread64",
		"fstat",
		"newfstatat",
		"statx",
		"getdents64",
		"readlinkat",
		"readlink",
		"statfs",
		"fstatfs",
		"lseek",
		"close",
		"faccessat",
		"faccessat2",
		"flock":
		return false
	}
	return true
}

func (c Call) String() string {
	s := fmt.Sprintf("call %d, %s of %s", c.N, c.Name, c.Path)
	if c.To != "" {
		s += " to " + c.To
	}
	return s
}

// Verdict is what comes of a call.
type Verdict struct {
	// Errno, if not zero, is what the call returns, without having been made.
	Errno syscall.Errno
	// Short lets a write or read move half of what was asked for, at least a byte.
	Short bool
	// Kill ends the program instead of the call.
	Kill bool
}

// Options say what to look at. Decide is called for each call, one at a time,
// while the thread that makes it stands still.
type Options struct {
	Dir    string             // the working directory
	Env    []string           // nil means this process's
	Below  []string           // directories, absolute
	Decide func(Call) Verdict // nil lets every call through
	// Reached, if not nil, is called with every address that the program connects or
	// sends to: IP:PORT, [IP]:PORT, or the path of a socket.
	Reached func(address string)
	// Clock, if not zero, is what the program takes for the time of day. It stands.
	Clock time.Time
}

// Result is how the program ended.
type Result struct {
	Code           int // the exit status, or -1 if it was killed
	Stdout, Stderr string
	Calls          int // on files below Options.Below
}

// The parts of ptrace(2) that package unix has no names for.
const (
	getSyscallInfo = 0x420e // PTRACE_GET_SYSCALL_INFO
	infoEntry      = 1      // PTRACE_SYSCALL_INFO_ENTRY
	stopSyscall    = syscall.SIGTRAP | 0x80
)

// syscallInfo is struct ptrace_syscall_info, with the arguments of an entry.
type syscallInfo struct {
	op         uint8
	_          [3]uint8
	arch       uint32
	ip, sp, nr uint64
	args       [6]uint64
	_          [16]byte
}

// Run runs a program under o. It ends the program when ctx ends.
func Run(ctx context.Context, o Options, name string, args ...string) (*Result, error) {
	// All requests about a tracee have to come from the thread that traces it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stdout, err := os.CreateTemp("", "trace")
	if err != nil {
		return nil, err
	}
	stderr, err := os.CreateTemp("", "trace")
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	for _, f := range []*os.File{stdout, stderr, null} {
		defer func() { _ = f.Close() }()
	}
	defer func() { _, _ = os.Remove(stdout.Name()), os.Remove(stderr.Name()) }()
	env := o.Env
	if env == nil {
		env = os.Environ()
	}
	pid, err := syscall.ForkExec(name, append([]string{name}, args...), &syscall.ProcAttr{
		Dir: o.Dir, Env: env, Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if err != nil {
		return nil, err
	}
	t := &tracer{o: o, pid: pid, leaving: map[int]func(tid int) error{}}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	defer stop()
	code, err := t.follow()
	if err != nil {
		return nil, errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r := &Result{Code: code, Calls: t.calls}
	for f, s := range map[*os.File]*string{stdout: &r.Stdout, stderr: &r.Stderr} {
		data, err := os.ReadFile(f.Name())
		if err != nil {
			return nil, err
		}
		*s = string(data)
	}
	return r, nil
}

type tracer struct {
	o       Options
	pid     int
	calls   int
	leaving map[int]func(tid int) error // what to do when a thread has made its call
}

// follow lets the program run from stop to stop, until it has ended.
func (t *tracer) follow() (int, error) {
	var ws syscall.WaitStatus
	if _, err := wait(t.pid, &ws); err != nil {
		return 0, err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := syscall.PtraceSetOptions(t.pid, options); err != nil {
		return 0, err
	}
	if !t.o.Clock.IsZero() {
		if err := t.hideClock(); err != nil {
			return 0, err
		}
	}
	if err := syscall.PtraceSyscall(t.pid, 0); err != nil {
		return 0, err
	}
	for {
		tid, err := wait(-t.pid, &ws) // its process group: other tests have children too
		switch {
		case err != nil:
			return 0, fmt.Errorf("waiting for process %d: %w", t.pid, err)
		case ws.Exited() || ws.Signaled():
			if tid != t.pid {
				continue
			}
			if ws.Signaled() {
				return -1, nil
			}
			return ws.ExitStatus(), nil
		}
		signal := 0
		switch s := ws.StopSignal(); s {
		case stopSyscall:
			if err := t.syscall(tid); err != nil && !gone(err) {
				return 0, err
			}
		case syscall.SIGSTOP, syscall.SIGTRAP: // a new thread, and the news of it
		default:
			signal = int(s)
		}
		if err := syscall.PtraceSyscall(tid, signal); err != nil && !gone(err) {
			return 0, err
		}
	}
}

// gone reports that a thread has been killed meanwhile.
func gone(err error) bool { return errors.Is(err, syscall.ESRCH) }

func wait(pid int, ws *syscall.WaitStatus) (int, error) {
	for {
		tid, err := syscall.Wait4(pid, ws, unix.WALL, nil)
		if !errors.Is(err, syscall.EINTR) {
			return tid, err
		}
	}
}

// syscall looks at a thread that is about to enter a call, or to leave it.
func (t *tracer) syscall(tid int) error {
	var info syscallInfo
	if _, _, e := syscall.RawSyscall6(
		syscall.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)),
		0,
		0,
	); e != 0 {
		return e
	}
	if info.op != infoEntry {
		leave, ok := t.leaving[tid]
		if !ok {
			return nil
		}
		delete(t.leaving, tid)
		return leave(tid)
	}
	switch info.nr {
	case unix.SYS_CONNECT:
		t.reached(tid, info.args[1], info.args[2])
		return nil
	case unix.SYS_SENDTO:
		t.reached(tid, info.args[4], info.args[5])
		return nil
	case unix.SYS_CLOCK_GETTIME:
		if !t.o.Clock.IsZero() && info.args[0] == unix.CLOCK_REALTIME {
			t.leaving[tid] = func(tid int) error { return t.tell(tid, uintptr(info.args[1])) }
		}
		return nil
	}
	shape, ok := shapes[info.nr]
	if !ok || t.o.Decide == nil {
		return nil
	}
	c, ok := t.describe(tid, shape, info.args)
	if !ok {
		return nil
	}
	t.calls++
	c.N = t.calls
	switch v := t.o.Decide(c); {
	case v.Kill:
		return syscall.Kill(t.pid, syscall.SIGKILL)
	case v.Errno != 0:
		t.leaving[tid] = func(tid int) error {
			return t.change(tid, func(r *syscall.PtraceRegs) { r.Rax = uint64(-int64(v.Errno)) })
		}
		return t.change(tid, func(r *syscall.PtraceRegs) { r.Orig_rax = ^uint64(0) })
	case v.Short && info.args[2] > 1:
		return t.change(tid, func(r *syscall.PtraceRegs) { r.Rdx /= 2 })
	}
	return nil
}

// reached tells of an address that is sent to; none means a connection that is
// there.
func (t *tracer) reached(tid int, at, n uint64) {
	if t.o.Reached == nil || at == 0 {
		return
	}
	raw := t.read(tid, at, int(min(n, 128)))
	if len(raw) < 2 {
		return
	}
	switch family := binary.NativeEndian.Uint16(raw); {
	case family == unix.AF_INET && len(raw) >= 8:
		t.o.Reached(netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), binary.BigEndian.Uint16(raw[2:])).String())
	case family == unix.AF_INET6 && len(raw) >= 24:
		t.o.Reached(netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), binary.BigEndian.Uint16(raw[2:])).String())
	case family == unix.AF_UNIX:
		name, _, _ := bytes.Cut(raw[2:], []byte{0})
		t.o.Reached(string(name))
	default:
		t.o.Reached(fmt.Sprintf("address family %d", family))
	}
}

// The parts of the auxiliary vector (getauxval(3)) that hold the kernel's own code.
const (
	auxIgnore = 1  // AT_IGNORE
	auxVDSO   = 33 // AT_SYSINFO_EHDR
)

// hideClock takes away the page by which programs read the clock without a call.
func (t *tracer) hideClock() error {
	var r syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(t.pid, &r); err != nil {
		return err
	}
	word := make([]byte, 8)
	peek := func(at uint64) uint64 {
		if _, err := syscall.PtracePeekData(t.pid, uintptr(at), word); err != nil {
			return 0
		}
		return binary.NativeEndian.Uint64(word)
	}
	at := r.Rsp + 8*(peek(r.Rsp)+2) // argc, the arguments, and a null
	for peek(at) != 0 {             // the environment
		at += 8
	}
	for at += 8; peek(at) != 0; at += 16 {
		if peek(at) == auxVDSO {
			binary.NativeEndian.PutUint64(word, auxIgnore)
			_, err := syscall.PtracePokeData(t.pid, uintptr(at), word)
			return err
		}
	}
	return errors.New("no clock to hide was found")
}

// tell writes the time into a struct timespec.
func (t *tracer) tell(tid int, at uintptr) error {
	out := make([]byte, 16)
	binary.NativeEndian.PutUint64(out, uint64(t.o.Clock.Unix()))
	binary.NativeEndian.PutUint64(out[8:], uint64(t.o.Clock.Nanosecond()))
	_, err := syscall.PtracePokeData(tid, at, out)
	return err
}

func (t *tracer) change(tid int, how func(*syscall.PtraceRegs)) error {
	var r syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	how(&r)
	return syscall.PtraceSetRegs(tid, &r)
}

// shape says where a call has its files: argument numbers, or -1.
type shape struct {
	name             string
	dir, path        int // of the path's directory descriptor, and of the path
	fd               int // of a descriptor
	toDir, to, flags int
}

// shapes are the calls that Go programs make on files, by number.
var shapes = map[uint64]shape{
	unix.SYS_READ:            {"read", -1, -1, 0, -1, -1, -1},
	unix.SYS_PREAD64:         {"pread64", -1, -1, 0, -1, -1, -1},
	unix.SYS_WRITE:           {"write", -1, -1, 0, -1, -1, -1},
	unix.SYS_PWRITE64:        {"pwrite64", -1, -1, 0, -1, -1, -1},
	unix.SYS_CLOSE:           {"close", -1, -1, 0, -1, -1, -1},
	unix.SYS_FSTAT:           {"fstat", -1, -1, 0, -1, -1, -1},
	unix.SYS_LSEEK:           {"lseek", -1, -1, 0, -1, -1, -1},
	unix.SYS_FSYNC:           {"fsync", -1, -1, 0, -1, -1, -1},
	unix.SYS_FDATASYNC:       {"fdatasync", -1, -1, 0, -1, -1, -1},
	unix.SYS_SYNCFS:          {"syncfs", -1, -1, 0, -1, -1, -1},
	unix.SYS_SYNC_FILE_RANGE: {"sync_file_range", -1, -1, 0, -1, -1, -1},
	unix.SYS_FTRUNCATE:       {"ftruncate", -1, -1, 0, -1, -1, -1},
	unix.SYS_FALLOCATE:       {"fallocate", -1, -1, 0, -1, -1, -1},
	unix.SYS_FCHMOD:          {"fchmod", -1, -1, 0, -1, -1, -1},
	unix.SYS_FCHOWN:          {"fchown", -1, -1, 0, -1, -1, -1},
	unix.SYS_FLOCK:           {"flock", -1, -1, 0, -1, -1, -1},
	unix.SYS_GETDENTS64:      {"getdents64", -1, -1, 0, -1, -1, -1},
	unix.SYS_FSTATFS:         {"fstatfs", -1, -1, 0, -1, -1, -1},
	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", -1, -1, 2, -1, -1, -1},
	unix.SYS_SENDFILE:        {"sendfile", -1, -1, 1, -1, -1, -1},
	unix.SYS_OPENAT:          {"openat", 0, 1, -1, -1, -1, 2},
	unix.SYS_NEWFSTATAT:      {"newfstatat", 0, 1, -1, -1, -1, -1},
	unix.SYS_STATX:           {"statx", 0, 1, -1, -1, -1, -1},
	unix.SYS_MKDIRAT:         {"mkdirat", 0, 1, -1, -1, -1, -1},
	unix.SYS_UNLINKAT:        {"unlinkat", 0, 1, -1, -1, -1, -1},
	unix.SYS_READLINKAT:      {"readlinkat", 0, 1, -1, -1, -1, -1},
	unix.SYS_FCHMODAT:        {"fchmodat", 0, 1, -1, -1, -1, -1},
	unix.SYS_FCHMODAT2:       {"fchmodat2", 0, 1, -1, -1, -1, -1},
	unix.SYS_FCHOWNAT:        {"fchownat", 0, 1, -1, -1, -1, -1},
	unix.SYS_UTIMENSAT:       {"utimensat", 0, 1, -1, -1, -1, -1},
	unix.SYS_FACCESSAT:       {"faccessat", 0, 1, -1, -1, -1, -1},
	unix.SYS_FACCESSAT2:      {"faccessat2", 0, 1, -1, -1, -1, -1},
	unix.SYS_SYMLINKAT:       {"symlinkat", 1, 2, -1, -1, -1, -1},
	unix.SYS_RENAMEAT:        {"renameat", 0, 1, -1, 2, 3, -1},
	unix.SYS_RENAMEAT2:       {"renameat2", 0, 1, -1, 2, 3, -1},
	unix.SYS_LINKAT:          {"linkat", 0, 1, -1, 2, 3, -1},
	unix.SYS_STATFS:          {"statfs", -1, 0, -1, -1, -1, -1},
	unix.SYS_TRUNCATE:        {"truncate", -1, 0, -1, -1, -1, -1},
	unix.SYS_CHMOD:           {"chmod", -1, 0, -1, -1, -1, -1},
	unix.SYS_CHOWN:           {"chown", -1, 0, -1, -1, -1, -1},
	unix.SYS_LCHOWN:          {"lchown", -1, 0, -1, -1, -1, -1},
}

// describe says which file a call is about; false means none that is looked at.
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

// descriptor returns what a descriptor was opened as.
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

// text reads a string of the program's.
func (t *tracer) text(tid int, at uint64) string {
	var out []byte
	for len(out) < 4096 {
		// Not past the end of a page: the next one may not be there.
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

// read reads the program's memory, less than n bytes where there is no more.
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
