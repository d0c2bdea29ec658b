package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"oob-bundle": func() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/script. The scripts share the upstream $UP, with team/app:1
// (linux/amd64), team/app:2, team/docker:1 (Docker media types) and team/multi:1 (linux/amd64
// and linux/arm64), and the site's registry $SITE. $PRIVATE is the upstream behind the login
// me:secret. $STALLED is the upstream, but never sends a blob. $OCI is a registry that refuses
// Docker media types. $PROGRAM is a program for $PLATFORM that identifies itself as oob-bundle.
// $ARCH is the platform as in file names.
func TestScripts(t *testing.T) {
	up, site := world.NewRegistry(t, nil), world.NewRegistry(t, nil)
	private, stalled := behindLogin(t, up.Host), withoutBlobs(t, up.Host)
	oci := world.NewRegistry(t, world.OCIOnly)
	layer := func(text string) world.File {
		return world.File{Name: "app", Mode: 0o755, Data: []byte(text)}
	}
	up.Push(t, "team/app:1", world.Image("linux/amd64", world.Layer(layer("one"))))
	up.Push(t, "team/app:2", world.Image("linux/amd64", world.Layer(layer("two"))))
	up.Push(t, "team/docker:1", world.DockerImage("linux/amd64", world.Layer(layer("docker"))))
	up.Push(
		t,
		"team/multi:1",
		world.Index(
			world.Image("linux/amd64", world.Layer(layer("a"))),
			world.Image("linux/arm64", world.Layer(layer("b"))),
		),
	)
	installer := world.Program(t, "github.com/oob-bundle/oob-bundle/cmd/oob-bundle")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("UP", up.Host)
			e.Setenv("SITE", site.Host)
			e.Setenv("OCI", oci.Host)
			e.Setenv("PRIVATE", private)
			e.Setenv("STALLED", stalled)
			e.Setenv("OOB_BUNDLE_PASSWORD", "")
			e.Setenv("PROGRAM", installer)
			e.Setenv("PLATFORM", "linux/"+runtime.GOARCH)
			e.Setenv("ARCH", "linux-"+runtime.GOARCH)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": cmdExits,
			"flip":  cmdFlip,
			"tear":  cmdTear,
			"cut":   cmdCut,
			"expand": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, a := range args {
					data := os.Expand(ts.ReadFile(a), func(name string) string {
						if strings.Contains(name, ".") { // a variable of the manifest
							return "${" + name + "}"
						}
						return ts.Getenv(name)
					})
					ts.Check(os.WriteFile(ts.MkAbs(a), []byte(data), 0o644))
				}
			},
		},
	})
}

// forward forwards requests to a registry.
func forward(host string) http.Handler {
	return httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
}

func behindLogin(t *testing.T, host string) string {
	next := forward(host)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func withoutBlobs(t *testing.T, host string) string {
	next := forward(host)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-r.Context().Done()
			return
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// cmdExits runs a program and checks its exit status: exits N PROGRAM ARG...
func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// cmdFlip copies a bundle and changes one bit: flip FROM TO PLACE, where PLACE is head, slot or
// payload (the last byte of the last blob).
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	data := []byte(ts.ReadFile(args[0]))
	head, err := bundle.ReadHead(bytes.NewReader(data), int64(len(data)))
	ts.Check(err)
	r, err := bundle.NewReader(bytes.NewReader(data), int64(len(data)), head)
	ts.Check(err)
	last := r.Blobs()[len(r.Blobs())-1]
	at, ok := map[string]int64{"head": 1536, "slot": head.SlotOffset() + 300, "payload": last.Data + last.Size - 1}[args[2]]
	if !ok {
		ts.Fatalf("no place %q", args[2])
	}
	data[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o644))
}

// cmdCut adds zeros to a file, or truncates it if BYTES is negative: cut FILE BYTES.
func cmdCut(ts *testscript.TestScript, _ bool, args []string) {
	by, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), int64(len(ts.ReadFile(args[0])))+by))
}

// cmdTear simulates a power cut while sign writes a signature: tear SIGNED BEFORE writes half of
// SIGNED's slot to BEFORE, and the slot file beside it.
func cmdTear(ts *testscript.TestScript, _ bool, args []string) {
	after, before := []byte(ts.ReadFile(args[0])), []byte(ts.ReadFile(args[1]))
	head, err := bundle.ReadHead(bytes.NewReader(after), int64(len(after)))
	ts.Check(err)
	off := head.SlotOffset()
	n := bytes.IndexByte(head.Slot, '\n') + 200 // into the second line
	copy(before[off:], head.Slot[:n])
	path := ts.MkAbs(args[1])
	ts.Check(os.WriteFile(path, before, 0o644))
	ts.Check(os.WriteFile(sign.SlotFile(path), head.Slot, 0o644))
}
