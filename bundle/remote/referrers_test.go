package remote

import (
	"net/http"
	"testing"
)

// TestNotListed checks that a registry without the referrers API is recognized, and that a
// busy registry is not mistaken for one.
func TestNotListed(t *testing.T) {
	for _, c := range []struct {
		code      int
		elsewhere bool
		want      bool
	}{
		{http.StatusNotFound, false, true},
		{http.StatusNotAcceptable, false, true},
		{http.StatusForbidden, false, false},
		{http.StatusForbidden, true, true},
		{http.StatusServiceUnavailable, false, false},
		{http.StatusServiceUnavailable, true, false},
		{http.StatusTooManyRequests, true, false},
		{http.StatusRequestTimeout, true, false},
	} {
		if got := notListed(&statusError{code: c.code, elsewhere: c.elsewhere}); got != c.want {
			t.Errorf("%d, elsewhere %t: %t instead of %t", c.code, c.elsewhere, got, c.want)
		}
	}
	if notListed(nil) {
		t.Error("an answer is taken for none")
	}
}
