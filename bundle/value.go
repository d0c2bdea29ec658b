package bundle

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	hostName     = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)
	plainValue   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	registryName = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
	// A plain path contains no character that ends any kind of quotes.
	plainPath = regexp.MustCompile(`^[A-Za-z0-9._/@+ -]+$`)
)

// valueKinds are the kinds of values, with the description and the check of each.
var valueKinds = map[string]struct {
	is string
	ok func(s string) bool
}{
	"":         {"a text", func(string) bool { return true }},
	"host":     {"a host name or an address", isHost},
	"port":     {"a port from 1 to 65535", func(s string) bool { return s != "0" && isNumber(s, 16) }},
	"number":   {"a number", func(s string) bool { return isNumber(s, 31) }},
	"name":     {"a name of letters, digits, dots, - and _", plainValue.MatchString},
	"flag":     {"true or false", func(s string) bool { return s == "true" || s == "false" }},
	"email":    {"an address such as admin@example.mil", isEmail},
	"registry": {"HOST[:PORT][/PREFIX]", registryName.MatchString},

	"file":      {"an absolute path of letters, digits and ._/@+- or space", isPlainPath},
	"directory": {"an absolute path of letters, digits and ._/@+- or space", isPlainPath},
}

// CheckValue returns an error if s is not a value of the given kind, one of ValueKinds. It
// does not check whether a file exists.
func CheckValue(kind, s string) error {
	if !utf8.ValidString(s) || strings.IndexFunc(s, notInLine) >= 0 {
		return errors.New("it is not one line of text")
	}
	if k, known := valueKinds[kind]; known && !k.ok(s) {
		return fmt.Errorf("%q is not %s", s, k.is)
	}
	return nil
}

// isHost reports whether s is a host name (RFC 1123, section 2.1) or an address.
func isHost(s string) bool { return len(s) <= 253 && hostName.MatchString(s) || net.ParseIP(s) != nil }

// isNumber reports whether s is a number of at most that many bits, without a sign or leading
// zeros.
func isNumber(s string, bits int) bool {
	n, err := strconv.ParseUint(s, 10, bits)
	return err == nil && strconv.FormatUint(n, 10) == s
}

func isEmail(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s
}

func isPlainPath(s string) bool {
	plain := path.IsAbs(s) && path.Clean(s) == s && plainPath.MatchString(s)
	return plain || runtime.GOOS == "windows" && filepath.IsAbs(s)
}

// notInLine reports whether a YAML reader takes r for a line end, or refuses it in a text
// (YAML 1.2, 5.1 and 5.4). These include the C1 controls, of which U+0085 is a line break, and
// the byte order mark.
func notInLine(r rune) bool {
	return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 || r == 0xfeff || r&0xfffe == 0xfffe
}
