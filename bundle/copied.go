package bundle

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// PaddingError reports zeros after the end of a bundle, as in copies from a tape or a raw
// disc. It wraps ErrFormat.
type PaddingError struct {
	Bytes    int64  // zeros after the end
	Path     string // of the file or last part with the zeros; may be empty
	Keep     int64  // the size of that file without the zeros, bytes
	Verified bool   // whether Keep comes from a bundle with a good signature

	what string
}

// Error implements error.
func (p *PaddingError) Error() string {
	text := fmt.Sprintf("%v: %s, all zero, as in a copy from a tape or a raw disc", ErrFormat, p.what)
	if !p.Verified {
		return text + "; oob-bundle verify checks the signature and names the command that removes them"
	}
	path := p.Path
	if path == "" {
		path = "FILE"
	}
	return fmt.Sprintf("%s; the signature is good: run truncate -s %d %s", text, p.Keep, disk.ShellWord(path))
}

// Unwrap returns ErrFormat.
func (p *PaddingError) Unwrap() error { return ErrFormat }

// maxPadding is the largest number of bytes after a bundle that are checked for padding. Tapes
// pad to a record of at most 16 MiB.
const maxPadding = 16 << 20

// padding returns an error if only zeros, at most maxPadding of them, follow the bundle of
// size bytes. Otherwise it returns nil.
func (b *boundedReader) padding(size int64) *PaddingError {
	p := &PaddingError{Bytes: b.size - size, Keep: size, what: b.misfit(size)}
	if p.what == "" {
		p.what = fmt.Sprintf("%d bytes follow the end of the bundle", p.Bytes)
	}
	if v, ok := b.r.(volumes); ok {
		if p.Path, p.Keep = v.last(size); p.Path == "" {
			return nil
		}
	}
	if p.Bytes > maxPadding {
		return nil
	}
	tail := io.NewSectionReader(b.r, size, p.Bytes)
	buf := make([]byte, 64<<10)
	for {
		n, err := tail.Read(buf)
		if strings.Trim(string(buf[:n]), "\x00") != "" {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return p
		}
		if err != nil {
			return nil //nolint:nilerr // unreadable bytes are not known to be padding
		}
	}
}

// last returns the path of the last part, and how many of its bytes belong to the first size
// bytes of the bundle. The path is empty if none do.
func (f *File) last(size int64) (string, int64) {
	n := len(f.parts) - 1
	before := int64(n) * f.each
	if n > 0 && size <= before {
		return "", 0
	}
	return f.parts[n].Name(), size - before
}

// cutBy names what cuts files at the given size, or returns "". Some programs stop at the last
// whole block below a limit, so that sizes just below it count too.
func cutBy(size int64) string {
	const block = 64 << 10
	var what string
	switch {
	case size > disk.MaxFAT32-block && size <= disk.MaxFAT32:
		what = "FAT32 file systems cut files at 4 GiB"
	case size > math.MaxInt32-block && size <= math.MaxInt32:
		what = "old programs and file systems cut files at 2 GiB"
	default:
		return ""
	}
	return fmt.Sprintf(
		"; %s: use another file system (exFAT, ext4, NTFS), or let create write parts with --volume-size %d",
		what, size/4096*4096,
	)
}
