package world

import (
	"archive/tar"
	"bytes"
)

// Header returns a tar header as the format requires it, made without package bundle.
func Header(name string, size int64) []byte {
	var buf bytes.Buffer
	Must(tar.NewWriter(&buf).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatUSTAR}))
	return buf.Bytes()
}
