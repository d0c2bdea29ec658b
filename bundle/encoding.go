package bundle

import (
	"bytes"
	"errors"
)

// errUTF16 says how to convert a text that Windows wrote.
var errUTF16 = errors.New("it is in UTF-16, as Notepad and > in PowerShell write it; " +
	"convert it with iconv -f UTF-16 -t UTF-8, or write it with Out-File -Encoding ascii")

// PlainText returns a text without the byte order mark of UTF-8, and refuses UTF-16: with
// a mark, or where every other of the first bytes is zero. It is for ASCII formats (PEM).
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
