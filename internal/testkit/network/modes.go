package network

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// IsPing reports whether a request asks for the version of the API.
func IsPing(r *http.Request) bool { return r.URL.Path == "/v2/" }

// IsToken reports whether a request asks for a token.
func IsToken(r *http.Request) bool { return r.URL.Path == "/token" }

// IsWork reports whether a request belongs to the API and is not a ping.
func IsWork(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v2/") && !IsPing(r) }

// IsManifest reports whether a request concerns a manifest.
func IsManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

// IsBlob reports whether a request concerns a blob with a known digest.
func IsBlob(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/sha256:") }

// IsUpload reports whether a request is part of a blob upload.
func IsUpload(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/uploads/") }

// IsReferrers reports whether a request asks for the referrers of a manifest.
func IsReferrers(r *http.Request) bool { return strings.Contains(r.URL.Path, "/referrers/") }

// IsAny returns true for every request.
func IsAny(*http.Request) bool { return true }

// On returns a mode that handles matching requests with do, and counts them in Hits.
func On(match func(*http.Request) bool, do func(h *Host, w http.ResponseWriter, r *http.Request)) Mode {
	return func(h *Host, w http.ResponseWriter, r *http.Request) bool {
		if !match(r) {
			return false
		}
		h.Hits.Add(1)
		do(h, w, r)
		return true
	}
}

// Times ends a mode after n hits.
func Times(n int64, m Mode) Mode {
	return func(h *Host, w http.ResponseWriter, r *http.Request) bool { return h.Hits.Load() < n && m(h, w, r) }
}

// Answers sends a status, a body and headers, given as KEY, VALUE pairs.
func Answers(status int, body string, headers ...string) func(*Host, http.ResponseWriter, *http.Request) {
	return func(_ *Host, w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Says sends a status and an error body in the format of distribution-spec.
func Says(status int, code, message string, headers ...string) func(*Host, http.ResponseWriter, *http.Request) {
	return Answers(
		status,
		fmt.Sprintf(`{"errors":[{"code":%q,"message":%q}]}`, code, message),
		append(headers, "Content-Type", "application/json")...)
}

// webPage answers like a captive portal.
var webPage = Answers(http.StatusOK, "<html>please sign in</html>", "Content-Type", "text/html")

// WebPage answers every matching request with a web page.
func WebPage(match func(*http.Request) bool) Mode { return On(match, webPage) }

// Redirects sends a redirect to a URL made from the request.
func Redirects(to func(h *Host, r *http.Request) string) func(*Host, http.ResponseWriter, *http.Request) {
	return func(h *Host, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to(h, r))
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// ToElsewhere returns the URL of the same path on a host in another domain.
func ToElsewhere(h *Host, r *http.Request) string {
	return "https://" + h.Elsewhere + r.URL.Path + "?signature=canary-query"
}

// Hangs never answers. It reads the body, because a server notices that a client has gone only
// after the body was read completely.
func Hangs(_ *Host, _ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// Changes sends the registry's answer with a changed body or header.
func Changes(change func(body []byte, header http.Header) []byte) func(*Host, http.ResponseWriter, *http.Request) {
	return func(h *Host, w http.ResponseWriter, r *http.Request) {
		good := h.Good(r)
		body := change(good.Body.Bytes(), good.Header())
		for k, v := range good.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(good.Code)
		if r.Method != http.MethodHead {
			_, _ = w.Write(body)
		}
	}
}

// Breaks sends half the body of a successful GET and then calls then. To other requests, it
// sends the headers only.
func Breaks(then func(w http.ResponseWriter, r *http.Request)) func(*Host, http.ResponseWriter, *http.Request) {
	return func(h *Host, w http.ResponseWriter, r *http.Request) {
		good := h.Good(r)
		for k, v := range good.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(good.Code)
		if body := good.Body.Bytes(); good.Code == http.StatusOK && r.Method == http.MethodGet {
			_, _ = w.Write(body[:len(body)/2])
			_ = http.NewResponseController(w).Flush()
			then(w, r)
		}
	}
}

// Stalls sends nothing more and keeps the connection open.
func Stalls(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// Aborts closes the connection, or the HTTP/2 stream.
func Aborts(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// babbles sends an endless body in small pieces.
func babbles(_ *Host, w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 8<<10)); err != nil {
			return
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Drips sends single bytes at long intervals.
func Drips(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		_, _ = w.Write([]byte{' '})
		_ = http.NewResponseController(w).Flush()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
		}
	}
}

// goesAway sends HTTP/2's GOAWAY for all streams (RFC 9113, section 6.8) and closes the
// connection.
func goesAway(_ http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(net.Conn)
	_, _ = c.Write([]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2})
	_ = c.Close()
	<-r.Context().Done()
}

// shut closes c and ignores the error.
func shut(c io.Closer) { _ = c.Close() }

// Raw takes over the connection, on which write sends bytes that are not a proper HTTP
// response.
func Raw(write func(c net.Conn)) func(*Host, http.ResponseWriter, *http.Request) {
	return func(_ *Host, w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		world.Must(err)
		defer shut(c)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		write(c)
	}
}

// endless answers with an endless body.
func endless(_ *Host, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	block := []byte(strings.Repeat(" ", 64<<10))
	for r.Context().Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// Gzipped compresses an answer although the request did not ask for it.
func Gzipped(body []byte, h http.Header) []byte {
	h.Set("Content-Encoding", "gzip")
	h.Del("Content-Length")
	var b strings.Builder
	w := gzip.NewWriter(&b)
	_, err := w.Write(body)
	world.Must(err)
	world.Must(w.Close())
	return []byte(b.String())
}
