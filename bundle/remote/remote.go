// Package remote is the client for OCI registries and web servers. It fetches content for
// create, pushes for install --registry, and reads installed bundles for oci:// references.
// Outside this package only install --start opens connections: to a deployment's health
// addresses, and to port 5000 of this host.
//
// go-containerregistry parses names and exchanges tokens; Docker's library reads the
// logins. This package adds the rules that the libraries lack:
//
//   - A host is contacted in plain http only if it, or the registry that leads to it, was
//     named for plain http.
//   - Passwords are sent only to the registry's own domain.
//   - Redirects are few, and never from https to http.
//   - Every body is bounded, a blob by the size in its descriptor.
//   - A connection that stays silent is closed.
//   - Failures that may be temporary are tried again, after Retry-After if the registry
//     sends it.
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

// ErrRegistry marks a registry or web server that could not be reached, refused a request,
// or sent wrong content.
var ErrRegistry = errors.New("registry problem")

// ErrNotFound marks content that the registry does not have. Errors that wrap it also wrap
// ErrRegistry.
var ErrNotFound = errors.New("not found")

const (
	// maxRedirects bounds the redirects of one request.
	maxRedirects = 5
	// maxHeader bounds the header of a response, in bytes.
	maxHeader = 256 << 10
	// connectTimeout bounds the TCP connect, and separately the TLS handshake.
	connectTimeout = 30 * time.Second
)

// Options configure a Client. The zero value uses https, the system's certificates and
// the logins of podman and Docker.
type Options struct {
	PlainHTTP []string // each HOST[:PORT] that is contacted without TLS
	CAFile    string   // PEM certificates accepted in addition to the system's
	UserAgent string
	// Connections is the number of idle connections kept per host; 0 means 8.
	Connections int
	Resolver    *net.Resolver // nil means the system's
	Patience    Patience
	// Warn receives warnings about the netrc file; nil discards them.
	Warn func(format string, args ...any)
}

// Client connects to registries and web servers. It is safe for concurrent use.
type Client struct {
	options    Options
	roots      *x509.CertPool
	proxy      func(*url.URL) (*url.URL, error)
	logins     sync.Mutex                 // held while a login is looked up: a credential helper may prompt the user
	mu         sync.Mutex                 // guards transports
	transports map[string]*http.Transport // by registry and host, because certificates differ
	netrc      func() *netrc              // reads the file once
	warned     sync.Once                  // for the warning that other users can read the netrc file
}

// ErrCAFile marks a CAFile that contains no certificate authority.
var ErrCAFile = errors.New("no certificate authority")

// maxCertificates bounds a file of certificates or logins, in bytes. All authorities of a
// system take 250 KB.
const maxCertificates = 16 << 20

// New returns a client. It reads the proxy (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) and the path
// of the netrc file (NETRC) from the environment once. An error is about Options.CAFile: it
// wraps ErrCAFile, or is that of reading the file.
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

// transport returns the transport for target on behalf of a registry, which may be target
// itself.
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
		DisableCompression:     true, // blobs are carried unchanged
		ForceAttemptHTTP2:      true,
		// Pings detect a connection that was lost to a firewall or a laptop's sleep.
		// Otherwise the second try would use the same connection.
		HTTP2:           &http.HTTP2Config{SendPingTimeout: idle / 4, PingTimeout: idle / 4},
		ReadBufferSize:  64 << 10,
		WriteBufferSize: 64 << 10,
	}
	c.transports[key] = t
	return t, nil
}

// Action is the access that a login must grant.
type Action int

// Pull is read access. Push is read and write access.
const (
	Pull Action = iota
	Push
)

// Repository connects to HOST[:PORT]/NAME and logs in if the registry requires it. from
// names further repositories of the same registry from which blobs may be mounted.
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
		// The library reads a first component without a dot or a port as part of a name
		// on Docker Hub, and would contact Docker Hub with the login for it.
		return nil, fmt.Errorf("%w: %q is not a registry's host; write it with a dot or a port, such as %s:443", ErrRegistry, host, host)
	}
	r := &Repository{
		host: host, name: repo.RepositoryStr(), scheme: "https", registry: repo.RegistryStr(),
		patience: c.options.Patience, secrets: &secrets{},
	}
	if plain {
		r.scheme = "http"
	}
	base, err := c.transport(host, host) // fails on bad certificate files
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
		// The library reads responses to their end, which may never come.
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

// unreached returns the error of the scheme that was allowed. If the library tries both
// https and http, guard rejects one of them. unreached also rewords the errors of a server
// that is not a registry and of a server that does not answer plain http.
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

// sentError is the failure of a request to a plain-http registry that guard accepted.
type sentError struct{ error }

func (e *sentError) Unwrap() error { return e.error }

// checkRedirect limits the number of redirects, and refuses a redirect from https to http.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	req.Header.Del("Referer") // its query may contain a signature
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("it redirects from https to %s://%s", req.URL.Scheme, req.URL.Host)
	}
	return nil
}

// guard checks every request before it is sent, including the libraries' own requests.
type guard struct {
	registry string // host, as the library spells it
	plain    bool   // plain http is allowed, also for hosts to which the registry leads
	next     http.RoundTripper
	// elsewhere returns the transport for another host, which does not get the registry's
	// client certificate. nil means next.
	elsewhere func(host string) (*http.Transport, error)
	idle      time.Duration
	secrets   *secrets // collects the credentials that are sent
}

// errRefused marks a request that the client refuses to send. It is not tried again.
var errRefused = errors.New("refused by this side")

// check refuses a request that would be sent unencrypted without permission, or that would
// send a login or data outside the registry's domain. own reports that the request is for
// the registry itself. The error wraps errRefused.
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

// RoundTrip sends a request if check accepts it.
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
		status := statusOf(res, g.secrets) // the library ignores Retry-After and does not bound the text
		status.elsewhere = !own
		err = status
	}
	switch {
	case err == nil:
		return res, nil
	case own && g.plain:
		return nil, &sentError{err}
	}
	return nil, err // unwrapped: net/http checks for types of crypto/tls
}

// elsewhere returns the transports for hosts to which a registry leads.
func (c *Client) elsewhere(registry string) func(host string) (*http.Transport, error) {
	return func(host string) (*http.Transport, error) { return c.transport(registry, host) }
}

// withoutPort removes the default port of a scheme from a host.
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
