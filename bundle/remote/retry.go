package remote

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// tries bounds the attempts of one request that makes no progress.
const tries = 5

// statusError is a response with an unwanted status.
type statusError struct {
	code       int
	retryAfter time.Duration
	reason     string // the registry's error code, such as MANIFEST_BLOB_UNKNOWN
	text       string
	elsewhere  bool   // another host than the registry answered
	leadsTo    string // the host that answered, after a redirect
}

// busy reports whether a status is 429 or a server error, so that a later try may succeed.
// 501 and 507 are excluded.
func busy(code int) bool {
	return code == http.StatusTooManyRequests || code >= 500 && code != http.StatusNotImplemented && code != http.StatusInsufficientStorage
}

func (e *statusError) Error() string {
	who := "it"
	if e.leadsTo != "" {
		who = e.leadsTo + ", to which it leads,"
	}
	s := fmt.Sprintf("%s answered %d", who, e.code)
	if e.code != http.StatusNotFound { // ErrNotFound has this text
		s += " " + http.StatusText(e.code)
	}
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

// statusOf returns a response as an error and closes its body. The text is that of the
// registry, shortened, without control characters and without secrets.
func statusOf(res *http.Response, s *secrets) *statusError {
	body, _ := io.ReadAll(io.LimitReader(res.Body, 2048)) // only for the message
	_ = res.Body.Close()
	e := &statusError{code: res.StatusCode}
	var doc struct { // distribution-spec, error codes
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	if json.Unmarshal(body, &doc) == nil && len(doc.Errors) > 0 {
		e.reason = doc.Errors[0].Code
		body = []byte(cmp.Or(doc.Errors[0].Message, e.reason))
	}
	if !strings.Contains(res.Header.Get("Content-Type"), "html") {
		e.text = shown(s.hide(string(body))) // hide secrets before the text is cut
	}
	e.retryAfter = retryAfter(res.Header)
	return e
}

// maxText bounds a server's text in a message, in bytes.
const maxText = 300

// shown makes a server's text safe for a terminal: one short line, without characters that
// move the cursor or change the writing direction.
func shown(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?")))
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// maxSeconds bounds Retry-After, so that the duration does not overflow.
const maxSeconds = 1 << 30

// retryAfter returns how long a server asks the client to wait (RFC 9110, section 10.2.3),
// or 0. A date is compared with the server's own Date, because clocks differ.
func retryAfter(h http.Header) time.Duration {
	after := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseUint(after, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(s, maxSeconds)) * time.Second
	}
	t, err := http.ParseTime(after)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(t.Sub(now), 0)
}

// retry calls op until it succeeds, fails permanently, or has failed tries times.
func (p Patience) retry(ctx context.Context, op func() error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := op()
		var status *statusError
		switch {
		case err == nil:
			return struct{}{}, nil
		case ctx.Err() != nil:
			return struct{}{}, backoff.Permanent(context.Cause(ctx))
		case !passing(err):
			return struct{}{}, backoff.Permanent(err)
		case errors.As(err, &status) && status.retryAfter > p.retryAfter():
			return struct{}{}, backoff.Permanent(
				fmt.Errorf("%w (it asks to be left alone for %s, which is too long to wait for; run it again then)", err, status.retryAfter),
			)
		case errors.As(err, &status) && status.retryAfter > 0:
			return struct{}{}, &asked{err, &backoff.RetryAfterError{Duration: status.retryAfter}}
		}
		return struct{}{}, err
	}, backoff.WithMaxTries(tries), backoff.WithMaxElapsedTime(0), backoff.WithBackOff(p.backOff()))
	return err
}

// asked is an error with the wait that the server requested. The wait is not part of the
// message.
type asked struct {
	error
	wait *backoff.RetryAfterError
}

func (e *asked) Unwrap() []error { return []error{e.error, e.wait} }

func (p Patience) backOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = p.pause(), 33*p.pause(), 3
	return b
}

// passing reports whether the same request may succeed later.
func passing(err error) bool {
	var status *statusError
	var lib *transport.Error
	var dns *net.DNSError
	var unknownCA x509.UnknownAuthorityError
	var wrongHost x509.HostnameError
	var badCert x509.CertificateInvalidError
	var local *localError
	var proxy *proxyError
	var code int
	switch {
	case errors.As(err, &local), errors.Is(err, bundle.ErrLimit), errors.Is(err, bundle.ErrFormat), oldTLS(err), refusedCertificate(err):
		return false
	case errors.As(err, &proxy):
		code = proxy.code
	case errors.As(err, &status):
		code = status.code
	case errors.As(err, &lib):
		code = lib.StatusCode
	case errors.Is(err, errRefused), errors.Is(err, errContent), errors.Is(err, context.Canceled),
		errors.As(err, &unknownCA), errors.As(err, &wrongHost), errors.As(err, &badCert):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	default:
		return !strings.Contains(err.Error(), "redirect") // net/http has no type for this error
	}
	return code == http.StatusRequestTimeout || busy(code)
}

// failed words an error for users: the action, the host, and advice.
func (r *Repository) failed(doing string, err error) error {
	var syntax *json.SyntaxError                                                                 // of a token response
	if errors.As(err, &syntax) || strings.Contains(err.Error(), "no token in bearer response") { // the library appends the response
		err = fmt.Errorf("%w: where it sends for a token there is none to be had", errContent)
	}
	denied := fmt.Sprintf("; asked as %s: log in with docker login %s or podman login %[2]s", r.auth, r.host)
	var status *statusError
	if errors.As(err, &status) && status.leadsTo != "" {
		denied = storageHint
	}
	return failed(doing, r.host, denied, r.secrets, err)
}

// failed does the same for any host. denied is the advice if the host denies access.
func failed(doing, host, denied string, s *secrets, err error) error {
	var local *localError
	if errors.As(err, &local) {
		return local // not the registry's fault
	}
	var lib *transport.Error
	if errors.As(err, &lib) {
		err = statusOfLibrary(lib, s)
	}
	var u *url.Error
	if errors.As(err, &u) && u.Error() == err.Error() {
		err = u.Err // the message already names the host
	}
	hint, err := advice(host, denied, err)
	err = fmt.Errorf("%w: %s at %s: %w%s", ErrRegistry, doing, host, err, hint)
	if text := s.hide(err.Error()); text != err.Error() {
		return &hidden{err, text}
	}
	return err
}

// statusOfLibrary converts the library's error, with a bounded text.
func statusOfLibrary(lib *transport.Error, s *secrets) *statusError {
	e := &statusError{code: lib.StatusCode}
	if len(lib.Errors) > 0 {
		e.reason = string(lib.Errors[0].Code)
		e.text = shown(s.hide(cmp.Or(lib.Errors[0].Message, e.reason)))
	}
	return e
}

// advice returns a hint about an error, or "", and the error, with a better wording if
// there is one.
func advice(host, denied string, err error) (hint string, better error) {
	var status *statusError
	if errors.As(err, &status) {
		return statusAdvice(status, denied, err)
	}
	for _, of := range []func(host string, err error) (string, error){proxyAdvice, connectionAdvice, certificateAdvice} {
		if hint, better := of(host, err); better != nil {
			return hint, better
		}
	}
	return "", err
}

// statusAdvice returns the advice about a status. denied is the advice if access is denied.
func statusAdvice(status *statusError, denied string, err error) (hint string, better error) {
	switch status.code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return denied, err
	case http.StatusNotFound:
		if status.reason == "MANIFEST_UNKNOWN" || status.reason == "NAME_UNKNOWN" {
			hint = "; check the name and the tag"
		}
		return hint, fmt.Errorf("%w: %w", ErrNotFound, err)
	case http.StatusTooManyRequests:
		return "; wait, or log in for a higher limit", err
	case http.StatusProxyAuthRequired:
		return proxyHint, err
	case http.StatusRequestEntityTooLarge:
		return "; the registry, or a proxy before it, limits the size of an upload (client_max_body_size in NGINX)", err
	case http.StatusUnsupportedMediaType:
		return "; it does not take manifests of this type; " + DockerTypesHint, err
	case http.StatusInsufficientStorage:
		return "; it has no room left, or a quota is used up", err
	case http.StatusMethodNotAllowed:
		return "; it is read-only, as oob-bundle registry serve always is: install on its own host, or give a registry that takes a push", err
	}
	return "", err
}

// proxyAdvice returns the advice about a proxy. better is nil if err is not about a proxy.
func proxyAdvice(host string, err error) (hint string, better error) {
	var proxy *proxyError
	var op *net.OpError
	switch {
	case errors.As(err, &proxy) && proxy.code == http.StatusProxyAuthRequired:
		return proxyHint, err
	case errors.As(err, &proxy):
		return fmt.Sprintf("; let it through there, or name %s in NO_PROXY", hostname(host)), err
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "", fmt.Errorf("the proxy of HTTPS_PROXY or HTTP_PROXY cannot be reached: %w", op.Err)
	}
	return "", nil
}

// connectionAdvice returns the advice about a connection. better is nil if err is not about
// a connection.
func connectionAdvice(host string, err error) (hint string, better error) {
	const network = "; check the name, and this machine's network"
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "; is it running?", errors.New("nothing answers there (connection refused)")
	case errors.As(err, &dns) && dns.IsNotFound:
		return network, &hidden{err, fmt.Sprintf("no such host: no name server knows %s", dns.Name)}
	case errors.As(err, &dns):
		return network, err
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		return "; is a firewall between, or has a proxy to be named with HTTPS_PROXY?", fmt.Errorf("nothing answers there: %w", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "", fmt.Errorf("the connection ended too early: %w", err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Sprintf("; if that is meant, allow it with --plain-http %s", host), errors.New("it speaks plain http, without encryption")
	}
	return "", nil
}

// certificateAdvice returns the advice about TLS. better is nil if err is not about TLS.
func certificateAdvice(host string, err error) (hint string, better error) {
	var unknownCA x509.UnknownAuthorityError
	var wrongHost x509.HostnameError
	var badCert x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknownCA):
		return "; give its certificate authority with --ca-file", &hidden{err, "its certificate is signed by an unknown authority"}
	case errors.As(err, &wrongHost):
		return "; call it by a name that its certificate has, or correct the certificate", &hidden{err, otherNames(wrongHost)}
	case errors.As(err, &badCert) && badCert.Reason == x509.Expired:
		return notValidNow(badCert.Cert, time.Now(), err)
	case refusedCertificate(err):
		return "; it requires a client certificate that it knows: put client.cert and client.key into ~/.config/containers/certs.d/" + host, err
	case oldTLS(err):
		return "; it speaks only versions of TLS before 1.2, which protect nothing any more", err
	}
	return "", nil
}

// notValidNow words the error of a certificate that is not valid at the time now.
func notValidNow(cert *x509.Certificate, now time.Time, err error) (hint string, worded error) {
	const day = "2006-01-02"
	today := now.UTC().Format(day)
	if cert == nil {
		return "; check this machine's clock too", err
	}
	if now.Before(cert.NotBefore) {
		text := fmt.Sprintf(
			"its certificate is not yet valid: it begins on %s, and the clock of this machine is at %s",
			cert.NotBefore.UTC().Format(day), today,
		)
		return "; set the clock", &hidden{err, text}
	}
	text := fmt.Sprintf(
		"its certificate has expired: it was valid until %s, and the clock of this machine is at %s",
		cert.NotAfter.UTC().Format(day), today,
	)
	return "; renew the certificate, or set the clock if that is wrong", &hidden{err, text}
}

// otherNames describes a certificate for other hosts by the names that it contains.
func otherNames(e x509.HostnameError) string {
	names := slices.Clone(e.Certificate.DNSNames)
	for _, ip := range e.Certificate.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return fmt.Sprintf("its certificate names no host, and so not %q", e.Host)
	}
	return fmt.Sprintf("its certificate is for %s and not for %q", shown(strings.Join(names, ", ")), e.Host)
}

// storageHint is the advice if a registry accepts the login and redirects to storage that
// denies access.
const storageHint = "; that is the registry's storage, which no login opens: the clocks of both, or the credentials " +
	"that the registry has for it, may be wrong, or a proxy is between"

// DockerTypesHint is the advice for a registry that accepts only OCI media types.
const DockerTypesHint = `zot takes Docker's with "compat": ["docker2s2"] in the http section of its configuration`

const proxyHint = "; put the proxy's user and password into HTTPS_PROXY, http://USER:PASSWORD@HOST:PORT"

// oldTLS reports whether client and server have no version of TLS in common. crypto/tls
// exports no type for this error.
func oldTLS(err error) bool {
	return strings.Contains(err.Error(), "protocol version not supported") ||
		strings.Contains(err.Error(), "selected unsupported protocol version")
}

// proxyError is a proxy's refusal to connect.
type proxyError struct {
	host string // HOST:PORT, without a password
	code int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy %s answered %d %s", e.host, e.code, http.StatusText(e.code))
}

func checkProxy(_ context.Context, proxy *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy.Host, res.StatusCode}
}
