package registry_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/install/registry"
)

// TestSiteCertificate: the certificate is made once, and is valid on any date for its names
// only. The authority's key is not stored.
func TestSiteCertificate(t *testing.T) {
	root := t.TempDir()
	names := []string{"registry.site", "10.1.2.3"}
	cert, made, err := registry.LoadOrMake(root, names)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	again, made, err := registry.LoadOrMake(root, names[:1])
	if err != nil || made || !again.Leaf.Equal(cert.Leaf) {
		t.Errorf("a second time: made %v, %v", made, err)
	}
	if _, _, err := registry.LoadOrMake(root, []string{"other.site"}); !errors.Is(err, registry.ErrCertificate) {
		t.Errorf("for another name: %v", err)
	}
	s := registry.CertificateOf(root)
	data, err := os.ReadFile(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	for _, name := range names {
		for _, year := range []int{2001, 2026, 2098} { // clocks may be wrong
			_, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)})
			if err != nil {
				t.Errorf("%s in %d: %v", name, year, err)
			}
		}
	}
	files, err := os.ReadDir(filepath.Dir(s.CA))
	if err != nil || len(files) != 3 {
		t.Errorf("%d files: %v", len(files), err)
	}
	if fi, err := os.Stat(s.Key); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", fi.Mode(), err)
	}
	if err := os.Chmod(s.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := registry.LoadOrMake(root, names); !errors.Is(err, registry.ErrCertificate) {
		t.Errorf("others can read the key: %v", err)
	}
	if _, _, err := registry.LoadOrMake(t.TempDir(), nil); !errors.Is(err, registry.ErrCertificate) {
		t.Errorf("for no name: %v", err)
	}
}

// protected serves content that requires an account. It returns the address, and a client that
// trusts the certificate.
func protected(t *testing.T, a *registry.Accounts) (client *http.Client, address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	cert, _, err := registry.LoadOrMake(root, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(registry.CertificateOf(root).CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	h := a.Protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	done := make(chan error, 1)
	go func() {
		done <- registry.Serve(t.Context(), tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}}), h)
	}()
	client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	return client, l.Addr().String()
}

func TestAccounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accounts")
	set := func(name, password string) {
		t.Helper()
		if _, err := registry.SetAccount(path, name, []byte(password)); err != nil {
			t.Fatal(err)
		}
	}
	set("one", "first")
	set("two", "second")
	set("one", "canary-secret")
	set("three", "third")
	set("three", "")
	data, err := os.ReadFile(path)
	if err != nil || strings.Count(string(data), "\n") != 2 || strings.Contains(string(data), "canary") {
		t.Errorf("%s, %v", data, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	a, err := registry.ReadAccounts(path)
	if err != nil {
		t.Fatal(err)
	}
	client, address := protected(t, a)
	login := func(name, password string, status int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if name != "" {
			req.SetBasicAuth(name, password)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status || status == 401 && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s:%s: %d", name, password, res.StatusCode)
		}
	}
	for _, test := range []struct {
		name, password string
		status         int
	}{
		{"one", "canary-secret", 418}, {"one", "canary-secret", 418}, {"two", "second", 418}, {"one", "first", 401},
		{"one", "", 401}, {"", "", 401},
		{"three", "third", 401}, {"two", "canary-secret", 401}, {"one", strings.Repeat("x", 100), 401},
		{"nobody", "password", 401}, {"nobody", "", 401},
	} {
		login(test.name, test.password, test.status)
	}
	// A changed file is read again. While the file is unusable, every login fails.
	set("two", "")
	login("two", "second", 401)
	login("one", "canary-secret", 418)
	set("one", "changed")
	login("one", "canary-secret", 401)
	login("one", "changed", 418)
	set("one", "")
	login("one", "changed", 401)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	login("one", "changed", 401)
	set("three", "third")
	login("three", "third", 418)
	for name, text := range map[string]string{
		"empty":           "",
		"plain":           "one:password\n",
		"twice":           string(data) + string(data),
		"md5":             "one:$apr1$x$y\n",
		"a colon too few": "one\n",
	} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := registry.ReadAccounts(bad); !errors.Is(err, registry.ErrAccounts) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := registry.SetAccount(path, "a:b", []byte("x")); !errors.Is(err, registry.ErrAccounts) {
		t.Errorf("a name with a colon: %v", err)
	}
}
