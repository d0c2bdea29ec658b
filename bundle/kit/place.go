package kit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
)

// ReadMeName is the name of the page to read first on the medium.
const ReadMeName = "READ-ME-FIRST.txt"

// File is a file that Place wrote beside a bundle.
type File struct {
	Path   string
	About  string // short description
	Size   int64  // bytes
	Digest bundle.Digest
}

// CheckPlace refuses dir if it contains a file under one of the kit's names that is not
// part of a kit for the same bundle. Only ReadMeName identifies the bundle; for the
// other files, any file of a kit is accepted. The error wraps fs.ErrExist, or is the
// file system's.
func (p *Program) CheckPlace(dir, bundleName string) error {
	for name, ours := range map[string]func(path string) (bool, error){
		p.Name():             isProgram,
		p.Name() + ".sha256": func(path string) (bool, error) { return endsLike(path, "  "+p.Name()+"\n") },
		p.Name() + ".sigstore.json": func(path string) (bool, error) {
			return beginsLike(path, `{"mediaType":"application/vnd.dev.sigstore.bundle`)
		},
		ReadMeName: func(path string) (bool, error) { return beginsLike(path, readMeTitle(bundleName)) },
	} {
		path := filepath.Join(dir, name)
		fi, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		ok := fi.Mode().IsRegular()
		if ok {
			if ok, err = ours(path); err != nil {
				return err
			}
		}
		if !ok {
			return fmt.Errorf(
				"%w: %s, and it is not of this bundle; give each bundle that takes its installer along a directory of its own, with -o DIRECTORY/FILE",
				fs.ErrExist, path,
			)
		}
	}
	return nil
}

func isProgram(path string) (bool, error) {
	f, err := disk.OpenRegular(path)
	if err != nil {
		return false, err
	}
	return isOurs(f), f.Close()
}

// maxSmall is more than the size of the kit's small files, in bytes.
const maxSmall = 64 << 10

func beginsLike(path, text string) (bool, error) {
	data, err := readSmall(path)
	return bytes.HasPrefix(data, []byte(text)), err
}

func endsLike(path, text string) (bool, error) {
	data, err := readSmall(path)
	return len(data) == 64+len(text) && bytes.HasSuffix(data, []byte(text)), err
}

func readSmall(path string) ([]byte, error) {
	f, err := disk.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSmall))
	return data, errors.Join(err, f.Close())
}

// Place writes program, checksum, signature and the page to read first into dir. Each
// file is written atomically and durably. Errors wrap ErrProgram if the program
// changed since Open, or are the file system's.
func (p *Program) Place(dir string, signer *sign.Signer, about ReadMe) ([]File, error) {
	path := filepath.Join(dir, p.Name())
	digest, signature, err := p.copy(path, signer)
	if err != nil {
		return nil, err
	}
	public, err := signer.Public()
	if err != nil {
		return nil, err
	}
	about.Program, about.ProgramVersion, about.ProgramDigest = p.Name(), p.Version, digest
	about.Fingerprint, about.public = signer.Fingerprint, public
	text, err := about.text()
	if err != nil {
		return nil, err
	}
	files := []File{{path, "oob-bundle " + p.Version + " for " + p.Platform.String(), p.Size, digest}}
	for _, f := range []struct {
		path, about string
		data        []byte
	}{
		{path + ".sha256", "its checksum", []byte(digest.Hex() + "  " + p.Name() + "\n")},
		{path + ".sigstore.json", "its signature, by the key of the bundle", append(signature, '\n')},
		{filepath.Join(dir, ReadMeName), "how to check and use all this", text},
	} {
		if err := disk.WriteFile(f.path, f.data, 0o644); err != nil {
			return nil, err
		}
		files = append(files, File{f.path, f.about, int64(len(f.data)), bundle.DigestOf(f.data)})
	}
	return files, nil
}

// copy copies the program, and renames the copy to path after the copy is complete,
// checked, signed and durable.
func (p *Program) copy(path string, signer *sign.Signer) (digest bundle.Digest, signature []byte, err error) {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	out, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(name))
		}
	}()
	digest, signature, err = p.fill(out, signer)
	if err = errors.Join(err, out.Close()); err != nil {
		return "", nil, err
	}
	if err := os.Rename(name, path); err != nil {
		return "", nil, err
	}
	return digest, signature, disk.SyncDir(filepath.Dir(path))
}

func (p *Program) fill(out *os.File, signer *sign.Signer) (bundle.Digest, []byte, error) {
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, hash), io.NewSectionReader(p.File, 0, p.Size))
	if err != nil {
		return "", nil, err
	}
	changed := fmt.Errorf("%w: %s changed while it was copied; run the same command again", ErrProgram, p.File.Name())
	if _, err := check(out, p.Platform); err != nil || n != p.Size {
		return "", nil, changed
	}
	s, err := signer.SignReader(io.NewSectionReader(out, 0, n))
	if err != nil {
		return "", nil, err
	}
	if s.Digest != bundle.DigestFrom(hash.Sum(nil)) {
		return "", nil, changed
	}
	line, err := s.Encode()
	if err != nil {
		return "", nil, err
	}
	return s.Digest, line, errors.Join(out.Chmod(0o755), out.Sync())
}

func readMeTitle(bundleName string) string {
	return "READ ME FIRST: " + strings.Map(onLine, bundleName) + "\n"
}

// onLine replaces control characters, so that a name stays on one line.
func onLine(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}
