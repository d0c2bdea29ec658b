package bundle

import (
	"strings"
	"testing"
	"unicode/utf16"
)

func encode16(text string, big bool) []byte {
	var data []byte
	for _, u := range utf16.Encode([]rune(text)) {
		high, low := byte(u>>8), byte(u)
		if big {
			data = append(data, high, low)
		} else {
			data = append(data, low, high)
		}
	}
	return data
}

// TestPlainText: the byte order mark of UTF-8 is removed, and the error for UTF-16 names it.
func TestPlainText(t *testing.T) {
	const text = "-----BEGIN PUBLIC KEY-----\n"
	for name, data := range map[string][]byte{"plain": []byte(text), "with a mark": []byte("\ufeff" + text)} {
		if got, err := PlainText(data); err != nil || string(got) != text {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	for name, data := range map[string][]byte{
		"little endian":                 encode16("\ufeff"+text, false),
		"big endian":                    encode16("\ufeff"+text, true),
		"little endian without a mark":  encode16(text, false),
		"big endian without a mark":     encode16(text, true),
		"a mark and nothing else":       {0xff, 0xfe},
		"little endian, an empty line":  encode16("\n"+text, false),
		"little endian, with a comment": encode16("# key\r\n"+text, false),
	} {
		if _, err := PlainText(data); err == nil || !strings.Contains(err.Error(), "UTF-16") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
