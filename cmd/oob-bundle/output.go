package main

import (
	"errors"
	"io"
	"os"
)

// errOutputClosed reports that standard output is closed.
var errOutputClosed = errors.New("standard output is closed (>&-); redirect it to a file or to /dev/null")

// output is standard output. It keeps the first write error, because cobra ignores the errors
// of writing help and completions.
type output struct {
	w      io.Writer
	failed error
}

func newOutput(w io.Writer) *output {
	o := &output{w: w}
	if w == os.Stdout && outputClosed() {
		o.failed = errOutputClosed
	}
	return o
}

func (o *output) Write(p []byte) (int, error) {
	if o.failed != nil {
		return 0, o.failed
	}
	n, err := o.w.Write(p)
	o.failed = err
	return n, err
}
