package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestSeeds checks the number of seeds of the fuzz target, and which of them are accepted.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzKey")
	seeds.Count(t, "FuzzKey", keySeeds(t), 9, 17, 0, fuzzKey)
}

// keyFile returns a key from testdata/keys.
func keyFile(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "keys", name))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func keySeeds(tb testing.TB) seeds.Of[[]byte] {
	private, public, sealed := keyFile(tb, "p256.pem"), keyFile(tb, "p256.pub"), keyFile(tb, "sealed.key")
	retyped := func(data []byte, kind string) []byte {
		block, _ := pem.Decode(data)
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: block.Bytes})
	}
	scrypt := func(kdf string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: []byte(
			`{"kdf":` + kdf + `,"cipher":{"name":"nacl/secretbox","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},"ciphertext":"AAAA"}`)})
	}
	bare := func(data []byte) []byte { block, _ := pem.Decode(data); return block.Bytes }
	return seeds.Of[[]byte]{
		Taken: [][]byte{
			private, public, sealed, keyFile(tb, "ed25519.pem"), keyFile(tb, "ed25519.pub"), keyFile(tb, "rsa3072.pem"),
			keyFile(tb, "rsa3072.pub"), keyFile(tb, "ec.pem"),
			bytes.ReplaceAll(public, []byte("\n"), []byte("\r\n")),
		},
		Refused: [][]byte{
			nil, bare(private), bare(public), append(bytes.Clone(private), private...),
			append(bytes.Clone(public), public...), append(bytes.Clone(public), "more"...),
			retyped(
				private,
				"PUBLIC KEY",
			),
			retyped(public, "PRIVATE KEY"), retyped(public, "CERTIFICATE"), retyped(private, "OPENSSH PRIVATE KEY"),
			retyped(private, "ENCRYPTED SIGSTORE PRIVATE KEY"), keyFile(tb, "p384.pub"), keyFile(tb, "rsa2048.pub"),
			scrypt(
				`{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1},"salt":"AAAA"}`,
			),
			scrypt(`{"name":"scrypt","params":{"N":0,"r":0,"p":0},"salt":""}`),
			scrypt(`{"name":"argon2"}`),
			[]byte("-----BEGIN PUBLIC KEY-----\n\n-----END PUBLIC KEY-----\n"),
		},
	}
}

// FuzzKey checks that a file is a public key, a private key, or neither. A public key
// has one fingerprint, equal to the private key's. Only the kinds of key that cosign
// uses in the same way are accepted.
func FuzzKey(f *testing.F) {
	for _, s := range keySeeds(f).All() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) { fuzzKey(t, data) })
}

func fuzzKey(t *testing.T, data []byte) bool {
	public := isPublic(t, data)
	private := isPrivate(t, data)
	if public && private {
		t.Fatalf("both a public and a private key: %q", data)
	}
	return public || private
}

func isPublic(t *testing.T, data []byte) bool {
	t.Helper()
	k, err := publickey.Parse(data)
	if err != nil {
		return false
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		t.Fatalf("taken for a public key: %q", data)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			t.Fatalf("taken: %s", p.Curve.Params().Name)
		}
	case ed25519.PublicKey:
		if len(p) != ed25519.PublicKeySize {
			t.Fatalf("taken: %d bytes", len(p))
		}
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < 3072 || n > 16384 || p.E < 65537 {
			t.Fatalf("taken: RSA of %d bits, exponent %d", n, p.E)
		}
	default:
		t.Fatalf("taken: %T", public)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	again, err := publickey.Parse(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil || again.Fingerprint != k.Fingerprint {
		t.Fatalf("written anew it is %s instead of %s: %v", again.Fingerprint, k.Fingerprint, err)
	}
	if err := k.Verify([]byte("message"), make([]byte, 64)); !errors.Is(err, bundle.ErrSignature) {
		t.Fatalf("zeros are a signature: %v", err)
	}
	return true
}

func isPrivate(t *testing.T, data []byte) bool {
	t.Helper()
	if err := checkPEM(data); err != nil {
		if !errors.Is(err, ErrKey) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	s, err := decode(data, func(bool) ([]byte, error) { return []byte("password"), nil })
	if err != nil {
		if !errors.Is(err, ErrKey) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	public, err := s.signer.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	k, err := publickey.Parse(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil || k.Fingerprint != s.Fingerprint {
		t.Fatalf("its public key is %s instead of %s: %v", k.Fingerprint, s.Fingerprint, err)
	}
	sig, err := s.Sign([]byte("root"))
	if err != nil {
		return true // a key with mismatched parts cannot sign
	}
	if sig.Digest != bundle.DigestOf([]byte("root")) || k.Verify([]byte("other"), sig.Bytes) == nil {
		t.Fatalf("the signature is over something else")
	}
	return true
}
