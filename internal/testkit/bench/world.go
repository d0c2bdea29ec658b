//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// world contains the directories and programs of a run.
type world struct {
	dir     string // scratch, on a disk
	program string // oob-bundle
	tools   string // directory with crane and registry
	self    string // this program, to run the floors
}

func cut(name string) (repo, tag string, ok bool) { return strings.Cut(name, ":") }

// serve starts a distribution registry in a separate process. It returns the registry's
// address and a function that stops it.
func (w *world) serve(ctx context.Context, storage string) (host string, stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	host = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	config := storage + ".yml"
	text := fmt.Sprintf(
		"version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q, "+
			"maxthreads: 100}, delete: {enabled: true}}\nhttp: {addr: %q, secret: bench}\n",
		storage, host,
	)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return "", nil, err
	}
	c := exec.CommandContext(ctx, filepath.Join(w.tools, "registry"), "serve", config)
	c.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = c.Process.Kill() // it only reads, or its directory will be removed
		_ = c.Wait()
	}
	for range 200 {
		if res, err := http.Get("http://" + host + "/v2/"); err == nil {
			return host, stop, res.Body.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return "", nil, errors.New("the registry does not answer")
}

// run is the cost of one run of a contender.
type run struct {
	wall time.Duration // includes syncing the output
	rss  int64         // peak of the largest process, bytes
}

// measure runs commands one after the other and syncs the file system of w.dir. Before it
// starts the clock, it syncs all earlier writes.
func (w *world) measure(ctx context.Context, commands ...[]string) (r run, err error) {
	unix.Sync()
	if err := exec.CommandContext(ctx, w.self, "warm").Run(); err != nil {
		return r, fmt.Errorf("touching memory: %w", err)
	}
	begun := time.Now()
	for _, args := range commands {
		c := exec.CommandContext(ctx, args[0], args[1:]...)
		c.Env = append(os.Environ(), "OOB_BUNDLE_PASSWORD=")
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		if err := c.Run(); err != nil {
			return r, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out.String())
		}
		if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
			r.rss = max(r.rss, u.Maxrss<<10)
		}
	}
	d, err := os.Open(w.dir)
	if err != nil {
		return r, err
	}
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return r, err
	}
	r.wall = time.Since(begun)
	return r, d.Close()
}

// manifest writes a manifest that names images of a host.
func (w *world) manifest(name, host string, images []string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(
		&b,
		"apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: %s, version: 1.0.0}\ncomponents:\n  - name: all\n    images:\n",
		name,
	)
	for _, i := range images {
		fmt.Fprintf(&b, "      - %s/%s\n", host, i)
	}
	path := filepath.Join(w.dir, name+".yaml")
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}

// warmth is the amount of memory to touch before each run, in bytes. It is more than any
// contender writes of the real images.
const warmth = 4 << 30

// warm allocates memory, touches it and frees it. A virtual machine returns free memory to its
// host after some seconds, and getting the memory back costs more than the measured copy.
// Without warm, a contender's result would depend on the run before it.
func warm() error {
	m, err := unix.Mmap(-1, 0, warmth, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	for i := 0; i < len(m); i += os.Getpagesize() {
		m[i] = 1
	}
	return unix.Munmap(m)
}

// planned describes a bundle for the benchmark; sizes are in bytes.
type planned struct {
	File string // the list of blobs for the floors

	Blobs                  int
	Size, Payload, Largest int64
}

// plan runs writePlan in a separate process, because its memory would count as that of every
// program started later.
func (w *world) plan(ctx context.Context, path, host string) (p planned, err error) {
	out, err := exec.CommandContext(ctx, w.self, "plan", path, host).Output()
	if err != nil {
		return p, fmt.Errorf("planning: %w", err)
	}
	return p, json.Unmarshal(out, &p)
}

// writePlan writes the plan that the floors read: the offset and URL of each blob in a bundle.
func writePlan(path, host string) (err error) {
	f, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head, err := bundle.ReadHead(f, f.Size())
	if err != nil {
		return err
	}
	r, err := bundle.NewReader(f, f.Size(), head)
	if err != nil {
		return err
	}
	p := planned{File: path + ".plan.json", Blobs: len(r.Blobs()), Size: r.Size, Payload: r.PayloadSize()}
	var list []blobAt
	for _, m := range r.Blobs() {
		p.Largest = max(p.Largest, m.Size)
		ref := r.Index.Manifests[m.Root].Annotations[bundle.AnnotationRef]
		if ref == "" {
			continue // written by create; upstream does not have it
		}
		reference, err := bundle.ParseReference(ref)
		if err != nil {
			return err
		}
		kind := "blobs"
		if bundle.IsManifest(m.Type) {
			kind = "manifests"
		}
		list = append(list, blobAt{
			URL:    fmt.Sprintf("http://%s/v2/%s/%s/%s", host, reference.Name, kind, m.Digest),
			Digest: string(m.Digest), Size: m.Size, Offset: m.Data,
		})
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.File, data, 0o644); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(p)
}

// slow starts a proxy before a registry. It delays every request, and all responses together
// get rate bytes per second.
func slow(ctx context.Context, host string, latency time.Duration, rate int64) (string, func(), error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	line := &line{rate: rate, at: time.Now()}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	proxy.ModifyResponse = func(res *http.Response) error {
		res.Body = throttled{res.Body, line}
		return nil
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(latency)
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = s.Serve(l) }() // returns when s is closed
	return l.Addr().String(), func() { _ = s.Close() }, nil
}

// line is a network line with a limited rate, in bytes per second.
type line struct {
	mu   sync.Mutex
	rate int64
	at   time.Time // when the line is free again
}

func (l *line) take(n int) {
	l.mu.Lock()
	l.at = later(l.at, time.Now()).Add(time.Duration(int64(n) * int64(time.Second) / l.rate))
	free := l.at
	l.mu.Unlock()
	if wait := time.Until(free); wait > 5*time.Millisecond { // shorter sleeps take too long
		time.Sleep(wait)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

type throttled struct {
	io.ReadCloser
	line *line
}

func (t throttled) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p[:min(len(p), 64<<10)])
	t.line.take(n)
	return n, err
}

// machine describes the machine on which the benchmark runs.
func machine() string {
	model, memory := "unknown processor", "unknown"
	each := func(path string, do func(key, value string)) {
		data, err := os.ReadFile(path)
		if err != nil {
			return
		}
		for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ":")
			do(strings.TrimSpace(key), strings.TrimSpace(value))
		}
	}
	cpus, sha := 0, false
	each("/proc/cpuinfo", func(key, value string) {
		switch key {
		case "model name":
			model = value
			cpus++
		case "flags":
			sha = sha || strings.Contains(value, "sha_ni")
		}
	})
	each("/proc/meminfo", func(key, value string) {
		if key == "MemTotal" {
			memory = value
		}
	})
	words := map[bool]string{true: "with", false: "without"}
	return fmt.Sprintf("%d × %s (%s SHA instructions), memory %s", cpus, model, words[sha], memory)
}
