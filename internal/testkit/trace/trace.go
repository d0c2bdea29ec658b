//go:build linux && amd64

// Package trace runs a program and decides the result of each of its system calls on files:
// the kernel carries the call out, the call fails with an error, a read or write is cut short,
// or the program is killed. It also reports the addresses that the program connects to, and
// can set the time that the program sees. The program is unmodified, so calls of libraries are
// covered too. The package needs ptrace and no further rights. It is for tests only.
package trace

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call on a file below Options.Below, before it is made.
type Call struct {
	N    int    // number of the call in this run, from 1
	Name string // as in section 2 of the manual
	Path string // absolute; for a descriptor, the path it was opened with
	To   string // absolute new path of a rename or link
	// Flags are the flags of an open.
	Flags int
}

// Changes reports whether the call can change the disk's content, or promises that content is
// on the disk.
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

// Verdict decides the result of a call. The zero value lets the call through.
type Verdict struct {
	// Errno, if not zero, is the error that the call returns without being made.
	Errno syscall.Errno
	// Short makes a write or read transfer half of the requested bytes, at least one.
	Short bool
	// Kill kills the program before the call.
	Kill bool
}

// Options configures a run. Decide is called for each call, one at a time, while the calling
// thread is stopped.
type Options struct {
	Dir    string             // the working directory
	Env    []string           // nil means this process's
	Below  []string           // directories, absolute
	Decide func(Call) Verdict // nil lets every call through
	// Reached, if not nil, is called with every address that the program connects or sends to:
	// IP:PORT, [IP]:PORT, or the path of a socket.
	Reached func(address string)
	// Clock, if not zero, is the time of day that the program sees. It does not advance.
	Clock time.Time
}

// Result is the result of a run.
type Result struct {
	Code           int // exit status, or -1 if the program was killed
	Stdout, Stderr string
	Calls          int // number of calls on files below Options.Below
}

// Parts of ptrace(2) for which package unix has no names.
const (
	getSyscallInfo = 0x420e // PTRACE_GET_SYSCALL_INFO
	infoEntry      = 1      // PTRACE_SYSCALL_INFO_ENTRY
	stopSyscall    = syscall.SIGTRAP | 0x80
)

// syscallInfo is struct ptrace_syscall_info with the arguments of an entry.
type syscallInfo struct {
	op         uint8
	_          [3]uint8
	arch       uint32
	ip, sp, nr uint64
	args       [6]uint64
	_          [16]byte
}

// Run runs a program with the given options. It kills the program when ctx ends.
func Run(ctx context.Context, o Options, name string, args ...string) (*Result, error) {
	// All ptrace requests must come from the thread that traces the program.
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
	leaving map[int]func(tid int) error // by thread: what to do after its current call
}

// follow runs the program from stop to stop until it ends. It returns the exit status.
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
		tid, err := wait(-t.pid, &ws) // only its process group: other tests have children too
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
		case syscall.SIGSTOP, syscall.SIGTRAP: // a new thread, and the event that announces it
		default:
			signal = int(s)
		}
		if err := syscall.PtraceSyscall(tid, signal); err != nil && !gone(err) {
			return 0, err
		}
	}
}

// gone reports whether err means that the thread has been killed meanwhile.
func gone(err error) bool { return errors.Is(err, syscall.ESRCH) }

func wait(pid int, ws *syscall.WaitStatus) (int, error) {
	for {
		tid, err := syscall.Wait4(pid, ws, unix.WALL, nil)
		if !errors.Is(err, syscall.EINTR) {
			return tid, err
		}
	}
}

// syscall handles a thread that is about to enter or leave a call.
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

// reached reports the address that the program connects or sends to. An empty address means an
// existing connection and is not reported.
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

// Entry types of the auxiliary vector (getauxval(3)). The vDSO is code that the kernel maps
// into each program.
const (
	auxIgnore = 1  // AT_IGNORE
	auxVDSO   = 33 // AT_SYSINFO_EHDR
)

// hideClock hides the vDSO, with which programs read the clock without a system call.
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
	at := r.Rsp + 8*(peek(r.Rsp)+2) // skip argc, the arguments, and a null
	for peek(at) != 0 {             // skip the environment
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

// tell writes Options.Clock into a struct timespec.
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

// shapes contains the file system calls that Go programs make, by number.
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
