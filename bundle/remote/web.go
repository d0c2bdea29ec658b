package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// minQuerySecret is the length in bytes from which a query value is treated as a secret.
const minQuerySecret = 16

// Page is a document or file on a web server. Requests use the login for the host in the
// netrc file, if there is one.
type Page struct {
	client   *http.Client
	netrc    *netrc
	url      *url.URL
	patience Patience
	secrets  *secrets
}

// Page returns the page at a URL, without sending a request. If a host is in
// Options.PlainHTTP, the page is fetched over http. The error wraps ErrRegistry if the URL
// is invalid or contains a login.
func (c *Client) Page(rawURL string) (*Page, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%w: %q is not an http or https URL", ErrRegistry, rawURL)
	}
	if u.User != nil {
		return nil, fmt.Errorf(
			"%w: %s: a password in a URL ends up in lock files and bundles; take it out, and write it into a netrc file, such as ~/.netrc",
			ErrRegistry, u.Redacted(),
		)
	}
	plain := slices.Contains(c.options.PlainHTTP, u.Host)
	if plain {
		u.Scheme = "http"
	}
	base, err := c.transport(u.Host, u.Host)
	if err != nil {
		return nil, err
	}
	p := &Page{url: u, netrc: c.netrc(), patience: c.options.Patience, secrets: &secrets{}}
	p.secrets.add(u.RawQuery) // it may contain a credential (signed URLs)
	for _, values := range u.Query() {
		for _, v := range values {
			if len(v) >= minQuerySecret { // messages need shorter words
				p.secrets.add(v)
			}
		}
	}
	inner := transport.NewUserAgent(
		guard{registry: u.Host, plain: plain, next: base, elsewhere: c.elsewhere(u.Host), idle: p.patience.idle(), secrets: p.secrets},
		c.options.UserAgent,
	)
	if login, ok := p.netrc.find(u); ok {
		p.secrets.add(login.password)
		inner = netrcTransport{login, u, inner}
		c.warnOfNetrc(p.netrc)
	}
	p.client = &http.Client{Transport: inner, CheckRedirect: checkRedirect}
	return p, nil
}

// warnOfNetrc warns once if other users can read the netrc file.
func (c *Client) warnOfNetrc(n *netrc) {
	if n.open {
		c.warned.Do(func() {
			c.options.Warn("%s has a login and other users can read it; %s", n.path, disk.ModeAdvice(n.path, "chmod 600", "umask=077"))
		})
	}
}

// Encrypted reports whether the page is fetched over https.
func (p *Page) Encrypted() bool { return p.url.Scheme == "https" }

func (p *Page) do(req *http.Request, want ...int) (*http.Response, error) {
	r := Repository{client: p.client, secrets: p.secrets}
	return r.send(req, want...)
}

func (p *Page) failed(err error) error {
	named := *p.url
	named.RawQuery, named.Fragment = "", ""
	denied := p.netrc.denied(p.url)
	var status *statusError
	if errors.As(err, &status) && status.elsewhere {
		denied = fmt.Sprintf("; the answer is of another host, to which %s redirects, and logins are not sent there", p.url.Host)
	}
	return failed("fetching "+named.Redacted(), p.url.Host, denied, p.secrets, err)
}

// open requests the page and passes the response to use, which need not read all of the
// body. If the connection breaks, open starts again.
func (p *Page) open(ctx context.Context, use func(res *http.Response) error) error {
	return p.patience.retry(ctx, func() error { return p.once(ctx, use) })
}

func (p *Page) once(ctx context.Context, use func(res *http.Response) error) error {
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
}

// get does the same as open, with a time limit, for a small document.
func (p *Page) get(ctx context.Context, use func(res *http.Response) error) error {
	return p.patience.retry(ctx, func() error {
		bounded, cancel := p.patience.bound(ctx, 10)
		defer cancel()
		return p.once(bounded, use)
	})
}

// ErrUnknownSize reports that a server does not state the size of a file.
var ErrUnknownSize = errors.New("it does not say how large that is")

// Read returns the page as sent, of limit bytes at most.
func (p *Page) Read(ctx context.Context, limit int64) ([]byte, error) {
	return p.ReadPinned(ctx, limit, "")
}

// ReadPinned returns the decoded page if only the decoded page has the digest, or else the
// page as sent. Both may have limit bytes at most. The caller must check the digest.
func (p *Page) ReadPinned(ctx context.Context, limit int64, digest bundle.Digest) (data []byte, err error) {
	err = p.get(ctx, func(res *http.Response) error {
		if data, err = readAll(res.Body, limit); err != nil {
			return err
		}
		coding := codingOf(res)
		if coding == "" || digest == "" || bundle.DigestOf(data) == digest {
			return nil
		}
		content, err := decoded(bytes.NewReader(data), coding)
		if err != nil {
			return nil //nolint:nilerr // the caller compares the bytes as sent
		}
		if plain, err := readAll(content, limit); err == nil && bundle.DigestOf(plain) == digest {
			data = plain
		}
		return nil
	})
	return data, err
}

// Document returns the decoded page, of limit bytes at most.
func (p *Page) Document(ctx context.Context, limit int64) (data []byte, err error) {
	err = p.get(ctx, func(res *http.Response) error {
		content, err := document(res)
		if err != nil {
			return err
		}
		data, err = readAll(content, limit)
		return err
	})
	return data, err
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", errContent, limit)
	}
	return data, err
}

// Save writes the decoded page, of limit bytes at most, to f.
func (p *Page) Save(ctx context.Context, f *os.File, limit int64) error {
	return p.get(ctx, func(res *http.Response) error {
		content, err := document(res)
		if err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return &localError{err}
		}
		if err := f.Truncate(0); err != nil {
			return &localError{err}
		}
		size, err := io.Copy(localWriter{f}, io.LimitReader(content, limit+1))
		if size > limit {
			return fmt.Errorf("%w: more than %d bytes", errContent, limit)
		}
		return err
	})
}

// localWriter marks its errors as local, so that they are not tried again.
type localWriter struct{ io.Writer }

func (w localWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		err = &localError{err}
	}
	return n, err
}

// Fetch writes the page that d describes to w, like Repository.Fetch. If d has a digest,
// and the bytes as sent do not match d but have a content coding, Fetch writes the decoded
// page.
func (p *Page) Fetch(ctx context.Context, d bundle.Descriptor, w io.WriterAt, t *Transfer) error {
	if t == nil {
		t = &Transfer{}
	}
	err := fetch(ctx, source{p.url.String(), p.do, p.failed, p.patience}, d, w, t)
	var coded *codingError
	if d.Digest == "" || !errors.As(err, &coded) {
		return err
	}
	return p.fetchDecoded(ctx, t)
}
