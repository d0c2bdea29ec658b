package network

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// Fault is one way in which a registry, or the way to it, fails, and the expected result of a
// run.
type Fault struct {
	Name  string
	Class error    // expected error class; nil means that the run succeeds nevertheless
	Says  []string // texts in the message; $HOST stands for the registry's address

	Mode    Mode                                // nil answers normally
	TLS     func(h *Host, c *tls.Config)        // nil uses TLS normally
	Answer  func(tb testing.TB, h *Host) Answer // the name server's answer; nil resolves the name
	Env     func(h *Host) map[string]string     // environment variables to set; nil sets none
	Options func(h *Host, o *remote.Options)    // nil changes no options
	After   func(tb testing.TB, h *Host)        // a further check after the run; nil for none

	Finally   func(tb testing.TB, h *Host) // a further check after the fault is gone and another run has succeeded
	HTTP2     bool                         // the registry uses HTTP/2
	Hurry     bool                         // short idle timeout
	Anonymous bool                         // without a login
	Wrong     bool                         // with a wrong password
	Basic     bool                         // the password is sent each time, instead of a token
	IPv6      bool                         // the host has only an IPv6 address
}

// Mode handles a request in place of the registry. It returns false to leave the request to
// the registry.
type Mode func(h *Host, w http.ResponseWriter, r *http.Request) bool

// Host is a registry on an Internet, with TLS and an account.
type Host struct {
	Fault
	Address   string // NAME:PORT
	Elsewhere string // NAME:PORT of a host in another domain with the same content
	Net       *Internet
	Canaries  []Canary
	Hits      atomic.Int64 // of the mode

	name   string
	docker string // for DOCKER_CONFIG
	login  *login
	on     atomic.Bool
}

// Account is the user name for a host.
const Account = "canary-user"

// Serve starts a registry that requires a login and can misbehave as f describes. The fault
// starts switched off.
func (n *Internet) Serve(next http.Handler, f Fault) *Host {
	n.tb.Helper()
	password := "canary-password-" + rand.Text()
	h := &Host{Net: n, Fault: f, name: HostName, login: &login{next: next, password: password, basic: f.Basic}}
	h.Canaries = []Canary{
		{password, []string{HostName}}, {"canary-token", []string{HostName}}, {"canary-query", []string{ElsewhereName}},
		{base64.StdEncoding.EncodeToString([]byte(Account + ":" + password)), []string{HostName}},
	}
	h.Elsewhere = ElsewhereName + ":" + n.listen(ElsewhereName, next, nil)
	n.Name(ElsewhereName, Answer{Address: localhost()})
	h.Address = HostName + ":" + n.listen(HostName, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.on.Load() || h.Mode == nil || !h.Mode(h, w, r) {
			h.login.ServeHTTP(w, r)
		}
	}), h)
	h.docker = n.tb.TempDir()
	if f.Wrong {
		h.Canaries = append(h.Canaries, Canary{wrongPassword, []string{HostName}})
	}
	h.Misbehave(false)
	return h
}

const wrongPassword = "canary-password-of-yesterday"

func (h *Host) writeLogin(password string) {
	config, err := json.Marshal(map[string]any{"auths": map[string]any{h.Address: map[string]string{
		"auth": base64.StdEncoding.EncodeToString([]byte(Account + ":" + password)),
	}}})
	world.Must(err)
	world.Write(h.Net.tb, filepath.Join(h.docker, "config.json"), config, 0o600)
}

// connKey is the context key of a request's connection.
type connKey struct{}

// Misbehave turns the fault on or off.
func (h *Host) Misbehave(on bool) {
	a := Answer{Address: localhost()}
	if h.IPv6 {
		a.Address = netip.IPv6Loopback()
	}
	if on && h.Answer != nil {
		a = h.Answer(h.Net.tb, h)
	}
	h.Net.Name(h.name, a)
	h.on.Store(on)
}

// Client returns a client for the next run. It uses the login and the environment of the fault
// if the fault is on, and otherwise the right ones.
func (h *Host) Client(t *testing.T) *remote.Client {
	t.Helper()
	on := h.on.Load()
	for _, v := range []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"} {
		t.Setenv(v, "")
		t.Setenv(strings.ToLower(v), "")
	}
	if on && h.Env != nil {
		for k, v := range h.Env(h) {
			t.Setenv(k, v)
		}
	}
	h.writeLogin(h.login.password)
	if on && h.Wrong {
		h.writeLogin(wrongPassword)
	}
	t.Setenv("DOCKER_CONFIG", h.docker)
	if on && h.Anonymous {
		t.Setenv("DOCKER_CONFIG", t.TempDir())
	}
	o := remote.Options{CAFile: h.Net.CAFile, Resolver: h.Net.Resolver(), UserAgent: "test"}
	o.Patience = remote.Patience{Idle: 20 * time.Second, Pause: time.Millisecond, RetryAfter: 3 * time.Second}
	if on && h.Hurry {
		o.Patience.Idle = 200 * time.Millisecond
	}
	if on && h.Options != nil {
		h.Options(h, &o)
	}
	c, err := remote.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Good returns the registry's correct answer. It ignores Range and returns the whole content.
func (h *Host) Good(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.Header.Del("Range")
	h.login.ServeHTTP(w, r)
	return w
}

// Revoke makes the registry's issued tokens invalid.
func (h *Host) Revoke() { h.login.issued.Add(1) }

// login is a registry with one account. Its tokens are valid until they are revoked.
type login struct {
	next     http.Handler
	password string
	basic    bool
	issued   atomic.Int64
}

func (l *login) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	known := user == Account && password == l.password
	token := fmt.Sprintf("canary-token-%d", l.issued.Load())
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/token" && known:
		fmt.Fprintf(w, `{"token":%q}`, token)
	case r.URL.Path == "/token":
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`)
	case l.basic && known || !l.basic && r.Header.Get("Authorization") == "Bearer "+token:
		w.Header().Del("Content-Type")
		l.next.ServeHTTP(w, r)
	case l.basic:
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
	default:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="registry"`, r.Host))
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// Proxy starts a proxy and returns its URL, which contains a login. The proxy answers CONNECT
// with a status; if that is 200, it connects to the host.
func (h *Host) Proxy(status int) string {
	n := h.Net
	password := "canary-proxy-" + rand.Text()
	h.Canaries = append(h.Canaries, Canary{password, []string{ProxyName}})
	s := httptest.NewServer(n.record(ProxyName, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status != http.StatusOK || r.Method != http.MethodConnect {
			w.WriteHeader(status)
			return
		}
		_, port, _ := net.SplitHostPort(r.Host)
		to, err := net.Dial("tcp", "127.0.0.1:"+port)
		world.Must(err)
		from, _, err := http.NewResponseController(w).Hijack()
		world.Must(err)
		fmt.Fprint(from, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { _, _ = io.Copy(to, from); shut(to) }()
		_, _ = io.Copy(from, to)
		shut(from)
	})))
	n.tb.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return strings.Replace(s.URL, "http://", "http://someone:"+password+"@", 1)
}

// Problems returns the unexpected properties of a run: its error class, its message, and
// leaked canaries. Texts is all output besides the error.
func (h *Host) Problems(err error, texts []string, dirs ...string) (list []string, looked int) {
	for _, other := range otherClasses() {
		if h.Class != nil && errors.Is(err, other) && !errors.Is(h.Class, other) {
			list = append(list, fmt.Sprintf("it counts as %q: %v", other, err))
		}
	}
	if !errors.Is(err, h.Class) {
		list = append(list, fmt.Sprintf("got %v", err))
	}
	text := fmt.Sprint(err)
	for _, want := range h.Says {
		if want = strings.ReplaceAll(want, "$HOST", h.Address); !strings.Contains(text, want) {
			list = append(list, fmt.Sprintf("the message lacks %q: %s", want, text))
		}
	}
	if strings.Contains(text, "goroutine ") || len(text) > 2000 || strings.Contains(text, "\x1b") {
		list = append(list, "not a message for people: "+text)
	}
	found, looked := h.Net.Leaks(h.Canaries, append(texts, text), dirs...)
	return append(list, found...), looked
}

// otherClasses returns the errors that come before network errors in the command line's table
// of exit codes.
func otherClasses() []error {
	return []error{
		disk.ErrSpace, bundle.ErrPolicy, bundle.ErrNewer, bundle.ErrSignature, fs.ErrPermission, syscall.ENOSPC, syscall.EROFS,
		context.Canceled, install.ErrIncomplete, install.ErrLocked,
	}
}
