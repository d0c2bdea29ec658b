package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// ErrCertificate marks a certificate that cannot be used.
var ErrCertificate = errors.New("certificate not usable")

// SiteCertificate is the certificate that a site makes for its own registry.
type SiteCertificate struct {
	CA, Certificate, Key string // paths; clients need CA
}

// CertificateOf returns the paths of the certificate of the registry below root.
func CertificateOf(root string) SiteCertificate {
	dir := filepath.Join(root, "tls")
	return SiteCertificate{filepath.Join(dir, "ca.crt"), filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")}
}

// Clocks on isolated networks are often wrong. A certificate made today must be valid on a
// machine whose clock is years off.
var (
	validFrom  = time.Unix(0, 0).UTC() // initial time of a clock without a battery
	validUntil = time.Date(2099, 12, 31, 23, 59, 59, 0, time.UTC)
)

// LoadOrMake loads the certificate of the registry below root, or makes one for the given host
// names and addresses. The authority signs only this one certificate. Its private key is never
// written, so that nobody can sign another certificate. Made reports whether the certificate
// is new. Errors wrap ErrCertificate if the existing certificate is for other names, or are
// the file system's.
func LoadOrMake(root string, names []string) (cert tls.Certificate, made bool, err error) {
	s := CertificateOf(root)
	if _, err := os.Stat(s.Certificate); errors.Is(err, fs.ErrNotExist) {
		if err := s.make(names); err != nil {
			return cert, false, err
		}
		made = true
	}
	if cert, err = LoadCertificate(s.Certificate, s.Key); err != nil {
		return cert, made, err
	}
	for _, n := range names {
		if err := cert.Leaf.VerifyHostname(n); err != nil {
			return cert, made, fmt.Errorf(
				"%w: %s is not for %s; remove %s to have one made that is, and give its ca.crt to the clients again",
				ErrCertificate, s.Certificate, n, filepath.Dir(s.CA),
			)
		}
	}
	return cert, made, nil
}

// DateProblem describes a problem with the dates of a certificate at the given time of this
// machine's clock, or returns "". Clients compare the dates with their own clocks.
func DateProblem(cert *x509.Certificate, now time.Time) string {
	const day = "2006-01-02"
	today := now.UTC().Format(day)
	switch {
	case cert == nil:
		return ""
	case now.Before(cert.NotBefore):
		return fmt.Sprintf(
			"the certificate is not valid before %s, and the clock of this machine is at %s; set the clock",
			cert.NotBefore.UTC().Format(day), today,
		)
	case now.After(cert.NotAfter):
		return fmt.Sprintf(
			"the certificate was valid until %s, and the clock of this machine is at %s; renew it, or set the clock",
			cert.NotAfter.UTC().Format(day), today,
		)
	}
	return ""
}

// maxCertificate limits a file with a certificate chain or a key, in bytes.
const maxCertificate = 1 << 20

// LoadCertificate loads a certificate and its key. It refuses a key that other users can read.
func LoadCertificate(certFile, keyFile string) (tls.Certificate, error) {
	fi, err := os.Stat(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	if filepath.Separator == '/' && fi.Mode().Perm()&0o077 != 0 {
		advice := disk.ModeAdvice(keyFile, "chmod 600", "umask=077")
		return tls.Certificate{}, fmt.Errorf("%w: others can read %s (mode %04o); %s", ErrCertificate, keyFile, fi.Mode().Perm(), advice)
	}
	cert, err := readPEM(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readPEM(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return pair, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return pair, nil
}

func readPEM(path string) ([]byte, error) {
	data, err := disk.ReadFile(path, maxCertificate)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if data, err = bundle.PlainText(data); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCertificate, path, err)
	}
	return data, nil
}

func (s SiteCertificate) make(names []string) error {
	if len(names) == 0 {
		return fmt.Errorf("%w: it needs the names by which clients will call this host", ErrCertificate)
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca, err := template("oob-bundle registry of " + names[0])
	if err != nil {
		return err
	}
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage, ca.MaxPathLenZero = true, true, x509.KeyUsageCertSign, true
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf, err := template(names[0])
	if err != nil {
		return err
	}
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, strings.ToLower(n))
		}
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.CA), 0o755); err != nil {
		return err
	}
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	leafPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER})
	// The certificate is written last: if it exists, the other files exist.
	if err := disk.WriteFile(s.CA, caPEM, 0o644); err != nil {
		return err
	}
	if err := disk.WriteFile(s.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return disk.WriteFile(s.Certificate, append(leafPEM, caPEM...), 0o644)
}

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name[:min(len(name), 64)]},
		NotBefore:    validFrom,
		NotAfter:     validUntil,
	}, nil
}
