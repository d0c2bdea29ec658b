package pull

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/manifests"
)

const (
	// maxPlugin bounds a plugin's archive, in bytes: the server stores at most this much
	// of an upload.
	maxPlugin = 1 << 30
	// maxPluginSignature bounds a detached signature, in bytes. A signature by a 4,096-bit
	// key has 566.
	maxPluginSignature = 64 << 10
)

// Plugin is a plugin that was fetched and inspected.
type Plugin struct {
	Wanted    manifests.WantedPlugin
	About     PluginManifest
	Archive   bundle.Descriptor // digest and size of the .tar.gz
	Signature []byte            // nil if there is none
	Key       []byte            // the key that made Signature; nil if Mattermost servers include it
	Checks    []string          // the checks that it passed, for the lock

	content Fetcher
}

// Content returns the source of the archive.
func (p *Plugin) Content() Fetcher { return p.content }

// plugin fetches a plugin into dir and checks it. If an earlier run's download fails the
// checks, plugin fetches it again: upstream may have replaced it. Errors wrap
// remote.ErrRegistry, bundle.ErrSignature, bundle.ErrPolicy, bundle.ErrDigest,
// bundle.ErrLimit or bundle.ErrFormat.
func (s *Source) plugin(ctx context.Context, w manifests.WantedPlugin, platforms []bundle.Platform, dir string) (*Plugin, error) {
	for {
		path, earlier, err := s.download(ctx, w.URL, dir, maxPlugin, pinOf(w.SHA256))
		if err != nil {
			return nil, err
		}
		p, err := s.checkPlugin(ctx, w, path, platforms)
		if err == nil || filepath.Dir(path) != filepath.Clean(dir) { // valid, or a local file of the author
			return p, err
		}
		wrong := slices.ContainsFunc(
			[]error{bundle.ErrDigest, bundle.ErrSignature, bundle.ErrFormat, bundle.ErrPolicy, bundle.ErrLimit},
			func(class error) bool { return errors.Is(err, class) },
		)
		if !wrong || ctx.Err() != nil {
			return nil, err // the download may be valid: keep it
		}
		if err := errors.Join(os.Remove(path), err); !earlier {
			return nil, err
		}
	}
}

func (s *Source) checkPlugin(
	ctx context.Context, w manifests.WantedPlugin, path string, platforms []bundle.Platform,
) (p *Plugin, err error) {
	p = &Plugin{Wanted: w}
	p.content = File(path)
	if p.Archive, err = describe(path, bundle.TypePluginArchive); err != nil {
		return nil, err
	}
	if w.SHA256 != "" {
		if p.Archive.Digest.Hex() != w.SHA256 {
			return nil, fmt.Errorf("%w: it has the sha256 %s, and the manifest says %s", bundle.ErrDigest, p.Archive.Digest.Hex(), w.SHA256)
		}
		p.Checks = append(p.Checks, checkPinned)
	}
	if w.Signature != "" {
		if p.Signature, err = s.small(ctx, w.Signature, maxPluginSignature); err != nil {
			return nil, fmt.Errorf("its signature: %w", missingSignature(err))
		}
		by, key, err := checkOpenPGP(path, p.Signature, w.Keys)
		if err != nil {
			return nil, err
		}
		if !manifests.ServerHas(key.Data) {
			p.Key = key.Data
		}
		p.Checks = append(p.Checks, "OpenPGP signature by "+by)
	} else if w.SHA256 == "" {
		return nil, fmt.Errorf("%w: it has neither a signature nor a sha256; one of them has to say that it is the right one", bundle.ErrPolicy)
	}
	if p.About, err = inspectPlugin(ctx, path, platforms); err != nil {
		return nil, err
	}
	if w.ID != "" && w.ID != p.About.ID {
		return nil, fmt.Errorf("%w: its plugin.json says that it is %q, and the manifest that it is %q", bundle.ErrPolicy, p.About.ID, w.ID)
	}
	if w.Version != "" && strings.TrimPrefix(w.Version, "v") != strings.TrimPrefix(p.About.Version, "v") {
		return nil, fmt.Errorf("%w: its plugin.json says version %q, and the manifest %q", bundle.ErrPolicy, p.About.Version, w.Version)
	}
	return p, nil
}

func missingSignature(err error) error {
	if errors.Is(err, remote.ErrNotFound) {
		return fmt.Errorf("%w\nwithout one the plugin can be pinned: take signature out and give sha256", err)
	}
	return err
}

// checkOpenPGP verifies a detached signature, binary or armored. It returns the
// fingerprint of the key that made the signature, and the key.
func checkOpenPGP(path string, signature []byte, keys []manifests.Key) (by string, key manifests.Key, err error) {
	defer func() { // the library has panicked on hostile packets in the past
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: the signature cannot be read", bundle.ErrSignature)
		}
	}()
	var ring openpgp.EntityList
	var names []string
	for _, k := range keys {
		list, err := readKeyRing(k.Data)
		if err != nil {
			return "", key, fmt.Errorf("%w: the key %s is not an OpenPGP public key: %w", manifests.ErrInvalid, k.Name, err)
		}
		ring, names = append(ring, list...), append(names, k.Name)
	}
	f, err := disk.OpenRegular(path)
	if err != nil {
		return "", key, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	check := openpgp.CheckDetachedSignature
	if bytes.HasPrefix(bytes.TrimSpace(signature), []byte("-----BEGIN ")) {
		check = openpgp.CheckArmoredDetachedSignature
	}
	signer, err := check(ring, f, bytes.NewReader(signature), nil)
	if err != nil {
		return "", key, fmt.Errorf("%w: it is not signed by %s: %w", bundle.ErrSignature, strings.Join(names, " or "), err)
	}
	// The server does not read newer kinds of keys (golang.org/x/crypto/openpgp).
	switch signer.PrimaryKey.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoDSA, packet.PubKeyAlgoECDSA:
	default:
		return "", key, fmt.Errorf(
			"%w: it is signed by a key of a kind that Mattermost servers do not read; sign it with an RSA key",
			bundle.ErrSignature,
		)
	}
	for _, k := range keys {
		list, err := readKeyRing(k.Data)
		if err == nil && slices.ContainsFunc(list, func(e *openpgp.Entity) bool {
			return bytes.Equal(e.PrimaryKey.Fingerprint, signer.PrimaryKey.Fingerprint)
		}) {
			key = k
			break
		}
	}
	return strings.ToUpper(hex.EncodeToString(signer.PrimaryKey.Fingerprint)), key, nil
}

func readKeyRing(data []byte) (openpgp.EntityList, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN ")) {
		return openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	}
	return openpgp.ReadKeyRing(bytes.NewReader(data))
}

// describe returns the digest and size of a file.
func describe(path, mediaType string) (d bundle.Descriptor, err error) {
	f, err := disk.OpenRegular(path)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return bundle.Descriptor{MediaType: mediaType, Digest: bundle.DigestFrom(h.Sum(nil)), Size: n}, err
}

// pinOf returns a hexadecimal sha256 as a digest, or "" for "".
func pinOf(sha256 string) bundle.Digest {
	if sha256 == "" {
		return ""
	}
	return bundle.Digest("sha256:" + sha256)
}

// download fetches a URL into dir and returns the file's path. earlier reports that the
// file was there already. A local path is returned unchanged. A digest that is not empty
// selects between the bytes as sent and the decoded bytes. The caller must check the digest.
func (s *Source) download(ctx context.Context, from, dir string, limit int64, digest bundle.Digest) (path string, earlier bool, err error) {
	if !strings.Contains(from, "://") {
		fi, err := os.Stat(from)
		if err == nil && fi.Size() > limit && limit != maxFirstUse {
			err = fmt.Errorf("%w: it has %d bytes, at most %d are allowed", bundle.ErrLimit, fi.Size(), limit)
		}
		return from, false, err
	}
	path = downloadPath(dir, from)
	alone := s.alone(path)
	alone.Lock()
	defer alone.Unlock()
	if _, err := os.Lstat(path); err == nil {
		return path, true, nil // complete; the caller checks the content
	}
	return path, false, s.downloadTo(ctx, path, from, limit, digest)
}

// alone returns the mutex of one download.
func (s *Source) alone(path string) *sync.Mutex {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.downloads == nil {
		s.downloads = map[string]*sync.Mutex{}
	}
	if s.downloads[path] == nil {
		s.downloads[path] = &sync.Mutex{}
	}
	return s.downloads[path]
}

func (s *Source) downloadTo(ctx context.Context, path, from string, limit int64, digest bundle.Digest) error {
	dir := filepath.Dir(path)
	page, err := s.page(from)
	if err != nil {
		return err
	}
	d, err := page.Describe(ctx, digest)
	if err != nil {
		return err
	}
	if d.Size > limit {
		return fmt.Errorf("%w: it has %d bytes, at most %d are allowed", bundle.ErrLimit, d.Size, limit)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := disk.Need(dir, d.Size, 1, d.Size); err != nil {
		return err
	}
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = page.Fetch(ctx, d, f, nil)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(path+".new", path), disk.SyncDir(dir))
}

func downloadPath(dir, from string) string {
	return filepath.Join(dir, bundle.DigestOf([]byte(from)).Hex())
}

// small reads a small file from a URL or a path.
func (s *Source) small(ctx context.Context, from string, limit int64) ([]byte, error) {
	if strings.Contains(from, "://") {
		page, err := s.page(from)
		if err != nil {
			return nil, err
		}
		return page.Document(ctx, limit)
	}
	return disk.ReadFile(from, limit)
}
