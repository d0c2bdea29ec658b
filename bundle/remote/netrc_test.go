package remote

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

func TestParseNetrc(t *testing.T) {
	for name, test := range map[string]struct{ text, host, want, err string }{
		"one line":             {"machine a.example login u password p\n", "a.example", "u:p", ""},
		"many lines":           {"machine\n a.example\n\tlogin u\n\tpassword p", "a.example", "u:p", ""},
		"CRLF and a BOM":       {"\ufeffmachine a.example\r\nlogin u\r\npassword p\r\n", "a.example", "u:p", ""},
		"another order":        {"machine a.example password p account x login u\n", "a.example", "u:p", ""},
		"the first counts":     {"machine a.example login u password p\nmachine a.example login v password q\n", "a.example", "u:p", ""},
		"the second machine":   {"machine b.example login v password q machine a.example login u password p", "a.example", "u:p", ""},
		"capitals":             {"machine A.Example login u password p\n", "a.EXAMPLE.", "u:p", ""},
		"a token alone":        {"machine a.example login u\n", "a.example", "u:", ""},
		"no login":             {"machine a.example password p\n", "a.example", "", ""},
		"default":              {"default login u password p\n", "a.example", "", ""},
		"default at the end":   {"machine a.example login u password p\ndefault login v password q\n", "a.example", "u:p", ""},
		"another host":         {"machine a.example login u password p\n", "b.a.example", "", ""},
		"a port":               {"machine a.example:8443 login u password p\n", "a.example", "", ""},
		"quotes":               {`machine a.example login "a b" password "q\"\\\t#"`, "a.example", "a b:q\"\\\t#", ""},
		"empty quotes":         {`machine a.example login u password ""`, "a.example", "u:", ""},
		"a hash in a password": {"machine a.example login u password #p#\n", "a.example", "u:#p#", ""},
		"comments": {"# machine a.example login x password y\nmachine a.example # mine\n login u password p " +
			"# his\n", "a.example", "u:p", ""},
		"words as values": {"machine a.example login machine password default\n", "a.example", "machine:default", ""},
		"a macro": {"macdef init\nmachine a.example login x password y\nbye\n\nmachine a.example login u " +
			"password p\n", "a.example", "u:p", ""},
		"a macro without an end": {"machine a.example login u password p\nmacdef init\nmachine b", "a.example", "u:p", ""},
		"an unknown word": {"machine a.example login u password secret word\nmachine b.example login u " +
			"password p\n", "b.example", "u:p", ""},
		"words of other tools": {"machine x.example login a password b port 993 protocol imap\nmachine a.example user z " +
			"login u password p\n", "a.example", "u:p", ""},
		"before a mistake":        {"machine a.example login u password p\nmachine b.example\n\"secret\n", "a.example", "u:p", "line 3"},
		"no value":                {"machine a.example login", "a.example", "", "value for login"},
		"an unfinished quotation": {"machine a.example login u password \"secret\n", "a.example", "", "line 1"},
		"nothing":                 {"", "a.example", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			logins, err := parseNetrc(test.text)
			if (err == nil) != (test.err == "") ||
				err != nil && (!strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("got %v", err)
			}
			got := ""
			if l, ok := (&netrc{logins: logins}).find(&url.URL{Host: test.host}); ok {
				got = l.user + ":" + l.password
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func netrcSeeds() seeds.Of[string] {
	return seeds.Of[string]{
		Taken: []string{
			"",
			"machine a login b password c",
			"macdef x\ny\n\n",
			"# x\n",
			"default login \"a\\\"b\"",
			"password \x00",
			"x",
			"login a \u2028 b",
		},
		Refused: []string{"\"", "machine", "\"machine\" a \"b"},
	}
}

// FuzzNetrc checks that a login after any text is found, or that an error reports a
// mistake in the text. It also checks that errors do not contain the password.
func FuzzNetrc(f *testing.F) {
	for _, s := range netrcSeeds().All() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { fuzzNetrc(t, text) })
}

func fuzzNetrc(t *testing.T, text string) bool {
	_, alone := parseNetrc(text)
	logins, err := parseNetrc(text + "\n\nmachine host.example login user password secret-word\n")
	if err != nil && strings.Contains(err.Error(), "secret-word") {
		t.Fatal(err)
	}
	if got := logins["host.example"]; alone == nil && got.password == "" && !strings.Contains(text, "machine") {
		t.Fatalf("got %+v, %v of %q", logins, err, text)
	}
	return alone == nil
}

const canary = "canary-password"

// guarded requires a login, and redirects some requests to itself or to another server.
func guarded(other string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.URL.Path, "/redirect"):
			http.Redirect(w, r, other+strings.TrimPrefix(r.URL.Path, "/redirect"), http.StatusFound)
		case r.URL.Path == "/within":
			http.Redirect(w, r, "/file", http.StatusFound)
		case r.URL.Path == "/forbidden":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "not with %s", password)
		case !ok || user != "user" || password != canary:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = io.WriteString(w, "content")
		}
	}
}

// TestNetrc checks that a login is sent to its own host only.
func TestNetrc(t *testing.T) {
	var elsewhere []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
		if r.URL.Path == "/denied" {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = io.WriteString(w, "elsewhere")
	}))
	defer other.Close()
	s := httptest.NewServer(guarded(other.URL))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	const good = "machine 127.0.0.1 login user password " + canary + "\n"
	for name, test := range map[string]struct {
		netrc, path string
		mode        os.FileMode
		https       bool // the host is not in PlainHTTP
		want, warns string
		says        []string
	}{
		"good":                  {netrc: good, path: "/file", want: "content"},
		"a redirect within":     {netrc: good, path: "/within", want: "content"},
		"a redirect elsewhere":  {netrc: good, path: "/redirect/x", want: "elsewhere"},
		"denied elsewhere":      {netrc: good, path: "/redirect/denied", says: []string{"403", host, "another host"}},
		"others can read it":    {netrc: good, path: "/file", mode: 0o644, want: "content", warns: "chmod 600 $NETRC"},
		"the group can read it": {netrc: good, path: "/file", mode: 0o640, want: "content", warns: "chmod 600 $NETRC"},
		"others, unused":        {netrc: "machine b.example login u password p\n", path: "/redirect/x", mode: 0o644, want: "elsewhere"},
		"another host's": {
			netrc: "machine b.example login u password p\n", path: "/file",
			says: []string{"401", host, "$NETRC", "machine 127.0.0.1 login USER password PASSWORD"},
		},
		"the wrong password": {
			netrc: "machine 127.0.0.1 login user password wrong-one\n", path: "/file", says: []string{"401", host, "$NETRC", `user "user"`},
		},
		"forbidden": {netrc: good, path: "/forbidden", says: []string{"403", host, "$NETRC", `user "user"`}},
		"no file":   {path: "/file", says: []string{"401", host, "there is no file $NETRC"}},
		"a bad file": {
			netrc: "machine 127.0.0.1 login user password \"" + canary, path: "/file", says: []string{"401", host, "$NETRC", "line 1"},
		},
		"default":              {netrc: "default login user password " + canary, path: "/file", says: []string{"401", "$NETRC"}},
		"plain http not named": {netrc: good, path: "/file", https: true, says: []string{"--plain-http"}},
	} {
		t.Run(name, func(t *testing.T) {
			elsewhere = nil
			path := filepath.Join(t.TempDir(), "netrc")
			if test.netrc != "" {
				if test.mode == 0 {
					test.mode = 0o600
				}
				if err := os.WriteFile(path, []byte(test.netrc), test.mode); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("NETRC", path)
			var warnings string
			o := Options{Patience: Patience{Pause: 1}, Warn: func(format string, args ...any) { warnings += fmt.Sprintf(format, args...) }}
			if !test.https {
				o.PlainHTTP = []string{host, strings.TrimPrefix(other.URL, "http://")}
			}
			c, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.Page(s.URL + test.path)
			if err != nil {
				t.Fatal(err)
			}
			data, err := p.Read(t.Context(), 100)
			if string(data) != test.want || (err == nil) != (test.says == nil) {
				t.Errorf("got %q, %v", data, err)
			}
			for _, word := range test.says {
				if word = strings.ReplaceAll(word, "$NETRC", path); !strings.Contains(fmt.Sprint(err), word) {
					t.Errorf("%q is not in %v", word, err)
				}
			}
			if want := strings.ReplaceAll(test.warns, "$NETRC", path); !strings.Contains(warnings, want) || want == "" && warnings != "" {
				t.Errorf("warned %q", warnings)
			}
			if text := fmt.Sprint(err) + warnings; strings.Contains(text, canary) || strings.Contains(text, "wrong-one") {
				t.Errorf("a password is in %s", text)
			}
			if strings.Join(elsewhere, "") != "" {
				t.Errorf("the other host was sent %q", elsewhere)
			}
		})
	}
}

// TestNetrcPath checks that NETRC takes precedence over the file in the home directory.
func TestNetrcPath(t *testing.T) {
	t.Setenv("HOME", "/home/x")
	t.Setenv("NETRC", "")
	if got := netrcPath(); got != "/home/x/.netrc" {
		t.Errorf("got %s", got)
	}
	t.Setenv("NETRC", "/else/where")
	if got := netrcPath(); got != "/else/where" {
		t.Errorf("got %s", got)
	}
}

// TestPasswordInURL checks that a URL with a password is refused, and that the message
// names netrc.
func TestPasswordInURL(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Page("https://user:" + canary + "@a.example/x")
	if err == nil || strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), "netrc") {
		t.Errorf("got %v", err)
	}
}
