package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// HasBlob reports whether the repository has the blob, with d.Size. It reports false if
// the registry does not support the question.
func (r *Repository) HasBlob(ctx context.Context, d bundle.Descriptor) (has bool, err error) {
	found, err := r.findBlob(ctx, d)
	return found == present, err
}

// CheckBlob returns an error that wraps ErrRegistry if the repository does not have the
// blob. It returns nil if the registry does not support the question.
func (r *Repository) CheckBlob(ctx context.Context, d bundle.Descriptor) error {
	found, err := r.findBlob(ctx, d)
	if err == nil && found == absent {
		return r.failed(fmt.Sprintf("looking for blob %s in %s", d.Digest, r.name), &statusError{code: http.StatusNotFound})
	}
	return err
}

// presence is a registry's answer to the question whether it has a blob.
type presence int

const (
	unknown presence = iota // the registry does not support the question
	absent                  // or the blob has another size
	present
)

func (r *Repository) findBlob(ctx context.Context, d bundle.Descriptor) (found presence, err error) {
	err = r.patience.retry(ctx, func() error {
		found, err = r.headBlob(ctx, d)
		if err != nil {
			return r.failed(fmt.Sprintf("looking for blob %s in %s", d.Digest, r.name), err)
		}
		return nil
	})
	return found, err
}

func (r *Repository) headBlob(ctx context.Context, d bundle.Descriptor) (presence, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, r.url("blobs/%s", d.Digest), nil)
	if err != nil {
		return unknown, err
	}
	res, err := r.do(req, http.StatusOK, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented)
	var status *statusError
	if errors.As(err, &status) && status.leadsTo != "" && !busy(status.code) {
		return r.firstByte(ctx, d)
	}
	if err != nil {
		return unknown, err
	}
	found := unknown
	switch {
	case redirected(res) && res.StatusCode != http.StatusOK:
		found, err = r.firstByte(ctx, d)
		return found, errors.Join(err, res.Body.Close())
	case res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusOK && res.ContentLength >= 0 && res.ContentLength != d.Size:
		found = absent
	case res.StatusCode == http.StatusOK:
		found = present
	}
	return found, res.Body.Close()
}

// firstByte requests one byte of a blob. The storage to which a registry redirects may
// answer only GET, as S3 does if the URL was signed for GET.
func (r *Repository) firstByte(ctx context.Context, d bundle.Descriptor) (presence, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url("blobs/%s", d.Digest), nil)
	if err != nil {
		return unknown, err
	}
	req.Header.Set("Range", "bytes=0-0")
	res, err := r.do(req, http.StatusOK, http.StatusPartialContent, http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return unknown, err
	}
	size := fmt.Sprint(res.ContentLength)
	if _, total, ok := strings.Cut(res.Header.Get("Content-Range"), "/"); ok {
		size = total
	}
	found := absent
	switch {
	case res.StatusCode == http.StatusNotFound:
	case size == fmt.Sprint(d.Size), size == "*", size == "-1" && res.StatusCode == http.StatusOK:
		found = present
	}
	return found, res.Body.Close()
}
