package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// maxKeyFile bounds a public key file, in bytes; an RSA-16384 key has 3 KB.
const maxKeyFile = 64 << 10

// Key is a public key that the site trusts.
type Key struct {
	Fingerprint bundle.Fingerprint
	Name        string   // of the file it came from, for messages
	Channels    []string // globs; empty means every channel
	public      crypto.PublicKey
}

// FingerprintOf returns the SHA-256 of the key's SubjectPublicKeyInfo (DER).
func FingerprintOf(public crypto.PublicKey) (bundle.Fingerprint, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return bundle.Fingerprint{}, err
	}
	return sha256.Sum256(der), nil
}

// CheckAlgorithm accepts the keys that this program and cosign use alike with
// SHA-256: ECDSA P-256, Ed25519, RSA of 3072 bits or more.
func CheckAlgorithm(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return fmt.Errorf("an ECDSA key must be on P-256, not on %s", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if k.N.BitLen() < 3072 || k.E < 65537 || k.N.BitLen() > 16384 {
			return fmt.Errorf("an RSA key must have 3072 bits or more and the exponent 65537, not %d bits and %d", k.N.BitLen(), k.E)
		}
	default:
		return fmt.Errorf("keys of type %T are not supported; use ECDSA P-256, Ed25519 or RSA", public)
	}
	return nil
}

// ParseKey reads a public key: one PEM block of type PUBLIC KEY (PKIX, RFC 5280).
func ParseKey(data []byte) (Key, error) {
	if len(data) > maxKeyFile {
		return Key{}, fmt.Errorf("a public key does not have %d bytes", len(data))
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return Key{}, errors.New("no PEM block in it; a public key begins with -----BEGIN PUBLIC KEY-----")
	case bytes.Contains([]byte(block.Type), []byte("PRIVATE KEY")):
		return Key{}, errors.New("it is a private key; give the .pub file, and keep the private key away from the isolated side")
	case block.Type != "PUBLIC KEY":
		return Key{}, fmt.Errorf("it is a %q; a public key begins with -----BEGIN PUBLIC KEY-----", block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return Key{}, errors.New("something follows the key; one file holds one key")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, err
	}
	if err := CheckAlgorithm(public); err != nil {
		return Key{}, err
	}
	fp, err := FingerprintOf(public)
	return Key{Fingerprint: fp, public: public}, err
}

// Verify checks a signature over message. The error wraps bundle.ErrSignature.
func (k Key) Verify(message, sig []byte) error {
	v, err := signature.LoadVerifier(k.public, crypto.SHA256)
	if err != nil {
		return fmt.Errorf("%w: %w", bundle.ErrSignature, err)
	}
	if err := v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)); err != nil {
		return fmt.Errorf("%w: %w", bundle.ErrSignature, err)
	}
	return nil
}
