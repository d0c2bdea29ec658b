package remote

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/oob-bundle/oob-bundle/bundle"
)

const (
	// tries bounds the attempts at one request without progress.
	tries = 5
	// maxRetryAfter bounds the wait that a registry may ask for.
	maxRetryAfter = 5 * time.Minute
)

// statusError is an answer that is not the one hoped for.
type statusError struct {
	code       int
	retryAfter time.Duration
	text       string
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("it answered %d %s", e.code, http.StatusText(e.code))
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

// statusOf turns a response into an error and closes its body. The text is the
// registry's own, shortened and without control characters.
func statusOf(res *http.Response) *statusError {
	body, _ := io.ReadAll(io.LimitReader(res.Body, 2048)) // only to show it
	_ = res.Body.Close()
	e := &statusError{code: res.StatusCode}
	var doc struct { // distribution-spec, error codes
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	if json.Unmarshal(body, &doc) == nil && len(doc.Errors) > 0 {
		body = []byte(doc.Errors[0].Message)
		if len(body) == 0 {
			body = []byte(doc.Errors[0].Code)
		}
	}
	if !strings.Contains(res.Header.Get("Content-Type"), "html") {
		e.text = strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(string(body), "?")))
		e.text = e.text[:min(len(e.text), 300)]
	}
	after := res.Header.Get("Retry-After")
	if s, err := strconv.Atoi(after); err == nil && s > 0 {
		e.retryAfter = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(after); err == nil {
		e.retryAfter = time.Until(t)
	}
	return e
}

// retry calls op until it succeeds, fails for good, or has failed too often.
func retry(ctx context.Context, op func() error) error {
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
		case errors.As(err, &status) && status.retryAfter > 0 && status.retryAfter <= maxRetryAfter:
			wait := &backoff.RetryAfterError{Duration: status.retryAfter}
			return struct{}{}, errors.Join(err, wait)
		}
		return struct{}{}, err
	}, backoff.WithMaxTries(tries), backoff.WithBackOff(pause()))
	return err
}

func pause() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 300*time.Millisecond, 10*time.Second
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
	var code int
	switch {
	case errors.As(err, &local), errors.Is(err, bundle.ErrLimit), errors.Is(err, bundle.ErrFormat):
		return false
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
		return !strings.Contains(err.Error(), "redirect") // net/http has no type for it
	}
	return code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || code >= 500 && code != http.StatusNotImplemented && code != http.StatusInsufficientStorage
}

// failed words an error for people: what was tried, where, and what to do.
func (r *Repository) failed(doing string, err error) error {
	return failed(doing, r.host, fmt.Sprintf("; asked as %s: log in with docker login %s", r.auth, r.host), err)
}

// failed does that for any host; denied is the advice where it asks for a login.
func failed(doing, host, denied string, err error) error {
	var local *localError
	if errors.As(err, &local) {
		return local // it is not the registry's
	}
	var status *statusError
	var lib *transport.Error
	code := 0
	if errors.As(err, &status) {
		code = status.code
	} else if errors.As(err, &lib) {
		code = lib.StatusCode
	}
	hint := ""
	var unknownCA x509.UnknownAuthorityError
	var badCert x509.CertificateInvalidError
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		err, hint = errors.New("nothing answers there (connection refused)"), "; is it running?"
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		hint = denied
	case code == http.StatusNotFound:
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	case code == http.StatusTooManyRequests:
		hint = "; wait, or log in for a higher limit"
	case errors.As(err, &unknownCA):
		hint = "; give its certificate authority with --ca-file"
	case errors.As(err, &badCert) && badCert.Reason == x509.Expired:
		hint = "; check this machine's clock too"
	case errors.As(err, &dns):
		hint = "; check the name, and this machine's network"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		err = errors.New("it speaks plain http, without encryption")
		hint = fmt.Sprintf("; if that is meant, allow it with --plain-http %s", host)
	}
	return fmt.Errorf("%w: %s at %s: %w%s", ErrRegistry, doing, host, err, hint)
}
