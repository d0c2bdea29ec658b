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
	// Whatever quotes a path stands in, nothing in it ends them.
	plainPath = regexp.MustCompile(`^[A-Za-z0-9._/@+ -]+$`)
)

// CheckValue reports why a text is no value of a kind, one of ValueKinds. Whether a file
// is there is not looked at.
func CheckValue(kind, s string) error {
	if !utf8.ValidString(s) || strings.IndexFunc(s, notInLine) >= 0 {
		return errors.New("it is more than one line, or no text")
	}
	switch kind {
	case "host":
		if len(s) > 253 || !hostName.MatchString(s) && net.ParseIP(s) == nil {
			return fmt.Errorf("%q is not a host name or an address", s)
		}
	case "port":
		if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
			return fmt.Errorf("%q is not a port from 1 to 65535", s)
		}
	case "number":
		if n, err := strconv.ParseUint(s, 10, 31); err != nil || strconv.FormatUint(n, 10) != s {
			return fmt.Errorf("%q is not a number", s)
		}
	case "name":
		if !plainValue.MatchString(s) {
			return fmt.Errorf("%q is not a name of letters, digits, dots, - and _", s)
		}
	case "flag":
		if s != "true" && s != "false" {
			return fmt.Errorf("%q is neither true nor false", s)
		}
	case "email":
		if a, err := mail.ParseAddress(s); err != nil || a.Address != s {
			return fmt.Errorf("%q is not an address such as admin@example.mil", s)
		}
	case "registry":
		if !registryName.MatchString(s) {
			return fmt.Errorf("%q is not HOST[:PORT][/PREFIX]", s)
		}
	case "file", "directory":
		plain := path.IsAbs(s) && path.Clean(s) == s && plainPath.MatchString(s)
		if !plain && (runtime.GOOS != "windows" || !filepath.IsAbs(s)) {
			return fmt.Errorf("%q is not an absolute path of letters, digits and ._/@+- or space", s)
		}
	}
	return nil
}

// notInLine reports whether a reader of YAML takes a character for the end of a
// line, or for nothing that may stand in a text (YAML 1.2, 5.1 and 5.4): also C1's
// controls, of which U+0085 is a line break, and the byte order mark.
func notInLine(r rune) bool {
	return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 || r == 0xfeff || r&0xfffe == 0xfffe
}
