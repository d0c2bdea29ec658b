package create_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/logs"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/network"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// upstreamFaults returns the faults that only a pull can meet.
func upstreamFaults() []network.Fault {
	registry := remote.ErrRegistry
	changed := func(match func(*http.Request) bool, change func(body []byte, h http.Header) []byte) network.Mode {
		return network.On(match, network.Changes(change))
	}
	breaks := func(match func(*http.Request) bool, then func(http.ResponseWriter, *http.Request)) network.Mode {
		return network.On(match, network.Breaks(then))
	}
	isTag := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/manifests/1") }
	isDigest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/sha256:") }
	flip := func(body []byte, _ http.Header) []byte { body[len(body)/2] ^= 1; return body }
	half := func(body []byte, h http.Header) []byte { h.Del("Content-Length"); return body[:len(body)/2] }
	longer := func(body []byte, h http.Header) []byte { h.Del("Content-Length"); return append(body, ' ') }
	noHead := func(_ *network.Host, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		return r.Method == http.MethodHead
	}
	moved := func(h *network.Host, _ http.ResponseWriter, r *http.Request) bool {
		if isTag(r) && h.Hits.Add(1) > 1 {
			r.URL.Path = strings.TrimSuffix(r.URL.Path, "1") + "moved"
		}
		return false
	}
	list := []network.Fault{
		{
			Name:  "404: name",
			Class: remote.ErrNotFound,
			Says:  []string{"$HOST", "team/app:1", "repository name not known"},
			Mode:  network.On(network.IsWork, network.Says(404, "NAME_UNKNOWN", "repository name not known to registry")),
		},
		{
			Name:  "404: tag",
			Class: remote.ErrNotFound,
			Says:  []string{"$HOST", "team/app:1", "manifest unknown"},
			Mode:  network.On(isTag, network.Says(404, "MANIFEST_UNKNOWN", "manifest unknown")),
		},
		{
			Name:  "404: digest",
			Class: remote.ErrNotFound,
			Says:  []string{"$HOST", "team/app:sha256:"},
			Mode:  network.On(isDigest, network.Says(404, "MANIFEST_UNKNOWN", "manifest unknown")),
		},
		{
			Name:  "404: blob",
			Class: remote.ErrNotFound,
			Says:  []string{"$HOST", "blob sha256:"},
			Mode:  network.On(network.IsBlob, network.Says(404, "BLOB_UNKNOWN", "blob unknown")),
		},
		{
			Name:  "200 with HTML: manifest",
			Class: registry,
			Says:  []string{"$HOST", "team/app:1", "text/html"},
			Mode:  network.WebPage(network.IsManifest),
		},
		{
			Name:  "200 with HTML: blob",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:", "a web page"},
			Mode:  network.WebPage(network.IsBlob),
		},
		{Name: "200 with HTML: referrers", Mode: network.WebPage(network.IsReferrers)},
		{
			Name:  "manifest: another digest in the header",
			Class: registry,
			Says:  []string{"$HOST", "it says sha256:0000"},
			Mode: changed(isTag, func(body []byte, h http.Header) []byte {
				h.Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
				return body
			}),
		},
		{
			Name:  "manifest: other bytes by digest",
			Class: registry,
			Says:  []string{"$HOST", "it says sha256:", "and sent sha256:"},
			Mode:  changed(isDigest, flip),
		},
		{
			Name:  "manifest: other bytes by digest, no header",
			Class: registry,
			Says:  []string{"$HOST", "it sent sha256:"},
			Mode: changed(isDigest, func(body []byte, h http.Header) []byte {
				h.Del("Docker-Content-Digest")
				return flip(body, h)
			}),
		},
		{Name: "manifest: short", Class: registry, Says: []string{"$HOST", "team/app:1"}, Mode: changed(isTag, half)},
		{
			Name:  "manifest: connection broken for ever",
			Class: registry,
			Says:  []string{"$HOST", "unexpected EOF"},
			Mode:  breaks(isTag, network.Aborts),
		},
		{Name: "manifest: connection broken once", Mode: network.Times(1, breaks(isTag, network.Aborts))},
		{
			Name:  "manifest: without end",
			Class: registry,
			Says:  []string{"$HOST", fmt.Sprintf("more than %d bytes", bundle.MaxManifest)},
			Mode: changed(isTag, func(body []byte, h http.Header) []byte {
				h.Del("Content-Length")
				return append(body, bytes.Repeat([]byte{' '}, 3*bundle.MaxManifest)...)
			}),
		},
		{Name: "manifest: stalls", Class: registry, Says: []string{"$HOST", "too slow"}, Hurry: true, Mode: breaks(isTag, network.Stalls)},
		{Name: "manifest: slow-loris", Class: registry, Says: []string{"$HOST", "too slow"}, Hurry: true, Mode: breaks(isTag, network.Drips)},
		{
			Name:  "blob: wrong body of the same size",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:", "it sent sha256:"},
			Mode:  changed(network.IsBlob, flip),
		},
		{Name: "blob: wrong body once", Mode: network.Times(1, changed(network.IsBlob, flip))},
		{Name: "blob: short", Class: registry, Says: []string{"$HOST", "blob sha256:", "unexpected EOF"}, Mode: changed(network.IsBlob, half)},
		{
			Name:  "blob: short with Content-Length",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:", "EOF"},
			Mode:  breaks(network.IsBlob, network.Aborts),
		},
		{
			Name:  "blob: longer",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:", "sends more than the"},
			Mode:  changed(network.IsBlob, longer),
		},
		{
			Name:  "blob: empty",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:"},
			Mode:  network.On(network.IsBlob, network.Answers(200, "")),
		},
		{
			Name:  "blob: 204",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:", "204"},
			Mode:  network.On(network.IsBlob, network.Answers(204, "")),
		},
		{
			Name:  "blob: a part that was not asked for",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:"},
			Mode:  network.On(network.IsBlob, network.Answers(206, "xx", "Content-Range", "bytes 5-6/100")),
		},
		{
			Name:  "blob: stalls",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:", "too slow"},
			Hurry: true,
			Mode:  breaks(network.IsBlob, network.Stalls),
		},
		{
			Name:  "blob: slow-loris",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:", "too slow"},
			Hurry: true,
			Mode: network.On(network.IsBlob, func(_ *network.Host, w http.ResponseWriter, r *http.Request) {
				network.Drips(w, r)
			}),
		},
		{
			Name:  "gzip that was not asked for: manifest",
			Class: registry,
			Says:  []string{"$HOST", "team/app:1", `encoded as "gzip"`},
			Mode:  changed(isTag, network.Gzipped),
		},
		{
			Name:  "gzip that was not asked for: blob",
			Class: registry,
			Says:  []string{"$HOST", "blob sha256:", `encoded as "gzip"`},
			Mode:  changed(network.IsBlob, network.Gzipped),
		},
		{
			Name:  "redirect: blob elsewhere, with a token",
			Mode:  network.On(network.IsBlob, network.Redirects(network.ToElsewhere)),
			After: elsewhere(1),
		},
		{
			Name:  "redirect: blob elsewhere, with a password",
			Basic: true,
			Mode:  network.On(network.IsBlob, network.Redirects(network.ToElsewhere)),
			After: elsewhere(1),
		},
		{
			Name:  "redirect: blob elsewhere, where it is refused",
			Class: registry,
			Says:  []string{"$HOST", "404"},
			Mode: network.On(network.IsBlob, network.Redirects(func(h *network.Host, _ *http.Request) string {
				return "https://" + h.Elsewhere + "/nothing?signature=canary-query"
			})),
		},
		{Name: "redirect: manifest elsewhere", Mode: network.On(isTag, network.Redirects(network.ToElsewhere)), After: elsewhere(1)},
		{
			Name: "redirect: blob within the host",
			Mode: network.Times(
				2,
				network.On(network.IsBlob, network.Redirects(func(_ *network.Host, r *http.Request) string { return r.URL.Path })),
			),
			After: elsewhere(0),
		},
		{Name: "tag moved between HEAD and GET", Mode: moved},
		{Name: "HEAD unsupported", Mode: noHead},
		{
			Name:  "platform missing",
			Class: bundle.ErrPolicy,
			Says:  []string{"team/app:1", "linux/amd64", "only for linux/arm64"},
			Mode: func(_ *network.Host, _ http.ResponseWriter, r *http.Request) bool {
				if isTag(r) {
					r.URL.Path = strings.TrimSuffix(r.URL.Path, "1") + "arm"
				}
				return false
			},
		},
		{
			Name: "referrers: a list without end",
			Mode: network.On(network.IsReferrers, func(h *network.Host, w http.ResponseWriter, r *http.Request) {
				network.Answers(
					200,
					`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
					"Content-Type",
					bundle.TypeOCIIndex,
					"Link",
					fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, h.Hits.Load()),
				)(
					h, w, r,
				)
			}),
		},
		{
			Name: "referrers: pages full of them",
			Mode: network.On(network.IsReferrers, func(h *network.Host, w http.ResponseWriter, r *http.Request) {
				one := fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%064d","size":1},`, bundle.TypeOCIManifest, h.Hits.Add(1))
				network.Answers(
					200,
					`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`+strings.TrimSuffix(
						strings.Repeat(one, 300),
						",",
					)+`]}`,
					"Content-Type",
					bundle.TypeOCIIndex,
					"Link",
					fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, h.Hits.Load()),
				)(
					h, w, r,
				)
			}),
		},
		{
			Name: "referrers: the next page elsewhere",
			Mode: network.On(network.IsReferrers, func(h *network.Host, w http.ResponseWriter, r *http.Request) {
				network.Answers(
					200,
					`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
					"Content-Type",
					bundle.TypeOCIIndex,
					"Link",
					fmt.Sprintf(`<https://%s%s?page=2>; rel="next"`, h.Elsewhere, r.URL.Path),
				)(
					h, w, r,
				)
			}),
			After: elsewhere(0),
		},
	}
	return append(list, network.StreamFaults()...)
}

// elsewhere checks that the other host received at least the given number of requests,
// or none if least is 0.
func elsewhere(least int) func(testing.TB, *network.Host) {
	return func(tb testing.TB, h *network.Host) {
		tb.Helper()
		if n := h.Net.Requests(network.ElsewhereName, ""); n < least || least == 0 && n > 0 {
			tb.Errorf("the other host was asked %d times", n)
		}
	}
}

// logged collects the output of the library's loggers, which run concurrently.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// checkLeftovers checks that a failed run left only partial files beside the output.
func checkLeftovers(t *testing.T, output string, runErr error) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(filepath.Dir(output), "*"))
	for _, path := range left {
		if runErr != nil && !strings.HasPrefix(path, output+".partial") || err != nil {
			t.Errorf("left behind: %s", path)
		}
	}
}

// TestNetwork runs create against every fault of an upstream and of the network. Each run
// must end soon, name the fault, leak no secret, and leave no bundle unless it succeeds.
// The same command must succeed when the fault is gone.
func TestNetwork(t *testing.T) {
	var log logged
	for _, l := range []interface{ SetOutput(w io.Writer) }{logs.Warn, logs.Progress, logs.Debug} {
		l.SetOutput(&log)
		t.Cleanup(func() { l.SetOutput(io.Discard) })
	}
	faults := append(network.WayFaults(), upstreamFaults()...)
	if want := 129; runtime.GOOS == "linux" && len(faults) != want {
		t.Errorf("%d faults, not %d", len(faults), want)
	}
	open := world.NewRegistry(t, nil)
	layer := make([]byte, 200_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(layer)
	image := world.Image("linux/amd64", world.Layer(file(string(layer))))
	arm := world.Image("linux/arm64", world.Layer(file("arm")))
	open.Push(t, "team/app:1", world.Index(image, arm))
	open.Push(t, "team/app:moved", world.Index(arm, world.Image("linux/amd64", world.Layer(file("moved")))))
	open.Push(t, "team/app:arm", world.Index(arm))
	want := world.Digest(t, open.Host+"/team/app:1")
	key := world.NewKey(t)
	runs, looked, leaks := 0, 0, 0
	names := map[string]bool{}
	for i, f := range faults {
		if names[f.Name] {
			t.Errorf("two faults are called %q", f.Name)
		}
		names[f.Name] = true
		if testing.Short() && i%4 != 0 {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			h := network.NewInternet(t).Serve(&proxy{open.Host}, f)
			h.Misbehave(true)
			var texts []string
			o := world.Options(t, world.Manifest(t, "demo", h.Address+"/team/app:1"), key)
			o.Warn = func(format string, args ...any) { texts = append(texts, fmt.Sprintf(format, args...)) }
			run := func() error {
				runs++
				o.Source = &pull.Source{Client: h.Client(t)}
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				r, err := create.Run(ctx, o)
				if ctx.Err() != nil {
					t.Errorf("it did not end by itself: %v", err)
				}
				if _, statErr := os.Lstat(o.Output); (statErr == nil) != (err == nil) {
					t.Errorf("a bundle: %v, and the run: %v", statErr, err)
				}
				if err == nil {
					texts = append(texts, fmt.Sprintf("%+v", *r))
					if _, d, _ := read(t, o.Output); string(d.Images[0].Digest) != want {
						t.Errorf("it carries %s", d.Images[0].Digest)
					}
				}
				return err
			}
			err := run()
			checkLeftovers(t, o.Output, err)
			problems, n := h.Problems(err, append(texts, log.String()), filepath.Dir(o.Output))
			if h.After != nil {
				h.After(t, h)
			}
			h.Misbehave(false)
			if err := run(); err != nil {
				t.Errorf("the fault is gone: %v", err)
			}
			left, globErr := filepath.Glob(o.Output + ".partial*")
			if len(left) > 0 || globErr != nil {
				t.Errorf("left behind: %v", left)
			}
			found, m := h.Net.Leaks(h.Canaries, append(texts, log.String()), filepath.Dir(o.Output))
			for _, p := range append(problems, found...) {
				t.Error(p)
			}
			looked, leaks = looked+n+m, leaks+len(found)
		})
	}
	t.Logf("%d faults, %d runs; %d places searched for canaries, %d found", len(faults), runs, looked, leaks)
}
