package verify_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/hostile"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// TestHostileTars checks that tar files made without the key are refused. Package install
// tests the same files with its own code.
func TestHostileTars(t *testing.T) {
	key := world.NewKey(t)
	rows := hostile.HostileTars(t, world.Rich("x").File(t, key))
	names := map[string]bool{}
	for _, row := range rows {
		if names[row.Name] {
			t.Errorf("there are two %q", row.Name)
		}
		names[row.Name] = true
		t.Run(row.Name, func(t *testing.T) {
			err := check(row.Data, trusting(key))
			if !errors.Is(err, row.Want) || !strings.Contains(err.Error(), row.Text) {
				t.Fatalf("got %v, want %v with %q", err, row.Want, row.Text)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x202e }) {
				t.Errorf("the message holds what a terminal obeys: %q", err)
			}
		})
	}
	t.Logf("%d files, all refused", len(rows))
}

// crowd is a head followed by many copies of one header.
type crowd struct {
	head, block []byte
	blocks      int64
}

func (c crowd) size() int64 { return int64(len(c.head)) + c.blocks*512 }

func (c crowd) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		at := off + int64(i)
		switch {
		case at >= c.size():
			return i, io.EOF
		case at < int64(len(c.head)):
			p[i] = c.head[at]
		default:
			p[i] = c.block[(at-int64(len(c.head)))%512]
		}
	}
	return len(p), nil
}

// TestCrowd checks that a million tar entries are refused after reading at most 200,000 bytes.
func TestCrowd(t *testing.T) {
	key := world.NewKey(t)
	file := world.Rich("x").File(t, key)
	head := file[:shape(t, file, trusting(key)).Members[3].Offset]
	for name, start := range map[string][]byte{"behind a good head": head, "from the start": nil} {
		c := crowd{start, world.Header("x", 0), 1_000_000}
		read := &counting{ReaderAt: c}
		if _, err := verify.Open(t.Context(), read, c.size(), trusting(key)); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if read.n > 200_000 {
			t.Errorf("%s: %d bytes were read", name, read.n)
		}
	}
}

type counting struct {
	io.ReaderAt
	n int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}

var errMedium = errors.New("input/output error")

// failing is a medium whose reads fail from a given byte on.
type failing struct {
	*bytes.Reader
	from int64
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, errMedium
	}
	return f.Reader.ReadAt(p, off)
}

// TestFailingMedium checks that a read error at any byte is returned unchanged, and not
// reported as damage, a wrong signature or the end of the file.
func TestFailingMedium(t *testing.T) {
	key := world.NewKey(t)
	file := world.Rich("x").File(t, key)
	tried := 0
	for from := int64(0); from < int64(len(file)); from += 97 {
		tried++
		v, err := verify.Open(t.Context(), failing{bytes.NewReader(file), from}, int64(len(file)), trusting(key))
		if err == nil {
			err = v.Payload(t.Context(), bundle.Watch{})
		}
		if !errors.Is(err, errMedium) || refusedAsDamaged(err) {
			t.Fatalf("from byte %d: %v", from, err)
		}
	}
	t.Logf("%d places at which the medium fails", tried)
}

// TestShrinking checks that a file that becomes shorter while it is read is refused.
func TestShrinking(t *testing.T) {
	key := world.NewKey(t)
	file := world.Rich("x").File(t, key)
	for n := 0; n < len(file); n += 511 {
		if err := func() error {
			v, err := verify.Open(t.Context(), bytes.NewReader(file[:n]), int64(len(file)), trusting(key))
			if err != nil {
				return err
			}
			return v.Payload(t.Context(), bundle.Watch{})
		}(); !errors.Is(err, bundle.ErrFormat) {
			t.Fatalf("to %d bytes: %v", n, err)
		}
	}
}
