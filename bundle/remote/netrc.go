package remote

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// Logins for web servers come from a netrc file, as for curl and the go command: Basic
// authentication, by host name. The entry "default" is ignored: it would send a login to
// every host that an index names.

// maxNetrc bounds a netrc file, in bytes.
const maxNetrc = 1 << 20

// netrc is a file of logins.
type netrc struct {
	path   string // "" if no path is known
	logins map[string]netrcLogin
	err    error // why the file cannot be read or parsed; logins before the mistake are valid
	open   bool  // other users can read the file
}

type netrcLogin struct{ user, password string }

// netrcPath returns the path of the netrc file: $NETRC, or a file in the home directory.
func netrcPath() string {
	if path := os.Getenv("NETRC"); path != "" {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	path := filepath.Join(home, ".netrc")
	if runtime.GOOS != "windows" {
		return path
	}
	other := filepath.Join(home, "_netrc")
	if _, err := os.Stat(other); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return other
}

// readNetrc reads a file of logins, which need not exist.
func readNetrc(path string) *netrc {
	n := &netrc{path: path}
	if path == "" {
		return n
	}
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		n.err = err
		return n
	case !fi.Mode().IsRegular(): // a pipe would block
		n.err = errors.New("it is not a regular file")
		return n
	}
	n.open = runtime.GOOS != "windows" && fi.Mode().Perm()&0o077 != 0
	f, err := disk.OpenRegular(path)
	if err != nil {
		n.err = err
		return n
	}
	data, err := io.ReadAll(io.LimitReader(f, maxNetrc+1))
	if err = errors.Join(err, f.Close()); err == nil && len(data) > maxNetrc {
		err = fmt.Errorf("it has more than %d bytes", maxNetrc)
	}
	if err != nil {
		n.err = err
		return n
	}
	n.logins, n.err = parseNetrc(string(data))
	return n
}

// parseNetrc returns the logins by lower-case host name. Errors name the line of the
// mistake, or the keyword that lacks a value at the end, and never quote the file. With an
// error, parseNetrc returns the logins before the mistake.
func parseNetrc(text string) (map[string]netrcLogin, error) {
	p := netrcParser{logins: map[string]netrcLogin{}}
	for i, line := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		if p.macro {
			p.macro = strings.TrimSpace(line) != ""
			continue
		}
		if err := p.line(line); err != nil {
			return p.logins, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if p.field != "" {
		return p.logins, fmt.Errorf("it ends without a value for %s", p.field)
	}
	p.keep()
	return p.logins, nil
}

// netrcParser is the state of a netrc parser.
type netrcParser struct {
	logins map[string]netrcLogin
	host   string // of the entry; "" for none, or for "default"
	login  netrcLogin
	field  string // the keyword whose value is the next word, or ""
	macro  bool   // inside a macro, which ends at the next empty line
}

// keep ends an entry. Of several entries for one host, the first is valid.
func (p *netrcParser) keep() {
	if _, again := p.logins[p.host]; p.host != "" && p.login.user != "" && !again {
		p.logins[p.host] = p.login
	}
	p.host, p.login = "", netrcLogin{}
}

func (p *netrcParser) line(line string) error {
	for {
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line == "" || p.field == "" && line[0] == '#' {
			return nil
		}
		word, rest, err := netrcWord(line)
		if err != nil {
			return err
		}
		line = rest
		switch {
		case p.field != "":
			p.value(word)
		case word == "machine", word == "default":
			p.keep()
			if word == "machine" {
				p.field = word
			}
		case word == "login", word == "password", word == "account":
			p.field = word
		case word == "macdef":
			p.macro = true
			return nil
		} // like curl, skip other words, such as port
	}
}

func (p *netrcParser) value(word string) {
	switch p.field {
	case "machine":
		p.host = hostKey(word)
	case "login":
		p.login.user = word
	case "password":
		p.login.password = word
	}
	p.field = ""
}

// hostKey returns a host name in the form that is compared.
func hostKey(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }

// netrcWord splits off the first word of a line. Like in curl, a word in double quotes may
// contain escapes.
func netrcWord(line string) (word, rest string, err error) {
	if line[0] != '"' {
		end := strings.IndexFunc(line, unicode.IsSpace)
		if end < 0 {
			end = len(line)
		}
		return line[:end], line[end:], nil
	}
	escapes := map[byte]byte{'n': '\n', 'r': '\r', 't': '\t'}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		switch {
		case line[i] == '"':
			return b.String(), line[i+1:], nil
		case line[i] == '\\' && i+1 < len(line):
			i++
			b.WriteByte(cmp.Or(escapes[line[i]], line[i]))
		default:
			b.WriteByte(line[i])
		}
	}
	return "", "", errors.New("it has a quoted word without an end")
}

// find returns the login for the host of a URL.
func (n *netrc) find(u *url.URL) (netrcLogin, bool) {
	login, ok := n.logins[hostKey(u.Hostname())]
	return login, ok
}

// denied returns the advice for a server that refused a request, with or without a login.
func (n *netrc) denied(u *url.URL) string {
	host := u.Hostname()
	if login, ok := n.find(u); ok {
		return fmt.Sprintf("; asked as user %q of %s: correct the login of machine %s there", login.user, n.path, host)
	}
	line := fmt.Sprintf("machine %s login USER password PASSWORD", host)
	switch {
	case n.path == "":
		return fmt.Sprintf("; it was asked without a login: write %q into a file, and its path into NETRC", line)
	case errors.Is(n.err, fs.ErrNotExist):
		return fmt.Sprintf("; it was asked without a login, as there is no file %s: write %q into it", n.path, line)
	case n.err != nil:
		return fmt.Sprintf("; it was asked without a login, as %s cannot be used: %v", n.path, n.err)
	}
	return fmt.Sprintf("; it was asked without a login, as %s has none for machine %s: write %q into it", n.path, host, line)
}

// netrcTransport adds a login to requests to one origin, and to no others.
type netrcTransport struct {
	login  netrcLogin
	origin *url.URL
	next   http.RoundTripper
}

func (t netrcTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == t.origin.Scheme && req.URL.Host == t.origin.Host {
		req = req.Clone(req.Context())
		req.SetBasicAuth(t.login.user, t.login.password)
	}
	return t.next.RoundTrip(req)
}
