package publickey_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"
)

func TestParseRefuses(t *testing.T) {
	pub := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := pub(p256.Public())
	for name, test := range map[string]struct {
		data []byte
		text string
	}{
		"nothing":         {nil, "no PEM block"},
		"P-384":           {pub(p384.Public()), "P-256"},
		"RSA 2048":        {pub(short.Public()), "3072"},
		"two keys":        {append(bytes.Clone(good), good...), "one file holds one key"},
		"a private key":   {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "private key"},
		"a cosign key":    {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: []byte("x")}), "private key"},
		"a certificate":   {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "CERTIFICATE"},
		"rubbish inside":  {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}), ""},
		"something large": {bytes.Repeat([]byte("x"), 100_000), "100000 bytes"},
	} {
		if _, err := publickey.Parse(test.data); err == nil || !strings.Contains(fmt.Sprint(err), test.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := publickey.Parse(bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n"))); err != nil {
		t.Errorf("CRLF: %v", err)
	}
}
