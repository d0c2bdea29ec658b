package remote_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// clientPair returns a self-signed client certificate and its key, in PEM.
func clientPair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// clientAuth is a server that asks for client certificates, and records their names.
type clientAuth struct {
	*httptest.Server
	Host string
	mu   sync.Mutex
	got  []string
}

func newClientAuth(t *testing.T, auth tls.ClientAuthType, known []byte, h http.Handler) *clientAuth {
	t.Helper()
	s := &clientAuth{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		for _, c := range r.TLS.PeerCertificates {
			s.got = append(s.got, c.Subject.CommonName)
		}
		s.mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(known)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{ClientAuth: auth, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	s.Host = s.Listener.Addr().String()
	return s
}

func (s *clientAuth) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// certsDir gives the test a home directory, and writes files into its certs.d/HOST.
func certsDir(t *testing.T, host string, files map[string][]byte) string {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	dir := filepath.Join(home, ".config/containers/certs.d", host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		world.Write(t, filepath.Join(dir, name), data, 0o600)
	}
	return dir
}

func connect(t *testing.T, host string, action remote.Action) (*remote.Repository, error) {
	t.Helper()
	c, err := remote.New(remote.Options{Patience: remote.Patience{Pause: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return c.Repository(t.Context(), host, "team/app", action)
}

// TestClientCertificate checks that a registry that requires a client certificate gets
// the one from certs.d, for pulls and for pushes.
func TestClientCertificate(t *testing.T) {
	cert, key := clientPair(t, "a client")
	other, otherKey := clientPair(t, "a stranger")
	s := newClientAuth(t, tls.RequireAndVerifyClientCert, cert, world.NewHandler(t.Context(), ""))
	for name, test := range map[string]struct {
		files map[string][]byte
		fails string
	}{
		"a pair":         {map[string][]byte{"ca.crt": s.ca(), "client.cert": cert, "client.key": key}, ""},
		"of any name":    {map[string][]byte{"a.crt": s.ca(), "my.own.cert": cert, "my.own.key": key}, ""},
		"two pairs":      {map[string][]byte{"a.crt": s.ca(), "a.cert": other, "a.key": otherKey, "b.cert": cert, "b.key": key}, ""},
		"other files":    {map[string][]byte{"a.crt": s.ca(), "a.cert": cert, "a.key": key, "README": nil, "a.pem": nil, "hosts.toml": nil}, ""},
		"none":           {map[string][]byte{"ca.crt": s.ca()}, "client certificate"},
		"a stranger's":   {map[string][]byte{"ca.crt": s.ca(), "client.cert": other, "client.key": otherKey}, "client certificate"},
		"no key":         {map[string][]byte{"ca.crt": s.ca(), "client.cert": cert}, "DIR/client.key is missing"},
		"no certificate": {map[string][]byte{"ca.crt": s.ca(), "client.key": key}, "DIR/client.cert is missing"},
		"another's key": {
			map[string][]byte{"ca.crt": s.ca(), "client.cert": cert, "client.key": otherKey}, "DIR/client.cert with the key DIR/client.key",
		},
		"a damaged key":     {map[string][]byte{"ca.crt": s.ca(), "client.cert": cert, "client.key": []byte("x")}, "DIR/client.key"},
		"an authority":      {map[string][]byte{"ca.cert": s.ca()}, "authority ends in .crt"},
		"one of two no key": {map[string][]byte{"a.crt": s.ca(), "a.cert": cert, "a.key": key, "b.cert": cert}, "DIR/b.key is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := certsDir(t, s.Host, test.files)
			r, err := connect(t, s.Host, remote.Push)
			if test.fails != "" {
				if text := strings.ReplaceAll(fmt.Sprint(err), dir, "DIR"); !errors.Is(err, remote.ErrRegistry) || !strings.Contains(text, test.fails) {
					t.Errorf("got %s", text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			data := []byte("pushed")
			d := bundle.Descriptor{MediaType: "x", Digest: bundle.DigestOf(data), Size: int64(len(data))}
			if err := r.PushBlob(t.Context(), d, "", func() io.Reader { return bytes.NewReader(data) }); err != nil {
				t.Fatal(err)
			}
			if r, err = connect(t, s.Host, remote.Pull); err != nil {
				t.Fatal(err)
			}
			if err := r.Fetch(t.Context(), d, discard{}, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}

type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// TestClientCertificateElsewhere checks that a host to which a registry leads gets its own
// client certificate and not the registry's, and that the registry's authorities are
// trusted for that host.
func TestClientCertificateElsewhere(t *testing.T) {
	cert, key := clientPair(t, "for the registry")
	own, ownKey := clientPair(t, "for the storage")
	data := []byte("content")
	d := bundle.Descriptor{MediaType: "x", Digest: bundle.DigestOf(data), Size: int64(len(data))}
	for _, withOwn := range []bool{false, true} {
		t.Run(fmt.Sprintf("with its own: %t", withOwn), func(t *testing.T) {
			storage := newClientAuth(
				t, tls.RequestClientCert, nil,
				http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }),
			)
			s := newClientAuth(t, tls.RequireAnyClientCert, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/blobs/") {
					http.Redirect(w, r, storage.URL+"/x", http.StatusTemporaryRedirect)
				}
			}))
			dir := certsDir(t, s.Host, map[string][]byte{"a.crt": s.ca(), "b.crt": storage.ca(), "client.cert": cert, "client.key": key})
			if withOwn {
				beside := filepath.Join(filepath.Dir(dir), storage.Host)
				if err := os.Mkdir(beside, 0o755); err != nil {
					t.Fatal(err)
				}
				world.Write(t, filepath.Join(beside, "client.cert"), own, 0o600)
				world.Write(t, filepath.Join(beside, "client.key"), ownKey, 0o600)
			}
			r, err := connect(t, s.Host, remote.Pull)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Fetch(t.Context(), d, discard{}, nil); err != nil {
				t.Fatal(err)
			}
			if len(s.got) == 0 || s.got[0] != "for the registry" {
				t.Errorf("the registry got %v", s.got)
			}
			if got := strings.Join(storage.got, ","); withOwn != (got == "for the storage") || !withOwn && got != "" {
				t.Errorf("the storage got %q", got)
			}
		})
	}
}
