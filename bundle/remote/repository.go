package remote

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// errContent marks bytes that a registry should not have sent.
var errContent = errors.New("wrong content")

var manifestTypes = []string{
	bundle.TypeOCIIndex, bundle.TypeOCIManifest, bundle.TypeDockerList, bundle.TypeDockerManifest,
}

// Repository is one repository of one registry, with a login if it needs one.
type Repository struct {
	client   *http.Client
	scheme   string
	host     string // as the user gave it
	registry string // as the library spells it; docker.io has its registry elsewhere
	name     string
	auth     string // who we are, for messages

	noReferrers atomic.Bool // it does not list them
}

func (r *Repository) url(format string, args ...any) string {
	return fmt.Sprintf("%s://%s/v2/%s/", r.scheme, r.registry, r.name) + fmt.Sprintf(format, args...)
}

// String returns HOST/NAME.
func (r *Repository) String() string { return r.host + "/" + r.name }

// do sends one request. Any status that is not among want is an error.
func (r *Repository) do(req *http.Request, want ...int) (*http.Response, error) {
	res, err := r.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the message names the host already
		}
		return nil, err
	}
	if !slices.Contains(want, res.StatusCode) {
		return nil, statusOf(res)
	}
	return res, nil
}

// Manifest fetches a manifest or index by tag or digest. The descriptor has the
// type, digest and size; the bytes are those that the registry sent.
func (r *Repository) Manifest(ctx context.Context, ref string) (d bundle.Descriptor, data []byte, err error) {
	err = retry(ctx, func() error {
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
	ctx, cancel := context.WithTimeout(ctx, 2*IdleTimeout) // a manifest is small
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url("manifests/%s", ref), nil)
	if err != nil {
		return d, nil, err
	}
	req.Header.Set("Accept", strings.Join(manifestTypes, ", "))
	res, err := r.do(req, http.StatusOK)
	if err != nil {
		return d, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, bundle.MaxManifest+1))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return d, nil, err
	}
	if len(data) > bundle.MaxManifest {
		return d, nil, fmt.Errorf("%w: more than %d bytes", errContent, bundle.MaxManifest)
	}
	mediaType, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || !slices.Contains(manifestTypes, mediaType) {
		return d, nil, fmt.Errorf("%w: it sent a %q instead of a manifest", errContent, res.Header.Get("Content-Type"))
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

// Transfer is a blob on its way from a registry. The zero value is its
// beginning; Hash and Have let it begin where an earlier one ended.
type Transfer struct {
	Hash   hash.Hash   // of the first Have bytes; nil means a new sha256
	Have   int64       // bytes that are written and good as far as anybody knows
	Buffer []byte      // nil means one of its own
	Done   func(int64) // gets each number of bytes, negative where they are fetched again; may be nil

	from     source
	d        bundle.Descriptor
	w        io.WriterAt
	complete bool
	restarts int
}

// source is where a transfer comes from.
type source struct {
	url    string
	do     func(req *http.Request, want ...int) (*http.Response, error)
	failed func(err error) error // words an error for people
}

// bufferSize is what one read from a connection can bring, in bytes.
const bufferSize = 256 << 10

// Fetch writes the blob that d describes to w, from offset t.Have on, and
// verifies it as a whole. A connection that breaks is taken up again where it
// broke; from a registry that serves no ranges the blob is fetched from its
// start. T, which may be nil, tells at any time how far it has come.
func (r *Repository) Fetch(ctx context.Context, d bundle.Descriptor, w io.WriterAt, t *Transfer) error {
	return fetch(ctx, source{r.url("blobs/%s", d.Digest), r.do, func(err error) error {
		return r.failed(fmt.Sprintf("fetching blob %s of %s", d.Digest, r.name), err)
	}}, d, w, t)
}

func fetch(ctx context.Context, from source, d bundle.Descriptor, w io.WriterAt, t *Transfer) error {
	if t == nil {
		t = &Transfer{}
	}
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
	for {
		before := t.Have
		err := retry(ctx, func() error {
			err := t.more(ctx)
			if err != nil && t.Have > before && ctx.Err() == nil && passing(err) {
				return nil // progress: a fresh set of tries
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

func (t *Transfer) restart() {
	t.Done(-t.Have)
	t.Hash.Reset()
	t.Have = 0
}

// more asks for what is missing and reads as far as the connection goes.
func (t *Transfer) more(ctx context.Context) (err error) {
	if t.Have > 0 && t.Have == t.d.Size { // the connection broke behind the last byte
		return t.finish()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.from.url, nil)
	if err != nil {
		return err
	}
	if t.Have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.Have))
	}
	res, err := t.from.do(req, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		var status *statusError
		if t.Have > 0 && errors.As(err, &status) && status.code == http.StatusRequestedRangeNotSatisfiable {
			t.restart() // it does not understand what it was asked
			return errors.New("it refuses ranges: " + status.Error())
		}
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if t.Have > 0 && res.StatusCode == http.StatusOK {
		t.restart() // the registry does not serve ranges
	} else if want := fmt.Sprintf("bytes %d-", t.Have); t.Have > 0 && !strings.HasPrefix(res.Header.Get("Content-Range"), want) {
		return fmt.Errorf("%w: it was asked for %q and sent %q", errContent, want, res.Header.Get("Content-Range"))
	}
	idle := time.AfterFunc(IdleTimeout, func() { cancel(fmt.Errorf("no byte came for %s", IdleTimeout)) })
	defer idle.Stop()
	for {
		n, err := res.Body.Read(t.Buffer)
		idle.Reset(IdleTimeout)
		if t.Have+int64(n) > t.d.Size {
			return fmt.Errorf("%w: it sends more than the %d bytes of the blob", errContent, t.d.Size)
		}
		if n > 0 {
			if _, err := t.w.WriteAt(t.Buffer[:n], t.Have); err != nil {
				return &localError{err}
			}
			t.Hash.Write(t.Buffer[:n])
			t.Have += int64(n)
			t.Done(int64(n))
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

// finish judges what was read when the body ended.
func (t *Transfer) finish() error {
	if t.Have < t.d.Size {
		return io.ErrUnexpectedEOF
	}
	if got := bundle.DigestFrom(t.Hash.Sum(nil)); t.d.Digest != "" && got != t.d.Digest { // empty: nobody knows it yet
		t.restart()
		if t.restarts++; t.restarts < 2 {
			return errors.New("it sent other bytes than the digest says")
		}
		return fmt.Errorf("%w: it sent %s instead of %s", errContent, got, t.d.Digest)
	}
	t.complete = true
	return nil
}

// localError is a failure of this side: its disk, or the bundle it reads.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// maxPages bounds the answers that one list may have.
const maxPages = 100

// Referrers lists the manifests that refer to a digest (distribution-spec 1.1,
// listing referrers), all pages of it; where the registry does not know that
// question, what it has under the tag that clients then keep (sha256-HEX).
func (r *Repository) Referrers(ctx context.Context, subject bundle.Digest) ([]bundle.Descriptor, error) {
	var list []bundle.Descriptor
	if !r.noReferrers.Load() {
		next := r.url("referrers/%s", subject)
		for page := 0; next != ""; page++ {
			if page == maxPages {
				return nil, fmt.Errorf("%w: %s lists what refers to %s on more than %d pages", ErrRegistry, r, subject, maxPages)
			}
			var found []bundle.Descriptor
			var following string
			err := retry(ctx, func() (err error) {
				if found, following, err = r.referrers(ctx, next); err != nil {
					return r.failed(fmt.Sprintf("asking what refers to %s in %s", subject, r.name), err)
				}
				return nil
			})
			next = following
			var status *statusError
			if page == 0 && errors.As(err, &status) && slices.Contains([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}, status.code) {
				r.noReferrers.Store(true)
				break
			}
			if err != nil {
				return nil, err
			}
			list = append(list, found...)
		}
		if !r.noReferrers.Load() {
			return list, nil
		}
	}
	d, data, err := r.Manifest(ctx, strings.Replace(string(subject), ":", "-", 1))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(d, data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: the list of what refers to %s: %w", ErrRegistry, r, subject, err)
	}
	return m.Manifests, nil
}

// referrers asks for one page, and returns the URL of the next.
func (r *Repository) referrers(ctx context.Context, from string) (list []bundle.Descriptor, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*IdleTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", bundle.TypeOCIIndex)
	res, err := r.do(req, http.StatusOK)
	if err != nil {
		return nil, "", err
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, bundle.MaxManifest+1))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, "", err
	}
	m, err := bundle.ParseManifest(bundle.Descriptor{MediaType: bundle.TypeOCIIndex, Digest: bundle.DigestOf(data)}, data)
	if err != nil || len(data) > bundle.MaxManifest {
		return nil, "", fmt.Errorf("%w: it sent something else than a list of manifests", errContent)
	}
	link, _, found := strings.Cut(res.Header.Get("Link"), ">")
	if !found || !strings.Contains(res.Header.Get("Link"), `rel="next"`) {
		return m.Manifests, "", nil
	}
	u, err := req.URL.Parse(strings.TrimPrefix(link, "<"))
	if err != nil || u.Host != req.URL.Host || u.Scheme != req.URL.Scheme {
		return nil, "", fmt.Errorf("%w: the next page of its list would be at %q", errContent, link)
	}
	return m.Manifests, u.String(), nil
}
