package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Absent reports whether the registry answers that a tag does not exist. It sends HEAD,
// which registries do not count as a download. Without a clear answer it returns false,
// and the caller must fetch the manifest to find out.
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
	// maxPages bounds the pages of one list.
	maxPages = 100
	// maxReferrers bounds the manifests in one list, which is held in memory.
	maxReferrers = 1000
)

// Referrers returns the manifests that refer to a digest, from all pages of the list
// (distribution-spec 1.1, listing referrers). If the registry does not implement that API,
// Referrers returns the list that clients keep under the tag sha256-HEX. Entries are not
// checked: an entry that is not a descriptor becomes the zero Descriptor. With an error,
// Referrers returns the entries that it read before.
func (r *Repository) Referrers(ctx context.Context, subject bundle.Digest) ([]bundle.Descriptor, error) {
	if !r.noReferrers.Load() {
		list, err := r.allReferrers(ctx, subject)
		if !errors.Is(err, errNotListed) {
			return list, err
		}
		r.noReferrers.Store(true)
	}
	tag := referrersTag(subject)
	if r.Absent(ctx, tag) {
		return nil, nil
	}
	list, err := r.taggedReferrers(ctx, subject)
	if errors.Is(err, ErrNotFound) || errors.Is(err, errSubject) {
		return nil, nil
	}
	return list, err
}

// referrersTag returns the tag under which clients list the referrers of a digest
// (distribution-spec 1.1, referrers tag schema).
func referrersTag(subject bundle.Digest) string {
	return strings.Replace(string(subject), ":", "-", 1)
}

// errSubject marks a registry that reads the referrers tag as the subject's digest and
// answers with the subject.
var errSubject = fmt.Errorf("%w: the referrers tag leads to the subject itself", errContent)

// taggedReferrers returns the list that clients keep under a tag. The error wraps
// ErrNotFound, errSubject, or errContent if the tag holds something else.
func (r *Repository) taggedReferrers(ctx context.Context, subject bundle.Digest) ([]bundle.Descriptor, error) {
	tag := referrersTag(subject)
	d, data, err := r.Manifest(ctx, tag)
	switch {
	case err != nil:
		return nil, err
	case d.Digest == subject:
		return nil, errSubject
	}
	list, err := parseReferrers(data)
	if err != nil || !bundle.IsIndex(d.MediaType) {
		return nil, fmt.Errorf("%w: %w: %s:%s is not a list of referrers", ErrRegistry, errContent, r, tag)
	}
	return list, nil
}

// allReferrers fetches all pages from the referrers API. The error is errNotListed if the
// registry does not implement the API.
func (r *Repository) allReferrers(ctx context.Context, subject bundle.Digest) (list []bundle.Descriptor, err error) {
	next := r.url("referrers/%s", subject)
	for page := 0; next != ""; page++ {
		if page == maxPages {
			return list, fmt.Errorf("%w: %s lists what refers to %s on more than %d pages", ErrRegistry, r, subject, maxPages)
		}
		var found []bundle.Descriptor
		var following string
		err := r.patience.retry(ctx, func() (err error) {
			found, following, err = r.referrers(ctx, next)
			switch {
			case err == nil || page == 0 && errors.Is(err, errNotListed):
				return err
			case errors.Is(err, errNotListed):
				err = fmt.Errorf("%w: page %d of its list is not a list of manifests", errContent, page+1)
			}
			return r.failed(fmt.Sprintf("asking what refers to %s in %s", subject, r.name), err)
		})
		if err != nil {
			return list, err
		}
		next = following
		if list = append(list, found...); len(list) > maxReferrers {
			return list[:maxReferrers], fmt.Errorf(
				"%w: %w: %s lists more than %d manifests that refer to %s",
				ErrRegistry, bundle.ErrLimit, r, maxReferrers, subject,
			)
		}
	}
	return list, nil
}

// parseReferrers parses a list of referrers. null is an empty list. An entry that is not a
// descriptor becomes the zero Descriptor.
func parseReferrers(data []byte) ([]bundle.Descriptor, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, errNotListed
	}
	manifests, ok := fields["manifests"]
	var entries []json.RawMessage
	if err := json.Unmarshal(manifests, &entries); !ok || err != nil || string(fields["schemaVersion"]) != "2" {
		return nil, errNotListed
	}
	list := make([]bundle.Descriptor, len(entries))
	for i, entry := range entries {
		if err := json.Unmarshal(entry, &list[i]); err != nil {
			list[i] = bundle.Descriptor{}
		}
	}
	return list, nil
}

// errNotListed marks a registry that does not implement the referrers API.
var errNotListed = fmt.Errorf("%w: it sent something else than a list of manifests", errContent)

// notListed reports whether err means that the registry does not implement the referrers
// API. Distribution-spec 1.1 requires 404; some registries answer 400, 405, 406 or 501, or
// redirect to another host.
func notListed(err error) bool {
	var status *statusError
	if !errors.As(err, &status) || busy(status.code) || status.code == http.StatusRequestTimeout {
		return false // another try may succeed
	}
	return status.elsewhere || slices.Contains([]int{
		http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented,
	}, status.code)
}

// referrers fetches one page, and returns the URL of the next, or "". The error is
// errNotListed if the registry does not implement the API.
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
	data, err := io.ReadAll(io.LimitReader(res.Body, bundle.MaxManifest+1))
	if err = errors.Join(cause(ctx, err), res.Body.Close()); err != nil {
		return nil, "", err
	}
	if len(data) > bundle.MaxManifest {
		return nil, "", fmt.Errorf("%w: its list has more than %d bytes", errContent, bundle.MaxManifest)
	}
	list, err = parseReferrers(data)
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil && kind == bundle.TypeOCIIndex {
		return nil, "", fmt.Errorf("%w: its list is damaged", errContent)
	}
	if err != nil {
		return nil, "", err
	}
	link, _, found := strings.Cut(res.Header.Get("Link"), ">")
	if !found || !strings.Contains(res.Header.Get("Link"), `rel="next"`) {
		return list, "", nil
	}
	u, err := req.URL.Parse(strings.TrimPrefix(link, "<"))
	if err != nil || u.Host != req.URL.Host || u.Scheme != req.URL.Scheme {
		return nil, "", fmt.Errorf("%w: the next page of its list would be at %q", errContent, link)
	}
	return list, u.String(), nil
}
