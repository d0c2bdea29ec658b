//go:build unix

package disk

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// inTime fails the test if do does not return.
func inTime(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not return")
	}
}

// TestReadFileNeverHangs: a path that is not a file is refused in time, and so is a pipe to
// which no program writes.
func TestReadFileNeverHangs(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	fifo := func(name string) string {
		if err := syscall.Mkfifo(path(name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path(name)
	}
	socket, err := net.Listen("unix", path("socket"))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	silent := fifo("silent")
	keep, err := os.OpenFile(silent, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keep.Close() })
	link := path("link")
	if err := os.Symlink(fifo("behind"), link); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a pipe without a writer":      fifo("pipe"),
		"a link to such a pipe":        link,
		"a pipe that stays silent":     silent,
		"a device without an end":      "/dev/zero",
		"a device without content":     "/dev/null",
		"a directory":                  dir,
		"a socket":                     path("socket"),
		"a descriptor of a directory":  fdPath(t, dir),
		"a descriptor of a pipe's end": fdPath(t, silent),
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func() {
				if _, err := readFile(path, 100, 300*time.Millisecond); !errors.Is(err, ErrNotFile) {
					t.Errorf("%v", err)
				}
				if f, err := OpenRegular(path); !errors.Is(err, ErrNotFile) {
					t.Errorf("opened %v: %v", f, err)
				}
			})
		})
	}
}

func fdPath(t *testing.T, path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return fmt.Sprintf("/dev/fd/%d", f.Fd())
}

// TestReadFilePipe: a pipe with a writer is read to its end, also if the writer is late or
// slow.
func TestReadFilePipe(t *testing.T) {
	for name, write := range map[string]func(w *os.File){
		"at once": func(w *os.File) { _, _ = w.WriteString("content") },
		"late": func(w *os.File) {
			time.Sleep(200 * time.Millisecond)
			_, _ = w.WriteString("content")
		},
		"in pieces": func(w *os.File) {
			_, _ = w.WriteString("con")
			time.Sleep(100 * time.Millisecond)
			_, _ = w.WriteString("tent")
		},
	} {
		t.Run("named, "+name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			go func() {
				time.Sleep(50 * time.Millisecond) // lets the reader open first
				w, err := os.OpenFile(path, os.O_WRONLY, 0)
				if err != nil {
					return
				}
				write(w)
				_ = w.Close()
			}()
			wantContent(t, path)
		})
		t.Run("by descriptor, "+name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = r.Close() }()
			go func() { write(w); _ = w.Close() }()
			wantContent(t, fmt.Sprintf("/dev/fd/%d", r.Fd()))
		})
	}
}

func wantContent(t *testing.T, path string) {
	t.Helper()
	inTime(t, func() {
		data, err := ReadFile(path, 7)
		if err != nil || string(data) != "content" {
			t.Errorf("%q %v", data, err)
		}
	})
}

// TestReadFileEndlessPipe: the limit holds for pipes too.
func TestReadFileEndlessPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	go func() {
		for {
			if _, err := w.WriteString("yes\n"); err != nil {
				return
			}
		}
	}()
	defer func() { _ = w.Close() }()
	inTime(t, func() {
		if _, err := ReadFile(fmt.Sprintf("/dev/fd/%d", r.Fd()), 1000); !errors.Is(err, ErrTooLong) {
			t.Errorf("%v", err)
		}
	})
}
