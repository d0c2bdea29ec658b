package remote_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/remote"
)

// TestUnreached checks that the message is about the scheme that was intended, although
// the library tries https and http.
func TestUnreached(t *testing.T) {
	answers := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	for name, test := range map[string]struct {
		code      int
		tls       bool
		plainHTTP bool
		known     bool
		says      string
		hides     []string
	}{
		"unknown authority": {200, true, false, false, "its certificate is signed by an unknown authority; give its " +
			"certificate authority with --ca-file", []string{"plain-http", "x509"}},
		"TLS as plain http": {200, true, true, false, "it does not answer plain http (it answered 400 Bad Request); if it " +
			"speaks TLS, leave --plain-http HOST away", []string{"refused by"}},
		"plain http as TLS": {200, false, false, false, "it speaks plain http, without encryption; if that is meant, allow " +
			"it with --plain-http HOST", []string{"refused by"}},
		"no registry":         {404, false, true, false, "it answered 404: it is no registry", []string{"not found", "refused by"}},
		"no registry, TLS":    {404, true, false, true, "it answered 404: it is no registry", []string{"not found", "refused by"}},
		"broken":              {500, false, true, false, "it answered 500 Internal Server Error", []string{"refused by", "https://"}},
		"broken, TLS":         {500, true, false, true, "it answered 500 Internal Server Error", []string{"refused by", "http://"}},
		"refuses, and is TLS": {403, true, false, true, "it answered 403 Forbidden; asked as nobody", []string{"refused by"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(answers(test.code))
			if test.tls {
				s.StartTLS()
			} else {
				s.Start()
			}
			defer s.Close()
			host := s.Listener.Addr().String()
			o := remote.Options{Patience: remote.Patience{Pause: 1}}
			if test.plainHTTP {
				o.PlainHTTP = []string{host}
			}
			if test.known {
				ca := filepath.Join(t.TempDir(), "ca.crt")
				if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
					t.Fatal(err)
				}
				o.CAFile = ca
			}
			c, err := remote.New(o)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Repository(t.Context(), host, "team/app", remote.Pull)
			if err == nil {
				t.Fatal("it was accepted")
			}
			text := strings.ReplaceAll(err.Error(), host, "HOST")
			if want := "registry problem: logging in at HOST: " + test.says; !strings.HasPrefix(text, want) {
				t.Errorf("it says\n%s\nand should begin\n%s", text, want)
			}
			for _, h := range test.hides {
				if strings.Contains(text, h) {
					t.Errorf("%q stands in %s", h, text)
				}
			}
		})
	}
}

// TestOtherNames checks that the error of a certificate for another host lists the names
// in the certificate.
func TestOtherNames(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler()) // its certificate is for example.com and 127.0.0.1
	defer s.Close()
	host := strings.Replace(s.Listener.Addr().String(), "127.0.0.1", "localhost", 1)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := remote.New(remote.Options{CAFile: ca})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Repository(t.Context(), host, "team/app", remote.Pull)
	if err == nil || !strings.Contains(err.Error(), `: its certificate is for example.com, `) ||
		!strings.Contains(err.Error(), `and not for "localhost"; call it by a name`) {
		t.Errorf("%v", err)
	}
}
