//go:build interop

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// storage is an S3 server on a directory, and the upstream of the bundle to install.
type storage struct {
	side
	address    string // of S3
	origin     *world.Registry
	references []string // of the bundle, without the host
	size       int64    // of the bundle
}

// TestS3Storage: two distribution servers share a bucket, as behind a load balancer. Content
// installed through one server can be pulled through the other, and an installation can be
// completed after one server is killed. The test needs neither root nor Docker.
func TestS3Storage(t *testing.T) {
	s := newStorage(t)
	for _, redirect := range []bool{true, false} {
		t.Run(fmt.Sprintf("redirect to storage %t", redirect), func(t *testing.T) {
			pair := s.pair(t, fmt.Sprintf("both-%t", redirect), redirect)
			pair.install(pair.first.address)
			pair.check(pair.first.address, pair.second.address)
			pair.sh(
				"oob-bundle install oci://" + pair.second.address + "/oob-bundle/stored --key oob.pub " +
					"--root " + pair.bucket + "-other --plain-http " + pair.second.address,
			)
		})
	}
	t.Run("the other goes on", func(t *testing.T) {
		pair := s.pair(t, "killed", true)
		b := pair.balance(func(b *balancer) {
			b.target.Store(&pair.second.address)
			pair.first.kill()
		})
		status := pair.try(b.address())
		t.Logf("the installation during which a server was killed ended with %d", status)
		if status != 0 {
			pair.install(b.address())
		}
		pair.check(b.address(), pair.second.address)
		if !b.fired.Load() {
			t.Error("no server was killed")
		}
	})
	t.Run("after a restart", func(t *testing.T) {
		pair := s.pair(t, "restarted", true)
		b := pair.balance(func(*balancer) { pair.first.kill() })
		if status := pair.try(b.address()); status != 7 && status != 6 {
			t.Errorf("exit status %d while the registry is gone", status)
		}
		if !b.fired.Load() {
			t.Error("no server was killed")
		}
		pair.first.start()
		pair.install(b.address())
		pair.check(b.address(), pair.second.address)
	})
}

// newStorage starts the S3 server and makes the bundle.
func newStorage(t *testing.T) *storage {
	t.Helper()
	s := &storage{side: side{t, t.TempDir()}, address: "127.0.0.1:5711", origin: world.NewRegistry(t, nil)}
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+filepath.Join(s.source(), "bin/tools")+":"+os.Getenv("PATH"))
	t.Setenv("OOB_BUNDLE_PASSWORD", "")
	s.sh("cd " + s.source() + " && CGO_ENABLED=0 go build -o " + bin + "/oob-bundle ./cmd/oob-bundle")
	s.sh("mkdir s3 metadata")
	// Store metadata beside the objects, because not every file system has extended attributes.
	s.start(
		s.address,
		"versitygw",
		"--port",
		s.address,
		"--access",
		"stored",
		"--secret",
		"stored-secret",
		"--quiet",
		"posix",
		"--sidecar",
		s.dir+"/metadata", s.dir+"/s3",
	)
	manifest := "apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: stored, version: 1.0.0}\ncomponents:\n  - " +
		"name: all\n    images:\n"
	for n := range 8 {
		ref := fmt.Sprintf("stored/app%d:1", n)
		layer := world.Layer(world.File{Name: "content", Mode: 0o644, Data: noise(ref, 2_000_000)})
		manifest += "      - " + s.origin.Push(t, ref, world.Image("linux/amd64", layer)) + "\n"
		s.references = append(s.references, ref)
	}
	s.write("stored.yaml", manifest)
	s.sh(
		"oob-bundle key generate && oob-bundle create stored.yaml --key oob.key --platform linux/amd64 " +
			"--plain-http " + s.origin.Host + " -o stored.oob.tar",
	)
	fi, err := os.Stat(filepath.Join(s.dir, "stored.oob.tar"))
	if err != nil {
		t.Fatal(err)
	}
	s.size = fi.Size()
	return s
}

// pair is two distribution servers on one bucket.
type pair struct {
	side
	storage       *storage
	bucket        string
	first, second *server
}

func (s *storage) pair(t *testing.T, bucket string, redirect bool) *pair {
	t.Helper()
	p := &pair{side: side{t, s.dir}, storage: s, bucket: bucket}
	p.sh("mkdir s3/" + bucket)
	// Servers behind one address must share a secret, so that each accepts the other's uploads.
	const config = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  s3: {accesskey: stored, secretkey: stored-secret, region: us-east-1, ` +
		`regionendpoint: "http://%s", bucket: %s, secure: false, forcepathstyle: true}
  redirect: {disable: %t}
  delete: {enabled: true}
http: {addr: "%s", secret: shared}
`
	for i, server := range []**server{&p.first, &p.second} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		file := fmt.Sprintf("%s-%d.yml", bucket, i)
		p.write(file, fmt.Sprintf(config, s.address, bucket, !redirect, address))
		*server = newServer(p.side, address, file)
	}
	return p
}

// try installs through a registry and returns the exit status.
func (p *pair) try(registry string) int {
	p.Helper()
	status := p.sh("status=0; " + p.command(registry) + " >" + p.bucket + ".log 2>&1 || status=$?; echo $status")
	var code int
	if _, err := fmt.Sscan(status, &code); err != nil {
		p.Fatal(err)
	}
	p.Log(p.sh("cat " + p.bucket + ".log"))
	return code
}

func (p *pair) install(registry string) {
	p.Helper()
	p.sh(p.command(registry))
}

func (p *pair) command(registry string) string {
	return "oob-bundle install stored.oob.tar --key oob.pub --root " + p.bucket + " --registry " + registry + " --plain-http " + registry
}

// check pulls everything that was installed through one registry from another registry.
func (p *pair) check(installed, from string) {
	p.Helper()
	for _, ref := range p.storage.references {
		site := strings.ReplaceAll(p.storage.origin.Host, ":", "_") + "/" + ref
		to, err := name.ParseReference(from+"/"+site, name.Insecure)
		if err != nil {
			p.Fatal(err)
		}
		image, err := ggcr.Image(to)
		if err != nil {
			p.Errorf("%s: %v", to, err)
			continue
		}
		if err := validate.Image(image); err != nil {
			p.Errorf("%s: %v", to, err)
		}
		if want, got := world.Digest(p.T, p.storage.origin.Host+"/"+ref), world.Digest(p.T, from+"/"+site); want != got {
			p.Errorf("%s is %s, and upstream %s", to, got, want)
		}
	}
	out := p.sh(
		"oob-bundle install stored.oob.tar --key oob.pub --root " + p.bucket +
			" --registry " + installed + " --plain-http " + installed + " 2>&1",
	)
	if !strings.Contains(out, "is installed already") {
		p.Errorf("the installation is not complete: %s", out)
	}
}

// balance forwards connections to the first server. It calls then once a third of the bundle's
// size was forwarded.
func (p *pair) balance(then func(*balancer)) *balancer {
	p.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.Fatal(err)
	}
	b := &balancer{listener: l, after: p.storage.size / 3, then: then}
	b.target.Store(&p.first.address)
	var done sync.WaitGroup
	done.Go(b.run)
	p.Cleanup(func() { _ = l.Close(); done.Wait() })
	return b
}

// balancer forwards TCP connections.
type balancer struct {
	listener net.Listener
	target   atomic.Pointer[string]
	passed   atomic.Int64
	after    int64 // bytes
	then     func(*balancer)
	fired    atomic.Bool
}

func (b *balancer) address() string { return b.listener.Addr().String() }

func (b *balancer) run() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return
		}
		go b.pass(client)
	}
}

func (b *balancer) pass(client net.Conn) {
	defer client.Close()
	backend, err := net.Dial("tcp", *b.target.Load())
	if err != nil {
		return
	}
	defer backend.Close()
	ended := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(client, backend); ended <- struct{}{} }()
	go func() { _, _ = io.Copy(io.MultiWriter(backend, b), client); ended <- struct{}{} }()
	<-ended
}

// Write counts the bytes forwarded to a server.
func (b *balancer) Write(data []byte) (int, error) {
	if b.passed.Add(int64(len(data))) > b.after && b.fired.CompareAndSwap(false, true) {
		b.then(b)
	}
	return len(data), nil
}

// server is a listening program that can be killed and restarted.
type server struct {
	side
	address string
	args    []string
	cmd     *exec.Cmd
}

// newServer starts a distribution server.
func newServer(s side, address, config string) *server {
	s.Helper()
	v := &server{side: s, address: address, args: []string{"registry", "serve", config}}
	v.start()
	s.Cleanup(v.kill)
	return v
}

func (v *server) start() {
	v.Helper()
	v.cmd = v.side.start(v.address, v.args...)
}

func (v *server) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}
