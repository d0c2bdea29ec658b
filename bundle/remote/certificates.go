package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// certificates are the TLS files that Docker and podman use for one host
// (containers-certs.d(5)): authorities in *.crt, client certificates in *.cert, each
// with its key in *.key.
type certificates struct {
	authorities [][]byte // PEM
	clients     []tls.Certificate
}

// certificateDirs returns the directories that contain one subdirectory per host.
func certificateDirs() []string {
	dirs := []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append([]string{filepath.Join(home, ".config/containers/certs.d")}, dirs...)
	}
	return dirs
}

// certificatesOf reads the certificates for HOST[:PORT].
func certificatesOf(host string) (c certificates, err error) {
	if host == "" || strings.Trim(host, ".") == "" || strings.ContainsAny(host, `/\`) {
		return c, nil // not usable as a directory name
	}
	for _, dir := range certificateDirs() {
		if err := c.read(filepath.Join(dir, host)); err != nil {
			return c, err
		}
	}
	return c, nil
}

// read adds the certificates in one directory. Like podman, it treats a directory that is
// missing or not readable as empty.
func (c *certificates) read(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		base, kind := strings.TrimSuffix(path, filepath.Ext(path)), filepath.Ext(path)
		name := strings.TrimSuffix(e.Name(), kind)
		switch {
		case kind == ".crt":
			pem, err := readPEM(path)
			if err != nil {
				return err
			}
			c.authorities = append(c.authorities, pem)
		case kind == ".cert" && !names[name+".key"]:
			return fmt.Errorf(
				"%w: the client certificate %s has no key: %s.key is missing (the certificate of an authority ends in .crt)",
				ErrRegistry, path, base,
			)
		case kind == ".key" && !names[name+".cert"]:
			return fmt.Errorf("%w: the key %s has no client certificate: %s.cert is missing", ErrRegistry, path, base)
		case kind == ".cert":
			pair, err := loadPair(path, base+".key")
			if err != nil {
				return err
			}
			c.clients = append(c.clients, pair)
		}
	}
	return nil
}

func readPEM(path string) ([]byte, error) {
	data, err := disk.ReadFile(path, maxCertificates)
	if err != nil {
		return nil, err
	}
	if data, err = bundle.PlainText(data); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrRegistry, path, err)
	}
	return data, nil
}

func loadPair(certFile, keyFile string) (pair tls.Certificate, err error) {
	cert, err := readPEM(certFile)
	if err != nil {
		return pair, err
	}
	key, err := readPEM(keyFile)
	if err != nil {
		return pair, err
	}
	if pair, err = tls.X509KeyPair(cert, key); err != nil {
		return pair, fmt.Errorf("%w: the client certificate %s with the key %s: %w", ErrRegistry, certFile, keyFile, err)
	}
	return pair, nil
}

// tlsConfig returns the TLS configuration for target, on behalf of a registry. The
// registry's authorities are also trusted for hosts to which the registry leads. A client
// certificate is sent only to its own host.
func (c *Client) tlsConfig(registry, target string) (*tls.Config, error) {
	certs, err := certificatesOf(target)
	if err != nil {
		return nil, err
	}
	authorities := certs.authorities
	if target != registry {
		more, err := certificatesOf(registry)
		if err != nil {
			return nil, err
		}
		authorities = append(authorities, more.authorities...)
	}
	return &tls.Config{RootCAs: withAuthorities(c.roots, authorities), Certificates: certs.clients, MinVersion: tls.VersionTLS12}, nil
}

func withAuthorities(roots *x509.CertPool, authorities [][]byte) *x509.CertPool {
	if len(authorities) == 0 {
		return roots
	}
	roots = roots.Clone()
	for _, pem := range authorities {
		roots.AppendCertsFromPEM(pem)
	}
	return roots
}

// refusedCertificate reports whether a server ended the handshake because this side's
// certificate was wrong or missing. crypto/tls exports no type for these errors.
func refusedCertificate(err error) bool {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return false
	}
	reason := strings.TrimPrefix(op.Err.Error(), "tls: ") // RFC 8446, section 6.2
	return slices.Contains([]string{"certificate required", "bad certificate", "unknown certificate authority"}, reason)
}
