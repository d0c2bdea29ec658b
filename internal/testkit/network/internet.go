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
	"encoding/pem"
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
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

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

// Names of the hosts.
const (
	HostName      = "registry.test"
	ElsewhereName = "elsewhere.example"
	ProxyName     = "proxy"
)

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
