// Package remote talks to OCI registries and web servers: it fetches for create,
// and pushes for install --registry. Besides it only install --start opens
// connections: to a deployment's health addresses, and to port 5000 of this host.
//
// go-containerregistry does the names and the token exchange; Docker's library reads
// the logins. Around it this package puts what
// the library leaves open: a host is contacted in plain http only if it, or the
// registry that leads to it, was named for that, passwords go nowhere but to the
// registry's own domain, redirects are few and never from https to http, every body is bounded by what
// the descriptor says, a silent connection is given up after a while, and
// failures that may pass are tried again as the registry asks (Retry-After).
package remote

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/publicsuffix"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// ErrRegistry says that a registry could not be reached, refused, or sent
// something that it should not have sent.
var ErrRegistry = errors.New("registry problem")

// ErrNotFound says that the registry answered, and has no such thing. It comes
// wrapped together with ErrRegistry.
var ErrNotFound = errors.New("not found")

const (
	// maxRedirects bounds the hops of one request.
	maxRedirects = 5
	// maxHeader bounds the header of an answer, in bytes.
	maxHeader = 256 << 10
	// connectTimeout bounds the making of a connection, and of its encryption.
	connectTimeout = 30 * time.Second
)

// Options say how registries are reached. The zero value uses https, the
// system's certificates and the logins of podman and Docker.
type Options struct {
	PlainHTTP []string // HOST[:PORT] that is spoken to without TLS
	CAFile    string   // PEM certificates accepted besides the system's
	UserAgent string
	// Connections that stay open per host; 0 means 8.
	Connections int
	Resolver    *net.Resolver // nil means the machine's
	Patience    Patience
	// Warn reports what is odd about the file with logins for web servers; nil
	// discards it.
	Warn func(format string, args ...any)
}

// Client reaches registries. It may be used by many goroutines.
type Client struct {
	options    Options
	roots      *x509.CertPool
	proxy      func(*url.URL) (*url.URL, error)
	logins     sync.Mutex                 // held while one is looked for: a credential helper may ask its user
	mu         sync.Mutex                 // of transports
	transports map[string]*http.Transport // by registry and host, which have certificates of their own
	netrc      func() *netrc              // reads the file once
	warned     sync.Once                  // that others can read it
}

// ErrCAFile says that the file given for certificate authorities holds none.
var ErrCAFile = errors.New("no certificate authority")

// maxCertificates bounds a file of certificates or logins, in bytes: the authorities of a
// whole system have 250 KB.
const maxCertificates = 16 << 20

// New returns a client. It takes the proxy (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) and
// the path of the file with logins (NETRC) from the environment as it is now. The error is about Options.CAFile: it wraps
// ErrCAFile, or is the file system's.
func New(o Options) (*Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if o.CAFile != "" {
		pem, err := disk.ReadFile(o.CAFile, maxCertificates)
		if err != nil {
			return nil, err
		}
		if pem, err = bundle.PlainText(pem); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrCAFile, o.CAFile, err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %s holds no PEM certificate", ErrCAFile, o.CAFile)
		}
	}
	if o.Connections == 0 {
		o.Connections = 8
	}
	if o.Warn == nil {
		o.Warn = func(string, ...any) {}
	}
	path := netrcPath()
	return &Client{
		options: o, roots: roots, proxy: httpproxy.FromEnvironment().ProxyFunc(), transports: map[string]*http.Transport{},
		netrc: sync.OnceValue(func() *netrc { return readNetrc(path) }),
	}, nil
}

// transport returns the transport by which target is reached on behalf of a registry,
// which may be target itself.
func (c *Client) transport(registry, target string) (*http.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := registry + " " + target
	if t := c.transports[key]; t != nil {
		return t, nil
	}
	config, err := c.tlsConfig(registry, target)
	if err != nil {
		return nil, err
	}
	idle := c.options.Patience.idle()
	connect := min(connectTimeout, idle)
	t := &http.Transport{
		Proxy:                  func(req *http.Request) (*url.URL, error) { return c.proxy(req.URL) },
		OnProxyConnectResponse: checkProxy,
		DialContext:            (&net.Dialer{Timeout: connect, KeepAlive: 30 * time.Second, Resolver: c.options.Resolver}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    connect,
		MaxResponseHeaderBytes: maxHeader,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    c.options.Connections,
		DisableCompression:     true, // blobs are carried as they are
		ForceAttemptHTTP2:      true,
		// A connection that a firewall has forgotten, or a laptop's sleep, is found out
		// before the second try, which would go over the same one.
		HTTP2:           &http.HTTP2Config{SendPingTimeout: idle / 4, PingTimeout: idle / 4},
		ReadBufferSize:  64 << 10,
		WriteBufferSize: 64 << 10,
	}
	c.transports[key] = t
	return t, nil
}

// Action is what a login has to permit.
type Action int

// Pull fetches, Push also writes.
const (
	Pull Action = iota
	Push
)

// Repository connects to HOST[:PORT]/NAME and logs in if the registry asks for
// it. From names further repositories of the same registry that blobs may be
// mounted from.
func (c *Client) Repository(ctx context.Context, host, repository string, action Action, from ...string) (*Repository, error) {
	plain := slices.Contains(c.options.PlainHTTP, host)
	opts := []name.Option{name.WeakValidation}
	if plain {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(host+"/"+repository, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w: %s/%s: %w", ErrRegistry, host, repository, err)
	}
	if repo.RegistryStr() != host && host != "docker.io" {
		// The library takes a first component without dot and port for a part of
		// Docker Hub's names, and would go there, with the login for it.
		return nil, fmt.Errorf("%w: %q is not a registry's host; write it with a dot or a port, such as %s:443", ErrRegistry, host, host)
	}
	r := &Repository{
		host: host, name: repo.RepositoryStr(), scheme: "https", registry: repo.RegistryStr(),
		patience: c.options.Patience, secrets: &secrets{},
	}
	if plain {
		r.scheme = "http"
	}
	base, err := c.transport(host, host) // an error in its certificates is not the network's
	if err != nil {
		return nil, err
	}
	c.logins.Lock()
	l, err := findLogin(repo, host)
	c.logins.Unlock()
	if err != nil {
		return nil, err
	}
	r.auth = l.who
	r.secrets.add(l.Password, l.Auth, l.IdentityToken, l.RegistryToken)
	scopes := []string{repo.Scope(transport.PullScope)}
	if action == Push {
		scopes[0] = repo.Scope(transport.PushScope)
	}
	for _, f := range from {
		if other, err := name.NewRepository(host+"/"+f, opts...); err == nil && f != repository {
			scopes = append(scopes, other.Scope(transport.PullScope))
		}
	}
	var inner http.RoundTripper = guard{
		registry: r.registry, plain: plain, next: base, elsewhere: c.elsewhere(host), idle: r.patience.idle(), secrets: r.secrets,
	}
	inner = transport.NewUserAgent(inner, c.options.UserAgent)
	err = r.patience.retry(ctx, func() error {
		// The library reads the answers to the end, and they may have none.
		bounded, cancel := r.patience.bound(ctx, 3)
		defer cancel()
		rt, err := transport.NewWithContext(bounded, repo.Registry, authn.FromConfig(l.AuthConfig), inner, scopes)
		if err != nil {
			return r.failed("logging in", r.unreached(cause(bounded, err)))
		}
		r.client = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
		return nil
	})
	return r, err
}

// unreached picks what the registry did out of what the library says where it asked
// with TLS and without: guard refuses one of the two, which is nobody's failure.
func (r *Repository) unreached(err error) error {
	var lib *transport.Error
	var sent *sentError
	var first *url.Error // with TLS
	switch {
	case errors.As(err, &lib):
		err = statusOfLibrary(lib, r.secrets)
	case !errors.Is(err, errRefused):
	case errors.As(err, &sent):
		err = sent.error
	case errors.As(err, &first):
		err = first.Err
	}
	closed := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
	switch {
	case lib != nil && lib.StatusCode == http.StatusNotFound:
		return &hidden{errRefused, fmt.Sprintf("%v: it is no registry", err)}
	case r.scheme == "http" && (closed || lib != nil && lib.StatusCode == http.StatusBadRequest):
		return &hidden{errRefused, fmt.Sprintf("it does not answer plain http (%v); if it speaks TLS, leave --plain-http %s away", err, r.host)}
	}
	return err
}

// sentError is the failure of a request without TLS that guard let through.
type sentError struct{ error }

func (e *sentError) Unwrap() error { return e.error }

// checkRedirect bounds the hops and keeps what began encrypted encrypted.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	req.Header.Del("Referer") // a query may hold a signature
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("it redirects from https to %s://%s", req.URL.Scheme, req.URL.Host)
	}
	return nil
}

// guard sees every request before it leaves, whichever library made it.
type guard struct {
	registry string // host as the library spells it
	plain    bool   // it was named for plain http, and so is what it leads to
	next     http.RoundTripper
	// elsewhere returns the transport for another host, which gets no client certificate
	// of the registry's. Nil means next.
	elsewhere func(host string) (*http.Transport, error)
	idle      time.Duration
	secrets   *secrets // learns what is sent as a login
}

// errRefused marks what this side refuses to send; trying again is no use.
var errRefused = errors.New("refused by this side")

// check refuses a request that would break a promise: to encrypt, and to send logins and
// data to nobody but the registry. Own says that it is for the registry. The error wraps
// errRefused.
func (g guard) check(req *http.Request, own bool) error {
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	login := strings.HasPrefix(req.Header.Get("Authorization"), "Basic ")
	switch {
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return fmt.Errorf("%w: %s leads to %q, which is no web address", errRefused, g.registry, req.URL.Redacted())
	case own && g.plain && req.URL.Scheme == "https":
		return fmt.Errorf("%w: %s was given as --plain-http", errRefused, g.registry)
	case req.URL.Scheme == "http" && !g.plain:
		return fmt.Errorf(
			"%w: %s would be spoken to without encryption; allow it with --plain-http %s",
			errRefused, req.URL.Host, req.URL.Host,
		)
	case own || sameDomain(req.URL.Hostname(), hostname(g.registry)):
		return nil
	case login || !reads:
		return fmt.Errorf("%w: %s wants the login, or data, sent to another host, %s", errRefused, g.registry, req.URL.Host)
	}
	return nil
}

// RoundTrip sends a request that check accepts.
func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	own := withoutPort(req.URL.Host, req.URL.Scheme) == withoutPort(g.registry, req.URL.Scheme)
	if err := g.check(req, own); err != nil {
		return nil, err
	}
	g.secrets.addHeader(req.Header.Get("Authorization"))
	next := g.next
	if !own && g.elsewhere != nil {
		var err error
		if next, err = g.elsewhere(req.URL.Host); err != nil {
			return nil, &localError{err}
		}
	}
	res, err := watch(next, req, g.idle)
	if err == nil && busy(res.StatusCode) {
		status := statusOf(res, g.secrets) // the library knows neither Retry-After nor bounds of what is shown
		status.elsewhere = !own
		err = status
	}
	switch {
	case err == nil:
		return res, nil
	case own && g.plain:
		return nil, &sentError{err}
	}
	return nil, err // net/http wants the types of crypto/tls
}

// elsewhere returns how the hosts are reached to which a registry leads.
func (c *Client) elsewhere(registry string) func(host string) (*http.Transport, error) {
	return func(host string) (*http.Transport, error) { return c.transport(registry, host) }
}

// withoutPort takes the port away that a scheme has anyway.
func withoutPort(host, scheme string) string {
	return strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[scheme])
}

func hostname(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return hostport
}

// sameDomain reports whether two hosts belong to one registrable domain, as
// registry-1.docker.io and auth.docker.io do.
func sameDomain(a, b string) bool {
	if a == b {
		return true
	}
	if net.ParseIP(a) != nil || net.ParseIP(b) != nil {
		return false
	}
	da, errA := publicsuffix.EffectiveTLDPlusOne(a)
	db, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && da == db
}
