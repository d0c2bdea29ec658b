package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// CopyAt copies up to n bytes, but at most len(buf), between two files. It returns how many it
// copied, at least one. Buf then contains these bytes: if the kernel copied them, they are
// read back from the target.
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

// Copy copies r to w through buf and returns the digest and the number of the bytes. If the
// context ends, it returns the context's cause.
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
