// Package network simulates an internet inside a test: names, hosts, proxies, logins, and
// their faults. It records every request to each host.
package network

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// Internet is a simulated internet: named hosts on loopback, certificates, a name server, and
// a record of every request to any host.
type Internet struct {
	CAFile string // path of the authority's certificate

	tb      testing.TB
	ca      authority
	names   net.PacketConn
	mu      sync.Mutex
	answers map[string]Answer
	sent    []sent
}

// sent is one request to a host, in clear text.
type sent struct {
	host, head string
	body       *recordedBody
}

func (s sent) text() string { return s.head + s.body.String() }

// NewInternet starts an internet that ends with the test.
func NewInternet(tb testing.TB) *Internet {
	tb.Helper()
	n := &Internet{tb: tb, ca: newAuthority(tb), answers: map[string]Answer{}}
	n.CAFile = filepath.Join(tb.TempDir(), "ca.pem")
	world.Write(tb, n.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.ca.certificate.Raw}), 0o644)
	var err error
	if n.names, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { shut(n.names) })
	go n.answer()
	return n
}

// Answer is the name server's answer for a name.
type Answer struct {
	Address netip.Addr       // no address record if it is not valid
	Code    dnsmessage.RCode // error code; 0 means success
	Silent  bool
}

// Name sets the name server's answer for a name. Other names do not exist.
func (n *Internet) Name(name string, a Answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[name+"."] = a
}

// Resolver returns a resolver that uses only this internet's name server.
func (n *Internet) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", n.names.LocalAddr().String())
	}}
}

func (n *Internet) answer() {
	buf := make([]byte, 1500)
	for {
		size, from, err := n.names.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:size]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		n.mu.Lock()
		a, ok := n.answers[q.Name.String()]
		n.mu.Unlock()
		if a.Silent {
			continue
		}
		m.Response, m.Additionals = true, nil
		m.RCode = a.Code
		header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}
		switch {
		case !ok:
			m.RCode = dnsmessage.RCodeNameError
		case a.Address.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: a.Address.As4()}}}
		case a.Address.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.Address.As16()}}}
		}
		packed, err := m.Pack()
		world.Must(err)
		_, _ = n.names.WriteTo(packed, from)
	}
}

// record records every request to a host before its handler runs.
func (n *Internet) record(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := r.Method + " " + r.URL.String() + " " + r.Host + "\n"
		for k, list := range r.Header {
			for _, v := range list {
				text += k + ": " + v + "\n"
				_, encoded, _ := strings.Cut(v, " ")
				if plain, err := base64.StdEncoding.DecodeString(encoded); err == nil {
					text += string(plain) + "\n"
				}
			}
		}
		body := &recordedBody{ReadCloser: r.Body}
		r.Body = body
		n.mu.Lock()
		n.sent = append(n.sent, sent{host, text, body})
		n.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// recordedBody records the part of a body that is read.
type recordedBody struct {
	io.ReadCloser
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p[:n])
	return n, err
}

func (b *recordedBody) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Sent returns the requests to a host that contain a text.
func (n *Internet) Sent(host, text string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for _, s := range n.sent {
		if whole := s.text(); s.host == host && strings.Contains(whole, text) {
			list = append(list, whole)
		}
	}
	return list
}

// Requests counts the requests to a host that contain a text.
func (n *Internet) Requests(host, text string) int { return len(n.Sent(host, text)) }

// Canary is a secret and the hosts that may receive it.
type Canary struct {
	Value string
	Hosts []string
}

// Leaks searches for canaries where they must not be: in requests to any other host, in the
// output texts of a run, and in every file below the directories. It returns one line for each
// leak, and the number of places it searched.
func (n *Internet) Leaks(canaries []Canary, texts []string, dirs ...string) (found []string, looked int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range canaries {
		for _, s := range n.sent {
			looked++
			if !slices.Contains(c.Hosts, s.host) && strings.Contains(s.text(), c.Value) {
				found = append(found, fmt.Sprintf("%s was sent %s: %s", s.host, c.Value, s.text()))
			}
		}
		for _, text := range texts {
			looked++
			if strings.Contains(text, c.Value) {
				found = append(found, fmt.Sprintf("%s is in the output: %s", c.Value, text))
			}
		}
		for _, dir := range dirs {
			world.Must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				looked++
				data, err := os.ReadFile(path)
				if bytes.Contains(data, []byte(c.Value)) {
					found = append(found, fmt.Sprintf("%s is in %s", c.Value, path))
				}
				return err
			}))
		}
	}
	return found, looked
}

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(tb testing.TB) authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	world.Must(err)
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority for tests"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	world.Must(err)
	c, err := x509.ParseCertificate(der)
	world.Must(err)
	return authority{c, key}
}

// issue issues a certificate for a name. Change, if not nil, changes the template first.
func (a authority) issue(name string, change func(*x509.Certificate)) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	world.Must(err)
	t := &x509.Certificate{
		SerialNumber: big.NewInt(
			2,
		),
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore:   time.Now().Add(-time.Hour),
		NotAfter:    time.Now().Add(time.Hour),
	}
	if change != nil {
		change(t)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.certificate, key.Public(), a.key)
	world.Must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

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

// Names of the hosts.
const (
	HostName      = "registry.test"
	ElsewhereName = "elsewhere.example"
	ProxyName     = "proxy"
)

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

func localhost() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// listen starts a TLS server and returns its port. H, if not nil, describes how the server
// misbehaves.
func (n *Internet) listen(name string, next http.Handler, h *Host) (port string) {
	n.tb.Helper()
	s := httptest.NewUnstartedServer(n.record(name, next))
	if h != nil && h.IPv6 {
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			n.tb.Skip("this machine has no IPv6:", err)
		}
		shut(s.Listener)
		s.Listener = l
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	good := n.ca.issue(name, nil)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{good}}
	s.EnableHTTP2 = h != nil && h.HTTP2
	if h != nil && h.TLS != nil {
		s.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := &tls.Config{Certificates: []tls.Certificate{good}, NextProtos: s.TLS.NextProtos}
			if h.on.Load() {
				h.TLS(h, c)
			}
			return c, nil
		}
	}
	s.StartTLS()
	n.tb.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	world.Must(err)
	return port
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
