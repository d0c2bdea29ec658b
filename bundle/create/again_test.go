package create_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestInterruptedTwice interrupts a second run while it reads back the bytes of the
// first one. The journal must still claim all of them.
func TestInterruptedTwice(t *testing.T) {
	var m meter
	up := world.NewRegistry(t, m.wrap)
	o := world.Options(
		t,
		world.Manifest(t, "demo", up.Push(t, "team/app:1", world.Image("linux/amd64", random(1, 8_000_000)))),
		world.NewKey(t), up,
	)
	interrupted(t, o, &m, 6_000_000)
	before := sum(claims(t, o.Output))
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	o.Resolved = func(*bundle.Geometry, *manifests.Lock) bundle.Watch {
		return bundle.Watch{Bytes: func(int64) {
			time.Sleep(500 * time.Millisecond) // enough for some checkpoints
			cancel(stop)
		}}
	}
	if _, err := create.Run(ctx, o); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if after := sum(claims(t, o.Output)); after < before {
		t.Errorf("%d bytes were there, and %d are claimed", before, after)
	}
	o.Resolved = nil
	world.Create(t, o)
}

// TestOtherVolumes checks that only volumes of the replaced bundle are replaced, and that
// no volume of that bundle remains.
func TestOtherVolumes(t *testing.T) {
	up := world.NewRegistry(t, nil)
	options := func(size int64) create.Options {
		o := world.Options(
			t,
			world.Manifest(t, "demo", up.Push(t, "team/app:1", world.Image("linux/amd64", random(1, 2_000_000)))),
			world.NewKey(t), up,
		)
		o.VolumeSize = size
		return o
	}
	notes := []byte("my notes")
	for name, test := range map[string]struct{ has, gone []int }{
		"a stray one":            {[]int{7}, nil},
		"another's second":       {[]int{2}, nil},
		"behind those of ours":   {[]int{6}, nil},
		"the first one was lost": {nil, []int{1}},
		"one in between":         {nil, []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(700_000) // four volumes
			if test.gone != nil || name == "behind those of ours" {
				world.Create(t, o)
			}
			for _, n := range test.has {
				world.Write(t, bundle.VolumeName(o.Output, n), notes, 0o644)
			}
			for _, n := range test.gone {
				if err := os.Remove(bundle.VolumeName(o.Output, n)); err != nil {
					t.Fatal(err)
				}
			}
			before, err := filepath.Glob(o.Output + "*")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := create.Run(t.Context(), o); !errors.Is(err, manifests.ErrInvalid) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("got %v", err)
			}
			after, err := filepath.Glob(o.Output + "*")
			if err != nil || strings.Join(before, " ") != strings.Join(after, " ") {
				t.Errorf("there were %v, and there are %v: %v", before, after, err)
			}
			for _, n := range test.has {
				if data, err := os.ReadFile(bundle.VolumeName(o.Output, n)); err != nil || !bytes.Equal(data, notes) {
					t.Errorf("%q, %v", data, err)
				}
			}
		})
	}
	o := options(700_000)
	world.Create(t, o)
	o.VolumeSize = 1_500_000
	world.Create(t, o)
	if left, err := filepath.Glob(o.Output + ".[0-9][0-9][0-9]"); err != nil || len(left) != 2 {
		t.Errorf("volumes: %v, %v", left, err)
	}
	// The state after a run that was killed while it removed the old volumes.
	if err := os.Remove(bundle.VolumeName(o.Output, 2)); err != nil {
		t.Fatal(err)
	}
	world.Create(t, o)
}

// TestSmallerInVolumes checks that surplus volumes of an interrupted, larger run are removed.
func TestSmallerInVolumes(t *testing.T) {
	var m meter
	up := world.NewRegistry(t, m.wrap)
	o := world.Options(
		t,
		world.Manifest(t, "demo", up.Push(t, "team/app:1", world.Image("linux/amd64", random(1, 1_000_000), random(2, 3_000_000)))),
		world.NewKey(t), up,
	)
	o.VolumeSize = 700_000
	interrupted(t, o, &m, 2_000_000)
	up.Push(t, "team/app:1", world.Image("linux/amd64", random(1, 1_000_000)))
	world.Create(t, o)
	if left, err := filepath.Glob(o.Output + ".partial*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestOneVersion checks that a download without a known digest contains one version of
// the file, not the start of one version and the end of another.
func TestOneVersion(t *testing.T) {
	const size = 2 << 20
	one, two := bytes.Repeat([]byte("1"), size), bytes.Repeat([]byte("2"), size)
	for name, tags := range map[string][2]string{
		"the server says which":   {`"one"`, `"two"`},
		"it says so only weakly":  {`W/"same"`, `W/"same"`},
		"it says nothing of that": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWeb(t, map[string][]byte{"/x": one})
			s.wrap = func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
				version := tags[0]
				if s.asked["/x"].Load() > 2 {
					s.pages["/x"], version = two, tags[1]
				}
				if version != "" {
					w.Header().Set("ETag", version)
				}
				switch s.asked["/x"].Load() {
				case 2: // the first request asks for the size
					w.Header().Set("Content-Length", fmt.Sprint(size))
					_, _ = w.Write(one[:size/2])
					panic(http.ErrAbortHandler)
				case 3:
					http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(two))
					return nil
				}
				return w
			}
			o := intake(t, s, "    files: [{source: \"$WEB/x\", path: x, sha256: first-use}]\n")
			_, d, _ := read(t, world.Create(t, o))
			if d.Files[0].Digest != bundle.DigestOf(two) {
				t.Errorf("it is %s, neither the first file nor the second", d.Files[0].Digest)
			}
		})
	}
}

// TestSignedURL checks that the secret part of a URL is neither in the bundle nor in the lock.
func TestSignedURL(t *testing.T) {
	const secret = "bm90LWZvci1vdGhlcnM"
	s := newWeb(t, map[string][]byte{"/x": []byte("content")})
	o := intake(t, s, "    files: [{source: \"$WEB/x?sig="+secret+"#"+secret+"\", path: x, sha256: first-use}]\n")
	world.Create(t, o)
	for _, name := range []string{o.Output, create.LockFile(o.Output)} {
		data, err := os.ReadFile(name)
		if err != nil || bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s has it: %v", name, err)
		}
	}
}

// TestSignedURLStays checks that the secret part of a URL is not sent to another host, and
// not in messages.
func TestSignedURLStays(t *testing.T) {
	const secret = "bm90LWZvci1vdGhlcnM"
	var seen bytes.Buffer
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(&seen, r.URL, r.Header)
		_, _ = io.WriteString(w, "content")
	}))
	defer other.Close()
	s := newWeb(t, map[string][]byte{"/moved": nil, "/refused": nil})
	s.wrap = func(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, other.URL+"/there", http.StatusFound)
		} else {
			http.Error(w, "no "+r.URL.RawQuery, http.StatusForbidden)
		}
		return nil
	}
	client, err := remote.New(remote.Options{PlainHTTP: []string{s.host(), strings.TrimPrefix(other.URL, "http://")}})
	if err != nil {
		t.Fatal(err)
	}
	run := func(path string) error {
		o := intake(t, s, "    files: [{source: \"$WEB/"+path+"?sig="+secret+"\", path: x, sha256: first-use}]\n")
		o.Source.Client = client
		_, err := create.Run(t.Context(), o)
		return err
	}
	if err := run("moved"); err != nil || !strings.Contains(seen.String(), "/there") || strings.Contains(seen.String(), secret) {
		t.Errorf("%v; the other host heard %s", err, &seen)
	}
	if err := run("refused"); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("%v", err)
	}
}

// TestLockThenWithout checks that a run without a lock resumes only the bytes of a run
// with a lock, and not the lock's sequence.
func TestLockThenWithout(t *testing.T) {
	var m meter
	up := world.NewRegistry(t, m.wrap)
	ref := up.Push(t, "team/app:1", world.Image("linux/amd64", random(1, 4_000_000)))
	o := world.Options(t, world.Manifest(t, "demo", ref), world.NewKey(t), up)
	first, err := create.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	o.Lock = first.Lock
	o.Output += ".again"
	o.Sequence = nil
	o.Now = o.Now.Add(20 * time.Hour)
	interrupted(t, o, &m, 2_200_000)
	up.Push(t, "team/app:1", world.Image("linux/amd64", random(2, 4_000_000)))
	o.Lock, o.Sequence = nil, nil
	second, err := create.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if first.Lock.Sequence >= second.Lock.Sequence {
		t.Errorf("another bundle with the sequence %d, and then %d", first.Lock.Sequence, second.Lock.Sequence)
	}
}

// TestWrongFromUpstream checks that wrong content from upstream is reported as ErrRegistry.
func TestWrongFromUpstream(t *testing.T) {
	s := newWeb(t, map[string][]byte{"/p.tar.gz": []byte("no archive")})
	for _, sha := range []string{hexOf([]byte("other")), hexOf([]byte("no archive"))} {
		o := intake(t, s, fmt.Sprintf("    plugins: [{url: \"$WEB/p.tar.gz\", sha256: %s}]\n", sha))
		if _, err := create.Run(t.Context(), o); !errors.Is(err, remote.ErrRegistry) || !strings.Contains(err.Error(), "its publisher says") {
			t.Errorf("got %v", err)
		}
	}
}

// TestOtherForm checks the warning about a bundle of the same name in the other form, one
// file or volumes: both share lock and record. It also checks that a file that is no lock
// is not replaced, and that the files of an interrupted run are kept then.
func TestOtherForm(t *testing.T) {
	up := world.NewRegistry(t, nil)
	o := world.Options(
		t,
		world.Manifest(t, "demo", up.Push(t, "team/app:1", world.Image("linux/amd64", random(1, 2_000_000)))),
		world.NewKey(t), up,
	)
	var warned string
	o.Warn = func(format string, args ...any) { warned += fmt.Sprintf(format, args...) }
	for _, size := range []int64{0, 700_000, 0} {
		other := o.Output
		if size == 0 {
			other += ".001"
		}
		_, err := os.Lstat(other)
		o.VolumeSize, warned = size, ""
		world.Create(t, o)
		if told := strings.Contains(warned, other+" is there, too"); told != (err == nil) {
			t.Errorf("in volumes of %d: %q", size, warned)
		}
	}
	world.Write(t, create.LockFile(o.Output), []byte("mine"), 0o644)
	for _, name := range []string{".partial", ".partial.journal"} {
		world.Write(t, o.Output+name, nil, 0o644)
	}
	before, err := filepath.Glob(o.Output + "*")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create.Run(t.Context(), o); !errors.Is(err, manifests.ErrInvalid) || !strings.Contains(err.Error(), "is no lock") {
		t.Errorf("%v", err)
	}
	if after, err := filepath.Glob(o.Output + "*"); err != nil || strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("there were %v, and there are %v", before, after)
	}
}
