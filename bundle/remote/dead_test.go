package remote_test

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestDeadConnection checks that a request over a connection that a firewall has dropped
// silently is tried again over a new connection, also with HTTP/2, where all requests
// share one connection.
func TestDeadConnection(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
				_, _ = io.WriteString(w, `{"schemaVersion":2}`)
			}))
			s.EnableHTTP2 = http2
			s.StartTLS()
			defer s.Close()
			between, dead := forgetful(t, s.Listener.Addr().String())
			ca := filepath.Join(t.TempDir(), "ca.crt")
			world.Write(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600)
			c, err := remote.New(remote.Options{CAFile: ca, Patience: remote.Patience{Idle: time.Second, Pause: time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Repository(t.Context(), between, "team/app", remote.Pull)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := r.Manifest(t.Context(), "1"); err != nil {
				t.Fatal(err)
			}
			dead()
			if _, _, err := r.Manifest(t.Context(), "1"); err != nil {
				t.Error(err)
			}
		})
	}
}

// forgetful starts a proxy to an address. dead makes the proxy discard all data on the
// existing connections.
func forgetful(t *testing.T, to string) (address string, dead func()) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var count, forgotten atomic.Int64
	pass := func(n int64, to, from net.Conn) {
		defer func() { _ = to.Close() }()
		buf := make([]byte, 32<<10)
		for {
			k, err := from.Read(buf)
			if err != nil {
				return
			}
			if n > forgotten.Load() {
				if _, err := to.Write(buf[:k]); err != nil {
					return
				}
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
			if err != nil {
				_ = c.Close()
				return
			}
			n := count.Add(1)
			go pass(n, up, c)
			go pass(n, c, up)
		}
	}()
	return l.Addr().String(), func() { forgotten.Store(count.Load()) }
}
