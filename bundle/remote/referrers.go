package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Absent reports whether the registry says that it has no manifest under a tag. It asks
// without fetching, which registries do not count; false also means that no clear answer
// came, so that fetching finds out.
func (r *Repository) Absent(ctx context.Context, tag string) bool {
	ctx, cancel := r.patience.bound(ctx, 1)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, r.url("manifests/%s", tag), nil)
	if err != nil {
		return false
	}
	req.Header.Set("Accept", strings.Join(manifestTypes, ", "))
	res, err := r.do(req, http.StatusOK, http.StatusNotFound)
	return err == nil && res.Body.Close() == nil && res.StatusCode == http.StatusNotFound
}

const (
	// maxPages bounds the answers that one list may have.
	maxPages = 100
	// maxReferrers bounds the manifests that are listed, each of which is remembered.
	maxReferrers = 1000
)

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
			err := r.patience.retry(ctx, func() (err error) {
				found, following, err = r.referrers(ctx, next)
				switch {
				case page == 0 && errors.Is(err, errNotListed):
					r.noReferrers.Store(true)
					return nil
				case err != nil:
					return r.failed(fmt.Sprintf("asking what refers to %s in %s", subject, r.name), err)
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			if r.noReferrers.Load() {
				break
			}
			next = following
			if list = append(list, found...); len(list) > maxReferrers {
				return nil, fmt.Errorf("%w: %w: %s lists more than %d manifests that refer to %s; --without-referrers leaves all of them out", ErrRegistry, bundle.ErrLimit, r, maxReferrers, subject)
			}
		}
		if !r.noReferrers.Load() {
			return list, nil
		}
	}
	tag := strings.Replace(string(subject), ":", "-", 1)
	if r.Absent(ctx, tag) {
		return nil, nil
	}
	d, data, err := r.Manifest(ctx, tag)
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

// errNotListed says that a registry does not know the question of what refers to a
// manifest.
var errNotListed = fmt.Errorf("%w: it sent something else than a list of manifests", errContent)

// notListed reports whether an answer means that. Distribution-spec 1.1 wants a 404;
// others say that they do not take the request, ask for another type, or lead to a
// page of another host.
func notListed(err error) bool {
	var status *statusError
	if !errors.As(err, &status) || busy(status.code) || status.code == http.StatusRequestTimeout {
		return false // it may answer another time
	}
	return status.elsewhere || slices.Contains([]int{
		http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented,
	}, status.code)
}

// referrers asks for one page, and returns the URL of the next. The error is
// errNotListed where the registry does not know the question.
func (r *Repository) referrers(ctx context.Context, from string) (list []bundle.Descriptor, next string, err error) {
	ctx, cancel := r.patience.bound(ctx, 2)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", bundle.TypeOCIIndex)
	res, err := r.do(req, http.StatusOK)
	if notListed(err) {
		return nil, "", errNotListed
	}
	if err != nil {
		return nil, "", cause(ctx, err)
	}
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || kind != bundle.TypeOCIIndex {
		return nil, "", errors.Join(errNotListed, res.Body.Close())
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, bundle.MaxManifest+1))
	if err = errors.Join(cause(ctx, err), res.Body.Close()); err != nil {
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
