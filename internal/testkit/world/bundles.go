package world

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/manifests"
	"github.com/oob-bundle/oob-bundle/verify"
)

// Key is a key pair. Its files exist until the test ends.
type Key struct {
	Private string // path, PKCS #8 without a password
	Public  string // path
	Signer  *sign.Signer
	Trusted verify.Key
}

// NewKey creates an ECDSA P-256 key pair.
func NewKey(tb testing.TB) *Key {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return KeyOf(tb, private)
}

// KeyOf writes the files of a key pair.
func KeyOf(tb testing.TB, private crypto.Signer) *Key {
	tb.Helper()
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	k := &Key{Private: filepath.Join(dir, "key.pem"), Public: filepath.Join(dir, "key.pub")}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})
	Write(tb, k.Private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER}), 0o600)
	Write(tb, k.Public, publicPEM, 0o644)
	if k.Signer, err = sign.Load(k.Private, nil); err != nil {
		tb.Fatal(err)
	}
	if k.Trusted.Key, err = publickey.Parse(publicPEM); err != nil {
		tb.Fatal(err)
	}
	return k
}

// Write writes a file with exactly this mode, whatever the umask.
func Write(tb testing.TB, path string, data []byte, mode os.FileMode) {
	tb.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
}

// Manifest returns a parsed manifest with one component that contains the given images.
func Manifest(tb testing.TB, name string, images ...string) *manifests.Manifest {
	tb.Helper()
	text := fmt.Sprintf(
		"apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: %s, version: 1.0.0}\ncomponents:\n  - name: all\n    images:\n",
		name,
	)
	for _, i := range images {
		text += fmt.Sprintf("      - %q\n", i)
	}
	m, err := manifests.Parse([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// Options returns the options to create a bundle from the manifest, with a fixed time.
func Options(tb testing.TB, m *manifests.Manifest, key *Key, from ...*Registry) create.Options {
	tb.Helper()
	var hosts []string
	for _, r := range from {
		hosts = append(hosts, r.Host)
	}
	client, err := remote.New(remote.Options{PlainHTTP: hosts})
	if err != nil {
		tb.Fatal(err)
	}
	return create.Options{
		Manifest: m, Source: &pull.Source{Client: client}, Signer: key.Signer,
		Platforms: []bundle.Platform{{OS: "linux", Architecture: "amd64"}},
		Output:    filepath.Join(tb.TempDir(), m.Metadata.Name+".oob.tar"), Program: "test",
		Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// Create creates a bundle and returns its path.
func Create(tb testing.TB, o create.Options) string {
	tb.Helper()
	r, err := create.Run(context.WithoutCancel(tb.Context()), o)
	if err != nil {
		tb.Fatal(err)
	}
	return r.Output
}

// Small creates a bundle of one small image and returns its bytes.
func Small(tb testing.TB, key *Key) []byte {
	tb.Helper()
	up := NewRegistry(tb, nil)
	ref := up.Push(tb, "team/app:1", Image("linux/amd64", Layer(File{"app", 0o755, []byte("hello\n")})))
	path := Create(tb, Options(tb, Manifest(tb, "small", ref), key, up))
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// Resign replaces index.json, signs it with the given keys, and keeps everything after the
// slot. Only a holder of the keys can do this.
func Resign(tb testing.TB, file []byte, root []byte, keys ...*Key) []byte {
	tb.Helper()
	head, err := bundle.ReadHead(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		tb.Fatal(err)
	}
	rest := file[head.SlotOffset()+bundle.SlotSize:]
	var signatures []bundle.Signature
	for _, k := range keys {
		s, err := k.Signer.Sign(root)
		if err != nil {
			tb.Fatal(err)
		}
		signatures = append(signatures, s)
	}
	slot, err := bundle.EncodeSlot(signatures)
	if err != nil {
		tb.Fatal(err)
	}
	out := append([]byte{}, file[:1024]...)
	out = append(out, Header(bundle.NameIndex, int64(len(root)))...)
	out = append(out, root...)
	out = append(out, make([]byte, -len(root)&511)...)
	out = append(out, Header(bundle.NameSignatures, bundle.SlotSize)...)
	out = append(out, slot...)
	return append(out, rest...)
}
