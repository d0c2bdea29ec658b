package remote

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestSeeds checks how many seeds of each fuzz target are accepted and refused.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzAnswer", "FuzzNetrc")
	seeds.Count(t, "FuzzAnswer", answerSeeds(), 5, 25, 1, fuzzAnswer)
	seeds.Count(t, "FuzzNetrc", netrcSeeds(), 8, 3, 0, fuzzNetrc)
}

// answer is the response of a registry to any request. header is the value of every
// header field that the client reads.
type answer struct {
	status int
	header string
	body   []byte
}

const (
	site     = "registry.example.com"
	user     = "user"
	password = "canary-password"
)

func answerSeeds() seeds.Of[answer] {
	list := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	s := seeds.Of[answer]{Taken: []answer{
		{
			200,
			"",
			list,
		},
		{200, `</v2/a/referrers/x?last=2>; rel="next"`, list},
		{206, "bytes 3-9/10", []byte("3456789")},
		{200, "", []byte("0123456789")},
		{206, "bytes 0-9/10", []byte("0123456789")},
	}}
	for _, h := range []string{
		`Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a:pull"`,
		`Bearer realm="https://other.example/token"`,
		`Bearer realm="http://registry.example.com/token"`, `Bearer realm="https://registry.example.com.evil.example/token"`,
		`Basic realm="x"`, `basic`, `Bearer`, `Negotiate, Basic realm="x"`,
		`Bearer realm="https://registry.example.com@evil.example/"`, `Bearer realm="//evil.example/"`,
	} {
		s.Refused = append(s.Refused, answer{401, h, []byte(`{"token":"t"}`)})
	}
	for _, h := range []string{
		"1", "0", "-1", "300", "301", "9223372036854775807", "18446744073710",
		"Fri, 31 Dec 2027 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "soon",
	} {
		s.Refused = append(s.Refused, answer{429, h, []byte(`{"errors":[{"code":"TOOMANYREQUESTS","message":"slow \u009b31m down"}]}`)})
	}
	s.Refused = append(
		s.Refused,
		answer{
			202,
			"https://registry.example.com:8443/v2/a/blobs/uploads/1?digest=x&_state=y",
			nil,
		},
		answer{202, "//evil.example/v2/", nil},
		answer{307, "https://evil.example/", []byte("x")},
		answer{206, "bytes 4-9/10", []byte("456789")},
		answer{500, "", []byte(strings.Repeat("ü", 400))},
	)
	return s
}

// FuzzAnswer checks, for any response of a registry, that passwords are sent only to the
// registry's own domain and only encrypted, that lists and uploads stay on its host, that
// a blob reported as complete is complete, and that error messages are printable text.
func FuzzAnswer(f *testing.F) {
	for _, s := range answerSeeds().All() {
		f.Add(s.status, s.header, s.body)
	}
	f.Fuzz(func(t *testing.T, status int, header string, body []byte) {
		fuzzAnswer(t, answer{status, header, body})
	})
}

// roundTrip is a function that implements http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// to returns the answer as the response to req.
func (a answer) to(req *http.Request) *http.Response {
	res := &http.Response{
		StatusCode:    a.status,
		Header:        http.Header{},
		Request:       req,
		Body:          io.NopCloser(bytes.NewReader(a.body)),
		ContentLength: -1,
	}
	for _, h := range []string{"Www-Authenticate", "Link", "Location", "Retry-After", "Content-Range", "Content-Type"} {
		res.Header.Set(h, a.header)
	}
	if req != nil && strings.Contains(req.URL.Path, "/referrers/") { // a list of another type is not read
		res.Header.Set("Content-Type", bundle.TypeOCIIndex)
	}
	return res
}

func fuzzAnswer(t *testing.T, a answer) bool {
	if a.status < 200 || a.status > 599 || strings.ContainsFunc(a.header, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return false // net/http rejects such a response
	}
	r := &Repository{scheme: "https", host: site, registry: site, name: "a", secrets: &secrets{}}
	r.client = &http.Client{
		Transport:     roundTrip(func(req *http.Request) (*http.Response, error) { return a.to(req), nil }),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	checkStatus(t, a)
	checkLogin(t, a)
	checkUpload(t, a, r)
	listed := checkLink(t, a, r)
	whole := checkRange(t, a, r, 0)
	part := checkRange(t, a, r, 3)
	return listed || whole || part
}

// checkStatus checks that a requested wait is kept, up to maxSeconds, and that the text is
// short and printable.
func checkStatus(t *testing.T, a answer) {
	t.Helper()
	e := statusOf(a.to(nil), &secrets{}) //nolint:bodyclose // statusOf does
	// Only digits, without a sign (RFC 9110, section 10.2.3).
	if n, err := strconv.ParseUint(a.header, 10, 64); err == nil && e.retryAfter != time.Duration(min(n, maxSeconds))*time.Second {
		t.Fatalf("Retry-After %q is a wait of %s", a.header, e.retryAfter)
	}
	if text := e.Error(); !utf8.ValidString(text) || len(e.text) > maxText+len("…") ||
		strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != utf8.RuneError }) {
		t.Fatalf("shown is %q", text)
	}
}

// checkLink checks that the next page of a list is on the registry.
func checkLink(t *testing.T, a answer, r *Repository) bool {
	t.Helper()
	list, next, err := r.referrers(t.Context(), r.url("referrers/x"))
	if err != nil {
		return false
	}
	for _, d := range list {
		if _, err := bundle.ParseDigest(string(d.Digest)); err != nil {
			t.Fatalf("listed: %+v", d)
		}
	}
	if next == "" {
		return true
	}
	if u, err := url.Parse(next); err != nil || u.Scheme != "https" || u.Host != site {
		t.Fatalf("Link %q leads to %q", a.header, next)
	}
	return true
}

// checkUpload checks that a blob is uploaded to the registry, under its digest.
func checkUpload(t *testing.T, a answer, r *Repository) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url("blobs/uploads/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	to, err := r.uploadURL(a.to(req), signed) //nolint:bodyclose // the caller did
	if err != nil {
		return
	}
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "https" || u.Host != site || len(u.Query()["digest"]) != 1 || u.Query().Get("digest") != string(signed) {
		t.Fatalf("Location %q is an upload to %q", a.header, to)
	}
}

// signed is the digest of the blob in these tests.
var signed = bundle.DigestOf([]byte("0123456789"))

// checkRange requests a blob of ten bytes, of which the first have bytes were fetched
// before, and checks the result.
func checkRange(t *testing.T, a answer, r *Repository, have int64) bool {
	t.Helper()
	const content = "0123456789"
	out := make(tooLong, len(content))
	copy(out, content[:have])
	transfer := &Transfer{}
	d := bundle.Descriptor{Digest: signed, Size: int64(len(content))}
	from := source{r.url("blobs/x"), r.do, func(err error) error { return err }, Patience{}}
	transfer.begin(from, d, out)
	if _, err := transfer.Hash.Write(out[:have]); err != nil {
		t.Fatal(err)
	}
	transfer.Have = have
	err := transfer.more(t.Context())
	if transfer.Have < 0 || transfer.Have > d.Size {
		t.Fatalf("%d bytes of %d", transfer.Have, d.Size)
	}
	if (err == nil) != transfer.complete {
		t.Fatalf("complete is %v, and the error %v", transfer.complete, err)
	}
	if err == nil && string(out) != content {
		t.Fatalf("taken for complete: %q", out)
	}
	return err == nil
}

// tooLong panics if data is written past its end.
type tooLong []byte

func (w tooLong) WriteAt(p []byte, off int64) (int, error) {
	copy(w[off:off+int64(len(p))], p)
	return len(p), nil
}

// checkLogin checks that the password is sent only to the registry's own domain, and only
// encrypted.
func checkLogin(t *testing.T, a answer) {
	t.Helper()
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	requests := 0
	inner := roundTrip(func(req *http.Request) (*http.Response, error) {
		if requests++; requests > 20 {
			return nil, errors.New("too many requests")
		}
		body := []byte(nil)
		if req.Body != nil {
			var err error
			if body, err = io.ReadAll(req.Body); err != nil {
				return nil, err
			}
		}
		host := req.URL.Hostname()
		secret := strings.Contains(req.Header.Get("Authorization"), basic) || strings.Contains(string(body), password) ||
			strings.Contains(req.URL.String(), password)
		if req.URL.Scheme != "https" || secret && host != "example.com" && !strings.HasSuffix(host, ".example.com") {
			t.Fatalf("%s %s with %q and %q", req.Method, req.URL, req.Header, body)
		}
		if requests == 1 || requests > 3 {
			return a.to(req), nil
		}
		return answer{200, "", a.body}.to(req), nil
	})
	for _, auth := range []authn.AuthConfig{{Username: user, Password: password}, {IdentityToken: password}} {
		requests = 0
		registry, err := name.NewRegistry(site)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		rt, err := transport.NewWithContext(
			ctx, registry, authn.FromConfig(auth),
			guard{registry: site, next: inner, idle: time.Minute, secrets: &secrets{}},
			[]string{"repository:a:pull"},
		)
		if err == nil {
			client := &http.Client{Transport: rt, CheckRedirect: checkRedirect}
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+site+"/v2/a/manifests/1", nil)
			if err != nil {
				t.Fatal(err)
			}
			requests = 10 // from here on every response is the hostile one
			if res, err := client.Do(req); err == nil {
				_ = res.Body.Close() // the body is not read
			}
		}
		cancel()
	}
}
