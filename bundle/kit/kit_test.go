package kit_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/kit"
	"github.com/oob-bundle/oob-bundle/bundle/record"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

const ours = "github.com/oob-bundle/oob-bundle/cmd/oob-bundle"

func here() bundle.Platform { return bundle.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// changed copies a program, applies change to the bytes and returns the path of the copy.
func changed(t *testing.T, program string, change func(data []byte)) string {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	change(data)
	path := filepath.Join(t.TempDir(), "changed")
	world.Write(t, path, data, 0o755)
	return path
}

// TestOpen checks that Open accepts only a static oob-bundle for the right platform.
func TestOpen(t *testing.T) {
	program := world.Program(t, ours)
	p, err := kit.Open(program, here())
	if err != nil {
		t.Fatal(err)
	}
	if p.Name() != "oob-bundle_linux-"+runtime.GOARCH || p.Version != "devel" || p.Close() != nil {
		t.Errorf("%s %s", p.Name(), p.Version)
	}
	text := filepath.Join(t.TempDir(), "script")
	world.Write(t, text, []byte("#!/bin/sh\n"), 0o755)
	other := bundle.Platform{OS: "linux", Architecture: "s390x"}
	for name, test := range map[string]struct {
		path     string
		platform bundle.Platform
		want     string
	}{
		"another program": {world.Program(t, strings.TrimSuffix(ours, "oob-bundle")+"other"), here(), "cmd/other, not oob-bundle"},
		"a script":        {text, here(), "is not a Linux program"},
		"another platform": {program, other, "was built for linux/" + runtime.GOARCH + ", and the bundle is for " +
			"linux/s390x; give the release for linux/s390x"},
		"Windows": {program, bundle.Platform{OS: "windows", Architecture: runtime.GOARCH}, "only a Linux program"},
		"another processor": {
			changed(t, program, func(data []byte) { binary.LittleEndian.PutUint16(data[18:], uint16(elf.EM_S390)) }),
			here(), "is for the processor EM_S390",
		},
		"an interpreter": {changed(t, program, interpreted), here(), "needs libraries"},
		"a directory":    {t.TempDir(), here(), "is not a file"},
		"a cut program":  {changed(t, program, func(data []byte) { clear(data[len(data)/3:]) }), here(), "is not a"},
	} {
		p, err := kit.Open(test.path, test.platform)
		if p != nil || !errors.Is(err, kit.ErrProgram) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := kit.Open(filepath.Join(t.TempDir(), "none"), here()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// interpreted turns the first program header that is not PT_LOAD (ELF-64) into
// PT_INTERP.
func interpreted(data []byte) {
	at, size, n := binary.LittleEndian.Uint64(
		data[32:],
	), uint64(
		binary.LittleEndian.Uint16(data[54:]),
	), uint64(
		binary.LittleEndian.Uint16(data[56:]),
	)
	for k := range n {
		if kind := data[at+k*size:]; elf.ProgType(binary.LittleEndian.Uint32(kind)) != elf.PT_LOAD {
			binary.LittleEndian.PutUint32(kind, uint32(elf.PT_INTERP))
			return
		}
	}
	panic("no such header")
}

func about(name string) kit.ReadMe {
	return kit.ReadMe{
		Bundle: record.About{Digest: bundle.DigestOf(nil), Name: "demo", Version: "1.0.0", Platforms: []string{"linux/amd64"}},
		Name:   name, Public: "oob.pub", Record: name + ".html",
	}
}

// placeTwice places the files of a kit twice; the second time replaces the first.
func placeTwice(t *testing.T, p *kit.Program, dir string, key *world.Key) (files []kit.File) {
	t.Helper()
	for range 2 {
		if err := p.CheckPlace(dir, "a.oob.tar"); err != nil {
			t.Fatal(err)
		}
		var err error
		if files, err = p.Place(dir, key.Signer, about("a.oob.tar")); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestPlace(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	program := world.Program(t, ours)
	for name, key := range map[string]*world.Key{"ECDSA": world.NewKey(t), "Ed25519": world.KeyOf(t, private)} {
		p, err := kit.Open(program, here())
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		dir := t.TempDir()
		files := placeTwice(t, p, dir, key)
		read := func(k int) []byte {
			data, err := os.ReadFile(files[k].Path)
			if err != nil || bundle.DigestOf(data) != files[k].Digest || int64(len(data)) != files[k].Size {
				t.Errorf("%s: %s is not what is told of it: %v", name, files[k].Path, err)
			}
			return data
		}
		copied := read(0)
		original, err := os.ReadFile(program)
		if err != nil || !slices.Equal(copied, original) {
			t.Errorf("%s: the program is not the same (%v)", name, err)
		}
		if fi, err := os.Stat(files[0].Path); err != nil || fi.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
		if got := string(read(1)); got != files[0].Digest.Hex()+"  "+p.Name()+"\n" {
			t.Errorf("%s: the checksum is %q", name, got)
		}
		var s struct {
			MessageSignature struct{ Signature []byte }
		}
		if err := json.Unmarshal(read(2), &s); err != nil {
			t.Fatal(err)
		}
		if err := key.Trusted.Verify(copied, s.MessageSignature.Signature); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if text := string(
			read(3),
		); strings.Contains(text, "pkeyutl -verify") != (name == "Ed25519") ||
			!strings.Contains(text, string(files[0].Digest)) {
			t.Errorf("%s: %s", name, text)
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != 4 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

// TestCheckPlace checks that no foreign file, and no kit of another bundle, is replaced.
func TestCheckPlace(t *testing.T) {
	p, err := kit.Open(world.Program(t, ours), here())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, name := range []string{p.Name(), p.Name() + ".sha256", p.Name() + ".sigstore.json", kit.ReadMeName} {
		dir := t.TempDir()
		world.Write(t, filepath.Join(dir, name), []byte("mine\n"), 0o644)
		if err := p.CheckPlace(
			dir,
			"a.oob.tar",
		); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), name) ||
			!strings.Contains(err.Error(), "-o DIRECTORY/FILE") {
			t.Errorf("%s would be replaced: %v", name, err)
		}
	}
	dir := t.TempDir()
	if _, err := p.Place(dir, world.NewKey(t).Signer, about("a.oob.tar")); err != nil {
		t.Fatal(err)
	}
	if err := p.CheckPlace(dir, "b.oob.tar"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("what is about a.oob.tar would be replaced: %v", err)
	}
}
