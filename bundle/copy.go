package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// CopyAt copies len(buf) bytes, or n if that is less, between two files and
// returns how many it copied, at least one. Buf has the copied bytes then: what
// stands in the target, read back if the kernel did the copying.
func CopyAt(to *File, toOff int64, from *File, fromOff, n int64, buf []byte) (int, error) {
	n = min(n, int64(len(buf)))
	if fromOff >= from.size || toOff >= to.size {
		return 0, io.ErrUnexpectedEOF
	}
	dst, dstOff := to.at(toOff)
	src, srcOff := from.at(fromOff)
	n = min(n, dst.size-dstOff, src.size-srcOff)
	copied, err := disk.CopyRange(dst.File, dstOff, src.File, srcOff, n)
	if err == nil {
		_, err = io.ReadFull(io.NewSectionReader(dst, dstOff, copied), buf[:copied])
		return int(copied), err
	}
	if !errors.Is(err, disk.ErrNoCopy) {
		return 0, err
	}
	if _, err := io.ReadFull(io.NewSectionReader(src, srcOff, n), buf[:n]); err != nil {
		return 0, err
	}
	_, err = dst.WriteAt(buf[:n], dstOff)
	return int(n), err
}

// Copy copies r to w by way of buf, until the context ends, and returns the digest
// and the number of the bytes.
func Copy(ctx context.Context, w io.Writer, r io.Reader, buf []byte) (Digest, int64, error) {
	h := sha256.New()
	var total int64
	for {
		if ctx.Err() != nil {
			return "", total, context.Cause(ctx)
		}
		n, readErr := r.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return "", total, err
		}
		h.Write(buf[:n])
		total += int64(n)
		if errors.Is(readErr, io.EOF) {
			return DigestFrom(h.Sum(nil)), total, nil
		}
		if readErr != nil {
			return "", total, readErr
		}
	}
}
