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

// Fetch writes the blob that d describes to w, from offset 0, and verifies it.
// A connection that breaks is taken up again where it broke, if the registry
// serves ranges. Done, which may be nil, gets each number of bytes; it is
// negative where bytes have to be fetched again.
func (r *Repository) Fetch(ctx context.Context, d bundle.Descriptor, w io.WriterAt, done func(bytes int64)) error {
	if done == nil {
		done = func(int64) {}
	}
	f := &fetch{repo: r, d: d, w: w, done: done, hash: sha256.New()}
	for {
		before := f.have
		err := retry(ctx, func() error {
			err := f.more(ctx)
			if err != nil && f.have > before && ctx.Err() == nil && passing(err) {
				return nil // progress: a fresh set of tries
			}
			if err != nil {
				return r.failed(fmt.Sprintf("fetching blob %s of %s", d.Digest, r.name), err)
			}
			return nil
		})
		if err != nil || f.complete {
			return err
		}
	}
}

// fetch is a blob on its way: have bytes are written and hashed.
type fetch struct {
	repo     *Repository
	d        bundle.Descriptor
	w        io.WriterAt
	done     func(int64)
	hash     hash.Hash
	have     int64
	complete bool
	restarts int
}

func (f *fetch) restart() {
	f.done(-f.have)
	f.hash.Reset()
	f.have = 0
}

// more asks for what is missing and reads as far as the connection goes.
func (f *fetch) more(ctx context.Context) (err error) {
	if f.have > 0 && f.have == f.d.Size { // the connection broke behind the last byte
		return f.finish()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.repo.url("blobs/%s", f.d.Digest), nil)
	if err != nil {
		return err
	}
	if f.have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", f.have))
	}
	res, err := f.repo.do(req, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if f.have > 0 && res.StatusCode == http.StatusOK {
		f.restart() // the registry does not serve ranges
	} else if want := fmt.Sprintf("bytes %d-", f.have); f.have > 0 && !strings.HasPrefix(res.Header.Get("Content-Range"), want) {
		return fmt.Errorf("%w: it was asked for %q and sent %q", errContent, want, res.Header.Get("Content-Range"))
	}
	idle := time.AfterFunc(IdleTimeout, func() { cancel(fmt.Errorf("no byte came for %s", IdleTimeout)) })
	defer idle.Stop()
	buf := make([]byte, 256<<10)
	for {
		n, err := res.Body.Read(buf)
		idle.Reset(IdleTimeout)
		if f.have+int64(n) > f.d.Size {
			return fmt.Errorf("%w: it sends more than the %d bytes of the blob", errContent, f.d.Size)
		}
		if n > 0 {
			if _, err := f.w.WriteAt(buf[:n], f.have); err != nil {
				return &localError{err}
			}
			f.hash.Write(buf[:n])
			f.have += int64(n)
			f.done(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF):
			return f.finish()
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
	}
}

// finish judges what was read when the body ended.
func (f *fetch) finish() error {
	if f.have < f.d.Size {
		return io.ErrUnexpectedEOF
	}
	if got := bundle.DigestFrom(f.hash.Sum(nil)); got != f.d.Digest {
		f.restart()
		if f.restarts++; f.restarts < 2 {
			return errors.New("it sent other bytes than the digest says")
		}
		return fmt.Errorf("%w: it sent %s instead", errContent, got)
	}
	f.complete = true
	return nil
}

// localError is a failure of this side: its disk, or the bundle it reads.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }
