// Package sign makes keys and signatures, and writes signatures into the slot of
// a bundle. Keys are in cosign's formats. A signature is a Sigstore bundle over the
// bytes of index.json. Cosign can check signatures of this package, and this package
// can check signatures of cosign.
package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// Password returns the password of a private key. If confirm is true, the user must
// enter the password twice. An empty password is []byte{}, never nil.
type Password func(confirm bool) ([]byte, error)

// ErrKey reports that a key file cannot be used; the message gives the reason.
var ErrKey = errors.New("unusable key")

// ErrReadable reports that other users can read a private key.
var ErrReadable = errors.New("others can read it")

// maxKeyFile is the maximum size of a private key file, in bytes.
const maxKeyFile = 64 << 10

// Generate writes a new ECDSA P-256 pair: PREFIX.key, encrypted and with mode
// 0600, and PREFIX.pub. Generate never overwrites a file.
func Generate(prefix string, password Password) (private, public string, err error) {
	private, public = prefix+".key", prefix+".pub"
	for _, path := range []string{private, public} {
		if _, err := os.Lstat(path); err == nil {
			return "", "", fmt.Errorf("%w: %s; move it away, or choose another --output-prefix", fs.ErrExist, path)
		}
	}
	secret, err := password(true)
	if err != nil {
		return "", "", err
	}
	key, pub, err := newPair(secret)
	if err != nil {
		return "", "", err
	}
	if err := create(private, key, 0o600); err != nil {
		return "", "", err
	}
	if err := create(public, pub, 0o644); err != nil {
		return "", "", errors.Join(err, os.Remove(private))
	}
	return private, public, nil
}

// newPair returns a key in cosign's encrypted form and its public key, in PEM.
// The password is stretched with scrypt in 32 MiB (N 2^15), the parameters of cosign
// before 2.0, which current cosign still reads. The 64 MiB of current cosign would
// exceed the memory limit of create. The difference costs one bit of attacker's work.
func newPair(password []byte) (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	sealed, err := encrypted.EncryptWithCustomKDFParameters(der, password, encrypted.Legacy)
	if err != nil {
		return nil, nil, err
	}
	public, err = cryptoutils.MarshalPublicKeyToPEM(key.Public())
	return pem.EncodeToMemory(&pem.Block{Type: string(cryptoutils.EncryptedSigstorePrivateKeyPEMType), Bytes: sealed}), public, err
}

func create(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Signer is a private key ready for use.
type Signer struct {
	signer      signature.Signer
	Fingerprint bundle.Fingerprint
}

// Load reads a private key: cosign's encrypted form, PKCS #8 (encrypted or not),
// or the older EC and RSA forms. Load calls password only if the key needs one.
// Errors wrap ErrKey or ErrReadable, or are password's or the file system's.
func Load(path string, password Password) (*Signer, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	data, err := disk.ReadFile(path, maxKeyFile)
	if errors.Is(err, bundle.ErrLimit) {
		return nil, fmt.Errorf("%w: %s has more than %d bytes; that is no key", ErrKey, path, maxKeyFile)
	}
	if errors.Is(err, disk.ErrNotFile) {
		err = fmt.Errorf("%w: %w", ErrKey, err)
	}
	if err != nil {
		return nil, err
	}
	if data, err = bundle.PlainText(data); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrKey, err)
	}
	if err := checkPEM(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if runtime.GOOS != "windows" && fi.Mode().Perm()&0o077 != 0 {
		advice := disk.ModeAdvice(path, "chmod 600", "umask=077")
		return nil, fmt.Errorf("%s is a private key and %w (mode %04o); %s", path, ErrReadable, fi.Mode().Perm(), advice)
	}
	s, err := decode(data, password)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// checkPEM refuses data that is not one private key, before password is called.
func checkPEM(data []byte) error {
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return fmt.Errorf("%w: no PEM block in it", ErrKey)
	case block.Type == "PUBLIC KEY":
		return fmt.Errorf("%w: it is a public key; signing needs the private one (.key)", ErrKey)
	case block.Type == "OPENSSH PRIVATE KEY":
		return fmt.Errorf("%w: it is an OpenSSH key; make one with oob-bundle key generate", ErrKey)
	case len(bytes.TrimSpace(rest)) > 0:
		return fmt.Errorf("%w: something follows the key; one file holds one key", ErrKey)
	}
	return nil
}

func decode(data []byte, password Password) (*Signer, error) {
	var refused error // error of password: no terminal, or interrupted
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(data, func(confirm bool) ([]byte, error) {
		p, err := password(confirm)
		refused = err
		if p == nil {
			p = []byte{} // nil would skip decryption
		}
		return p, err
	})
	if refused != nil {
		return nil, refused
	}
	if err != nil {
		return nil, fmt.Errorf("%w: wrong password, or a damaged key (%w)", ErrKey, err)
	}
	public, ok := private.(interface{ Public() crypto.PublicKey })
	if !ok {
		return nil, fmt.Errorf("%w: keys of type %T cannot sign", ErrKey, private)
	}
	if err := publickey.CheckAlgorithm(public.Public()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	signer, err := signature.LoadSigner(private, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	fp, err := publickey.FingerprintOf(public.Public())
	return &Signer{signer, fp}, err
}

// Sign signs the bytes of index.json.
func (s *Signer) Sign(root []byte) (bundle.Signature, error) {
	sig, err := s.signer.SignMessage(bytes.NewReader(root))
	if err != nil {
		return bundle.Signature{}, err
	}
	return bundle.Signature{Key: s.Fingerprint, Digest: bundle.DigestOf(root), Bytes: sig}, nil
}

// SignReader signs the content of r. With an Ed25519 key, SignReader holds all of the
// content in memory, because the algorithm requires it.
func (s *Signer) SignReader(r io.Reader) (bundle.Signature, error) {
	hash := sha256.New()
	sig, err := s.signer.SignMessage(io.TeeReader(r, hash))
	if err != nil {
		return bundle.Signature{}, err
	}
	return bundle.Signature{Key: s.Fingerprint, Digest: bundle.DigestFrom(hash.Sum(nil)), Bytes: sig}, nil
}

// Public returns the public key.
func (s *Signer) Public() (crypto.PublicKey, error) { return s.signer.PublicKey() }
