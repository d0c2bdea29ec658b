package bundle

import (
	"errors"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// The ways in which a bundle can be refused. Every error of this package that is not of
// package disk or the file system's wraps exactly one of them; the command line gives each
// its exit code.
var (
	// ErrFormat says that the bytes are not a canonical bundle: damaged, cut
	// short, extended, or never one.
	ErrFormat = errors.New("damaged, or not a bundle")
	// ErrDigest says that bytes do not have the digest that their parent names.
	ErrDigest = errors.New("damaged")
	// ErrLimit says that a size or a count is beyond what a bundle may have. It is
	// disk.ErrTooLong, which a file beyond its limit is.
	ErrLimit = disk.ErrTooLong
	// ErrSignature says that a signature is missing, malformed or wrong.
	ErrSignature = errors.New("signature not accepted")
	// ErrPolicy says that the bytes are good and a rule of the site, or of
	// the author's own manifest and lock, refuses them.
	ErrPolicy = errors.New("refused by policy")
	// ErrNewer says that the document was made by a newer program.
	ErrNewer = errors.New("made by a newer oob-bundle")
)

// Kinds of the above, and of disk.ErrNotFile, about which there is more to say.
var (
	// ErrOther says that a file is no bundle and was never one; it is an ErrFormat.
	ErrOther error = &kindError{"not a bundle", ErrFormat}
	// ErrPart says that a path names one part of a bundle, and not the first; it is
	// a disk.ErrNotFile.
	ErrPart error = &kindError{"not the whole bundle", disk.ErrNotFile}
)

type kindError struct {
	text string
	of   error
}

func (e *kindError) Error() string { return e.text }
func (e *kindError) Unwrap() error { return e.of }
