// Package publickey reads public keys, names them by their fingerprints and checks
// signatures with them. The verifier, the signer and the checks of upstream's signatures use
// the same keys in the same way.
package publickey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// MaxFile bounds a public key file, in bytes; an RSA-16384 key has 3 KB.
const MaxFile = 64 << 10

// Key is a public key of an algorithm that CheckAlgorithm accepts. The zero value accepts no
// signature.
type Key struct {
	Fingerprint bundle.Fingerprint
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

// CheckAlgorithm accepts the keys that this program and cosign use alike with SHA-256: ECDSA
// P-256, Ed25519 except points of small order, and RSA of 3072 to 16384 bits with an exponent
// of at least 65537.
func CheckAlgorithm(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return fmt.Errorf("an ECDSA key must be on P-256, not on %s", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
		if smallOrder(k) {
			return errors.New("with this Ed25519 key everybody can sign everything (RFC 8032: it has a small order)")
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < 3072 || k.E < 65537 || k.N.BitLen() > 16384 {
			return fmt.Errorf("an RSA key must have 3072 bits or more and the exponent 65537, not %d bits and %d", k.N.BitLen(), k.E)
		}
	default:
		return fmt.Errorf("keys of type %T are not supported; use ECDSA P-256, Ed25519 or RSA", public)
	}
	return nil
}

// smallOrder reports whether a key is one of the points of order 1, 2, 4 or 8. For these,
// signatures over any message can be made without a private key. The list has each y in all
// its encodings; the sign of x does not matter (the list is libsodium's).
func smallOrder(k ed25519.PublicKey) bool {
	low := "00000000000000000000000000000000000000000000000000000000000000"
	high := "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
	list := []string{
		"00" + low, "01" + low, "ec" + high, "ed" + high, "ee" + high,
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	}
	if len(k) != ed25519.PublicKeySize {
		return false
	}
	y := bytes.Clone(k)
	y[31] &= 0x7f
	return slices.Contains(list, hex.EncodeToString(y))
}

// Parse parses a public key: one PEM block of type PUBLIC KEY (PKIX, RFC 5280).
func Parse(data []byte) (Key, error) {
	if len(data) > MaxFile {
		return Key{}, fmt.Errorf("a public key does not have %d bytes", len(data))
	}
	data, err := bundle.PlainText(data)
	if err != nil {
		return Key{}, err
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil && bytes.Contains(data, []byte("-----BEGIN PUBLIC KEY-----")):
		return Key{}, errors.New(
			"the key is not whole, or a character of it is wrong; compare it with the original to its last line, -----END PUBLIC KEY-----",
		)
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
	return New(public)
}

// New returns the key that checks signatures of the private key of public.
func New(public crypto.PublicKey) (Key, error) {
	if err := CheckAlgorithm(public); err != nil {
		return Key{}, err
	}
	fp, err := FingerprintOf(public)
	return Key{Fingerprint: fp, public: public}, err
}

// Verify checks a signature over message. It accepts one encoding for each algorithm: ECDSA in
// DER (Sigstore's own verifier also accepts r and s one after the other), Ed25519,
// RSASSA-PKCS1-v1_5. The error wraps bundle.ErrSignature.
func (k Key) Verify(message, sig []byte) error {
	return k.VerifyDigest(message, sha256.Sum256(message), sig)
}

// VerifyDigest is Verify for a message whose SHA-256 is known.
func (k Key) VerifyDigest(message []byte, digest [sha256.Size]byte, sig []byte) error {
	good := false
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(public, digest[:], sig)
	case ed25519.PublicKey:
		good = ed25519.Verify(public, message, sig)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], sig) == nil
	}
	if !good {
		return fmt.Errorf("%w: it is not one by %s", bundle.ErrSignature, k.Fingerprint)
	}
	return nil
}
