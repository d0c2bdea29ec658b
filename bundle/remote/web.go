package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// minQuerySecret is the length from which a value in a URL is taken for a secret.
const minQuerySecret = 16

// Page is something on a web server, which is asked without a login.
type Page struct {
	client   *http.Client
	url      *url.URL
	patience Patience
	secrets  *secrets
}

// Page returns what stands at a URL. Nothing is asked yet. The error wraps
// ErrRegistry if there cannot be such a page.
func (c *Client) Page(rawURL string) (*Page, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%w: %q is not an http or https URL", ErrRegistry, rawURL)
	}
	if u.User != nil {
		return nil, fmt.Errorf("%w: %s: a password in a URL ends up in lock files and bundles; take it out", ErrRegistry, u.Redacted())
	}
	plain := slices.Contains(c.options.PlainHTTP, u.Host)
	if plain {
		u.Scheme = "http"
	}
	base, err := c.base(u.Host)
	if err != nil {
		return nil, err
	}
	p := &Page{url: u, patience: c.options.Patience, secrets: &secrets{}}
	p.secrets.add(u.RawQuery) // it may be a login of its own (signed URLs)
	for _, values := range u.Query() {
		for _, v := range values {
			if len(v) >= minQuerySecret { // shorter ones are words that messages need
				p.secrets.add(v)
			}
		}
	}
	inner := transport.NewUserAgent(guard{registry: u.Host, plain: plain, next: base, idle: p.patience.idle(), secrets: p.secrets}, c.options.UserAgent)
	p.client = &http.Client{Transport: inner, CheckRedirect: checkRedirect}
	return p, nil
}

// Encrypted reports whether the page is asked for by https.
func (p *Page) Encrypted() bool { return p.url.Scheme == "https" }

func (p *Page) do(req *http.Request, want ...int) (*http.Response, error) {
	r := Repository{client: p.client, secrets: p.secrets}
	return r.do(req, want...)
}

func (p *Page) failed(err error) error {
	named := *p.url
	named.RawQuery, named.Fragment = "", ""
	return failed("fetching "+named.Redacted(), p.url.Host, "; it asks for a login, and files are fetched without one", p.secrets, err)
}

// get asks for the page and gives its answer to use, which may end before the
// body does.
func (p *Page) get(ctx context.Context, use func(res *http.Response) error) error {
	return p.patience.retry(ctx, func() error {
		ctx, cancel := p.patience.bound(ctx, 10)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url.String(), nil)
		if err != nil {
			return p.failed(err)
		}
		res, err := p.do(req, http.StatusOK)
		if err != nil {
			return p.failed(cause(ctx, err))
		}
		if err := errors.Join(cause(ctx, use(res)), res.Body.Close()); err != nil {
			return p.failed(err)
		}
		return nil
	})
}

// ErrUnknownSize says that a server does not say how large a file is.
var ErrUnknownSize = errors.New("it does not say how large that is")

// Size asks how large the page is, in bytes. The error wraps ErrUnknownSize if
// the server does not say it.
func (p *Page) Size(ctx context.Context) (size int64, err error) {
	err = p.get(ctx, func(res *http.Response) error {
		size = res.ContentLength
		if size < 0 {
			return fmt.Errorf("%w: %w", errContent, ErrUnknownSize)
		}
		return nil
	})
	return size, err
}

// Read returns the page, which may have limit bytes at most.
func (p *Page) Read(ctx context.Context, limit int64) (data []byte, err error) {
	err = p.get(ctx, func(res *http.Response) error {
		data, err = io.ReadAll(io.LimitReader(res.Body, limit+1))
		if int64(len(data)) > limit {
			return fmt.Errorf("%w: more than %d bytes", errContent, limit)
		}
		return err
	})
	return data, err
}

// Stream gives the page to use while it comes; use has to take a second call,
// from the beginning, for a connection that breaks.
func (p *Page) Stream(ctx context.Context, use func(r io.Reader) error) error {
	return p.get(ctx, func(res *http.Response) error { return use(res.Body) })
}

// Fetch writes the page that d describes to w as Repository.Fetch does.
func (p *Page) Fetch(ctx context.Context, d bundle.Descriptor, w io.WriterAt, t *Transfer) error {
	return fetch(ctx, source{p.url.String(), p.do, p.failed, p.patience}, d, w, t)
}
