package remote

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// errContent marks wrong content that a registry or web server sent.
var errContent = errors.New("wrong content")

var manifestTypes = []string{
	bundle.TypeOCIIndex, bundle.TypeOCIManifest, bundle.TypeDockerList, bundle.TypeDockerManifest,
}

// Repository is a client for one repository of a registry, logged in if necessary.
type Repository struct {
	client   *http.Client
	scheme   string
	host     string // as the user wrote it
	registry string // as the library spells it; the registry of docker.io is on another host
	name     string
	auth     string // user or token owner, for messages
	patience Patience
	secrets  *secrets // hidden in messages

	noReferrers atomic.Bool // the registry does not implement the referrers API
}

func (r *Repository) url(format string, args ...any) string {
	return fmt.Sprintf("%s://%s/v2/%s/", r.scheme, r.registry, r.name) + fmt.Sprintf(format, args...)
}

// String returns HOST/NAME.
func (r *Repository) String() string { return r.host + "/" + r.name }

// do sends one request. A status that is not in want is an error, and so is content in a
// coding.
func (r *Repository) do(req *http.Request, want ...int) (*http.Response, error) {
	res, err := r.send(req, want...)
	if err != nil {
		return nil, err
	}
	if coding := codingOf(res); coding != "" {
		return nil, errors.Join(&codingError{coding}, res.Body.Close())
	}
	return res, nil
}

// send sends one request. A status that is not in want is an error.
func (r *Repository) send(req *http.Request, want ...int) (*http.Response, error) {
	res, err := r.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // messages already name the host
		}
		return nil, err
	}
	if !slices.Contains(want, res.StatusCode) {
		status := statusOf(res, r.secrets)
		status.elsewhere = res.Request.URL.Host != req.URL.Host
		if redirected(res) {
			status.leadsTo = res.Request.URL.Host
		}
		return nil, status
	}
	return res, nil
}

// redirected reports whether a response came after a redirect.
func redirected(res *http.Response) bool { return res.Request.Response != nil }

// Manifest fetches a manifest or index by tag or digest. It returns a descriptor with
// media type, digest and size, and the bytes as sent.
func (r *Repository) Manifest(ctx context.Context, ref string) (d bundle.Descriptor, data []byte, err error) {
	err = r.patience.retry(ctx, func() error {
		d, data, err = r.manifest(ctx, ref)
		if err != nil {
			return r.failed(fmt.Sprintf("fetching the manifest of %s:%s", r.name, ref), err)
		}
		return nil
	})
	return d, data, err
}

func (r *Repository) manifest(ctx context.Context, ref string) (bundle.Descriptor, []byte, error) {
	var d bundle.Descriptor
	ctx, cancel := r.patience.bound(ctx, 2) // a manifest is small
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url("manifests/%s", ref), nil)
	if err != nil {
		return d, nil, err
	}
	req.Header.Set("Accept", strings.Join(manifestTypes, ", "))
	res, err := r.do(req, http.StatusOK)
	if err != nil {
		return d, nil, cause(ctx, err)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, bundle.MaxManifest+1))
	if err = errors.Join(cause(ctx, err), res.Body.Close()); err != nil {
		return d, nil, err
	}
	if len(data) > bundle.MaxManifest {
		return d, nil, fmt.Errorf("%w: more than %d bytes", errContent, bundle.MaxManifest)
	}
	mediaType, err := bundle.ManifestType(res.Header.Get("Content-Type"), data)
	if err != nil {
		return d, nil, fmt.Errorf("%w: %w", errContent, err)
	}
	d = bundle.Descriptor{MediaType: mediaType, Digest: bundle.DigestOf(data), Size: int64(len(data))}
	if stated, err := bundle.ParseDigest(res.Header.Get("Docker-Content-Digest")); err == nil && stated != d.Digest {
		return d, nil, fmt.Errorf("%w: it says %s and sent %s", errContent, stated, d.Digest)
	}
	if asked, err := bundle.ParseDigest(ref); err == nil && asked != d.Digest {
		return d, nil, fmt.Errorf("%w: it sent %s", errContent, d.Digest)
	}
	return d, data, nil
}

// Transfer is the state of a download. The zero value starts a download; Hash and Have
// continue an earlier one.
type Transfer struct {
	Hash   hash.Hash   // of the first Have bytes; nil means a new sha256
	Have   int64       // bytes written so far
	Buffer []byte      // nil allocates one
	Done   func(int64) // gets the number of bytes of each step, negative if bytes must be fetched again; may be nil

	from     source
	d        bundle.Descriptor
	w        io.WriterAt
	complete bool
	restarts int
	kind     string // Content-Type of the last answer
	coding   string // Content-Encoding of the last answer, or ""
	version  string // strong ETag or Last-Modified of the last whole response (RFC 9110, section 8.8), or ""
}

// source is the origin of a transfer.
type source struct {
	url    string
	do     func(req *http.Request, want ...int) (*http.Response, error)
	failed func(err error) error // words an error for users

	patience Patience
}

// bufferSize bounds one read from a connection, in bytes.
const bufferSize = 256 << 10

// minProgress is the number of bytes that a set of tries must fetch to earn another set.
// Otherwise a connection that ends after each byte would cause millions of tries.
const minProgress = 64 << 10

// Fetch writes the blob that d describes to w, from offset t.Have on, and verifies the
// whole blob. After a broken connection it continues at the same offset, or starts again if
// the registry does not serve ranges. t, which may be nil, records the progress.
func (r *Repository) Fetch(ctx context.Context, d bundle.Descriptor, w io.WriterAt, t *Transfer) error {
	return fetch(ctx, source{r.url("blobs/%s", d.Digest), r.send, func(err error) error {
		return r.failed(fmt.Sprintf("fetching blob %s of %s", d.Digest, r.name), err)
	}, r.patience}, d, w, t)
}

func fetch(ctx context.Context, from source, d bundle.Descriptor, w io.WriterAt, t *Transfer) error {
	if t == nil {
		t = &Transfer{}
	}
	t.begin(from, d, w)
	for {
		before := t.Have
		err := from.patience.retry(ctx, func() error {
			err := t.more(ctx)
			if err != nil && t.Have-before >= minProgress && ctx.Err() == nil && passing(err) {
				return nil // enough progress for a new set of tries
			}
			if err != nil {
				return from.failed(err)
			}
			return nil
		})
		if err != nil || t.complete {
			return err
		}
	}
}

// begin sets the source, the blob and the destination, and the defaults.
func (t *Transfer) begin(from source, d bundle.Descriptor, w io.WriterAt) {
	t.from, t.d, t.w = from, d, w
	if t.Hash == nil {
		t.Hash = sha256.New()
	}
	if t.Buffer == nil {
		t.Buffer = make([]byte, min(bufferSize, d.Size+1))
	}
	if t.Done == nil {
		t.Done = func(int64) {}
	}
}

func (t *Transfer) restart() {
	t.Done(-t.Have)
	t.Hash.Reset()
	t.Have = 0
}

// more requests the missing bytes and reads until the response ends or fails.
func (t *Transfer) more(ctx context.Context) (err error) {
	if t.Have > 0 && t.Have == t.d.Size { // the connection broke after the last byte
		return t.finish()
	}
	req, err := t.request(ctx)
	if err != nil {
		return err
	}
	res, err := t.from.do(req, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		var status *statusError
		if t.Have > 0 && errors.As(err, &status) && status.code == http.StatusRequestedRangeNotSatisfiable {
			t.restart() // without a range
			return errors.New("it refuses ranges: " + status.Error())
		}
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if err := t.accept(res); err != nil {
		return err
	}
	for {
		n, err := res.Body.Read(t.Buffer)
		if err := t.write(n); err != nil {
			return err
		}
		switch {
		case errors.Is(err, io.EOF):
			return t.finish()
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
	}
}

// request returns the request for the missing bytes (RFC 9110, section 14). Without a
// digest to verify the whole, it makes sure that all bytes are of one version.
func (t *Transfer) request(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.from.url, nil)
	if err != nil {
		return nil, err
	}
	if t.Have > 0 && t.d.Digest == "" {
		if t.version == "" {
			t.restart()
		} else {
			req.Header.Set("If-Range", t.version)
		}
	}
	if t.Have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.Have))
	}
	return req, nil
}

// accept checks the header of a response, and refuses a response with other bytes than
// requested. Errors wrap errContent.
func (t *Transfer) accept(res *http.Response) error {
	t.kind, t.coding = res.Header.Get("Content-Type"), codingOf(res)
	sent := res.Header.Get("Content-Range")
	if res.StatusCode == http.StatusOK {
		if t.Have > 0 {
			t.restart() // the registry does not serve ranges
		}
		t.version = res.Header.Get("Last-Modified")
		if tag := res.Header.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
			t.version = tag
		}
	} else {
		want := fmt.Sprintf("bytes %d-", t.Have)
		if t.Have > 0 && !strings.HasPrefix(sent, want) {
			return fmt.Errorf("%w: it was asked for %q and sent %q", errContent, want, sent)
		}
		if _, total, _ := strings.Cut(sent, "/"); total != "*" && total != fmt.Sprint(t.d.Size) {
			return fmt.Errorf("%w: it has %s bytes and not %d", errContent, total, t.d.Size)
		}
	}
	if other := res.ContentLength >= 0 && res.ContentLength != t.d.Size-t.Have; other && t.coding != "" {
		return &codingError{t.coding}
	}
	return nil
}

// write writes the first n bytes of the buffer.
func (t *Transfer) write(n int) error {
	if t.Have+int64(n) > t.d.Size {
		return t.wrong(fmt.Errorf("%w: it sends more than the %d bytes of the blob", errContent, t.d.Size))
	}
	if n == 0 {
		return nil
	}
	if _, err := t.w.WriteAt(t.Buffer[:n], t.Have); err != nil {
		return &localError{err}
	}
	t.Hash.Write(t.Buffer[:n])
	t.Have += int64(n)
	t.Done(int64(n))
	return nil
}

// wrong returns the reason why the bytes as sent do not match the descriptor: a
// codingError if the response has a coding, or else err.
func (t *Transfer) wrong(err error) error {
	if t.coding != "" {
		return &codingError{t.coding}
	}
	return err
}

// finish checks size and digest after the end of a body.
func (t *Transfer) finish() error {
	page := ""
	if strings.HasPrefix(t.kind, "text/html") {
		page = ", a web page" // perhaps the login page of a network in between
	}
	if t.Have < t.d.Size {
		return t.wrong(fmt.Errorf("it sent %d of %d bytes%s: %w", t.Have, t.d.Size, page, io.ErrUnexpectedEOF))
	}
	if got := bundle.DigestFrom(t.Hash.Sum(nil)); t.d.Digest != "" && got != t.d.Digest { // an empty digest is unknown
		t.restart()
		if t.restarts++; t.restarts < 2 {
			return t.wrong(errors.New("it sent other bytes than the digest says"))
		}
		return t.wrong(fmt.Errorf("%w: it sent %s instead of %s%s", errContent, got, t.d.Digest, page))
	}
	t.complete = true
	return nil
}

// localError is a failure on this machine, of the disk or of the bundle that is read.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }

func (e *localError) Unwrap() error { return e.err }
