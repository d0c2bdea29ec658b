package remote_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestManyCodings checks that a response with more than two codings is not decoded.
func TestManyCodings(t *testing.T) {
	text := []byte("content")
	empty := bytes.Repeat(world.Gzip(nil), 1<<20)
	for name, test := range map[string]struct {
		coding, want string
		body         []byte
	}{
		"one":   {"gzip", "content", world.Gzip(text)},
		"two":   {"gzip, gzip", "content", world.Gzip(world.Gzip(text))},
		"three": {"gzip, gzip, gzip", "", world.Gzip(world.Gzip(empty))},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", test.coding)
				_, _ = w.Write(test.body)
			}))
			defer s.Close()
			c, err := remote.New(remote.Options{PlainHTTP: []string{strings.TrimPrefix(s.URL, "http://")}})
			if err != nil {
				t.Fatal(err)
			}
			page, err := c.Page(s.URL + "/x")
			if err != nil {
				t.Fatal(err)
			}
			data, err := page.Document(t.Context(), 1000)
			if string(data) != test.want || (err == nil) != (test.want != "") || err != nil && !strings.Contains(err.Error(), "encoded as") {
				t.Errorf("got %q, %v", data, err)
			}
			data, err = page.ReadPinned(t.Context(), 1<<20, bundle.DigestOf(test.body))
			if err != nil || !bytes.Equal(data, test.body) {
				t.Errorf("the bytes as sent: got %d bytes, %v", len(data), err)
			}
		})
	}
}
