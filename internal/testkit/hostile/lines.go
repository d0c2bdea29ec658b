package hostile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// Line is a signature over a root, valid or not, for the slot and for cosign.
type Line struct {
	Name   string
	Key    verify.Key // the trusted key
	Public string     // path of its file
	Text   []byte     // the slot without its padding; cosign gets the same text
	Good   bool       // whether verify accepts it
	Cosign bool       // whether cosign verify-blob accepts it
	Why    string     // reason if the two differ
}

// Lines returns valid and invalid signatures over a root, with the expected result of verify
// and of cosign.
func Lines(tb testing.TB, root []byte) []Line {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	world.Must(err)
	key, stranger := world.KeyOf(tb, private), world.NewKey(tb)
	good, err := key.Signer.Sign(root)
	world.Must(err)
	digest := sha256.Sum256(root)
	b64 := base64.StdEncoding.EncodeToString
	line := func(k *world.Key, sig []byte) string {
		slot, err := bundle.EncodeSlot([]bundle.Signature{{Key: k.Trusted.Fingerprint, Digest: bundle.DigestOf(root), Bytes: sig}})
		world.Must(err)
		return string(bytes.TrimRight(slot, "\n"))
	}
	plain := line(key, good.Bytes)
	var rows []Line
	add := func(k *world.Key, name, text string, ours, cosign bool, why string) {
		if (ours != cosign) != (why != "") {
			tb.Fatalf("%s: say why they differ, or that they do not", name)
		}
		rows = append(rows, Line{name, k.Trusted, k.Public, []byte(text), ours, cosign, why})
	}
	both := func(name, text string) { add(key, name, text, false, false, "") }
	spelled := func(name, text string) {
		add(
			key, name, text, false, true,
			"it says the same, in another spelling; every byte of a bundle has one value, and cosign reads JSON as protobuf does",
		)
	}
	change := func(from, to string) string {
		out := strings.Replace(plain, from, to, 1)
		if out == plain {
			tb.Fatalf("%s is not in %s", from, plain)
		}
		return out
	}

	add(key, "as it is signed", plain, true, true, "")
	both("nothing", "")
	both("an empty object", "{}")
	both("text", "hello")
	both("by a key that is not trusted", line(stranger, mustSign(stranger, root)))
	both("by a key that is not trusted, with the trusted one's hint", line(key, mustSign(stranger, root)))
	add(
		key,
		"by the trusted key, with another's hint",
		line(stranger, good.Bytes), false, true,
		"cosign takes the hint for a hint, and has one key anyway; here it finds the key, and a wrong one is a changed byte",
	)
	both(
		"over another root, whose digest it says",
		strings.Replace(line(key, mustSign(key, []byte("{}"))), b64(digest[:]), b64(sumOf("{}")), 1),
	)
	both("over another root, with this one's digest", line(key, mustSign(key, []byte("{}"))))
	both("over the digest instead of the root", line(key, mustSign(key, digest[:])))
	both("an empty signature", line(key, nil))
	both("no signature", change(`,"signature":"`+b64(good.Bytes)+`"`, ""))

	// Changes in fields that the signature does not cover.
	both("another digest", change(b64(digest[:]), b64(sumOf("x"))))
	both("a digest of another algorithm", change("SHA2_256", "SHA2_512"))
	both("no digest", change(`"messageDigest":{"algorithm":"SHA2_256","digest":"`+b64(digest[:])+`"},`, ""))
	add(key, "no hint", change(`"hint":"`+b64(key.Trusted.Fingerprint[:])+`"`, ""), false, true, "cosign is told the key")
	both("no verification material", change(`"verificationMaterial":{"publicKey":{"hint":"`+b64(key.Trusted.Fingerprint[:])+`"}},`, ""))
	both("another media type", change("v0.3", "v0.9"))
	both("no media type", change(`"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",`, ""))
	spelled("the media type as it was once written", change("vnd.dev.sigstore.bundle.v0.3+json", "vnd.dev.sigstore.bundle+json;version=0.3"))

	// Other spellings.
	spelled("a space", change(":{", ": {"))
	spelled("a line break", change(`,"messageSignature"`, "\n,\"messageSignature\""))
	spelled(
		"fields exchanged",
		"{"+plain[strings.Index(plain, `"verificationMaterial"`):len(plain)-1]+`,"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`,
	)
	spelled("an escape", change("SHA2_256", `\u0053HA2_256`))
	spelled("an enumeration's number", change(`"SHA2_256"`, "1"))
	spelled("protobuf's names of fields", change("messageSignature", "message_signature"))
	spelled("base64 without padding", change(strings.TrimRight(b64(digest[:]), "=")+"=", strings.TrimRight(b64(digest[:]), "=")))
	spelled("an empty list of log entries", change(`"verificationMaterial":{`, `"verificationMaterial":{"tlogEntries":[],`))
	spelled("null for timestamps", change(`"verificationMaterial":{`, `"verificationMaterial":{"timestampVerificationData":null,`))
	both("a byte order mark", "\ufeff"+plain)
	both("a doubled key", change(`{"mediaType"`, `{"mediaType":"x","mediaType"`))
	both("a key in another case", change("mediaType", "MediaType"))
	both("a second document behind it", plain+plain)
	both("a signature that is no base64", change(b64(good.Bytes), "!"+b64(good.Bytes)))
	add(
		key,
		"the old format of cosign",
		`{"base64Signature":"`+b64(good.Bytes)+`","cert":"","rekorBundle":null}`,
		false, true,
		"cosign still reads what it wrote before Sigstore had bundles",
	)

	// DSSE envelopes: signed by the same key, with other content.
	statement := fmt.Sprintf(
		`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"index.json","digest":{"sha256":"%x"}}],`+
			`"predicateType":"https://example.com/x","predicate":{}}`,
		digest,
	)
	envelope := func(kind, payload string, signatures ...string) string {
		return fmt.Sprintf(
			`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"%s"}},`+
				`"dsseEnvelope":{"payload":"%s","payloadType":"%s","signatures":[%s]}}`,
			b64(key.Trusted.Fingerprint[:]),
			b64([]byte(payload)),
			kind,
			strings.Join(signatures, ","),
		)
	}
	pae := func(kind, payload string) []byte {
		return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload)
	}
	const inToto = "application/vnd.in-toto+json"
	signed := func(k *world.Key, kind, payload string) string {
		return `{"sig":"` + b64(mustSign(k, pae(kind, payload))) + `"}`
	}
	add(
		key,
		"an envelope about the root",
		envelope(inToto, statement, signed(key, inToto, statement)), false, true,
		"cosign takes an attestation for a signature; here the key signs index.json and nothing about it",
	)
	both("an envelope of the root", envelope("application/json", string(root), signed(key, "application/json", string(root))))
	both("an envelope with another type than was signed", envelope(inToto, statement, signed(key, "application/json", statement)))
	both("an envelope without a signature", envelope(inToto, statement))
	both("an envelope with two signatures", envelope(inToto, statement, signed(key, inToto, statement), signed(stranger, inToto, statement)))
	both(
		"an envelope about something else",
		envelope(inToto, strings.Replace(statement, fmt.Sprintf("%x", digest), strings.Repeat("0", 64), 1), signed(key, inToto, statement)),
	)
	both("an envelope's signature as one over the root", line(key, mustSign(key, pae(inToto, statement))))
	both("an envelope and a signature", change(`"messageSignature"`, `"dsseEnvelope":{},"messageSignature"`))

	// Certificates instead of a key.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "x"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Unix(1<<33, 0),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	world.Must(err)
	both(
		"a certificate of the key instead of it",
		change(`"publicKey":{"hint":"`+b64(key.Trusted.Fingerprint[:])+`"}`, `"certificate":{"rawBytes":"`+b64(certificate)+`"}`),
	)
	both(
		"a chain of certificates",
		change(
			`"publicKey":{"hint":"`+b64(key.Trusted.Fingerprint[:])+`"}`,
			`"x509CertificateChain":{"certificates":[{"rawBytes":"`+b64(certificate)+`"}]}`,
		),
	)

	// Other encodings and algorithms.
	var rs struct{ R, S *big.Int }
	_, err = asn1.Unmarshal(good.Bytes, &rs)
	world.Must(err)
	der := func(r, s *big.Int) []byte {
		out, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		world.Must(err)
		return out
	}
	n := elliptic.P256().Params().N
	add(key, "ECDSA: the other s", line(key, der(rs.R, new(big.Int).Sub(n, rs.S))), true, true, "")
	add(
		key,
		"ECDSA: r and s one behind the other",
		line(key, append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...)), false, true,
		"Sigstore's library takes IEEE P1363 too; here there is one encoding",
	)
	both("ECDSA: zeros", line(key, der(big.NewInt(0), big.NewInt(0))))
	both("ECDSA: a byte behind it", line(key, append(bytes.Clone(good.Bytes), 0)))
	wide := sha512.Sum512(root)
	sig, err := ecdsa.SignASN1(rand.Reader, private, wide[:])
	world.Must(err)
	both("ECDSA with SHA-512", line(key, sig))

	_, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	world.Must(err)
	ed := world.KeyOf(tb, edPrivate)
	edSig := ed25519.Sign(edPrivate, root)
	add(ed, "Ed25519", line(ed, edSig), true, true, "")
	add(ed, "Ed25519 of 63 bytes", line(ed, edSig[:63]), false, false, "")
	add(ed, "Ed25519 of 65 bytes", line(ed, append(bytes.Clone(edSig), 0)), false, false, "")
	ph, err := edPrivate.Sign(nil, wide[:], &ed25519.Options{Hash: crypto.SHA512})
	world.Must(err)
	add(ed, "Ed25519ph", line(ed, ph), false, false, "")
	more := bytes.Clone(edSig) // S plus the order of the group: equivalent if not refused (RFC 8032 section 5.1.7)
	l, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := make([]byte, 32)
	for i, b := range edSig[32:] {
		s[31-i] = b
	}
	for i, b := range new(big.Int).Add(new(big.Int).SetBytes(s), l).FillBytes(make([]byte, 32)) {
		more[63-i] = b
	}
	add(ed, "Ed25519: S and the order more", line(ed, more), false, false, "")
	rsaPrivate, err := rsa.GenerateKey(rand.Reader, 3072)
	world.Must(err)
	r := world.KeyOf(tb, rsaPrivate)
	pkcs1, err := rsa.SignPKCS1v15(nil, rsaPrivate, crypto.SHA256, digest[:])
	world.Must(err)
	add(r, "RSA, PKCS #1 v1.5", line(r, pkcs1), true, true, "")
	pss, err := rsa.SignPSS(rand.Reader, rsaPrivate, crypto.SHA256, digest[:], nil)
	world.Must(err)
	add(r, "RSA, PSS", line(r, pss), false, false, "")
	wideSig, err := rsa.SignPKCS1v15(nil, rsaPrivate, crypto.SHA512, wide[:])
	world.Must(err)
	add(r, "RSA with SHA-512", line(r, wideSig), false, false, "")
	add(r, "RSA: a zero before it", line(r, append([]byte{0}, pkcs1...)), false, false, "")
	unhashed, err := rsa.SignPKCS1v15(nil, rsaPrivate, 0, digest[:])
	world.Must(err)
	add(r, "RSA without the algorithm's name", line(r, unhashed), false, false, "")

	// Several lines. Cosign reads the first.
	other := line(stranger, mustSign(stranger, root))
	add(key, "an unknown one behind it", plain+"\n"+other, true, true, "")
	add(key, "the same twice", plain+"\n"+plain, false, true, "each key has one line")
	add(key, "rubbish behind it", plain+"\nx", false, true, "nothing in a bundle is skipped")
	add(key, "a wrong one by the trusted key behind one by nobody", other+"\n"+line(key, mustSign(key, []byte("{}"))), false, false, "")
	add(key, "32 unknown ones behind it", plain+"\n"+strings.TrimSuffix(crowdOf(root), "\n"), false, true, "there is room for 32 in all")
	return rows
}

// crowdOf returns 32 lines by unknown keys.
func crowdOf(root []byte) string {
	var list []bundle.Signature
	for i := range 32 {
		list = append(list, bundle.Signature{Key: bundle.Fingerprint{byte(i)}, Digest: bundle.DigestOf(root), Bytes: []byte("nobody")})
	}
	slot, err := bundle.EncodeSlot(list)
	world.Must(err)
	return string(bytes.TrimRight(slot, "\n"))
}

func mustSign(k *world.Key, message []byte) []byte {
	s, err := k.Signer.Sign(message)
	world.Must(err)
	return s.Bytes
}

func sumOf(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}
