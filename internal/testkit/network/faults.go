package network

import (
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// IsPing reports whether a request asks for the version of the API.
func IsPing(r *http.Request) bool { return r.URL.Path == "/v2/" }

// IsToken reports whether a request asks for a token.
func IsToken(r *http.Request) bool { return r.URL.Path == "/token" }

// IsWork reports whether a request belongs to the API and is not a ping.
func IsWork(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v2/") && !IsPing(r) }

// IsManifest reports whether a request concerns a manifest.
func IsManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

// IsBlob reports whether a request concerns a blob with a known digest.
func IsBlob(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/sha256:") }

// IsUpload reports whether a request is part of a blob upload.
func IsUpload(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/uploads/") }

// IsReferrers reports whether a request asks for the referrers of a manifest.
func IsReferrers(r *http.Request) bool { return strings.Contains(r.URL.Path, "/referrers/") }

// IsAny returns true for every request.
func IsAny(*http.Request) bool { return true }

// On returns a mode that handles matching requests with do, and counts them in Hits.
func On(match func(*http.Request) bool, do func(h *Host, w http.ResponseWriter, r *http.Request)) Mode {
	return func(h *Host, w http.ResponseWriter, r *http.Request) bool {
		if !match(r) {
			return false
		}
		h.Hits.Add(1)
		do(h, w, r)
		return true
	}
}

// Times ends a mode after n hits.
func Times(n int64, m Mode) Mode {
	return func(h *Host, w http.ResponseWriter, r *http.Request) bool { return h.Hits.Load() < n && m(h, w, r) }
}

// Answers sends a status, a body and headers, given as KEY, VALUE pairs.
func Answers(status int, body string, headers ...string) func(*Host, http.ResponseWriter, *http.Request) {
	return func(_ *Host, w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Says sends a status and an error body in the format of distribution-spec.
func Says(status int, code, message string, headers ...string) func(*Host, http.ResponseWriter, *http.Request) {
	return Answers(
		status,
		fmt.Sprintf(`{"errors":[{"code":%q,"message":%q}]}`, code, message),
		append(headers, "Content-Type", "application/json")...)
}

// webPage answers like a captive portal.
var webPage = Answers(http.StatusOK, "<html>please sign in</html>", "Content-Type", "text/html")

// WebPage answers every matching request with a web page.
func WebPage(match func(*http.Request) bool) Mode { return On(match, webPage) }

// Redirects sends a redirect to a URL made from the request.
func Redirects(to func(h *Host, r *http.Request) string) func(*Host, http.ResponseWriter, *http.Request) {
	return func(h *Host, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to(h, r))
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// ToElsewhere returns the URL of the same path on a host in another domain.
func ToElsewhere(h *Host, r *http.Request) string {
	return "https://" + h.Elsewhere + r.URL.Path + "?signature=canary-query"
}

// Hangs never answers. It reads the body, because a server notices that a client has gone only
// after the body was read completely.
func Hangs(_ *Host, _ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// Changes sends the registry's answer with a changed body or header.
func Changes(change func(body []byte, header http.Header) []byte) func(*Host, http.ResponseWriter, *http.Request) {
	return func(h *Host, w http.ResponseWriter, r *http.Request) {
		good := h.Good(r)
		body := change(good.Body.Bytes(), good.Header())
		for k, v := range good.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(good.Code)
		if r.Method != http.MethodHead {
			_, _ = w.Write(body)
		}
	}
}

// Breaks sends half the body of a successful GET and then calls then. To other requests, it
// sends the headers only.
func Breaks(then func(w http.ResponseWriter, r *http.Request)) func(*Host, http.ResponseWriter, *http.Request) {
	return func(h *Host, w http.ResponseWriter, r *http.Request) {
		good := h.Good(r)
		for k, v := range good.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(good.Code)
		if body := good.Body.Bytes(); good.Code == http.StatusOK && r.Method == http.MethodGet {
			_, _ = w.Write(body[:len(body)/2])
			_ = http.NewResponseController(w).Flush()
			then(w, r)
		}
	}
}

// Stalls sends nothing more and keeps the connection open.
func Stalls(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// Aborts closes the connection, or the HTTP/2 stream.
func Aborts(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// babbles sends an endless body in small pieces.
func babbles(_ *Host, w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 8<<10)); err != nil {
			return
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Drips sends single bytes at long intervals.
func Drips(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		_, _ = w.Write([]byte{' '})
		_ = http.NewResponseController(w).Flush()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
		}
	}
}

// goesAway sends HTTP/2's GOAWAY for all streams (RFC 9113, section 6.8) and closes the
// connection.
func goesAway(_ http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(net.Conn)
	_, _ = c.Write([]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2})
	_ = c.Close()
	<-r.Context().Done()
}

// shut closes c and ignores the error.
func shut(c io.Closer) { _ = c.Close() }

// Raw takes over the connection, on which write sends bytes that are not a proper HTTP
// response.
func Raw(write func(c net.Conn)) func(*Host, http.ResponseWriter, *http.Request) {
	return func(_ *Host, w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		world.Must(err)
		defer shut(c)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		write(c)
	}
}

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

const limitText = "You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: " +
	"https://www.docker.com/increase-rate-limit"

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

func loginFaults() []Fault {
	// Revoke at hits far enough apart that each request under way has its new token before
	// that token is revoked too.
	revokes := func(h *Host, _ http.ResponseWriter, r *http.Request) bool {
		if IsWork(r) && slices.Contains([]int64{4, 24}, h.Hits.Add(1)) {
			h.Revoke()
		}
		return false
	}
	echo := func(status int) func(*Host, http.ResponseWriter, *http.Request) {
		return func(_ *Host, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			fmt.Fprintf(w, "you sent %s\x1b[31m", r.Header.Get("Authorization"))
		}
	}
	nobody := []string{"$HOST", "401", "asked as nobody", "docker login $HOST"}
	somebody := []string{"$HOST", `user "canary-user" of Docker's configuration`, "docker login $HOST"}
	return []Fault{
		{Name: "401: no login", Class: remote.ErrRegistry, Says: nobody, Anonymous: true},
		{Name: "401: no login, passwords each time", Class: remote.ErrRegistry, Says: nobody, Anonymous: true, Basic: true},
		{Name: "401: wrong password", Class: remote.ErrRegistry, Says: append(somebody, "401", "incorrect username or password"), Wrong: true},
		{Name: "401: wrong password, passwords each time", Class: remote.ErrRegistry, Says: append(somebody, "401"), Wrong: true, Basic: true},
		{
			Name:  "401: a token that does not help",
			Class: remote.ErrRegistry,
			Says:  append(somebody, "401"),
			Mode: On(
				IsWork,
				Says(401, "UNAUTHORIZED", "authentication required", "WWW-Authenticate", `Bearer realm="https://registry.test/token"`),
			),
		},
		{Name: "401: without a challenge", Class: remote.ErrRegistry, Says: []string{"$HOST"}, Mode: On(IsAny, Answers(401, ""))},
		{
			Name:  "401: a challenge that nobody knows",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST"},
			Mode:  On(IsAny, Answers(401, "", "WWW-Authenticate", `Negotiate`)),
		},
		{
			Name:  "401: a challenge without a realm",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "realm"},
			Mode:  On(IsAny, Answers(401, "", "WWW-Authenticate", `Bearer service="x"`)),
		},
		{Name: "token: expires in the middle", Mode: revokes, After: met(4, 1000)},
		{
			Name:  "token: elsewhere",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "another host, " + ElsewhereName},
			Mode: On(IsAny, func(h *Host, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token"`, h.Elsewhere))
				w.WriteHeader(http.StatusUnauthorized)
			}),
		},
		{
			Name:  "token: from https to http",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "https"},
			Mode: On(IsAny, func(h *Host, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, h.Address))
				w.WriteHeader(http.StatusUnauthorized)
			}),
		},
		{
			Name:  "token: its place redirects elsewhere",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST"},
			Mode:  On(IsToken, Redirects(ToElsewhere)),
		},
		{
			Name:  "token: none in the answer",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "sends for a token"},
			Mode:  On(IsToken, Answers(200, `{"refresh_token":"canary-token-refresh"}`)),
		},
		{Name: "token: a web page", Class: remote.ErrRegistry, Says: []string{"$HOST", "sends for a token"}, Mode: WebPage(IsToken)},
		{Name: "token: without end", Class: remote.ErrRegistry, Says: []string{"$HOST"}, Mode: On(IsToken, endless)},
		{Name: "token: stalls", Class: remote.ErrRegistry, Says: []string{"$HOST", "too slow"}, Hurry: true, Mode: On(IsToken, Breaks(Stalls))},
		{Name: "403", Class: remote.ErrRegistry, Says: append(somebody, "403", "no access"), Mode: On(IsWork, Says(403, "DENIED", "no access"))},
		{Name: "403: it shows what it was sent", Class: remote.ErrRegistry, Says: somebody, Mode: On(IsWork, echo(403))},
		{
			Name:  "403: it shows what it was sent, passwords each time",
			Class: remote.ErrRegistry,
			Says:  somebody,
			Mode:  On(IsWork, echo(403)),
			Basic: true,
		},
		{
			Name:  "500: it shows what it was sent at the login",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "500"},
			Mode:  On(IsToken, echo(500)),
		},
	}
}

// endless answers with an endless body.
func endless(_ *Host, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	block := []byte(strings.Repeat(" ", 64<<10))
	for r.Context().Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// met checks that the number of hits is from least to most.
func met(least, most int64) func(testing.TB, *Host) {
	return func(tb testing.TB, h *Host) {
		tb.Helper()
		if n := h.Hits.Load(); n < least || n > most {
			tb.Errorf("met %d times, not %d to %d", n, least, most)
		}
	}
}

func busyFaults() []Fault {
	date := func(in time.Duration) func(*Host, http.ResponseWriter, *http.Request) {
		return func(h *Host, w http.ResponseWriter, r *http.Request) {
			at := time.Now().Add(48 * time.Hour) // the registry's clock is wrong, in Date and Retry-After alike
			w.Header().Set("Date", at.UTC().Format(http.TimeFormat))
			Says(429, "TOOMANYREQUESTS", limitText, "Retry-After", at.Add(in).UTC().Format(http.TimeFormat))(h, w, r)
		}
	}
	wait := func(after string) Mode {
		return On(IsWork, Says(429, "TOOMANYREQUESTS", limitText, "Retry-After", after))
	}
	limit := []string{"$HOST", "429", limitText}
	list := []Fault{
		{Name: "429: for a moment, in seconds", Mode: Times(1, wait("1"))},
		{Name: "429: for a moment, as a date", Mode: Times(1, On(IsWork, date(time.Second)))},
		{
			Name:  "429: for ever, the text is shown",
			Class: remote.ErrRegistry,
			Says:  append(limit, "log in for a higher limit"),
			Mode:  wait(""),
			After: met(5, 5),
		},
		{Name: "429: for a day", Class: remote.ErrRegistry, Says: append(limit, "24h0m0s"), Mode: wait("86400"), After: met(1, 1)},
		{
			Name:  "429: for a day, as a date",
			Class: remote.ErrRegistry,
			Says:  append(limit, "24h0m0s"),
			Mode:  On(IsWork, date(24*time.Hour)),
			After: met(1, 1),
		},
		{
			Name:  "429: for longer than there is",
			Class: remote.ErrRegistry,
			Says:  append(limit, "too long to wait"),
			Mode:  wait("99999999999999999999999"),
			After: met(1, 1),
		},
		{
			Name:  "429: for a time that overflows",
			Class: remote.ErrRegistry,
			Says:  append(limit, "too long to wait"),
			Mode:  wait("18446744075"),
			After: met(1, 1),
		},
		{Name: "429: until yesterday", Mode: Times(1, On(IsWork, date(-24*time.Hour)))},
		{Name: "429: for -1, and for nothing that is a time", Mode: Times(2, func(h *Host, w http.ResponseWriter, r *http.Request) bool {
			return wait(map[bool]string{true: "-1", false: "soon"}[h.Hits.Load() == 0])(h, w, r)
		})},
		{Name: "429: at the login", Mode: Times(1, On(IsToken, Says(429, "TOOMANYREQUESTS", limitText, "Retry-After", "1")))},
		{
			Name:  "429: at the greeting, for a day",
			Class: remote.ErrRegistry,
			Says:  append(limit, "24h0m0s"),
			Mode:  On(IsPing, Says(429, "TOOMANYREQUESTS", limitText, "Retry-After", "86400")),
			After: met(1, 1),
		},
	}
	for _, code := range []int{500, 502, 503, 504} {
		status := On(IsWork, Answers(code, "bad day"))
		list = append(
			list,
			Fault{Name: fmt.Sprintf("%d: three times", code), Mode: Times(3, status), After: met(3, 3)},
			Fault{
				Name:  fmt.Sprintf("%d: for ever", code),
				Class: remote.ErrRegistry,
				Says:  []string{"$HOST", strconv.Itoa(code), "bad day"},
				Mode:  status,
				After: met(5, 5),
			},
		)
	}
	return append(
		list,
		Fault{
			Name:  "503: at the greeting",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "503"},
			Mode:  On(IsPing, Answers(503, "<html>down for maintenance</html>", "Content-Type", "text/html")),
		},
		Fault{Name: "408: once", Mode: Times(1, On(IsWork, Answers(408, "")))},
		Fault{
			Name:  "418: what nobody expects",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "418"},
			Mode:  On(IsWork, Answers(418, "short and stout")),
		},
		Fault{
			Name:  "500: with a body without end",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "500"},
			Mode: On(IsWork, func(h *Host, w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusInternalServerError)
				endless(h, w, r)
			}),
		},
		Fault{
			Name:  "500: with a body that stalls",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "500"},
			Hurry: true,
			Mode: On(IsWork, func(_ *Host, w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusInternalServerError)
				_ = http.NewResponseController(w).Flush()
				Stalls(w, r)
			}),
		},
	)
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

// Gzipped compresses an answer although the request did not ask for it.
func Gzipped(body []byte, h http.Header) []byte {
	h.Set("Content-Encoding", "gzip")
	h.Del("Content-Length")
	var b strings.Builder
	w := gzip.NewWriter(&b)
	_, err := w.Write(body)
	world.Must(err)
	world.Must(w.Close())
	return []byte(b.String())
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
