package host

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// secrets maps names to the passwords of a deployment.
type secrets map[string]string

// Keeps reports whether the directory of a deployment contains passwords or data, even if the
// deployment is not installed.
func Keeps(root, name string) (bool, error) {
	for _, p := range []string{secretsPath(Base(root, name)), filepath.Join(Base(root, name), "data")} {
		if _, err := os.Lstat(p); err == nil {
			return true, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

func secretsPath(dir string) string { return filepath.Join(dir, "secrets.json") }

// readSecrets returns the passwords that were generated before.
func readSecrets(dir string) (secrets, error) {
	s := secrets{}
	err := ReadRecord(secretsPath(dir), "", &s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return secrets{}, nil
	case errors.Is(err, ErrState):
		return nil, fmt.Errorf("%w; put it back from a backup", err)
	case err != nil:
		return nil, err
	}
	return s, nil
}

// add generates the missing passwords. It keeps passwords that are not requested any more: a
// rollback may need them.
func (s secrets) add(asked []bundle.Secret) (secrets, error) {
	out := maps.Clone(s)
	for _, a := range asked {
		if out[a.Name] != "" {
			continue
		}
		p, err := password(a.Length)
		if err != nil {
			return nil, err
		}
		out[a.Name] = p
	}
	return out, nil
}

// keep writes the passwords to a file that only its owner can read.
func (s secrets) keep(dir string) error {
	data, err := bundle.Encode(s)
	if err != nil {
		return err
	}
	return disk.WriteFile(secretsPath(dir), append(data, '\n'), 0o600)
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func password(length int) (string, error) {
	b := make([]byte, length)
	for i := range b {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return "", err
		}
		b[i] = alphabet[n.Int64()]
	}
	return string(b), nil
}

// Mask returns a function that replaces the passwords of a deployment in a text by their
// names. If the passwords cannot be read, the function replaces the whole text.
func Mask(root, name string) func(text string) string {
	s, err := readSecrets(Base(root, name))
	if err != nil {
		return func(string) string { return "(not shown, because it may contain passwords)" }
	}
	return s.hide
}

// hide replaces the passwords in a text for display.
func (s secrets) hide(text string) string {
	var pairs []string
	for _, name := range sortedKeys(s) {
		if s[name] != "" {
			pairs = append(pairs, s[name], secretMask(name))
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
