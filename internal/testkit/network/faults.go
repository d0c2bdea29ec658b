package network

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// certificate changes the certificate of a host.
func certificate(change func(*x509.Certificate)) func(*Host, *tls.Config) {
	return func(h *Host, c *tls.Config) { c.Certificates = []tls.Certificate{h.Net.ca.issue(h.name, change)} }
}

// port returns the port of a host.
func (h *Host) port() int {
	_, p, err := net.SplitHostPort(h.Address)
	world.Must(err)
	n, err := strconv.Atoi(p)
	world.Must(err)
	return n
}

// WayFaults returns the faults on the way to a registry and in front of it. They are the same
// for pull and push.
func WayFaults() []Fault {
	list := append(nameFaults(), tlsFaults()...)
	list = append(list, loginFaults()...)
	list = append(list, busyFaults()...)
	list = append(list, silentFaults()...)
	list = append(list, redirectFaults()...)
	return append(list, proxyFaults()...)
}

func nameFaults() []Fault {
	unknown := Answer{Code: dnsmessage.RCodeNameError}
	fails := Answer{Code: dnsmessage.RCodeServerFailure}
	always := func(a Answer) func(testing.TB, *Host) Answer { return func(testing.TB, *Host) Answer { return a } }
	list := []Fault{
		{
			Name:   "DNS: no such name",
			Class:  remote.ErrRegistry,
			Says:   []string{"$HOST", "no such host", "check the name"},
			Answer: always(unknown),
		},
		{Name: "DNS: the name server fails", Class: remote.ErrRegistry, Says: []string{"$HOST", "check the name"}, Answer: always(fails)},
		{
			Name:   "DNS: the name server is silent",
			Class:  remote.ErrRegistry,
			Says:   []string{"$HOST", "check the name"},
			Answer: always(Answer{Silent: true}),
			Hurry:  true,
		},
		{Name: "DNS: the name has no address", Class: remote.ErrRegistry, Says: []string{"$HOST", "check the name"}, Answer: always(Answer{})},
		{Name: "IPv6 only", IPv6: true},
	}
	return append(list, connectFaults()...)
}

func tlsFaults() []Fault {
	return []Fault{
		{
			Name:  "TLS: expired",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "expired", "clock"},
			TLS:   certificate(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		},
		{
			Name:  "TLS: not yet valid",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "not yet valid", "clock"},
			TLS: certificate(func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
			}),
		},
		{
			Name:  "TLS: wrong host",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "other.test", "by a name that its certificate has"},
			TLS:   certificate(func(c *x509.Certificate) { c.DNSNames = []string{"other.test"} }),
		},
		{
			Name:  "TLS: for clients only",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "key usage"},
			TLS:   certificate(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		},
		{
			Name:    "TLS: unknown authority",
			Class:   remote.ErrRegistry,
			Says:    []string{"$HOST", "unknown authority", "--ca-file"},
			Options: func(_ *Host, o *remote.Options) { o.CAFile = "" },
		},
		{Name: "TLS: self-signed", Class: remote.ErrRegistry, Says: []string{"$HOST", "--ca-file"}, TLS: func(h *Host, c *tls.Config) {
			a := newAuthority(h.Net.tb)
			a.certificate.SerialNumber = big.NewInt(3)
			c.Certificates = []tls.Certificate{a.issue(h.name, nil)}
		}},
		{
			Name:  "TLS: 1.0",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "before 1.2"},
			TLS:   func(_ *Host, c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 },
		},
		{
			Name:  "TLS: 1.1",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "before 1.2"},
			TLS:   func(_ *Host, c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 },
		},
		{
			Name:  "TLS: wants a certificate of ours",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "certificate required"},
			TLS:   func(_ *Host, c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert },
		},
		{
			Name:  "TLS: the handshake never ends",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "TLS handshake timeout"},
			Hurry: true,
			TLS: func(h *Host, _ *tls.Config) {
				time.Sleep(2 * time.Second) // ten times the idle timeout
			},
		},
		{
			Name:  "TLS: plain HTTP behind the port",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "plain http", "--plain-http $HOST"},
			Options: func(h *Host, o *remote.Options) {
				s := httptest.NewServer(http.NotFoundHandler())
				h.Net.tb.Cleanup(s.Close)
				_, port, err := net.SplitHostPort(s.Listener.Addr().String())
				world.Must(err)
				h.Net.Forward(h.port(), port)
				h.Net.Name(h.name, Answer{Address: netip.AddrFrom4([4]byte{127, 0, 0, 4})})
			},
		},
	}
}

// Forward forwards a port of 127.0.0.4 to a port of 127.0.0.1.
func (n *Internet) Forward(from int, to string) {
	l, err := net.Listen("tcp", "127.0.0.4:"+strconv.Itoa(from))
	world.Must(err)
	n.tb.Cleanup(func() { shut(l) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", "127.0.0.1:"+to)
			world.Must(err)
			go func() { _, _ = io.Copy(d, c); shut(d) }()
			go func() { _, _ = io.Copy(c, d); shut(c) }()
		}
	}()
}

func silentFaults() []Fault {
	return []Fault{
		{Name: "silent: at the greeting", Class: remote.ErrRegistry, Says: []string{"$HOST", "too slow"}, Hurry: true, Mode: On(IsPing, Hangs)},
		{Name: "greeting: without end", Class: remote.ErrRegistry, Says: []string{"$HOST"}, Hurry: true, Mode: On(IsPing, babbles)},
		{Name: "silent: at the login", Class: remote.ErrRegistry, Says: []string{"$HOST", "too slow"}, Hurry: true, Mode: On(IsToken, Hangs)},
		{Name: "silent: at work", Class: remote.ErrRegistry, Says: []string{"$HOST", "too slow"}, Hurry: true, Mode: On(IsWork, Hangs)},
		{
			Name:  "silent: at work, HTTP/2",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "too slow"},
			Hurry: true,
			HTTP2: true,
			Mode:  On(IsWork, Hangs),
		},
		{
			Name:  "headers: without end",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "headers exceeded"},
			Mode: On(IsWork, Raw(func(c net.Conn) {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
				for i := 0; ; i++ {
					if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("x", 4000)); err != nil {
						return
					}
				}
			})),
		},
		{
			Name:  "headers: a huge one",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "headers exceeded"},
			Mode:  On(IsWork, Answers(200, "", "X-Huge", strings.Repeat("x", 600<<10))),
		},
		{
			Name:  "headers: one now and then",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "too slow"},
			Hurry: true,
			Mode: On(IsWork, Raw(func(c net.Conn) {
				_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n")
				for i := 0; err == nil; i++ {
					_, err = fmt.Fprintf(c, "X-%d: y\r\n", i)
					time.Sleep(20 * time.Millisecond)
				}
			})),
		},
		{
			Name:  "not HTTP",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "malformed HTTP"},
			Mode:  On(IsWork, Raw(func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n") })),
		},
		{Name: "hangs up", Class: remote.ErrRegistry, Says: []string{"$HOST", "ended too early"}, Mode: On(IsWork, Raw(func(net.Conn) {}))},
		{Name: "hangs up: once", Mode: Times(1, On(IsWork, Raw(func(net.Conn) {})))},
		{Name: "HTTP/2: it works", HTTP2: true},
		{Name: "200 with HTML: everywhere", Class: remote.ErrRegistry, Says: []string{"$HOST"}, Mode: WebPage(IsAny)},
	}
}

func redirectFaults() []Fault {
	return []Fault{
		{Name: "redirect: loop", Class: remote.ErrRegistry, Says: []string{"$HOST", "more than 5 redirects"}, After: met(6, 6),
			Mode: On(IsWork, Redirects(func(_ *Host, r *http.Request) string { return r.URL.String() }))},
		{Name: "redirect: loop at the greeting", Class: remote.ErrRegistry, Says: []string{"$HOST", "redirects"},
			Mode: On(IsPing, Redirects(func(_ *Host, r *http.Request) string { return r.URL.String() }))},
		{Name: "redirect: loop of ever longer URLs", Class: remote.ErrRegistry, Says: []string{"$HOST", "more than 5 redirects"},
			Mode: On(IsWork, Redirects(func(_ *Host, r *http.Request) string {
				return r.URL.Path + "?" + r.URL.RawQuery + strings.Repeat("x", 9000)
			}))},
		{Name: "redirect: from https to http", Class: remote.ErrRegistry, Says: []string{"$HOST", "from https to http"},
			Mode: On(IsWork, Redirects(func(h *Host, r *http.Request) string {
				return "http://" + h.Elsewhere + r.URL.Path + "?signature=canary-query"
			}))},
		{Name: "redirect: to another kind of URL", Class: remote.ErrRegistry, Says: []string{"$HOST", "from https to file"},
			Mode: On(IsWork, Redirects(func(*Host, *http.Request) string { return "file:///etc/passwd" }))},
		{Name: "redirect: nowhere", Class: remote.ErrRegistry, Says: []string{"$HOST", "307"}, Mode: On(IsWork, Answers(307, ""))},
	}
}

func proxyFaults() []Fault {
	through := func(status int) func(h *Host) map[string]string {
		return func(h *Host) map[string]string { return map[string]string{"HTTPS_PROXY": h.Proxy(status)} }
	}
	used := func(least int) func(testing.TB, *Host) {
		return func(tb testing.TB, h *Host) {
			tb.Helper()
			if n := h.Net.Requests(ProxyName, "CONNECT"); n < least || least == 0 && n > 0 {
				tb.Errorf("the proxy was asked %d times", n)
			}
		}
	}
	return []Fault{
		{Name: "proxy: it works", Env: through(200), After: used(1)},
		{
			Name:  "proxy: 407",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "proxy 127.0.0.1:", "407", "user and password into HTTPS_PROXY"},
			Env:   through(407),
			After: used(1),
		},
		{
			Name:  "proxy: CONNECT refused",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "proxy 127.0.0.1:", "403", "name registry.test in NO_PROXY"},
			Env:   through(403),
			After: used(1),
		},
		{Name: "proxy: 502", Class: remote.ErrRegistry, Says: []string{"$HOST", "proxy 127.0.0.1:", "502"}, Env: through(502), After: used(5)},
		{Name: "proxy: NO_PROXY", After: used(0), Env: func(h *Host) map[string]string {
			return map[string]string{"HTTPS_PROXY": h.Proxy(502), "NO_PROXY": "elsewhere.example," + HostName}
		}},
		{
			Name:  "proxy: nothing there",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "the proxy", "cannot be reached"},
			Env: func(h *Host) map[string]string {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				world.Must(err)
				defer shut(l)
				return map[string]string{"HTTPS_PROXY": "http://someone:canary-proxy@" + l.Addr().String()}
			},
		},
	}
}

// StreamFaults returns HTTP/2 faults in the middle of a body. After each of them, the client
// can request the rest.
func StreamFaults() []Fault {
	return []Fault{
		{Name: "HTTP/2: reset in the middle", HTTP2: true, Mode: Times(1, On(IsBlob, Breaks(Aborts)))},
		{Name: "HTTP/2: GOAWAY in the middle", HTTP2: true, Mode: Times(1, On(IsBlob, Breaks(goesAway)))},
		{Name: "HTTP/2: stall in the middle", HTTP2: true, Hurry: true, Mode: Times(1, On(IsBlob, Breaks(Stalls)))},
	}
}
