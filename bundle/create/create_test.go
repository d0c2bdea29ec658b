package create_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

func file(text string) world.File {
	return world.File{Name: "app", Mode: 0o755, Data: []byte(text)}
}

// read reads a bundle without verification.
func read(t *testing.T, path string) (*bundle.Reader, *bundle.Deployment, []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, err := bundle.ReadHead(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := bundle.NewReader(bytes.NewReader(data), int64(len(data)), head)
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.Deployment()
	if err != nil {
		t.Fatal(err)
	}
	return r, d, data
}

// TestSameLockSameBytes creates a bundle from a lock after upstream's tag has moved. The
// bytes outside the slot must be the same.
func TestSameLockSameBytes(t *testing.T) {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	one := world.Image("linux/amd64", world.Layer(file("one")))
	index := world.Index(
		world.Image("linux/amd64", world.Layer(file("a"))),
		world.Image("linux/arm64", world.Layer(file("b"))),
	)
	m := world.Manifest(t, "demo", up.Push(t, "team/app:1", one), up.Push(t, "team/multi:1", index))
	first := world.Create(t, world.Options(t, m, key, up))
	up.Push(t, "team/app:1", world.Image("linux/amd64", world.Layer(file("two"))))
	lock, err := manifests.ReadLock(create.LockFile(first))
	if err != nil {
		t.Fatal(err)
	}
	o := world.Options(t, m, key, up)
	o.Lock, o.Now, o.Platforms = lock, time.Now(), nil
	second := world.Create(t, o)
	_, _, a := read(t, first)
	_, _, b := read(t, second)
	head, err := bundle.ReadHead(bytes.NewReader(a), int64(len(a)))
	if err != nil {
		t.Fatal(err)
	}
	slot := head.SlotOffset()
	if !bytes.Equal(a[:slot], b[:slot]) || !bytes.Equal(a[slot+bundle.SlotSize:], b[slot+bundle.SlotSize:]) {
		t.Error("the same lock gave other bytes")
	}
	if bytes.Equal(a, b) {
		t.Error("two ECDSA signatures are the same")
	}
	la, errA := os.ReadFile(create.LockFile(first))
	lb, errB := os.ReadFile(create.LockFile(second))
	if errA != nil || errB != nil || !bytes.Equal(la, lb) {
		t.Errorf("the locks differ: %s %s", la, lb)
	}
}

func TestLockThatDoesNotFit(t *testing.T) {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	ref := up.Push(t, "team/app:1", world.Image("linux/amd64", world.Layer(file("one"))))
	m := world.Manifest(t, "demo", ref)
	lock, err := manifests.ReadLock(create.LockFile(world.Create(t, world.Options(t, m, key, up))))
	if err != nil {
		t.Fatal(err)
	}
	number := int64(99)
	for name, change := range map[string]func(o *create.Options){
		"another manifest": func(o *create.Options) { o.Manifest = world.Manifest(t, "other", ref) },
		"another platform": func(o *create.Options) { o.Platforms[0].Architecture = "arm64" },
		"another channel":  func(o *create.Options) { o.Channel = "elsewhere" },
		"another sequence": func(o *create.Options) { o.Sequence = &number },
		"another size":     func(o *create.Options) { o.Lock.Images[0].Size++ },
	} {
		t.Run(name, func(t *testing.T) {
			o := world.Options(t, m, key, up)
			copied := *lock
			copied.Images = append([]manifests.LockedImage{}, lock.Images...)
			o.Lock = &copied
			change(&o)
			if _, err := create.Run(t.Context(), o); !errors.Is(err, manifests.ErrMismatch) || !errors.Is(err, bundle.ErrPolicy) {
				t.Errorf("got %v", err)
			}
			if left, err := os.ReadDir(filepath.Dir(o.Output)); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestWhatIsCarried checks the entries in the root and in the deployment document for
// each kind of image.
func TestWhatIsCarried(t *testing.T) {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	amd := world.Image("linux/amd64", world.Layer(file("amd64")))
	arm := world.Image("linux/arm64", world.Layer(file("arm64")))
	both := world.WithAttestation(world.WithAttestation(world.Index(amd, arm), amd), arm)
	alone := world.WithAttestation(world.Index(amd), amd)
	refs := map[string]string{
		"docker":   up.Push(t, "team/docker:1", world.DockerImage("linux/amd64", world.Layer(file("d")))),
		"zstd":     up.Push(t, "team/zstd:1", world.Image("linux/amd64", world.ZstdLayer(file("z")))),
		"artifact": up.Push(t, "team/artifact:1", world.Artifact([]byte("data"))),
		"partial":  up.Push(t, "team/partial:1", both),
		"complete": up.Push(t, "team/complete:1", alone),
	}
	refs["digest"] = up.Host + "/team/docker@" + world.Digest(t, refs["docker"])
	refs["tag and digest"] = refs["zstd"] + "@" + world.Digest(t, refs["zstd"])
	order := []string{"docker", "zstd", "artifact", "partial", "complete", "digest", "tag and digest"}
	var list []string
	for _, name := range order {
		list = append(list, refs[name])
	}
	path := world.Create(t, world.Options(t, world.Manifest(t, "demo", list...), key, up))
	r, d, data := read(t, path)
	for i, name := range order {
		image := d.Images[i]
		if image.Reference != refs[name] || string(image.Digest) != world.Digest(t, refs[name]) {
			t.Errorf("%s: %+v", name, image)
		}
		if image.Partial != (name == "partial") || len(image.Manifests) != 1 || len(image.Attestations) != map[bool]int{true: 1}[image.Partial] {
			t.Errorf("%s: %+v", name, image)
		}
	}
	armDigest, err := arm.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Place(bundle.Digest(armDigest.String())); ok {
		t.Error("the other platform's manifest is carried")
	}
	original, mediaType, err := r.PartialIndex(d.Images[3])
	if err != nil || bundle.DigestOf(original) != d.Images[3].Digest || mediaType != bundle.TypeOCIIndex {
		t.Errorf("the partial index: %s, %v", mediaType, err)
	}
	var tags []string
	for _, part := range strings.Split(string(r.LoadList), `"RepoTags":["`)[1:] {
		tag, _, _ := strings.Cut(part, `"`)
		tags = append(tags, strings.TrimPrefix(tag, up.Host+"/team/"))
	}
	want := []string{
		"docker:1",
		"zstd:1",
		"partial:1",
		"complete:1",
		"docker:sha256-" + bundle.Digest(world.Digest(t, refs["docker"])).Short(),
		"zstd:1",
	}
	if diff := cmp.Diff(want, tags); diff != "" {
		t.Errorf("load list: %s", diff)
	}
	// Allowed: the slot, the tar frame, and a header with padding for each blob.
	if over := int64(len(data)) - r.PayloadSize(); over > 72<<10+1024*int64(len(r.Blobs())) {
		t.Errorf("%d bytes more than the payload", over)
	}
}

// TestPlatforms checks that two of three platforms are carried, and that a missing platform
// is refused.
func TestPlatforms(t *testing.T) {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	image := func(p string) string {
		return up.Push(t, "team/"+strings.ReplaceAll(p, "/", "-")+":1", world.Image(p, world.Layer(file(p))))
	}
	three := up.Push(t, "team/three:1", world.Index(
		world.Image(
			"linux/amd64",
			world.Layer(file("1")),
		),
		world.Image("linux/arm64", world.Layer(file("2"))),
		world.Image("linux/s390x", world.Layer(file("3"))),
	))
	o := world.Options(t, world.Manifest(t, "demo", three), key, up)
	o.Platforms = []bundle.Platform{{OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "amd64"}}
	r, d, _ := read(t, world.Create(t, o))
	if len(d.Images) != 1 || len(d.Images[0].Manifests) != 2 || !d.Images[0].Partial {
		t.Errorf("%+v", d.Images)
	}
	var got []string
	for _, m := range r.Index.Manifests {
		if m.Annotations[bundle.AnnotationRef] == three {
			got = append(got, m.Platform.String())
		}
	}
	if diff := cmp.Diff([]string{"linux/arm64", "linux/amd64"}, got); diff != "" {
		t.Error(diff)
	}
	if r.Info.Channel != "demo/linux/arm64/linux/amd64" {
		t.Errorf("channel %q", r.Info.Channel)
	}
	for name, ref := range map[string]string{"an image of another platform": image("linux/riscv64"), "an index without it": three} {
		o := world.Options(t, world.Manifest(t, "demo", ref), key, up)
		o.Platforms = []bundle.Platform{{OS: "linux", Architecture: "ppc64le"}}
		if _, err := create.Run(t.Context(), o); !errors.Is(err, bundle.ErrPolicy) || !strings.Contains(err.Error(), "linux/ppc64le") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOneNameTwoImages checks that create refuses two references that would give one tag on
// the site to different images.
func TestOneNameTwoImages(t *testing.T) {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	ref := up.Push(t, "team/app:1", world.Image("linux/amd64", world.Layer(file("old"))))
	pinned := ref + "@" + world.Digest(t, ref)
	o := world.Options(t, world.Manifest(t, "demo", ref, pinned), key, up)
	world.Create(t, o) // both name one image
	up.Push(t, "team/app:1", world.Image("linux/amd64", world.Layer(file("new"))))
	o = world.Options(t, world.Manifest(t, "demo", ref, pinned), key, up)
	if _, err := create.Run(t.Context(), o); !errors.Is(err, manifests.ErrInvalid) || !strings.Contains(err.Error(), "one name") {
		t.Errorf("got %v", err)
	}
}

// TestSharedLayers checks that a layer of two images is fetched and stored once.
func TestSharedLayers(t *testing.T) {
	var gets atomic.Int64
	base := world.Layer(file("shared"))
	digest, err := base.Digest()
	if err != nil {
		t.Fatal(err)
	}
	up := world.NewRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, digest.String()) {
				gets.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	a := up.Push(t, "team/a:1", world.Image("linux/amd64", base, world.Layer(file("a"))))
	b := up.Push(t, "team/b:1", world.Image("linux/amd64", base, world.Layer(file("b"))))
	r, _, data := read(t, world.Create(t, world.Options(t, world.Manifest(t, "demo", a, b), world.NewKey(t), up)))
	if _, ok := r.Place(
		bundle.Digest(digest.String()),
	); !ok || gets.Load() != 1 ||
		bytes.Count(data, []byte("blobs/sha256/"+digest.Hex+"\x00")) != 1 {
		t.Errorf("fetched %d times, stands %d times", gets.Load(), bytes.Count(data, []byte("blobs/sha256/"+digest.Hex+"\x00")))
	}
}

// TestMirror checks that an image from a mirror keeps upstream's name.
func TestMirror(t *testing.T) {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	up.Push(t, "hub/library/nginx:1", world.Image("linux/amd64", world.Layer(file("n"))))
	o := world.Options(t, world.Manifest(t, "demo", "nginx:1"), key, up)
	o.Source.Mirrors = map[string]string{"docker.io": up.Host + "/hub"}
	_, d, _ := read(t, world.Create(t, o))
	if i := d.Images[0]; i.Reference != "docker.io/library/nginx:1" || i.Repository != "docker.io/library/nginx" {
		t.Errorf("%+v", i)
	}
}

var droppingSize = flag.Int64("dropping", 20_000_000, "size of the blob that a registry drops every few megabytes of, bytes")

// TestDroppedConnections checks that create succeeds although the registry ends every
// connection after some bytes, and that no byte range is fetched twice.
func TestDroppedConnections(t *testing.T) {
	var sent atomic.Int64
	each := max(*droppingSize/250, 100_000)
	up := world.NewRegistryAt(t, t.TempDir(), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				w = &dropping{ResponseWriter: w, left: each, sent: &sent}
			}
			next.ServeHTTP(w, r)
		})
	})
	data := make([]byte, *droppingSize)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	ref := up.Push(t, "team/app:1", world.Artifact(data))
	r, _, _ := read(t, world.Create(t, world.Options(t, world.Manifest(t, "demo", ref), world.NewKey(t), up)))
	if sent.Load() < *droppingSize || sent.Load() > *droppingSize*11/10 {
		t.Errorf("%d bytes were sent for %d", sent.Load(), r.PayloadSize())
	}
}

// TestTwoAtOnce checks that a second run on the same output returns ErrLocked.
func TestTwoAtOnce(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	up := world.NewRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && r.Header.Get("User-Agent") != "" &&
				once.CompareAndSwap(false, true) {
				close(held)
				<-hold
			}
			next.ServeHTTP(w, r)
		})
	})
	ref := up.Push(t, "team/app:1", world.Artifact([]byte("no config is read while it is resolved")))
	o := world.Options(t, world.Manifest(t, "demo", ref), world.NewKey(t), up)
	var g errgroup.Group
	g.Go(func() error { _, err := create.Run(context.Background(), o); return err })
	<-held
	if _, err := create.Run(t.Context(), o); !errors.Is(err, create.ErrLocked) {
		t.Errorf("got %v", err)
	}
	close(hold)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
