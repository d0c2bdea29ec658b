package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/internal/testkit/network"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

func isStart(r *http.Request) bool { return r.Method == http.MethodPost && network.IsUpload(r) }
func isSend(r *http.Request) bool  { return r.Method == http.MethodPut && network.IsUpload(r) }
func isPut(r *http.Request) bool   { return r.Method == http.MethodPut && network.IsManifest(r) }
func isWrite(r *http.Request) bool {
	return network.IsWork(r) && r.Method != http.MethodGet && r.Method != http.MethodHead
}
func isTag(r *http.Request) bool {
	return isPut(r) && strings.HasSuffix(r.URL.Path, "/team/app/manifests/1")
}

// location changes the upload location that the registry returns.
func location(change func(h *network.Host, was string) string) network.Mode {
	return network.On(isStart, func(h *network.Host, w http.ResponseWriter, r *http.Request) {
		good := h.Good(r)
		for k, v := range good.Header() {
			w.Header()[k] = v
		}
		if to := change(h, strings.TrimPrefix(good.Header().Get("Location"), "https://"+h.Address)); to != "" {
			w.Header().Set("Location", to)
		} else {
			w.Header().Del("Location")
		}
		w.WriteHeader(good.Code)
	})
}

// siteFaults are faults that affect only pushes.
func siteFaults() []network.Fault {
	reg := remote.ErrRegistry
	on, says, answers := network.On, network.Says, network.Answers
	head := func(status int, length string) network.Mode {
		return on(func(r *http.Request) bool { return r.Method == http.MethodHead }, answers(status, "", "Content-Length", length))
	}
	var mu sync.Mutex
	var pushed []string // by "dies"
	dies := func(h *network.Host, w http.ResponseWriter, r *http.Request) bool {
		if h.Hits.Load() >= 2 {
			panic(http.ErrAbortHandler)
		}
		if !isSend(r) {
			return false
		}
		h.Hits.Add(1)
		good := h.Good(r)
		mu.Lock()
		defer mu.Unlock()
		pushed = append(pushed, r.URL.Query().Get("digest"))
		for k, v := range good.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(good.Code)
		return true
	}
	var uploaded []string                                                            // by "collects"
	collects := func(h *network.Host, _ http.ResponseWriter, r *http.Request) bool { // at the first manifest
		mu.Lock()
		defer mu.Unlock()
		if isSend(r) {
			uploaded = append(uploaded, r.URL.Query().Get("digest"))
		}
		if isPut(r) && h.Hits.Add(1) == 1 {
			repo, _, _ := strings.Cut(r.URL.Path, "/manifests/")
			for _, d := range uploaded {
				gone := httptest.NewRequest(http.MethodDelete, repo+"/blobs/"+d, nil)
				gone.Header = r.Header.Clone()
				h.Good(gone)
			}
		}
		return false
	}
	swallows := func(h *network.Host, w http.ResponseWriter, r *http.Request) bool {
		if !isSend(r) || h.Hits.Add(1) > 1 {
			return false
		}
		_, _ = new(bytes.Buffer).ReadFrom(r.Body)
		w.WriteHeader(http.StatusCreated)
		return true
	}
	return []network.Fault{
		{
			Name:  "read-only: 405",
			Class: reg,
			Says:  []string{"$HOST", "405", "it is read-only", "install on its own host"},
			Mode:  on(isWrite, says(405, "UNSUPPORTED", "The operation is unsupported.")),
		},
		{
			Name:  "read-only: 403",
			Class: reg,
			Says:  []string{"$HOST", "403", "requested access to the resource is denied", `user "canary-user"`},
			Mode:  on(isWrite, says(403, "DENIED", "requested access to the resource is denied")),
		},
		{
			Name:  "read-only: manifests alone",
			Class: reg,
			Says:  []string{"$HOST", "405", "pushing the manifest"},
			Mode:  on(isPut, says(405, "UNSUPPORTED", "")),
		},
		{Name: "quota: 507", Class: reg, Says: []string{"$HOST", "507", "no room left"}, Mode: on(isSend, answers(507, ""))},
		{
			Name:  "quota: 413",
			Class: reg,
			Says:  []string{"$HOST", "413", "client_max_body_size"},
			Mode:  on(isSend, answers(413, "<html>413 Request Entity Too Large</html>", "Content-Type", "text/html")),
		},
		{
			Name:  "quota: 413, and hangs up",
			Class: reg,
			Says:  []string{"$HOST", "413", "client_max_body_size"},
			Mode:  on(isSend, answers(413, "", "Connection", "close")),
		},
		{Name: "quota: 413 at a manifest", Class: reg, Says: []string{"$HOST", "413"}, Mode: on(isPut, answers(413, ""))},
		{
			Name:  "quota: the registry's own words",
			Class: reg,
			Says:  []string{"$HOST", "will exceed the configured upper limit"},
			Mode:  on(isPut, says(403, "DENIED", "adding 1.2 GiB of storage resource, which will exceed the configured upper limit")),
		},
		{
			Name:  "upload: to another host",
			Class: reg,
			Says:  []string{"$HOST", "another host, " + network.ElsewhereName},
			Mode:  location(func(h *network.Host, was string) string { return "https://" + h.Elsewhere + was }),
			After: unasked,
		},
		{
			Name:  "upload: to a private address",
			Class: reg,
			Says:  []string{"$HOST", "another host, 169.254.169.254"},
			Mode:  location(func(_ *network.Host, was string) string { return "https://169.254.169.254" + was }),
		},
		{
			Name:  "upload: to loopback",
			Class: reg,
			Says:  []string{"$HOST", "another host, 127.0.0.1:1"},
			Mode:  location(func(_ *network.Host, was string) string { return "http://127.0.0.1:1" + was }),
		},
		{
			Name:  "upload: to a part of the name",
			Class: reg,
			Says:  []string{"$HOST", "another host"},
			Mode:  location(func(_ *network.Host, was string) string { return "https://registry.test.elsewhere.example" + was }),
		},
		{Name: "upload: to http", Mode: location(func(h *network.Host, was string) string { return "http://" + h.Address + was })},
		{
			Name: "upload: to an inner port",
			Mode: location(func(_ *network.Host, was string) string { return "http://registry.test:5000" + was }),
		},
		{Name: "upload: to a path", Mode: location(func(_ *network.Host, was string) string { return was })},
		{
			Name:  "upload: nowhere",
			Class: reg,
			Says:  []string{"$HOST", "no place to upload to"},
			Mode:  location(func(*network.Host, string) string { return "" }),
		},
		{
			Name:  "upload: begin redirected elsewhere",
			Class: reg,
			Says:  []string{"$HOST", "another host, " + network.ElsewhereName},
			Mode:  on(isStart, network.Redirects(network.ToElsewhere)),
			After: unasked,
		},
		{
			Name:  "upload: redirected elsewhere",
			Class: reg,
			Says:  []string{"$HOST", "307"},
			Mode:  on(isSend, network.Redirects(network.ToElsewhere)),
			After: unasked,
		},
		{
			Name:  "manifest: redirected elsewhere",
			Class: reg,
			Says:  []string{"$HOST", "another host, " + network.ElsewhereName},
			Mode:  on(isPut, network.Redirects(network.ToElsewhere)),
			After: unasked,
		},
		{Name: "upload: 500 once", Mode: network.Times(1, on(isSend, answers(500, "")))},
		{Name: "upload: 429 once", Mode: network.Times(1, on(isSend, answers(429, "", "Retry-After", "1")))},
		{Name: "upload: 401 in the middle", Mode: func(h *network.Host, _ http.ResponseWriter, r *http.Request) bool {
			if isSend(r) && h.Hits.Add(1) == 1 {
				h.Revoke()
			}
			return false
		}},
		{Name: "upload: silent", Class: reg, Says: []string{"$HOST", "blob sha256:"}, Hurry: true, Mode: on(isSend, network.Hangs)},
		{
			Name: "upload: the connection breaks once",
			Mode: network.Times(1, on(isSend, func(_ *network.Host, w http.ResponseWriter, r *http.Request) { network.Aborts(w, r) })),
		},
		{Name: "upload: 200", Class: reg, Says: []string{"$HOST", "200"}, Mode: on(isSend, answers(200, ""))},
		{Name: "dies mid-push", Class: reg, Says: []string{"$HOST"}, Mode: dies, Finally: func(tb testing.TB, h *network.Host) {
			tb.Helper()
			if len(pushed) < 2 {
				tb.Errorf("it died after %d blobs", len(pushed))
			}
			for _, d := range pushed {
				if n := h.Net.Requests(network.HostName, "digest="+strings.ReplaceAll(d, ":", "%3A")); n != 1 {
					tb.Errorf("%s was sent %d times", d, n)
				}
			}
		}},
		{Name: "HEAD unsupported: 405", Mode: head(405, "0")},
		{Name: "HEAD unsupported: 501", Mode: head(501, "0")},
		{Name: "HEAD: another size", Mode: head(200, "3")},
		{Name: "HEAD: 500 for ever", Class: reg, Says: []string{"$HOST", "looking for blob", "500"}, Mode: head(500, "0")},
		{Name: "blob: collected before the manifest", Mode: collects, After: atLeast(2)},
		{Name: "blob: taken and not kept", Mode: swallows, After: atLeast(2)},
		{Name: "BLOB_UNKNOWN: once", Mode: network.Times(1, on(isPut, says(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")))},
		{Name: "BLOB_UNKNOWN: once, 400", Mode: network.Times(1, on(isPut, says(400, "BLOB_UNKNOWN", "blob unknown to registry")))},
		{
			Name:  "BLOB_UNKNOWN: for ever",
			Class: reg,
			Says:  []string{"$HOST", "lost content", "blob unknown to registry"},
			Mode:  on(isPut, says(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")),
		},
		{
			Name:  "MANIFEST_INVALID",
			Class: reg,
			Says:  []string{"$HOST", "400", "not to my taste"},
			Mode:  on(isPut, says(400, "MANIFEST_INVALID", "not to my taste")),
		},
		{
			Name:  "tag: immutable",
			Class: bundle.ErrPolicy,
			Says:  []string{"$HOST", "409", "immutable"},
			Mode:  on(isTag, says(409, "TAG_INVALID", "the tag is immutable")),
		},
		{
			Name:  "tag: the connection breaks",
			Class: install.ErrIncomplete,
			Says:  []string{"$HOST", "ended too early"},
			Mode:  on(isTag, network.Raw(hangUp)),
		},
		{
			Name:  "404: project",
			Class: reg,
			Says:  []string{"$HOST", "project team not found"},
			Mode:  on(isStart, says(404, "NAME_UNKNOWN", "project team not found")),
		},
		{Name: "200 with HTML: at an upload", Class: reg, Says: []string{"$HOST"}, Mode: network.WebPage(isStart)},
		{
			Name:  "gzip that was not asked for: manifest",
			Class: reg,
			Says:  []string{"$HOST", `encoded as "gzip"`},
			Mode: on(func(r *http.Request) bool {
				return r.Method == http.MethodGet && network.IsManifest(r)
			}, network.Changes(network.Gzipped)),
		},
	}
}

func hangUp(net.Conn) {}

func unasked(tb testing.TB, h *network.Host) {
	tb.Helper()
	if n := h.Net.Requests(network.ElsewhereName, ""); n > 0 {
		tb.Errorf("the other host was asked %d times", n)
	}
}

func atLeast(n int64) func(testing.TB, *network.Host) {
	return func(tb testing.TB, h *network.Host) {
		tb.Helper()
		if got := h.Hits.Load(); got < n {
			tb.Errorf("met %d times", got)
		}
	}
}

// site is a host that installs into a registry on its network.
type site struct {
	root  string
	key   *world.Key
	texts []string
}

func (s *site) install(t *testing.T, h *network.Host, path string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	policy := verify.Policy{Keys: []verify.Key{s.key.Trusted}}
	v, err := verify.Open(ctx, bytes.NewReader(data), int64(len(data)), policy)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := install.Acquire(s.root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
		if ctx.Err() != nil {
			t.Error("it did not end by itself")
		}
	}()
	warn := func(format string, args ...any) { s.texts = append(s.texts, fmt.Sprintf(format, args...)) }
	target := registry.OpenExternal(h.Client(t), h.Address, install.CentralRepository(v.Info.Name)).Registry()
	plan, err := install.NewPlan(ctx, v, target, install.Options{Root: s.root, Policy: policy, Warn: warn})
	if err != nil {
		return err
	}
	r, err := plan.Apply(ctx, bundle.Watch{})
	if err == nil {
		s.texts = append(s.texts, fmt.Sprintf("%+v", *r.Receipt))
	}
	return err
}

// get sends a request to the registry's handler directly, without the faults before it.
func get(t *testing.T, h http.Handler, path string) (int, []byte) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Add("Accept", bundle.TypeOCIManifest)
	r.Header.Add("Accept", bundle.TypeOCIIndex)
	h.ServeHTTP(w, r)
	return w.Code, w.Body.Bytes()
}

// soundness returns the problems of a registry: content must match its digest, and everything
// that a manifest names must exist.
func soundness(t *testing.T, h http.Handler) (problems []string) {
	t.Helper()
	var catalogue struct{ Repositories []string }
	if _, data := get(t, h, "/v2/_catalog"); json.Unmarshal(data, &catalogue) != nil {
		t.Fatalf("%s", data)
	}
	for _, repo := range catalogue.Repositories {
		var list struct{ Tags []string }
		if code, data := get(t, h, "/v2/"+repo+"/tags/list"); code == 404 {
			continue
		} else if json.Unmarshal(data, &list) != nil {
			t.Fatalf("%s", data)
		}
		for _, tag := range list.Tags {
			problems = append(problems, unsound(t, h, repo, "manifests/"+tag, "")...)
		}
	}
	return problems
}

func unsound(t *testing.T, h http.Handler, repo, what, digest string) (problems []string) {
	t.Helper()
	code, data := get(t, h, "/v2/"+repo+"/"+what)
	if code != 200 || digest != "" && string(bundle.DigestOf(data)) != digest {
		return []string{fmt.Sprintf("%s/%s: %d", repo, what, code)}
	}
	if strings.HasPrefix(what, "blobs/") {
		return nil
	}
	var m struct {
		Manifests, Layers []struct{ Digest string }
		Config            struct{ Digest string }
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return []string{fmt.Sprintf("%s/%s: %v", repo, what, err)}
	}
	for _, d := range m.Manifests {
		problems = append(problems, unsound(t, h, repo, "manifests/"+d.Digest, d.Digest)...)
	}
	for _, d := range m.Layers {
		problems = append(problems, unsound(t, h, repo, "blobs/"+d.Digest, d.Digest)...)
	}
	if m.Config.Digest != "" {
		problems = append(problems, unsound(t, h, repo, "blobs/"+m.Config.Digest, m.Config.Digest)...)
	}
	return problems
}

// TestNetwork fills or upgrades a site's registry under every fault of the registry and of the
// network. Every run ends soon, reports the problem, and reveals no secret. The registry stays
// sound. Its tag has the old value or, if the run succeeded or had started to switch, the new
// one. The same command succeeds once the fault is gone.
func TestNetwork(t *testing.T) {
	ways := network.WayFaults()
	faults := slices.Concat(ways, siteFaults())
	if want := 128; runtime.GOOS == "linux" && len(faults) != want {
		t.Errorf("%d faults, not %d", len(faults), want)
	}
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	var bundles, digests []string
	for n := range 2 {
		content := bytes.Repeat([]byte{byte(n)}, 1000)
		image := world.Image(
			"linux/amd64",
			world.Layer(world.File{Name: "app", Mode: 0o755, Data: content}),
			world.Layer(world.File{Name: "b", Mode: 0o644, Data: content}),
		)
		ref := up.Push(t, "team/app:1", image)
		o := world.Options(t, world.Manifest(t, "demo", ref), key, up)
		sequence := int64(n + 1)
		o.Sequence = &sequence
		bundles, digests = append(bundles, world.Create(t, o)), append(digests, world.Digest(t, ref))
	}
	tag := "/v2/" + strings.ReplaceAll(up.Host, ":", "_") + "/team/app/manifests/1"
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
			content := world.NewHandler(context.WithoutCancel(t.Context()), "")
			h := network.NewInternet(t).Serve(content, f)
			s := &site{root: t.TempDir(), key: key}
			const nothing = "no such tag"
			resolves := func() string {
				code, data := get(t, content, tag)
				if code != http.StatusOK {
					data = []byte(nothing)
				}
				return string(bundle.DigestOf(data))
			}
			check := func(allowed ...string) {
				t.Helper()
				if got := resolves(); !slices.Contains(allowed, got) {
					t.Errorf("the tag is %s, not one of %v", got, allowed)
				}
				for _, p := range soundness(t, content) {
					t.Error(p)
				}
			}
			old := string(bundle.DigestOf([]byte(nothing)))
			if i >= len(ways) { // a fault of the registry itself affects an upgrade
				runs++
				if err := s.install(t, h, bundles[0]); err != nil {
					t.Fatal(err)
				}
				old = digests[0]
			}
			check(old)
			h.Misbehave(true)
			err := s.install(t, h, bundles[1])
			problems, n := h.Problems(err, s.texts, s.root)
			switch {
			case err == nil:
				check(digests[1])
			case errors.Is(err, install.ErrIncomplete):
				check(old, digests[1])
			default:
				check(old)
			}
			if h.After != nil {
				h.After(t, h)
			}
			h.Misbehave(false)
			if err := s.install(t, h, bundles[1]); err != nil {
				t.Errorf("the fault is gone: %v", err)
			}
			check(digests[1])
			if h.Finally != nil {
				h.Finally(t, h)
			}
			found, m := h.Net.Leaks(h.Canaries, s.texts, s.root)
			for _, p := range append(problems, found...) {
				t.Error(p)
			}
			runs, looked, leaks = runs+2, looked+n+m, leaks+len(found)
		})
	}
	t.Logf("%d faults, %d runs; %d places searched for canaries, %d found", len(faults), runs, looked, leaks)
}

// TestCAFile: a file that is missing or contains no certificate is reported by name.
func TestCAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	if _, err := remote.New(remote.Options{CAFile: path}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("missing: %v", err)
	}
	world.Write(t, path, []byte("-----BEGIN NOTHING-----\n"), 0o644)
	if _, err := remote.New(remote.Options{CAFile: path}); !errors.Is(err, remote.ErrCAFile) || !strings.Contains(err.Error(), path) {
		t.Errorf("empty: %v", err)
	}
}

// artifacts creates manifests that refer to subject, each with its own layer, and stores the
// layers.
func artifacts(
	t *testing.T, target install.Target, repo string, subject bundle.Descriptor, names ...string,
) map[string]func(install.Target) error {
	t.Helper()
	put := map[string]func(install.Target) error{}
	for _, name := range names {
		layer := descriptor("text/plain", []byte(name))
		d, blobs := bundle.NewArtifact("application/vnd.example."+name, &subject, layer)
		blobs[layer.Digest] = []byte(name)
		m, err := bundle.ParseManifest(d, blobs[d.Digest])
		if err != nil {
			t.Fatal(err)
		}
		for digest, data := range blobs {
			if digest != d.Digest {
				if err := target.PutBlob(t.Context(), repo, descriptor("x", data), "", reader(data)); err != nil {
					t.Fatal(err)
				}
			}
		}
		put[name] = func(target install.Target) error { return target.PutManifest(t.Context(), repo, m, blobs[d.Digest]) }
	}
	return put
}

// listed returns the kinds of the referrers of a manifest.
func listed(t *testing.T, host, repo string, subject bundle.Digest) (kinds []string) {
	t.Helper()
	client, err := remote.New(remote.Options{PlainHTTP: []string{host}, Patience: remote.Patience{Pause: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Repository(t.Context(), host, repo, remote.Pull)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.Referrers(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		kinds = append(kinds, strings.TrimPrefix(d.ArtifactType, "application/vnd.example."))
	}
	slices.Sort(kinds)
	return kinds
}

// TestReferrersUnsupported: however a registry rejects the referrers API, referrers are found
// by their tag. Any other answer is an error.
func TestReferrersUnsupported(t *testing.T) {
	for _, status := range []int{200, 400, 404, 405, 406, 501} { // 200 is a web page
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			up := world.NewRegistry(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if network.IsReferrers(r) {
						w.WriteHeader(status)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			target := external(t, up.Host)
			m, data := image(t, target, "team/app", "one")
			if err := target.PutManifest(t.Context(), "team/app", m, data); err != nil {
				t.Fatal(err)
			}
			for _, put := range artifacts(t, target, "team/app", m.Descriptor, "a", "b") {
				if err := put(target); err != nil {
					t.Fatal(err)
				}
			}
			if got := listed(t, up.Host, "team/app", m.Descriptor.Digest); !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("listed are %v", got)
			}
		})
	}
}

func external(t *testing.T, host string) install.Target {
	t.Helper()
	client, err := remote.New(remote.Options{PlainHTTP: []string{host}, Patience: remote.Patience{Pause: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	return registry.OpenExternal(client, host)
}

// TestReferrersOfTwoMachines: two machines add to one list at the same time, so that the
// second writer has not seen the first one's entry. Both entries are in the list at the end.
func TestReferrersOfTwoMachines(t *testing.T) {
	var mu sync.Mutex
	reads, writes := 0, 0
	bothRead, bothWritten := make(chan struct{}), make(chan struct{})
	up := world.NewRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			isList := network.IsManifest(r) && strings.Contains(r.URL.Path, "/manifests/sha256-")
			if !isList {
				next.ServeHTTP(w, r)
				return
			}
			mu.Lock()
			count, done := &reads, bothRead
			if r.Method == http.MethodPut {
				count, done = &writes, bothWritten
			}
			mu.Unlock()
			next.ServeHTTP(w, r) // each machine then waits for the other
			mu.Lock()
			*count++
			if *count == 2 {
				close(done)
			}
			mu.Unlock()
			select {
			case <-done:
			case <-r.Context().Done():
			}
		})
	})
	one, two := external(t, up.Host), external(t, up.Host)
	m, data := image(t, one, "team/app", "one")
	if err := one.PutManifest(t.Context(), "team/app", m, data); err != nil {
		t.Fatal(err)
	}
	put := artifacts(t, one, "team/app", m.Descriptor, "a", "b")
	var g errgroup.Group
	g.Go(func() error { return put["a"](one) })
	g.Go(func() error { return put["b"](two) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, up.Host, "team/app", m.Descriptor.Digest); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("listed are %v", got)
	}
	if writes < 3 {
		t.Errorf("%d writes: none was lost", writes)
	}
}

// TestSlowFiling: after receiving a large blob, a registry may be silent for longer than the
// usual idle limit.
func TestSlowFiling(t *testing.T) {
	const idle = 500 * time.Millisecond
	sent := 0
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			w.Header().Set("Location", "/v2/team/app/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		case isSend(r):
			sent++
			_, _ = io.Copy(io.Discard, r.Body) // an aborted body is the client's error
			time.Sleep(3 * idle)
			w.WriteHeader(http.StatusCreated)
		}
	}))
	defer up.Close()
	at := strings.TrimPrefix(up.URL, "http://")
	client, err := remote.New(remote.Options{PlainHTTP: []string{at}, Patience: remote.Patience{Idle: idle, Pause: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 60<<20) // allows six more seconds
	if err := registry.OpenExternal(client, at).PutBlob(t.Context(), "team/app", descriptor("x", data), "", reader(data)); err != nil {
		t.Fatal(err)
	}
	if sent != 1 {
		t.Errorf("it was sent %d times", sent)
	}
}
