package bundle

import (
	"bytes"
	"errors"
)

// errUTF16 reports a text in UTF-16, which Windows programs write, and how to convert it.
var errUTF16 = errors.New("it is in UTF-16, as Notepad and > in PowerShell write it; " +
	"convert it with iconv -f UTF-16 -t UTF-8, or write it with Out-File -Encoding ascii")

// PlainText returns a text without the UTF-8 byte order mark. It refuses UTF-16, which it
// recognizes by a byte order mark or by zeros in every other of the first four bytes. It is
// for ASCII formats (PEM).
func PlainText(data []byte) ([]byte, error) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, errUTF16
	}
	if len(data) >= 4 {
		even, odd := data[0] == 0 && data[2] == 0, data[1] == 0 && data[3] == 0
		if even != odd {
			return nil, errUTF16
		}
	}
	return bytes.TrimPrefix(data, []byte("\ufeff")), nil
}
