package sign_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

func password(p string) sign.Password {
	return func(bool) ([]byte, error) { return []byte(p), nil }
}

func TestGenerateAndLoad(t *testing.T) {
	for _, p := range []string{"", "correct horse"} {
		prefix := filepath.Join(t.TempDir(), "oob")
		private, public, err := sign.Generate(prefix, password(p))
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(private)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", fi.Mode(), err)
		}
		pub, err := os.ReadFile(public)
		if err != nil {
			t.Fatal(err)
		}
		k, err := publickey.Parse(pub)
		if err != nil {
			t.Fatal(err)
		}
		s, err := sign.Load(private, password(p))
		if err != nil || s.Fingerprint != k.Fingerprint {
			t.Fatalf("%v, %v", s, err)
		}
		if _, err := sign.Load(private, password("wrong")); !errors.Is(err, sign.ErrKey) {
			t.Errorf("the wrong password: %v", err)
		}
		before, err := os.ReadFile(private)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := sign.Generate(prefix, password(p)); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a second time: %v", err)
		}
		if after, err := os.ReadFile(private); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the key was written over, %v", err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, data []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}) }
	scrypt := `{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1},"salt":"AAAA"},` +
		`"cipher":{"name":"nacl/secretbox","nonce":"AAAA"},"ciphertext":"AAAA"}`
	for name, test := range map[string]struct {
		data []byte
		mode os.FileMode
		want error
	}{
		"nothing":                     {nil, 0o600, sign.ErrKey},
		"a public key":                {block("PUBLIC KEY", der), 0o600, sign.ErrKey},
		"an OpenSSH key":              {block("OPENSSH PRIVATE KEY", der), 0o600, sign.ErrKey},
		"another curve":               {block("PRIVATE KEY", der), 0o600, sign.ErrKey},
		"two keys":                    {append(block("PRIVATE KEY", der), block("PRIVATE KEY", der)...), 0o600, sign.ErrKey},
		"expensive scrypt parameters": {block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte(scrypt)), 0o600, sign.ErrKey},
		"something large":             {bytes.Repeat([]byte("x"), 1<<20), 0o600, sign.ErrKey},
		"a key that others can read":  {block("PRIVATE KEY", der), 0o644, sign.ErrReadable},
		"a key that a group can read": {block("PRIVATE KEY", der), 0o640, sign.ErrReadable},
	} {
		path := filepath.Join(dir, "key")
		world.Write(t, path, test.data, test.mode)
		if _, err := sign.Load(path, password("")); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHostileKeyFiles checks that Load refuses files that are not supported private
// keys, and files that are too costly to check.
func TestHostileKeyFiles(t *testing.T) {
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	block := func(kind string, data []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}) }
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := block("PRIVATE KEY", pkcs8(p256))
	scrypt := func(n, r, p string) []byte {
		return block(
			"ENCRYPTED SIGSTORE PRIVATE KEY",
			[]byte(
				`{"kdf":{"name":"scrypt","params":{"N":`+n+`,"r":`+r+`,"p":`+p+`},"salt":"AAAAAAAAAAAAAAAAAAAAAA=="},`+
					`"cipher":{"name":"nacl/secretbox","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},"ciphertext":"AAAA"}`,
			),
		)
	}
	rows := map[string][]byte{
		"DER":                           pkcs8(p256),
		"text":                          []byte("hello"),
		"a certificate":                 block("CERTIFICATE", pkcs8(p256)),
		"an OpenPGP key":                []byte("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAAAA\n-----END PGP PRIVATE KEY BLOCK-----\n"),
		"a key and a certificate":       append(bytes.Clone(good), block("CERTIFICATE", nil)...),
		"half a key":                    block("PRIVATE KEY", pkcs8(p256)[:60]),
		"RSA 2048":                      block("PRIVATE KEY", pkcs8(small)),
		"no scrypt parameters":          block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("{}")),
		"no JSON":                       block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("x")),
		"scrypt of 2^62":                scrypt("4611686018427387904", "8", "1"),
		"scrypt of 2^30":                scrypt("1073741824", "8", "1"),
		"scrypt of 0":                   scrypt("0", "0", "0"),
		"scrypt of -1":                  scrypt("-1", "-1", "-1"),
		"scrypt that is not a power":    scrypt("65537", "8", "1"),
		"scrypt with much r":            scrypt("2", "1073741824", "1"),
		"scrypt with much p":            scrypt("2", "8", "1073741824"),
		"scrypt with a number of 10 kB": scrypt(strings.Repeat("9", 10_000), "8", "1"),
		"an encrypted key of nothing":   block("ENCRYPTED PRIVATE KEY", nil),
		"200 kB":                        bytes.Repeat([]byte("x"), 200_000),
	}
	path := filepath.Join(t.TempDir(), "key")
	for name, data := range rows {
		world.Write(t, path, data, 0o600)
		if _, err := sign.Load(path, password("")); !errors.Is(err, sign.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := sign.Load(filepath.Dir(path), password("")); !errors.Is(err, sign.ErrKey) {
		t.Errorf("a directory: %v", err)
	}
	if runtime.GOOS == "linux" {
		if _, err := sign.Load("/dev/zero", password("")); !errors.Is(err, sign.ErrKey) {
			t.Errorf("a device without an end: %v", err)
		}
	}
	for name, data := range map[string][]byte{
		"CRLF": bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), "text before it": append([]byte("mine\n"), good...),
	} {
		world.Write(t, path, data, 0o600)
		if _, err := sign.Load(path, password("")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Logf("%d files", len(rows))
}

// TestSlotFileOfTheMedium checks that a link, a directory or an oversized file in place
// of the slot file is refused: the slot file comes from the medium and is untrusted.
func TestSlotFileOfTheMedium(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege there")
	}
	a, b := world.NewKey(t), world.NewKey(t)
	path := smallFile(t, a)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	slot := sign.SlotFile(path)
	for name, plant := range map[string]func() error{
		"a link to a device": func() error { return os.Symlink("/dev/zero", slot) },
		"a link to the key":  func() error { return os.Symlink(a.Private, slot) },
		"a link to nothing":  func() error { return os.Symlink("nowhere", slot) },
		"a directory":        func() error { return os.Mkdir(slot, 0o755) },
		"1 TiB": func() error {
			return errors.Join(os.WriteFile(slot, nil, 0o644), os.Truncate(slot, 1<<40))
		},
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if _, err := sign.Add(path, b.Signer); !errors.Is(err, bundle.ErrSignature) || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, before) {
			t.Errorf("%s: the bundle was changed, %v", name, err)
		}
		if err := os.Remove(slot); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPasswordRefused checks that Load returns the error of the password prompt.
func TestPasswordRefused(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "oob")
	if _, _, err := sign.Generate(prefix, password("x")); err != nil {
		t.Fatal(err)
	}
	want := errors.New("no terminal")
	if _, err := sign.Load(
		prefix+".key",
		func(bool) ([]byte, error) { return nil, want },
	); !errors.Is(err, want) ||
		errors.Is(err, sign.ErrKey) {
		t.Errorf("got %v", err)
	}
}

// smallFile returns the path of a small bundle on disk, signed by key.
func smallFile(t *testing.T, key *world.Key) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "small.oob.tar")
	world.Write(t, path, world.Small(t, key), 0o644)
	return path
}

func check(t *testing.T, path string, threshold int, keys ...*world.Key) error {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := verify.Policy{Threshold: threshold}
	for _, k := range keys {
		p.Keys = append(p.Keys, k.Trusted)
	}
	v, err := verify.Open(t.Context(), bytes.NewReader(data), int64(len(data)), p)
	if err != nil {
		return err
	}
	return v.Payload(t.Context(), bundle.Watch{})
}

func TestSecondSignature(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	path := smallFile(t, a)
	if err := check(t, path, 2, a, b); !errors.Is(err, bundle.ErrPolicy) {
		t.Fatalf("one signature: %v", err)
	}
	for i := range 2 {
		r, err := sign.Add(path, b.Signer)
		if err != nil || r.Already != (i == 1) || len(r.Signatures) != 2 {
			t.Fatalf("%+v, %v", r, err)
		}
		if err := check(t, path, 2, a, b); err != nil {
			t.Errorf("two signatures: %v", err)
		}
	}
	if _, err := os.Lstat(sign.SlotFile(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the slot file is still there: %v", err)
	}
}

// TestWrongLine checks that an invalid signature of the signer's own key is replaced,
// also after a power cut during the replacement.
func TestWrongLine(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	path := smallFile(t, a)
	if _, err := sign.Add(path, b.Signer); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, err := bundle.ReadHead(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	list, err := bundle.ParseSlot(head.Slot)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	list[1].Bytes = bytes.Clone(list[1].Bytes)
	list[1].Bytes[len(list[1].Bytes)/2] ^= 1
	slot, err := bundle.EncodeSlot(list)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[head.SlotOffset():], slot)
	for _, cut := range []bool{false, true} {
		world.Write(t, path, data, 0o644)
		if err := check(t, path, 2, a, b); err == nil {
			t.Fatal("a wrong signature is good")
		}
		if cut { // the slot file is complete, and the bundle is unchanged
			world.Write(t, sign.SlotFile(path), head.Slot, 0o644)
		}
		r, err := sign.Add(path, b.Signer)
		if err != nil || r.Already != cut || r.Replaced == cut || r.Recovered != cut || len(r.Signatures) != 2 {
			t.Errorf("%+v, %v", r, err)
		}
		if err := check(t, path, 2, a, b); err != nil {
			t.Error(err)
		}
	}
	// A slot file must not remove the signature of another key.
	world.Write(t, path, data, 0o644)
	world.Write(t, sign.SlotFile(path), head.Slot, 0o644)
	if _, err := sign.Add(path, a.Signer); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("%v", err)
	}
}

// TestPowerCutWhileSigning stops the run at moments that leave different files
// behind: the slot file is complete, and some number of leading bytes of the slot has
// reached the disk.
func TestPowerCutWhileSigning(t *testing.T) {
	a, b := world.NewKey(t), world.NewKey(t)
	path := smallFile(t, a)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign.Add(path, b.Signer); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, err := bundle.ReadHead(bytes.NewReader(after), int64(len(after)))
	if err != nil {
		t.Fatal(err)
	}
	off := int(head.SlotOffset())
	lines := len(bytes.TrimRight(head.Slot, "\n")) + 1
	cuts := []int{0, 1, lines / 2, lines / 2 * 2, lines - 1, lines, lines + 1, 4096, bundle.SlotSize}
	for i := 0; i < lines; i += 7 {
		cuts = append(cuts, i)
	}
	for _, written := range cuts {
		torn := bytes.Clone(before)
		copy(torn[off:off+written], head.Slot)
		world.Write(t, path, torn, 0o644)
		world.Write(t, sign.SlotFile(path), head.Slot, 0o644)
		r, err := sign.Add(path, b.Signer)
		if err != nil || !r.Recovered || !r.Already {
			t.Fatalf("after %d bytes: %+v, %v", written, r, err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, after) {
			t.Fatalf("after %d bytes the file is not the one it should have become, %v", written, err)
		}
	}
}

// TestForeignSlotFile checks that Add refuses a slot file that does not fit the bundle.
func TestForeignSlotFile(t *testing.T) {
	a, b, c := world.NewKey(t), world.NewKey(t), world.NewKey(t)
	path := smallFile(t, a)
	other := smallFile(t, b)
	data, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	head, err := bundle.ReadHead(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own, err := bundle.ReadHead(bytes.NewReader(before), int64(len(before)))
	if err != nil {
		t.Fatal(err)
	}
	without, err := c.Signer.Sign(own.Root) // good, but a's line is missing
	if err != nil {
		t.Fatal(err)
	}
	lacking, err := bundle.EncodeSlot([]bundle.Signature{without})
	if err != nil {
		t.Fatal(err)
	}
	for name, slot := range map[string][]byte{
		"another bundle's": head.Slot, "empty": {}, "rubbish": bytes.Repeat([]byte("x"), bundle.SlotSize), "lacking": lacking,
	} {
		world.Write(t, sign.SlotFile(path), slot, 0o644)
		if _, err := sign.Add(path, c.Signer); !errors.Is(err, bundle.ErrSignature) || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, before) {
			t.Errorf("%s: the bundle was changed, %v", name, err)
		}
	}
}

func TestNotABundle(t *testing.T) {
	k := world.NewKey(t)
	path := filepath.Join(t.TempDir(), "x")
	world.Write(t, path, []byte("hello"), 0o644)
	if _, err := sign.Add(path, k.Signer); !errors.Is(err, bundle.ErrFormat) {
		t.Error(err)
	}
	if _, err := sign.Add(t.TempDir(), k.Signer); !errors.Is(err, disk.ErrNotFile) {
		t.Error(err)
	}
}

// TestTwoSigners checks that no signature is lost if two runs sign at the same time.
func TestTwoSigners(t *testing.T) {
	a, b, c := world.NewKey(t), world.NewKey(t), world.NewKey(t)
	path := smallFile(t, a)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 20 {
		world.Write(t, path, before, 0o644)
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i, k := range []*world.Key{b, c} {
			wg.Go(func() { _, errs[i] = sign.Add(path, k.Signer) })
		}
		wg.Wait()
		for i, k := range []*world.Key{b, c} {
			switch {
			case errors.Is(errs[i], sign.ErrLocked):
				refused++
			case errs[i] != nil:
				t.Fatal(errs[i])
			default:
				if err := check(t, path, 2, a, k); err != nil {
					t.Fatalf("a signature was lost: %v", err)
				}
			}
		}
	}
	t.Logf("%d of 40 were told to wait", refused)
}
