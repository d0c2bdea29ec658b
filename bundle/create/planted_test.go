package create_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestPlanted checks that files of other users beside the output change neither the
// signed content nor the set of written files.
func TestPlanted(t *testing.T) {
	const journal = `{"apiVersion":"oobbundle.dev/v1","kind":"CreateJournal","manifest":"MANIFEST","program":"PROGRAM",` +
		`"channel":"CHANNEL","platforms":["linux/amd64"],"created":"2999-01-01T00:00:00Z","volumeSize":0,"choice":"CHOICE"}` + "\n"
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	ref := up.Push(t, "team/app:1", world.Image("linux/amd64", random(1, 1000)))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, x := range map[string]struct {
		plant  func(out, victim string)
		works  bool
		asRoot bool
	}{
		"a journal of the future": {plant: func(out, _ string) {
			world.Write(t, out+".partial", make([]byte, 100_000), 0o644)
			world.Write(t, out+".partial.journal", []byte(journal), 0o644)
		}, works: true},
		"a journal that is a link":            {plant: func(out, victim string) { must(os.Symlink(victim, out+".partial.journal")) }},
		"a journal that is a link to be made": {plant: func(out, victim string) { must(os.Symlink(victim+".new", out+".partial.journal")) }},
		"a journal that is a hard link":       {plant: func(out, victim string) { must(os.Link(victim, out+".partial.journal")) }},
		"a journal that is a directory":       {plant: func(out, _ string) { must(os.Mkdir(out+".partial.journal", 0o755)) }},
		"a partial file that is a link":       {plant: func(out, victim string) { must(os.Symlink(victim, out+".partial")) }},
		"a partial file that is a hard link":  {plant: func(out, victim string) { must(os.Link(victim, out+".partial")) }},
		"a part that is a link":               {plant: func(out, victim string) { must(os.Symlink(victim, out+".partial.001")) }},
		"downloads that are a link":           {plant: func(out, victim string) { must(os.Symlink(filepath.Dir(victim), out+".partial.d")) }},
		"downloads that are a file":           {plant: func(out, _ string) { world.Write(t, out+".partial.d", []byte("x"), 0o644) }},
		"downloads of another user": {plant: func(out, _ string) {
			must(os.Mkdir(out+".partial.d", 0o755))
			must(os.Chown(out+".partial.d", 1234, 1234))
		}, asRoot: true},
		"a journal of another user": {plant: func(out, _ string) {
			world.Write(t, out+".partial.journal", nil, 0o644)
			must(os.Chown(out+".partial.journal", 1234, 1234))
		}, asRoot: true},
		"a lock that is a link":            {plant: func(out, victim string) { must(os.Symlink(victim, out+".lock.yaml")) }},
		"a lock that is a link to be made": {plant: func(out, victim string) { must(os.Symlink(victim+".new", out+".lock.yaml")) }, works: true},
		"new names that are links": {plant: func(out, victim string) {
			dir, base := filepath.Split(out)
			must(os.Symlink(victim, dir+"."+base+".lock.yaml.new"))
			must(os.Symlink(victim, dir+"."+strings.TrimSuffix(base, ".oob.tar")+".html.new"))
		}, works: true},
	} {
		t.Run(name, func(t *testing.T) {
			if x.asRoot && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			o := world.Options(t, world.Manifest(t, "demo", ref), key, up)
			dir := t.TempDir()
			o.Output = filepath.Join(dir, "out.oob.tar")
			victim := filepath.Join(t.TempDir(), "victim")
			world.Write(t, victim, []byte("precious"), 0o644)
			x.plant(o.Output, victim)
			result, err := create.Run(t.Context(), o)
			if x.works && err != nil {
				t.Fatal(err)
			}
			if !x.works && !errors.Is(err, manifests.ErrInvalid) && !errors.Is(err, disk.ErrNotFile) {
				t.Errorf("got %v", err)
			}
			if x.works && (result.Geometry.Info.Sequence != o.Now.Unix() || result.Geometry.Info.Created.After(time.Now().Add(time.Minute))) {
				t.Errorf("signed: %+v", result.Geometry.Info)
			}
			if data, err := os.ReadFile(victim); err != nil || string(data) != "precious" {
				t.Errorf("the victim is %q, %v", data, err)
			}
			if left, err := os.ReadDir(filepath.Dir(victim)); err != nil || len(left) != 1 {
				t.Errorf("beside the victim: %v, %v", left, err)
			}
		})
	}
}

// TestMovedTags checks that a lock still makes a bundle after upstream's tags have moved
// or gone, with a warning for each.
func TestMovedTags(t *testing.T) {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	push := func(tag string, n int) string {
		return up.Push(t, "team/"+tag+":1", world.Image("linux/amd64", random(n, 1000)))
	}
	refs := []string{push("same", 1), push("moved", 2), push("gone", 3)}
	o := world.Options(t, world.Manifest(t, "demo", refs...), key, up)
	lock, err := create.Lock(t.Context(), o, filepath.Join(t.TempDir(), "d"))
	if err != nil {
		t.Fatal(err)
	}
	now := world.Digest(t, push("moved", 4))
	gone := false
	proxy := world.NewRegistry(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if gone && strings.HasSuffix(r.URL.Path, "/team/gone/manifests/1") {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: up.Host}).ServeHTTP(w, r)
		})
	})
	gone = true
	o.Lock, o.Output = lock, filepath.Join(t.TempDir(), "out.oob.tar")
	client, err := remote.New(remote.Options{PlainHTTP: []string{proxy.Host}})
	if err != nil {
		t.Fatal(err)
	}
	o.Source = &pull.Source{Client: client, Mirrors: map[string]string{up.Host: proxy.Host}}
	var warned []string
	o.Warn = func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) }
	if _, err := create.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(warned, "\n")
	if !strings.Contains(text, "team/moved:1") || !strings.Contains(text, now) || !strings.Contains(text, "no such tag now") ||
		strings.Contains(text, "team/same") {
		t.Errorf("warned: %s", text)
	}
}

// TestLockedTime checks that a lock from the future, or with the highest sequences, makes
// no bundle.
func TestLockedTime(t *testing.T) {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	ref := up.Push(t, "team/app:1", world.Image("linux/amd64", random(1, 1000)))
	for name, x := range map[string]struct {
		change func(l *manifests.Lock, now time.Time)
		want   error
	}{
		"as it was":             {func(*manifests.Lock, time.Time) {}, nil},
		"a clock that is ahead": {func(l *manifests.Lock, now time.Time) { l.Created = now.Add(12 * time.Hour) }, nil},
		"next week":             {func(l *manifests.Lock, now time.Time) { l.Created = now.Add(7 * 24 * time.Hour) }, manifests.ErrMismatch},
		"2999": {
			func(l *manifests.Lock, _ time.Time) { l.Created = time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC) }, manifests.ErrMismatch,
		},
		"the last sequence": {func(l *manifests.Lock, _ time.Time) { l.Sequence = 1<<63 - 1 }, manifests.ErrInvalid},
		"one before it":     {func(l *manifests.Lock, _ time.Time) { l.Sequence = 1<<63 - 2 }, manifests.ErrInvalid},
	} {
		o := world.Options(t, world.Manifest(t, "demo", ref), key, up)
		lock, err := create.Lock(t.Context(), o, filepath.Join(t.TempDir(), "d"))
		if err != nil {
			t.Fatal(err)
		}
		x.change(lock, o.Now)
		o.Lock = lock
		o.Output = filepath.Join(t.TempDir(), "out.oob.tar")
		if _, err := create.Run(t.Context(), o); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := world.Options(t, world.Manifest(t, "demo", ref), key, up)
	last := int64(1<<63 - 1)
	o.Sequence = &last
	if _, err := create.Run(t.Context(), o); !errors.Is(err, manifests.ErrInvalid) {
		t.Errorf("--sequence: %v", err)
	}
}
