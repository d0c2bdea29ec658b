package trust_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
	"github.com/oob-bundle/oob-bundle/verify/trust"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// spki encodes a key as a SubjectPublicKeyInfo (RFC 5280).
func spki(t *testing.T, algorithm asn1.ObjectIdentifier, parameters asn1.RawValue, key []byte) []byte {
	t.Helper()
	type identifier struct {
		Algorithm  asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
	der, err := asn1.Marshal(struct {
		Algorithm identifier
		Key       asn1.BitString
	}{identifier{algorithm, parameters}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// rsaKey returns an RSA key with a modulus of the given bits. The modulus need not be a
// product of primes.
func rsaKey(t *testing.T, bits, e int) []byte {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	key, err := asn1.Marshal(struct{ N, E *big.Int }{n.Add(n, big.NewInt(1)), big.NewInt(int64(e))})
	if err != nil {
		t.Fatal(err)
	}
	return spki(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue, key)
}

// TestKeyFiles checks that invalid key files are refused wherever a key is given: to verify,
// to trust add, and in the directory.
func TestKeyFiles(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	good := block("PUBLIC KEY", der)
	curve := func(c elliptic.Curve) []byte {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		return block("PUBLIC KEY", der)
	}
	edOID := asn1.ObjectIdentifier{1, 3, 101, 112}
	ed := func(n int) []byte { return block("PUBLIC KEY", spki(t, edOID, asn1.RawValue{}, make([]byte, n))) }
	point := func(x string) []byte {
		raw, err := hex.DecodeString(x)
		if err != nil {
			t.Fatal(err)
		}
		return block("PUBLIC KEY", spki(t, edOID, asn1.RawValue{}, raw))
	}
	offCurve := append([]byte{}, der...)
	offCurve[len(offCurve)-1] ^= 1
	tests := []struct {
		name string
		data []byte
		text string
	}{
		{"nothing", nil, "no PEM block"},
		{"text", []byte("hello"), "no PEM block"},
		{"DER", der, "no PEM block"},
		{"a private key", block("PRIVATE KEY", pkcs8), "private key"},
		{"an encrypted private key", block("ENCRYPTED PRIVATE KEY", pkcs8), "private key"},
		{"cosign's private key", block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("{}")), "private key"},
		{"an EC private key", block("EC PRIVATE KEY", pkcs8), "private key"},
		{"an OpenSSH private key", block("OPENSSH PRIVATE KEY", []byte("openssh-key-v1\x00")), "private key"},
		{"an OpenSSH public key", []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA me@host\n"), "no PEM block"},
		{"an RFC 4716 public key", []byte("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n"), "no PEM block"},
		{"an OpenPGP public key", []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"), ""},
		{"a certificate", block("CERTIFICATE", der), "CERTIFICATE"},
		{"a PKCS #1 public key", block("RSA PUBLIC KEY", der), "RSA PUBLIC KEY"},
		{"a key, and a private one behind it", append(append([]byte{}, good...), block("PRIVATE KEY", pkcs8)...), "one file holds one key"},
		{"two keys", append(append([]byte{}, good...), good...), "one file holds one key"},
		{"text behind it", append(append([]byte{}, good...), "and a note\n"...), "one file holds one key"},
		{"a key with a byte behind it", block("PUBLIC KEY", append(append([]byte{}, der...), 0)), ""},
		{"half a key", block("PUBLIC KEY", der[:40]), ""},
		{"a point that is not on the curve", block("PUBLIC KEY", offCurve), ""},
		{"P-224", curve(elliptic.P224()), "P-256"},
		{"P-384", curve(elliptic.P384()), "P-256"},
		{"P-521", curve(elliptic.P521()), "P-256"},
		{"RSA 1024", block("PUBLIC KEY", rsaKey(t, 1024, 65537)), "3072 bits"},
		{"RSA 2048", block("PUBLIC KEY", rsaKey(t, 2048, 65537)), "3072 bits"},
		{"RSA 3071", block("PUBLIC KEY", rsaKey(t, 3071, 65537)), "3072 bits"},
		{"RSA 32768", block("PUBLIC KEY", rsaKey(t, 32768, 65537)), "3072 bits"},
		{"RSA with e=1", block("PUBLIC KEY", rsaKey(t, 3072, 1)), ""},
		{"RSA with e=3", block("PUBLIC KEY", rsaKey(t, 3072, 3)), "65537"},
		{"RSA with e=65535", block("PUBLIC KEY", rsaKey(t, 3072, 65535)), "65537"},
		{"Ed25519 of 31 bytes", ed(31), ""},
		{"Ed25519 of 33 bytes", ed(33), ""},
		{"Ed25519 of 64 bytes", ed(64), ""},
		{"Ed25519 of order 4", point(strings.Repeat("00", 32)), "everybody can sign"},
		{"Ed25519 of order 1", point("01" + strings.Repeat("00", 31)), "everybody can sign"},
		{"Ed25519 of order 1, with a sign", point("01" + strings.Repeat("00", 30) + "80"), "everybody can sign"},
		{"Ed25519 of order 1, spelled otherwise", point("ee" + strings.Repeat("ff", 30) + "7f"), "everybody can sign"},
		{"Ed25519 of order 2", point("ec" + strings.Repeat("ff", 30) + "7f"), "everybody can sign"},
		{"Ed25519 of order 8", point("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "everybody can sign"},
		{"Ed25519 of order 8, the other", point("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "everybody can sign"},
		{"X25519", block("PUBLIC KEY", spki(t, asn1.ObjectIdentifier{1, 3, 101, 110}, asn1.RawValue{}, make([]byte, 32))), ""},
		{"an unknown algorithm", block("PUBLIC KEY", spki(t, asn1.ObjectIdentifier{1, 2, 3}, asn1.RawValue{}, make([]byte, 32))), ""},
		{"100 MB", make([]byte, 100_000_000), "more than 65536 bytes"},
	}
	dir := t.TempDir()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			checkRefused(t, dir, good, test.data, test.text)
		})
	}
	for name, data := range map[string][]byte{
		"CRLF": []byte(strings.ReplaceAll(string(good), "\n", "\r\n")), "text before it": append([]byte("from the maker:\n"), good...),
		"no newline at the end": []byte(strings.TrimSpace(string(good))),
	} {
		path := filepath.Join(dir, "good.pub")
		world.Write(t, path, data, 0o644)
		if _, err := trust.ReadKey(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := trust.ReadKey(dir); !errors.Is(err, trust.ErrUsage) {
		t.Errorf("a directory: %v", err)
	}
	if runtime.GOOS == "linux" {
		if _, err := trust.ReadKey("/dev/zero"); !errors.Is(err, trust.ErrUsage) {
			t.Errorf("a device without an end: %v", err)
		}
	}
	t.Logf("%d files", len(tests))
}

// checkRefused gives an invalid key file in every way; in the directory, a valid key is beside
// it. Reading it from dir must fail with the given text.
func checkRefused(t *testing.T, dir string, good, data []byte, text string) {
	t.Helper()
	path := filepath.Join(dir, "key.pub")
	world.Write(t, path, data, 0o644)
	if _, err := trust.ReadKey(path); !errors.Is(err, trust.ErrUsage) || !strings.Contains(err.Error(), text) {
		t.Errorf("read: %.300v", err)
	}
	root := t.TempDir()
	if _, err := trust.Open(root).Add(data, ""); !errors.Is(err, trust.ErrUsage) {
		t.Errorf("added: %.300v", err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.Mkdir(filepath.Join(root, "trust"), 0o755); err != nil {
		t.Fatal(err)
	}
	world.Write(t, filepath.Join(root, "trust", "good.pub"), good, 0o644)
	world.Write(t, filepath.Join(root, "trust", "key.pub"), data, 0o644)
	if p, err := trust.Open(root).Policy(); !errors.Is(err, trust.ErrUsage) || len(p.Keys) > 0 {
		t.Errorf("in the directory: %d keys, %.300v", len(p.Keys), err)
	}
}

// TestSmallOrder shows why keys of small order are refused: for each of them, Go's verifier
// accepts one forged signature for some of a few hundred messages. A good key has no such
// forgery.
func TestSmallOrder(t *testing.T) {
	identity := append([]byte{1}, make([]byte, 31)...)
	forged := append(append([]byte{}, identity...), make([]byte, 32)...) // R is the identity, S is 0
	forgeable := func(key []byte) bool {
		for n := range 400 {
			if ed25519.Verify(key, []byte{byte(n), byte(n >> 8)}, forged) {
				return true
			}
		}
		return false
	}
	low, high := strings.Repeat("00", 31), strings.Repeat("ff", 30)+"7f"
	for _, text := range []string{
		"00" + low, "01" + low, "ec" + high, "ed" + high, "ee" + high,
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	} {
		key, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, sign := range []byte{0, 0x80} {
			key[31] = key[31]&0x7f | sign
			if !forgeable(key) {
				t.Errorf("%x: the forgery is none; then the check is not needed", key)
			}
			if err := publickey.CheckAlgorithm(ed25519.PublicKey(key)); err == nil {
				t.Errorf("%x is accepted", key)
			}
		}
	}
	good, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil || forgeable(good) || publickey.CheckAlgorithm(good) != nil {
		t.Errorf("a good key: %v", err)
	}
}

// TestDirectory checks which directories and files are trusted, by their modes, links and
// content.
func TestDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes and links are others there")
	}
	a, b := world.NewKey(t), world.NewKey(t)
	read := func(k *world.Key) []byte {
		data, err := os.ReadFile(k.Public)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	document := func(rest string) string {
		return `{"apiVersion":"oobbundle.dev/v1","kind":"TrustPolicy","threshold":0,"minSequence":{},"channels":{}` + rest + "}"
	}
	policy := func(dir, text string) { world.Write(t, filepath.Join(dir, "policy.json"), []byte(text), 0o644) }
	id := a.Trusted.Fingerprint.String()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		plant func(root, dir string)
		want  error
		keys  int
	}{
		{"one key", func(_, _ string) {}, nil, 1},
		{"no key", func(_, dir string) { must(os.Remove(filepath.Join(dir, "a.pub"))) }, nil, 0},
		{"no directory", func(_, dir string) { must(os.RemoveAll(dir)) }, nil, 0},
		{"other files", func(_, dir string) { world.Write(t, filepath.Join(dir, "b.pub.bak"), read(b), 0o644) }, nil, 1},
		{"one key under two names", func(_, dir string) { world.Write(t, filepath.Join(dir, "z.pub"), read(a), 0o644) }, nil, 2},
		{"others can write the root", func(root, _ string) { must(os.Chmod(root, 0o777)) }, trust.ErrWritable, 0},
		{"others can write the directory", func(_, dir string) { must(os.Chmod(dir, 0o757)) }, trust.ErrWritable, 0},
		{"a group can write the directory", func(_, dir string) { must(os.Chmod(dir, 0o775)) }, trust.ErrWritable, 0},
		{"others can write it, sticky", func(_, dir string) { must(os.Chmod(dir, 0o777|os.ModeSticky)) }, trust.ErrWritable, 0},
		{"others can write a key", func(_, dir string) { must(os.Chmod(filepath.Join(dir, "a.pub"), 0o646)) }, trust.ErrWritable, 0},
		{"others can write the policy", func(_, dir string) {
			policy(dir, document(""))
			must(os.Chmod(filepath.Join(dir, "policy.json"), 0o666))
		}, trust.ErrWritable, 0},
		{"a link to a key", func(_, dir string) { must(os.Symlink(b.Public, filepath.Join(dir, "b.pub"))) }, trust.ErrWritable, 0},
		{"a link to nothing", func(_, dir string) { must(os.Symlink("nowhere", filepath.Join(dir, "b.pub"))) }, trust.ErrWritable, 0},
		{"a link to a device", func(_, dir string) { must(os.Symlink("/dev/zero", filepath.Join(dir, "b.pub"))) }, trust.ErrWritable, 0},
		{"a directory that is called a key", func(_, dir string) { must(os.Mkdir(filepath.Join(dir, "b.pub"), 0o755)) }, trust.ErrWritable, 0},
		{
			"a policy that is a link to nothing",
			func(_, dir string) { must(os.Symlink("nowhere", filepath.Join(dir, "policy.json"))) },
			trust.ErrWritable,
			0,
		},
		{"a link to the directory, writable by others", func(root, dir string) {
			other := t.TempDir()
			must(os.Chmod(other, 0o777))
			must(os.RemoveAll(dir))
			must(os.Symlink(other, dir))
		}, trust.ErrWritable, 0},
		{"threshold 1 of 1", func(_, dir string) { policy(dir, strings.Replace(document(""), `"threshold":0`, `"threshold":1`, 1)) }, nil, 1},
		{
			"threshold 2 of 1",
			func(_, dir string) { policy(dir, strings.Replace(document(""), `"threshold":0`, `"threshold":2`, 1)) },
			trust.ErrUsage,
			0,
		},
		{"threshold 2 of one key under two names", func(_, dir string) {
			world.Write(t, filepath.Join(dir, "z.pub"), read(a), 0o644)
			policy(dir, strings.Replace(document(""), `"threshold":0`, `"threshold":2`, 1))
		}, trust.ErrUsage, 0},
		{
			"threshold -1",
			func(_, dir string) { policy(dir, strings.Replace(document(""), `"threshold":0`, `"threshold":-1`, 1)) },
			trust.ErrUsage,
			0,
		},
		{"a newer policy", func(_, dir string) { policy(dir, strings.Replace(document(""), "dev/v1", "dev/v2", 1)) }, bundle.ErrNewer, 0},
		{"an unknown rule", func(_, dir string) { policy(dir, document(`,"expires":"2026"`)) }, bundle.ErrFormat, 0},
		{"limits that name no key", func(_, dir string) {
			policy(dir, strings.Replace(document(""), `"channels":{}`, `"channels":{"`+strings.ToLower(id)+`":["x"]}`, 1))
		}, trust.ErrUsage, 0},
		{"limits that name no channel", func(_, dir string) {
			policy(dir, strings.Replace(document(""), `"channels":{}`, `"channels":{"`+id+`":[]}`, 1))
		}, trust.ErrUsage, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "site")
			dir := filepath.Join(root, "trust")
			must(os.MkdirAll(dir, 0o755))
			world.Write(t, filepath.Join(dir, "a.pub"), read(a), 0o644)
			test.plant(root, dir)
			p, err := trust.Open(root).Policy()
			if !errors.Is(err, test.want) || len(p.Keys) != test.keys {
				t.Errorf("%d keys, %v; want %d, %v", len(p.Keys), err, test.keys, test.want)
			}
		})
	}
	t.Logf("%d directories", len(tests))
}

// TestAncestors checks every directory above the keys: a user who can rename one of them can
// replace the keys.
func TestAncestors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	const other = 1234
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, x := range map[string]struct {
		change func(top string)
		bad    bool
	}{
		"ours":                               {func(string) {}, false},
		"the parent belongs to another user": {func(top string) { must(os.Chown(filepath.Join(top, "a/b"), other, other)) }, true},
		"an ancestor does":                   {func(top string) { must(os.Chown(filepath.Join(top, "a"), other, other)) }, true},
		"others can write the parent":        {func(top string) { must(os.Chmod(filepath.Join(top, "a/b"), 0o777)) }, true},
		"a group can write an ancestor":      {func(top string) { must(os.Chmod(filepath.Join(top, "a"), 0o775)) }, true},
		"the parent is sticky, as /tmp":      {func(top string) { must(os.Chmod(filepath.Join(top, "a/b"), 0o777|os.ModeSticky)) }, false},
		"sticky, and the root is another's": {func(top string) {
			must(os.Chmod(filepath.Join(top, "a/b"), 0o777|os.ModeSticky))
			must(os.Chown(filepath.Join(top, "a/b/site"), other, other))
		}, true},
		"a link to a directory of ours": {func(top string) {
			must(os.Rename(filepath.Join(top, "a/b"), filepath.Join(top, "x")))
			must(os.Symlink("../x", filepath.Join(top, "a/b")))
		}, false},
		"a link to another user's": {func(top string) {
			must(os.Rename(filepath.Join(top, "a/b"), filepath.Join(top, "x")))
			must(os.Symlink(filepath.Join(top, "x"), filepath.Join(top, "a/b")))
			must(os.Chown(filepath.Join(top, "x"), other, other))
		}, true},
		"a link by way of another user's": {func(top string) {
			must(os.Mkdir(filepath.Join(top, "y"), 0o755))
			must(os.Chown(filepath.Join(top, "y"), other, other))
			must(os.Rename(filepath.Join(top, "a/b"), filepath.Join(top, "x")))
			must(os.Symlink("../y/../x", filepath.Join(top, "a/b")))
		}, true},
		"a link in a sticky directory": {func(top string) {
			must(os.Chmod(filepath.Join(top, "a"), 0o777|os.ModeSticky))
			must(os.Rename(filepath.Join(top, "a/b"), filepath.Join(top, "x")))
			must(os.Symlink("../x", filepath.Join(top, "a/b")))
			must(os.Lchown(filepath.Join(top, "a/b"), other, other))
		}, true},
		"links that lead in a circle": {func(top string) {
			must(os.RemoveAll(filepath.Join(top, "a/b")))
			must(os.Symlink("b", filepath.Join(top, "a/b")))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			root := filepath.Join(top, "a/b/site")
			must(os.MkdirAll(filepath.Join(root, "trust"), 0o755))
			x.change(top)
			if err := trust.RefuseWritable(filepath.Join(root, "trust")); (err != nil) != x.bad {
				t.Errorf("got %v", err)
			}
			_, err := trust.Open(root).Policy()
			if _, there := os.Stat(root); there == nil && errors.Is(err, trust.ErrWritable) != x.bad {
				t.Errorf("policy: %v", err)
			}
		})
	}
}

// TestWidening checks that only EveryChannel removes the limits of a key.
func TestWidening(t *testing.T) {
	root, key := filepath.Join(t.TempDir(), "site"), world.NewKey(t)
	pem, err := os.ReadFile(key.Public)
	if err != nil {
		t.Fatal(err)
	}
	store := trust.Open(root)
	for _, step := range []struct {
		glob string
		want string // channels afterwards, or "refused"
	}{
		{"app/*", "app/*"}, {"", "refused"}, {"app/*", "app/*"}, {"web/*", "app/* web/*"},
		{"", "refused"}, {trust.EveryChannel, ""}, {"", ""}, {"app/*", "app/*"}, {"", "refused"},
	} {
		k, err := store.Add(pem, step.glob)
		got := strings.Join(k.Channels, " ")
		if err != nil {
			got = "refused"
		}
		if got != step.want || err != nil && !errors.Is(err, trust.ErrUsage) {
			t.Errorf("%q: %q, %v; want %q", step.glob, got, err, step.want)
		}
	}
}

// TestTighten checks that flags make the policy stricter, never looser.
func TestTighten(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	limited := a.Trusted
	limited.Channels = []string{"app/*"}
	kept := verify.Policy{Keys: []verify.Key{limited}, Threshold: 2, MinSequence: map[string]int64{"app": 5}}
	for _, test := range []struct {
		name      string
		given     []verify.Key
		threshold int
		want      int
	}{
		{"nothing given", nil, 1, 2}, {"a lower threshold", nil, 1, 2}, {"a higher threshold", nil, 3, 3},
		{"the same key", []verify.Key{a.Trusted}, 1, 2}, {"another key", []verify.Key{b.Trusted}, 1, 2},
	} {
		p := trust.Tighten(kept, test.given, test.threshold)
		if p.Threshold != test.want || p.MinSequence["app"] != 5 {
			t.Errorf("%s: %+v", test.name, p)
		}
		for _, k := range p.Keys {
			if k.Fingerprint == a.Trusted.Fingerprint && len(k.Channels) != 1 {
				t.Errorf("%s: the kept key lost its limits", test.name)
			}
		}
	}
}
