package bundle

import (
	"errors"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// The reasons to refuse a bundle. Every error of this package about a bundle wraps at least
// one of them, unless it comes from package disk or the file system. The command line gives
// each of them an exit code.
var (
	// ErrFormat reports bytes that are not a canonical bundle: damaged, cut short, extended,
	// or never a bundle.
	ErrFormat = errors.New("damaged, or not a bundle")
	// ErrDigest reports bytes that do not have the digest that their parent names.
	ErrDigest = errors.New("damaged")
	// ErrLimit reports a size or a count above a limit of the format. It is the same error as
	// disk.ErrTooLong, which reports a file above its limit.
	ErrLimit = disk.ErrTooLong
	// ErrSignature reports a signature that is missing, malformed or wrong.
	ErrSignature = errors.New("signature not accepted")
	// ErrPolicy reports good bytes that a rule refuses: a rule of the site, a rule of the
	// author's own manifest and lock, or the rule that content must not need a download.
	ErrPolicy = errors.New("refused by policy")
	// ErrNewer reports a document that a newer program made.
	ErrNewer = errors.New("made by a newer oob-bundle")
)

// More specific errors. Each wraps an error of the list above, or disk.ErrNotFile.
var (
	// ErrOther reports a file that never was a bundle; it wraps ErrFormat.
	ErrOther error = &kindError{"not a bundle", ErrFormat}
	// ErrPart reports the path of a later part of a bundle, or a missing path beside which
	// parts or a file with a similar name are; it wraps disk.ErrNotFile.
	ErrPart error = &kindError{"not the whole bundle", disk.ErrNotFile}
)

type kindError struct {
	text string
	of   error
}

func (e *kindError) Error() string { return e.text }
func (e *kindError) Unwrap() error { return e.of }
