package remote_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
)

// TestStorage checks that a blob is found behind a redirect to storage if GET works,
// whatever the storage answers to HEAD. If the storage denies access, the message must not
// advise to log in.
func TestStorage(t *testing.T) {
	data := []byte("content of a blob")
	d := bundle.Descriptor{MediaType: "x", Digest: bundle.DigestOf(data), Size: int64(len(data))}
	serve := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	getOnly := func(status int, get http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(status)
				return
			}
			get(w, r)
		}
	}
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	whole := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }
	for name, test := range map[string]struct {
		storage http.HandlerFunc
		has     bool
		fails   string
	}{
		"HEAD and GET":             {serve, true, ""},
		"403 to HEAD":              {getOnly(403, serve), true, ""},
		"400 to HEAD":              {getOnly(400, serve), true, ""},
		"401 to HEAD":              {getOnly(401, serve), true, ""},
		"404 to HEAD":              {getOnly(404, serve), true, ""},
		"405 to HEAD":              {getOnly(405, serve), true, ""},
		"501 to HEAD":              {getOnly(501, serve), true, ""},
		"403 to HEAD, no ranges":   {getOnly(403, whole), true, ""},
		"another blob":             {getOnly(403, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data[1:]) }), false, ""},
		"gone":                     {answer(404), false, ""},
		"403 to both":              {answer(403), false, "403"},
		"403 to HEAD, 401 to GET":  {getOnly(403, answer(401)), false, "401"},
		"403 to HEAD, gone by GET": {getOnly(403, answer(404)), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := test.storage
			same := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.Contains(r.URL.Path, "/blobs/"):
					http.Redirect(w, r, "/storage/x?signature=s", http.StatusFound)
				case strings.HasPrefix(r.URL.Path, "/storage/"):
					h(w, r)
				}
			}))
			defer same.Close()
			has, err := plainRepository(t, strings.TrimPrefix(same.URL, "http://")).HasBlob(t.Context(), d)
			if has != test.has || (err != nil) != (test.fails != "") || strings.Contains(fmt.Sprint(err), "docker login") {
				t.Errorf("on the same host: %t, %v", has, err)
			}
			storage := httptest.NewServer(test.storage)
			defer storage.Close()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/blobs/") {
					http.Redirect(w, r, storage.URL+"/x?signature=s", http.StatusTemporaryRedirect)
				}
			}))
			defer s.Close()
			r := plainRepository(t, strings.TrimPrefix(s.URL, "http://"))
			has, err = r.HasBlob(t.Context(), d)
			if test.fails == "" {
				if has != test.has || err != nil {
					t.Errorf("%t, %v", has, err)
				}
				return
			}
			fetched := r.Fetch(t.Context(), d, discard{}, nil)
			for _, err := range []error{err, fetched} {
				text := fmt.Sprint(err)
				if !errors.Is(err, remote.ErrRegistry) || !strings.Contains(text, test.fails) || !strings.Contains(text, "storage") ||
					!strings.Contains(text, strings.TrimPrefix(storage.URL, "http://")) {
					t.Errorf("got %s", text)
				}
				if strings.Contains(text, " login HOST") || strings.Contains(text, "docker login") || strings.Contains(text, "asked as") {
					t.Errorf("it blames the login: %s", text)
				}
			}
		})
	}
}

func plainRepository(t *testing.T, host string) *remote.Repository {
	t.Helper()
	c, err := remote.New(remote.Options{PlainHTTP: []string{host}, Patience: remote.Patience{Pause: 1}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Repository(t.Context(), host, "team/app", remote.Push)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestUploadLocation checks that an upload goes to the registry's own host. If the
// registry names another host, the message must explain the fault in its configuration.
func TestUploadLocation(t *testing.T) {
	data := []byte("content")
	d := bundle.Descriptor{MediaType: "x", Digest: bundle.DigestOf(data), Size: int64(len(data))}
	for _, test := range []struct{ location, fails string }{
		{"/v2/team/app/blobs/uploads/1", ""},
		{"http://HOST/v2/team/app/blobs/uploads/1", ""},
		{"http://127.0.0.1:5000/v2/team/app/blobs/uploads/1?state=x", ""},
		{"https://127.0.0.1/v2/team/app/blobs/uploads/1", ""},
		{"http://registry:5000/v2/team/app/blobs/uploads/1", "http://registry:5000"},
		{"https://10.0.0.7/v2/team/app/blobs/uploads/1", "https://10.0.0.7"},
		{"//localhost/v2/team/app/blobs/uploads/1", "http://localhost"},
		{"", "no Location"},
		{"http://[", "no Location"},
	} {
		t.Run(test.location, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.Method {
				case http.MethodPost:
					if test.location != "" {
						w.Header().Set("Location", strings.ReplaceAll(test.location, "HOST", r.Host))
					}
					w.WriteHeader(http.StatusAccepted)
				case http.MethodPut:
					_, _ = io.Copy(io.Discard, r.Body)
					w.WriteHeader(http.StatusCreated)
				}
			}))
			defer s.Close()
			r := plainRepository(t, strings.TrimPrefix(s.URL, "http://"))
			for _, err := range []error{
				r.PushBlob(t.Context(), d, "", func() io.Reader { return bytes.NewReader(data) }), r.CanPush(t.Context()),
			} {
				if test.fails == "" && err != nil {
					t.Errorf("got %v", err)
				}
				if test.fails != "" && (!errors.Is(err, remote.ErrRegistry) || !strings.Contains(err.Error(), test.fails)) {
					t.Errorf("got %v", err)
				}
				if strings.Contains(test.fails, "://") &&
					(!strings.Contains(err.Error(), "http.host") || !strings.Contains(err.Error(), "X-Forwarded-Proto")) {
					t.Errorf("it does not say what to do: %v", err)
				}
			}
		})
	}
}

// TestTakesManifests checks that only 415 means that a registry refuses a media type.
func TestTakesManifests(t *testing.T) {
	for name, test := range map[string]struct {
		put, remove int
		takes       bool
	}{
		"refuses the type":        {415, 500, false},
		"refuses the content":     {400, 500, true},
		"refuses the account":     {403, 500, true},
		"breaks on the content":   {500, 500, true},
		"is not implemented":      {501, 500, true},
		"accepts and removes it":  {201, 202, true},
		"accepts and keeps it":    {201, 405, true},
		"accepts and then breaks": {201, 500, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.Method {
				case http.MethodPut:
					w.WriteHeader(test.put)
				case http.MethodDelete:
					w.WriteHeader(test.remove)
				}
			}))
			defer s.Close()
			r := plainRepository(t, strings.TrimPrefix(s.URL, "http://"))
			takes, err := r.TakesManifests(t.Context(), bundle.TypeDockerManifest)
			if err != nil || takes != test.takes {
				t.Errorf("got %v, %v", takes, err)
			}
		})
	}
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := plainRepository(t, strings.TrimPrefix(s.URL, "http://"))
	s.Close()
	if _, err := r.TakesManifests(t.Context(), bundle.TypeDockerManifest); !errors.Is(err, remote.ErrRegistry) {
		t.Errorf("without an answer: %v", err)
	}
}
