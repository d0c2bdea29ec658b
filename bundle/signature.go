package bundle

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

// Signature is one line of the slot: a Sigstore bundle v0.3 with a message signature over the
// bytes of index.json, and the fingerprint of the key. A Signature is not verified.
type Signature struct {
	Key    Fingerprint
	Digest Digest // of index.json, as the signer claims
	Bytes  []byte // ECDSA: ASN.1 DER; Ed25519: 64 bytes; RSA: PKCS #1 v1.5
}

// Fingerprint is the SHA-256 of a public key's SubjectPublicKeyInfo in DER.
type Fingerprint [32]byte

// String returns "SHA256:" and unpadded base64, as OpenSSH writes fingerprints.
func (f Fingerprint) String() string { return "SHA256:" + base64.RawStdEncoding.EncodeToString(f[:]) }

// ParseFingerprint parses the output of String.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	b64, ok := strings.CutPrefix(s, "SHA256:")
	raw, err := base64.RawStdEncoding.Strict().DecodeString(b64)
	if !ok || err != nil || len(raw) != len(f) || Fingerprint(raw).String() != s { // base64 ignores line breaks
		return f, fmt.Errorf("%q is not a key fingerprint (SHA256: and 43 characters of base64)", s)
	}
	return Fingerprint(raw), nil
}

const sigstoreBundle = "application/vnd.dev.sigstore.bundle.v0.3+json"

// line is the JSON form of a Sigstore bundle (protobuf-specs, sigstore_bundle.proto). It has
// only the fields of a key signature without a transparency log, in the order in which they
// are written.
type line struct {
	MediaType            string `json:"mediaType"`
	VerificationMaterial struct {
		PublicKey struct {
			Hint string `json:"hint"`
		} `json:"publicKey"`
	} `json:"verificationMaterial"`
	MessageSignature struct {
		MessageDigest struct {
			Algorithm string `json:"algorithm"`
			Digest    []byte `json:"digest"`
		} `json:"messageDigest"`
		Signature []byte `json:"signature"`
	} `json:"messageSignature"`
}

// Encode returns the line without its newline. Cosign can read the line as a bundle.
func (s Signature) Encode() ([]byte, error) {
	var l line
	l.MediaType = sigstoreBundle
	l.VerificationMaterial.PublicKey.Hint = base64.StdEncoding.EncodeToString(s.Key[:])
	l.MessageSignature.MessageDigest.Algorithm = "SHA2_256"
	sum, err := digestBytes(s.Digest)
	if err != nil {
		return nil, err
	}
	l.MessageSignature.MessageDigest.Digest = sum
	l.MessageSignature.Signature = s.Bytes
	return Encode(l)
}

func parseSignature(data []byte) (Signature, error) {
	var l line
	if err := DecodeStrict(data, &l); err != nil {
		return Signature{}, err
	}
	key, err := base64.StdEncoding.Strict().DecodeString(l.VerificationMaterial.PublicKey.Hint)
	if err != nil || len(key) != len(Fingerprint{}) || len(l.MessageSignature.MessageDigest.Digest) != 32 {
		return Signature{}, fmt.Errorf("%w: not a fingerprint or not a digest", ErrFormat)
	}
	s := Signature{
		Key:    Fingerprint(key),
		Digest: DigestFrom(l.MessageSignature.MessageDigest.Digest),
		Bytes:  l.MessageSignature.Signature,
	}
	again, err := s.Encode()
	if err != nil || !bytes.Equal(again, data) {
		return Signature{}, fmt.Errorf("%w: not in the one accepted spelling", ErrFormat)
	}
	return s, nil
}

var slotPadding = bytes.Repeat([]byte{'\n'}, SlotSize)

// EncodeSlot returns the SlotSize bytes of signatures.jsonl. No two signatures may be by the
// same key; the caller must ensure this.
func EncodeSlot(signatures []Signature) ([]byte, error) {
	if len(signatures) > MaxSignatures {
		return nil, fmt.Errorf("%w: at most %d signatures fit", ErrLimit, MaxSignatures)
	}
	var slot []byte
	for _, s := range signatures {
		l, err := s.Encode()
		if err != nil {
			return nil, err
		}
		slot = append(append(slot, l...), '\n')
	}
	if len(slot) > SlotSize {
		return nil, fmt.Errorf("%w: the signatures need %d bytes, the slot has %d", ErrLimit, len(slot), SlotSize)
	}
	return append(slot, slotPadding[len(slot):]...), nil
}

// ParseSlot parses signatures.jsonl. It accepts one spelling: lines as Signature writes them,
// by different keys, then only newlines. Every error wraps ErrSignature.
func ParseSlot(slot []byte) ([]Signature, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: signatures.jsonl: %w", ErrSignature, fmt.Errorf(format, args...))
	}
	if len(slot) != SlotSize {
		return nil, bad("%d bytes instead of %d", len(slot), SlotSize)
	}
	if slot[0] == '\n' {
		return nil, bad("no signature")
	}
	lines, rest, _ := bytes.Cut(slot, []byte("\n\n"))
	if len(rest) > 0 && !bytes.Equal(rest, slotPadding[:len(rest)]) {
		return nil, bad("not only newlines follow the last line")
	}
	lines = bytes.TrimSuffix(lines, []byte{'\n'}) // if the slot is full
	if len(lines) == SlotSize {
		return nil, bad("the last line does not end")
	}
	var signatures []Signature
	for text := range bytes.SplitSeq(lines, []byte{'\n'}) {
		if len(signatures) == MaxSignatures {
			return nil, bad("more than %d lines", MaxSignatures)
		}
		s, err := parseSignature(text)
		if err != nil {
			return nil, bad("line %d: %w", len(signatures)+1, err)
		}
		for _, other := range signatures {
			if other.Key == s.Key {
				return nil, bad("line %d is by the same key as another", len(signatures)+1)
			}
		}
		signatures = append(signatures, s)
	}
	return signatures, nil
}
