package create_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// meter counts the blob bytes that a registry sends, and the range requests. After
// failAfter bytes in total, the registry sends nothing more.
type meter struct {
	sent      atomic.Int64
	failAfter atomic.Int64 // 0 means never
	noRanges  atomic.Bool
	ranges    atomic.Int64 // range requests
	lives     atomic.Int64 // number of restarts
}

// restart sets the count to 0. Responses that started before no longer count.
func (m *meter) restart() {
	m.lives.Add(1)
	m.sent.Store(0)
}

func (m *meter) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			next.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Range") != "" {
			if m.noRanges.Load() {
				r.Header.Del("Range")
			} else {
				m.ranges.Add(1)
			}
		}
		if m.dead() {
			m.hang(r)
			return
		}
		next.ServeHTTP(&metered{w, m, r, m.lives.Load()}, r)
	})
}

type metered struct {
	http.ResponseWriter
	*meter
	r    *http.Request
	life int64
}

func (m *meter) dead() bool { limit := m.failAfter.Load(); return limit > 0 && m.sent.Load() >= limit }

// hang returns when the client disconnects or the registry sends again. A client that
// has read its response keeps the connection.
func (m *meter) hang(r *http.Request) {
	for m.dead() && r.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

func (w *metered) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if w.life == w.lives.Load() {
		w.sent.Add(int64(n))
	}
	if w.dead() {
		if f, ok := w.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		w.hang(w.r)
	}
	return n, err
}

// random returns a layer of n random bytes.
func random(seed, n int) v1.Layer {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(data)
	return static.NewLayer(data, "application/vnd.oci.image.layer.v1.tar")
}

// interrupted runs create, and interrupts it after the registry has sent the given number
// of blob bytes.
func interrupted(t *testing.T, o create.Options, m *meter, after int64) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	stop := errors.New("enough")
	m.failAfter.Store(m.sent.Load() + after)
	go func() {
		for m.sent.Load() < m.failAfter.Load() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		for range 2000 { // wait until the sent bytes are claimed, also on a slow machine
			if claimsAll(o.Output, after) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		cancel(stop)
	}()
	if _, err := create.Run(ctx, o); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	m.failAfter.Store(0)
	if _, err := os.Lstat(o.Output); err == nil {
		t.Fatal("an unfinished bundle has its name already")
	}
}

// claimsAll reports whether a journal claims nearly all of the sent bytes. The rest may
// be in connection buffers.
func claimsAll(output string, sent int64) bool {
	data, err := os.ReadFile(output + ".partial.journal")
	if err != nil {
		return false
	}
	have, total := map[bundle.Digest]int64{}, int64(0)
	for line := range bytes.Lines(data) {
		var c struct {
			Blob bundle.Digest `json:"blob"`
			Have int64         `json:"have"`
		}
		if json.Unmarshal(line, &c) == nil && c.Blob != "" { // the last line may be incomplete
			have[c.Blob] = c.Have
		}
	}
	for _, n := range have {
		total += n
	}
	return total >= sent-400_000
}

// claims returns the number of bytes that the journal claims of each blob.
func claims(t *testing.T, output string) map[bundle.Digest]int64 {
	t.Helper()
	data, err := os.ReadFile(output + ".partial.journal")
	if err != nil {
		t.Fatal(err)
	}
	have := map[bundle.Digest]int64{}
	for line := range bytes.Lines(data) {
		var c struct {
			Blob bundle.Digest `json:"blob"`
			Have int64         `json:"have"`
		}
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if c.Blob != "" {
			have[c.Blob] = c.Have
		}
	}
	return have
}

func sum(m map[bundle.Digest]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

// flipFinished changes a byte in a blob of the given size that the journal claims in full.
func flipFinished(t *testing.T, o *create.Options, size int64) {
	t.Helper()
	have := claims(t, o.Output)
	r, _, _ := partialShape(t, *o)
	for _, m := range r {
		if have[m.Digest] == m.Size && m.Size == size {
			flip(t, o.Output+".partial", m.Data+7)
			return
		}
	}
	t.Fatal("no blob was finished")
}

// TestResume interrupts a run in the middle of blobs. The next run must fetch only the
// missing bytes, and make the same bundle as an undisturbed run.
func TestResume(t *testing.T) {
	const each = 1_000_000
	for _, test := range []struct {
		name     string
		noRanges bool
		between  func(t *testing.T, o *create.Options) // changes the leftovers; may be nil
		most     int64                                 // bytes that the second run may fetch in addition to the unclaimed bytes
	}{
		{"as it was", false, nil, 0},
		{"no ranges", true, nil, 4 * each},
		{"a changed byte in a finished blob", false, func(t *testing.T, o *create.Options) { flipFinished(t, o, each) }, each},
		{"a torn last line", false, func(t *testing.T, o *create.Options) {
			t.Helper()
			f, err := os.OpenFile(o.Output+".partial.journal", os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(`{"blob":"sha256:12`); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"a lost partial file", false, func(t *testing.T, o *create.Options) {
			t.Helper()
			if err := os.Remove(o.Output + ".partial"); err != nil {
				t.Fatal(err)
			}
		}, 6 * each},
		{"zeros where a power cut lost data", false, func(t *testing.T, o *create.Options) {
			t.Helper()
			fi, err := os.Stat(o.Output + ".partial")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Truncate(o.Output+".partial", 0), os.Truncate(o.Output+".partial", fi.Size())); err != nil {
				t.Fatal(err)
			}
		}, 6 * each},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := &meter{}
			up, key := world.NewRegistry(t, m.wrap), world.NewKey(t)
			var layers []v1.Layer
			for i := range 6 {
				layers = append(layers, random(i, each))
			}
			ref := up.Push(t, "team/app:1", world.Image("linux/amd64", layers...))
			o := world.Options(t, world.Manifest(t, "demo", ref), key, up)
			undisturbed := world.Create(t, o)
			want, err := os.ReadFile(undisturbed)
			if err != nil {
				t.Fatal(err)
			}
			o.Output = filepath.Join(t.TempDir(), "again.oob.tar")
			o.Jobs = 2
			m.noRanges.Store(test.noRanges)
			early := o
			early.Now = o.Now.Add(-time.Hour) // the signed time must be that of the second run
			interrupted(t, early, m, 3_500_000)
			before := claims(t, o.Output)
			if sum(before) == 0 {
				t.Fatal("the journal claims nothing")
			}
			if test.between != nil {
				test.between(t, &o)
			}
			m.restart()
			got, err := os.ReadFile(world.Create(t, o))
			if err != nil {
				t.Fatal(err)
			}
			sameOutsideSlot(t, want, got)
			payload := int64(6 * each)
			if sent := m.sent.Load(); sent > payload-sum(before)+test.most+100_000 {
				t.Errorf("%d bytes were fetched again, of %d that were missing", sent, payload-sum(before))
			}
			if test.name == "as it was" && m.ranges.Load() == 0 {
				t.Error("no blob was continued inside")
			}
			left, err := filepath.Glob(o.Output + ".partial*")
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// partialShape creates the bundle of o and returns its blobs, deployment and bytes.
func partialShape(t *testing.T, o create.Options) ([]bundle.Member, *bundle.Deployment, []byte) {
	t.Helper()
	o.Output = filepath.Join(t.TempDir(), "shape.oob.tar")
	r, d, data := read(t, world.Create(t, o))
	return r.Blobs(), d, data
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func sameOutsideSlot(t *testing.T, a, b []byte) {
	t.Helper()
	head, err := bundle.ReadHead(bytes.NewReader(a), int64(len(a)))
	if err != nil {
		t.Fatal(err)
	}
	slot := head.SlotOffset()
	if len(a) != len(b) || !bytes.Equal(a[:slot], b[:slot]) || !bytes.Equal(a[slot+bundle.SlotSize:], b[slot+bundle.SlotSize:]) {
		t.Error("the bytes outside the slot differ")
	}
}

// TestResumeChanged checks that leftovers are used only where they fit after a change of
// manifest, platform, upstream or volume size.
func TestResumeChanged(t *testing.T) {
	const each = 1_000_000
	for name, change := range map[string]func(t *testing.T, o *create.Options, up *world.Registry){
		"another manifest": func(t *testing.T, o *create.Options, up *world.Registry) {
			t.Helper()
			other := up.Push(t, "team/other:1", world.Image("linux/amd64", random(40, each), random(2, each)))
			o.Manifest = world.Manifest(t, "demo", other)
		},
		"a moved tag": func(t *testing.T, _ *create.Options, up *world.Registry) {
			t.Helper()
			up.Push(t, "team/app:1", world.Image("linux/amd64", random(50, each/2), random(1, each), random(2, each)))
		},
		"another platform": func(_ *testing.T, o *create.Options, _ *world.Registry) {
			o.Platforms = []bundle.Platform{{OS: "linux", Architecture: "arm64"}}
		},
		"volumes": func(_ *testing.T, o *create.Options, _ *world.Registry) { o.VolumeSize = 300_000 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &meter{}
			up, key := world.NewRegistry(t, m.wrap), world.NewKey(t)
			ref := up.Push(t, "team/app:1", world.Index(
				world.Image("linux/amd64", random(1, each), random(2, each), random(3, each)),
				world.Image("linux/arm64", random(2, each), random(4, each))))
			o := world.Options(t, world.Manifest(t, "demo", ref), key, up)
			interrupted(t, o, m, 2_200_000)
			change(t, &o, up)
			got := world.Create(t, o)
			fresh := o
			fresh.Output = filepath.Join(t.TempDir(), "fresh.oob.tar")
			first, err := create.Run(t.Context(), fresh)
			if err != nil {
				t.Fatal(err)
			}
			sameOutsideSlot(t, whole(t, first.Output), whole(t, got))
			left, err := filepath.Glob(o.Output + ".partial*")
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// whole returns the bytes of a bundle in one file or in volumes.
func whole(t *testing.T, path string) []byte {
	t.Helper()
	f, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// TestNothingLeft checks that a run that fails before it has fetched anything leaves no
// files.
func TestNothingLeft(t *testing.T) {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	o := world.Options(t, world.Manifest(t, "demo", up.Host+"/team/missing:1"), key, up)
	if _, err := create.Run(t.Context(), o); !errors.Is(err, remote.ErrRegistry) {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(o.Output)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestReuse checks that blobs are copied from an earlier bundle unless they are damaged.
func TestReuse(t *testing.T) {
	const each = 1_000_000
	m := &meter{}
	up, key := world.NewRegistry(t, m.wrap), world.NewKey(t)
	old := up.Push(t, "team/app:1", world.Image("linux/amd64", random(1, each), random(2, each)))
	before := world.Create(t, world.Options(t, world.Manifest(t, "demo", old), key, up))
	ref := up.Push(t, "team/app:2", world.Image("linux/amd64", random(1, each), random(2, each), random(3, each)))
	r, _, _ := read(t, before)
	damaged := filepath.Join(t.TempDir(), "damaged.oob.tar")
	data, err := os.ReadFile(before)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range r.Blobs() {
		if b.Size == each {
			data[b.Data+5] ^= 1
			break
		}
	}
	world.Write(t, damaged, data, 0o644)
	volumes := filepath.Join(t.TempDir(), "volumes.oob.tar")
	o := world.Options(t, world.Manifest(t, "demo", old), key, up)
	o.Output, o.VolumeSize = volumes, 700_000
	world.Create(t, o)
	for name, test := range map[string]struct {
		from   []string
		blobs  int64 // number of blobs fetched from upstream
		warned bool
	}{
		"whole":              {[]string{before}, 1, false},
		"in volumes":         {[]string{volumes + ".001"}, 1, false},
		"damaged":            {[]string{damaged}, 2, true},
		"damaged, and whole": {[]string{damaged, before}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := world.Options(t, world.Manifest(t, "demo", ref), key, up)
			warned := false
			o.Reuse, o.Warn = test.from, func(string, ...any) { warned = true }
			m.restart()
			got := world.Create(t, o)
			if sent := m.sent.Load(); sent < test.blobs*each || sent > test.blobs*each+10_000 {
				t.Errorf("%d bytes were fetched", sent)
			}
			if warned != test.warned {
				t.Errorf("warned: %v", warned)
			}
			o.Reuse, o.Output = nil, filepath.Join(t.TempDir(), "plain.oob.tar")
			sameOutsideSlot(t, whole(t, world.Create(t, o)), whole(t, got))
		})
	}
	o = world.Options(t, world.Manifest(t, "demo", ref), key, up)
	o.Reuse = []string{key.Public}
	if _, err := create.Run(t.Context(), o); !errors.Is(err, bundle.ErrFormat) {
		t.Errorf("reusing what is no bundle: %v", err)
	}
}

// TestFewRequests checks the number of requests, and that no request is sent twice.
func TestFewRequests(t *testing.T) {
	asked := make(chan string, 1000)
	up := world.NewRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- r.Method + " " + r.URL.Path
			next.ServeHTTP(w, r)
		})
	})
	one := up.Push(t, "team/one:1", world.Image("linux/amd64", random(1, 1000), random(2, 1000)))
	two := up.Push(
		t,
		"team/two:1",
		world.Index(world.Image("linux/amd64", random(1, 1000)), world.Image("linux/arm64", random(3, 1000))),
	)
	// Without referrers: two requests to /v2/; a manifest, its config, two layers; an
	// index, a manifest, a config. The shared layer is fetched once. With referrers, in
	// addition: one request to the referrers API for each of the two repositories, and
	// four tags for each of the three manifests.
	for without, want := range map[bool]int{true: 9, false: 9 + 2 + 3*4} {
		for len(asked) > 0 {
			<-asked
		}
		o := world.Options(t, world.Manifest(t, "demo", one, two), world.NewKey(t), up)
		o.WithoutReferrers = without
		world.Create(t, o)
		seen, total := map[string]int{}, 0
		for len(asked) > 0 {
			request := <-asked
			total++
			if seen[request]++; seen[request] > 1 && !strings.HasSuffix(request, "/v2/") {
				t.Errorf("%s %d times", request, seen[request])
			}
		}
		if total != want {
			t.Errorf("%d requests, not %d: %v", total, want, seen)
		}
	}
}
