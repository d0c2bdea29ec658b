package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install/operate"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// pulled is a medium on which one read and all later reads fail.
type pulled struct {
	io.ReaderAt
	left int
	err  error
}

func (p *pulled) ReadAt(b []byte, off int64) (int, error) {
	if p.left--; p.left < 0 {
		return 0, &fs.PathError{Op: "read", Path: "disk.oob.tar", Err: p.err}
	}
	return p.ReaderAt.ReadAt(b, off)
}

// TestFailingMedium: every error of a medium leads to exit status 8, at any read.
func TestFailingMedium(t *testing.T) {
	key := world.NewKey(t)
	file := world.Rich("x").File(t, key)
	policy := verify.Policy{Keys: []verify.Key{key.Trusted}}
	for _, errno := range append(append([]syscall.Errno{}, goneErrors...), mediumErrors...) {
		for at := 0; ; at++ {
			p := &pulled{readerAt(file), at, errno}
			v, err := verify.Open(t.Context(), p, int64(len(file)), policy)
			if err == nil {
				err = v.Payload(t.Context(), bundle.Watch{})
			}
			if err == nil {
				if at == 0 {
					t.Fatal("nothing was read")
				}
				break
			}
			if code := exitCode(operate.OfBundle("disk.oob.tar", err)); code != 8 {
				t.Fatalf("%v at read %d: %d, %v", errno, at, code, err)
			}
		}
		link := fmt.Errorf("x: %w", &os.LinkError{Op: "rename", Old: "a", New: "b", Err: errno})
		if code := exitCode(link); code != 8 {
			t.Errorf("%v of a rename: %d", errno, code)
		}
		// The same error from a network connection is a network error.
		network := fmt.Errorf("%w: %w", remote.ErrRegistry, os.NewSyscallError("connect", errno))
		if code := exitCode(network); code != 7 && errno != syscall.EIO {
			t.Errorf("%v of a connection: %d", errno, code)
		}
	}
}

type readerAt []byte

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(r)) {
		return 0, io.EOF
	}
	n := copy(p, r[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
