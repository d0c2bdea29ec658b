package registry_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// isListTag reports whether a request concerns the tag of a list of referrers.
func isListTag(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/sha256-") }

// TestOddReferrersTag: a registry that cannot keep a list of referrers still accepts the
// manifests, however often they are pushed. Other content under the tag is not changed.
func TestOddReferrersTag(t *testing.T) {
	subjectOf := func(r *http.Request) string {
		return strings.Replace(r.URL.Path, "/manifests/sha256-", "/manifests/sha256:", 1)
	}
	answer := func(w http.ResponseWriter, status int, mediaType, body string) bool {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
	for name, test := range map[string]struct {
		odd    func(w http.ResponseWriter, r *http.Request, writes int) bool
		writes int      // to the tag, at most
		lists  []string // kinds, in the end
	}{
		"reading leads to the subject": {func(_ http.ResponseWriter, r *http.Request, _ int) bool {
			if isListTag(r) && r.Method != http.MethodPut {
				r.URL.Path = subjectOf(r)
			}
			return false
		}, 8, nil},
		"reading and writing lead to the subject": {func(_ http.ResponseWriter, r *http.Request, _ int) bool {
			if isListTag(r) {
				r.URL.Path = subjectOf(r)
			}
			return false
		}, 8, nil},
		"a web page": {func(w http.ResponseWriter, r *http.Request, _ int) bool {
			return isListTag(r) && answer(w, 200, "text/html", "<html>")
		}, 0, nil},
		"an image": {func(w http.ResponseWriter, r *http.Request, _ int) bool {
			return isListTag(r) && r.Method != http.MethodPut &&
				answer(w, 200, bundle.TypeOCIManifest, `{"schemaVersion":2,"config":{},"layers":[]}`)
		}, 0, nil},
		"refuses a list": {func(w http.ResponseWriter, r *http.Request, _ int) bool {
			return isListTag(r) && r.Method == http.MethodPut && answer(w, 400, "text/plain", "no")
		}, 8, nil},
		"null at first": {func(w http.ResponseWriter, r *http.Request, writes int) bool {
			return isListTag(r) && r.Method != http.MethodPut && writes == 0 &&
				answer(w, 200, bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":null}`)
		}, 8, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			host, subject, writes := pushReferrers(t, test.odd)
			if writes > test.writes {
				t.Errorf("%d writes to the tag", writes)
			}
			if test.lists == nil {
				return
			}
			if got := listed(t, host, "team/app", subject); !slices.Equal(got, test.lists) {
				t.Errorf("listed are %v", got)
			}
		})
	}
}

// pushReferrers pushes an image and, twice, its artifacts to a registry that answers some
// requests in an odd way, and counts the writes to the tag.
func pushReferrers(
	t *testing.T, odd func(w http.ResponseWriter, r *http.Request, writes int) bool,
) (host string, subject bundle.Digest, writes int) {
	t.Helper()
	up := world.NewRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			before := writes
			if isListTag(r) && r.Method == http.MethodPut {
				writes++
			}
			if !odd(w, r, before) {
				next.ServeHTTP(w, r)
			}
		})
	})
	target := external(t, up.Host)
	m, data := image(t, target, "team/app", "one")
	if err := target.PutManifest(t.Context(), "team/app", m, data); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for kind, push := range artifacts(t, target, "team/app", m.Descriptor, "a", "b") {
			if err := push(target); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
		}
	}
	return up.Host, m.Descriptor.Digest, writes
}
