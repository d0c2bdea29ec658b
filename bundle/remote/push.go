package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Resolve returns the digest to which a tag points, or bundle.Digest("") if there is no
// such tag or repository.
func (r *Repository) Resolve(ctx context.Context, tag string) (bundle.Digest, error) {
	d, _, err := r.Manifest(ctx, tag)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return d.Digest, err
}

// PushBlob uploads a blob. If from is not empty, it first asks the registry to mount the
// blob from that repository, and uploads the blob if the registry does not. open is called
// for each upload and must return a reader of d.Size bytes. An error of the reader ends
// the upload and is returned without further text.
func (r *Repository) PushBlob(ctx context.Context, d bundle.Descriptor, from string, open func() io.Reader) error {
	return r.patience.retry(ctx, func() error {
		err := r.pushBlob(ctx, d, from, open)
		if err != nil {
			return r.failed(fmt.Sprintf("pushing blob %s to %s", d.Digest, r.name), err)
		}
		return nil
	})
}

func (r *Repository) pushBlob(ctx context.Context, d bundle.Descriptor, from string, open func() io.Reader) error {
	start := r.url("blobs/uploads/")
	if from != "" {
		start += "?" + url.Values{"mount": {string(d.Digest)}, "from": {from}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, start, nil)
	if err != nil {
		return err
	}
	res, err := r.do(req, http.StatusAccepted, http.StatusCreated)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode == http.StatusCreated {
		return nil // mounted
	}
	to, err := r.uploadURL(res, d.Digest)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, uploading{}, true))
	defer cancel(nil)
	limit := r.patience.idle()
	idle := time.AfterFunc(limit, func() { cancel(fmt.Errorf("it took no byte for %s", limit)) })
	defer idle.Stop()
	var taken int64
	body := &uploadBody{r: open(), progress: func(n int) {
		// After the last byte, a registry may still need time to store the blob.
		wait := limit
		if taken += int64(n); taken >= d.Size {
			wait = r.patience.filing(d.Size)
		}
		idle.Reset(wait)
	}}
	if req, err = http.NewRequestWithContext(ctx, http.MethodPut, to, io.NopCloser(body)); err != nil {
		return err
	}
	if d.Size == 0 {
		req.Body = http.NoBody
	}
	req.ContentLength = d.Size
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err = r.do(req, http.StatusCreated)
	if cause := body.failure(); cause != nil {
		return &localError{cause} // the registry's error would only be a consequence
	}
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	if sent := body.sent(); sent != d.Size {
		return errors.Join(fmt.Errorf("%w: it had enough after %d of %d bytes", errContent, sent, d.Size), res.Body.Close())
	}
	return res.Body.Close()
}

// CanPush checks that the account may push: it starts an upload and cancels it.
func (r *Repository) CanPush(ctx context.Context) error {
	return r.patience.retry(ctx, func() error {
		err := r.tryUpload(ctx)
		if err != nil {
			return r.failed("pushing to "+r.name, err)
		}
		return nil
	})
}

func (r *Repository) tryUpload(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url("blobs/uploads/"), nil)
	if err != nil {
		return err
	}
	res, err := r.do(req, http.StatusAccepted)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	to, err := r.uploadURL(res, "")
	if err != nil {
		return err
	}
	if req, err = http.NewRequestWithContext(ctx, http.MethodDelete, to, nil); err != nil {
		return err
	}
	if res, err = r.client.Do(req); err != nil {
		return nil //nolint:nilerr // the registry drops an upload that is not finished
	}
	return res.Body.Close()
}

// uploadURL returns the URL of an upload from the Location of res. If d is not empty, the
// URL completes the upload of blob d. Location must be on the registry's host: data is
// never sent to another host that an answer names.
func (r *Repository) uploadURL(res *http.Response, d bundle.Digest) (string, error) {
	u, err := res.Location()
	if err != nil {
		return "", fmt.Errorf("%w: no place to upload to: it accepted the upload and sent no Location", errContent)
	}
	if !strings.EqualFold(u.Hostname(), hostname(r.registry)) {
		return "", fmt.Errorf(
			"%w: it wants the upload sent to another host, %s (%s://%[2]s); the registry does not know the address by which it is reached: "+
				"set it in its configuration (http.host of distribution, external_url of Harbor), or have the proxy before it send "+
				"Host and X-Forwarded-Proto",
			errRefused, u.Host, u.Scheme,
		)
	}
	u.Scheme, u.Host = r.scheme, r.registry // some registries behind a proxy name an internal port
	if d != "" {
		q := u.Query()
		q.Set("digest", string(d))
		u.RawQuery = q.Encode()
	}
	return u.String(), nil
}

// PushManifest pushes a manifest under the tag ref, or under its digest if ref is empty.
func (r *Repository) PushManifest(ctx context.Context, ref string, d bundle.Descriptor, data []byte) error {
	_, err := r.pushManifest(ctx, ref, d, data)
	return err
}

// DeleteTag removes a tag (distribution-spec 1.1, deleting tags). If the registry refuses,
// the tag stays, and DeleteTag returns nil.
func (r *Repository) DeleteTag(ctx context.Context, tag string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, r.url("manifests/%s", tag), nil)
	if err != nil {
		return err
	}
	res, err := r.do(req, http.StatusAccepted, http.StatusOK, http.StatusNoContent)
	var status *statusError
	// Some registries do not delete tags (405, 400), some keep tags for ever, and accounts
	// that may push often may not delete. This must not stop the caller.
	if errors.As(err, &status) && status.code >= 400 && status.code < 500 && status.code != http.StatusTooManyRequests &&
		status.code != http.StatusRequestTimeout {
		return nil
	}
	if err != nil {
		return r.failed("removing the tag "+tag, err)
	}
	return res.Body.Close()
}

// PushReferrer pushes a manifest that refers to another. On a registry that does not
// implement the referrers API, it adds the manifest to the list under the tag sha256-HEX
// (distribution-spec 1.1, pushing manifests with subject). The caller must not make two
// calls for one subject at the same time. If another machine overwrites the list before
// PushReferrer returns, PushReferrer adds the manifest again. If the registry cannot keep
// a list, the manifest is pushed nevertheless, and there is no error.
func (r *Repository) PushReferrer(ctx context.Context, m *bundle.Manifest, data []byte) error {
	kept, err := r.pushManifest(ctx, "", m.Descriptor, data)
	if err != nil || kept || m.Subject == nil {
		return err
	}
	for range tries {
		listed, err := r.list(ctx, m)
		if errors.Is(err, errUnlisted) {
			return nil
		}
		if listed || err != nil {
			return err
		}
	}
	return fmt.Errorf(
		"%w: %s loses what is added to the list of what refers to %s; another machine may be adding to it; run it again",
		ErrRegistry, r, m.Subject.Digest,
	)
}

// errUnlisted marks a registry that cannot keep a list of referrers.
var errUnlisted = errors.New("no list of referrers can be kept")

// list adds a manifest to its subject's list of referrers under the tag, and reports
// whether the manifest was listed already. If not, the caller must call list again to
// check. The error is errUnlisted if the tag holds something else, which is kept; if the
// registry refuses the list; or if the tag resolves to the subject, so that the list
// cannot be read back.
func (r *Repository) list(ctx context.Context, m *bundle.Manifest) (listed bool, err error) {
	list, err := r.taggedReferrers(ctx, m.Subject.Digest)
	unseen := errors.Is(err, errSubject)
	switch {
	case errors.Is(err, errContent) && !unseen:
		return false, errUnlisted
	case err != nil && !unseen && !errors.Is(err, ErrNotFound):
		return false, err
	case slices.ContainsFunc(list, func(d bundle.Descriptor) bool { return d.Digest == "" }):
		return false, errUnlisted // rewriting the list would lose an entry
	}
	own := m.Descriptor
	own.Platform, own.ArtifactType, own.Annotations = nil, m.ArtifactType, m.Annotations
	if slices.ContainsFunc(list, func(d bundle.Descriptor) bool { return d.Digest == own.Digest }) {
		return true, nil
	}
	d, index := bundle.NewReferrersIndex(append(list, own))
	err = r.PushManifest(ctx, referrersTag(m.Subject.Digest), d, index)
	if Refused(err) || err == nil && unseen {
		return false, errUnlisted
	}
	return false, err
}

// pushManifest pushes a manifest. kept reports whether the registry itself lists the
// manifest as a referrer of its subject.
func (r *Repository) pushManifest(ctx context.Context, ref string, d bundle.Descriptor, data []byte) (kept bool, err error) {
	if ref == "" {
		ref = string(d.Digest)
	}
	err = r.patience.retry(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, r.url("manifests/%s", ref), bytes.NewReader(data))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", d.MediaType)
		res, err := r.do(req, http.StatusCreated, http.StatusAccepted, http.StatusOK)
		if err != nil {
			return r.failed(fmt.Sprintf("pushing the manifest %s to %s", ref, r.name), err)
		}
		kept = res.Header.Get("OCI-Subject") != ""
		return res.Body.Close()
	})
	return kept, err
}

// TakesManifests reports whether the registry accepts manifests of a media type. It pushes
// an invalid manifest, which a registry that accepts the type refuses for another reason.
// If a registry accepts the manifest, TakesManifests asks it to delete the manifest. Any
// answer except 415 counts as yes: some registries fail with 500 if they cannot parse a
// manifest.
func (r *Repository) TakesManifests(ctx context.Context, mediaType string) (bool, error) {
	data := []byte("{}")
	d := bundle.Descriptor{MediaType: mediaType, Digest: bundle.DigestOf(data), Size: int64(len(data))}
	_, err := r.pushManifest(ctx, "", d, data)
	var status *statusError
	switch {
	case err == nil:
		_ = r.DeleteTag(ctx, string(d.Digest)) // a manifest that stays is in no index and has no tag
		return true, nil
	case Unsupported(err):
		return false, nil
	case errors.As(err, &status):
		return true, nil
	}
	return false, err
}

// uploadBody counts the bytes that are read from it, and records an error other than
// io.EOF. The transport may read in another goroutine, even after the answer.
type uploadBody struct {
	r        io.Reader
	progress func(n int) // called with 0 before each read, and with the bytes read after it
	mu       sync.Mutex
	n        int64
	err      error
}

func (b *uploadBody) Read(p []byte) (int, error) {
	b.progress(0)
	n, err := b.r.Read(p)
	b.progress(n)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

func (b *uploadBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *uploadBody) sent() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// maxTags bounds the part of a list of tags that is read, in bytes.
const maxTags = 4 << 20

// Tags returns the first page of the repository's tags, of 1,000 tags at most
// (distribution-spec, listing tags).
func (r *Repository) Tags(ctx context.Context) (tags []string, err error) {
	err = r.patience.retry(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url("tags/list?n=1000"), nil)
		if err != nil {
			return err
		}
		res, err := r.do(req, http.StatusOK)
		if err != nil {
			return r.failed("listing the tags of "+r.name, err)
		}
		data, err := io.ReadAll(io.LimitReader(res.Body, maxTags))
		if err := errors.Join(err, res.Body.Close()); err != nil {
			return r.failed("listing the tags of "+r.name, err)
		}
		var list struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(data, &list); err != nil {
			return r.failed("listing the tags of "+r.name, fmt.Errorf("%w: it is not a list of tags", errContent))
		}
		tags = list.Tags
		return nil
	})
	return tags, err
}
