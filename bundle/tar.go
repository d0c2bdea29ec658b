package bundle

import (
	"archive/tar"
	"bytes"
)

const (
	blockSize = 512
	// ustarMax is the largest size that a USTAR header can hold (eleven octal
	// digits, POSIX.1-1988); a larger member has a PAX record before it.
	ustarMax = 1<<33 - 1
	// endSize is the size of the two zero blocks after the last member.
	endSize = 2 * blockSize
)

// header returns the one accepted encoding of a member's header: regular file,
// mode 0644, owner 0 without names, time 0.
func header(name string, size int64) []byte {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatUSTAR}
	if size > ustarMax {
		h.Format = tar.FormatPAX
	}
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(h); err != nil {
		panic("bundle: " + err.Error()) // names and sizes are always in range
	}
	return buf.Bytes()
}

// headerSize returns len(header(name, size)) without building the header.
func headerSize(size int64) int64 {
	if size > ustarMax {
		return 3 * blockSize // PAX header, its record, the header itself
	}
	return blockSize
}

// padding returns how many zero bytes follow size bytes of content.
func padding(size int64) int64 { return -size & (blockSize - 1) }
