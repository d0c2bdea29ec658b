package registry

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// ErrAccounts says that a file of accounts cannot be used.
var ErrAccounts = errors.New("accounts not usable")

// maxPassword is what bcrypt looks at, in bytes.
const maxPassword = 72

// Accounts are those who may pull, by name: a file as htpasswd -B writes it, one
// NAME:BCRYPT a line.
type Accounts struct {
	hashes map[string][]byte

	mu    sync.Mutex
	known map[[32]byte]bool // logins that were good, hashed: bcrypt is slow on purpose
}

var accountName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// ReadAccounts reads the file at path. Errors wrap ErrAccounts, or are the file
// system's.
func ReadAccounts(path string) (*Accounts, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	a := &Accounts{hashes: map[string][]byte{}, known: map[[32]byte]bool{}}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || !accountName.MatchString(name) || err != nil || a.hashes[name] != nil {
			return nil, fmt.Errorf("%w: %s, line %d is not NAME:BCRYPT, as htpasswd -B or oob-bundle registry account write it, or the name is there twice", ErrAccounts, path, n)
		}
		a.hashes[name] = []byte(hash)
	}
	if len(a.hashes) == 0 {
		return nil, fmt.Errorf("%w: %s names nobody", ErrAccounts, path)
	}
	return a, lines.Err()
}

// SetAccount gives an account a password in the file at path, which is made if
// it is not there; an empty password removes the account. The caller is the only
// writer. Errors wrap ErrAccounts, or are the file system's.
func SetAccount(path, name string, password []byte) error {
	if !accountName.MatchString(name) {
		return fmt.Errorf("%w: %q is not a name of letters, digits and . _ @ -", ErrAccounts, name)
	}
	if len(password) > maxPassword {
		return fmt.Errorf("%w: a password has at most %d bytes", ErrAccounts, maxPassword)
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(string(old)), "\n") {
		if line != "" && !strings.HasPrefix(line, name+":") {
			lines = append(lines, line)
		}
	}
	if len(password) > 0 {
		hash, err := bcrypt.GenerateFromPassword(password, bcrypt.DefaultCost)
		if err != nil {
			return err
		}
		lines = append(lines, name+":"+string(hash))
	}
	slices.Sort(lines)
	return bundle.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// Protect lets requests through to next only with a good login.
func (a *Accounts) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, ok := r.BasicAuth()
		if !ok || !a.good(name, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="oob-bundle registry"`)
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"a login is needed"}]}`)) // the client may have gone
			return
		}
		next.ServeHTTP(w, r)
	})
}

// nobody is compared with where there is no such account, so that the time says
// nothing about names.
var nobody = []byte("$2a$10$7EqJtq98hPqEX7fNZaFWoOhi5BkX4Yq9uGkHn6gk8M1bXW9e5cN9K")

func (a *Accounts) good(name, password string) bool {
	login := sha256.Sum256([]byte(name + "\x00" + password))
	a.mu.Lock()
	known := a.known[login]
	a.mu.Unlock()
	if known {
		return true
	}
	hash, ok := a.hashes[name]
	if !ok {
		hash = nobody
	}
	if len(password) > maxPassword || bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !ok {
		return false
	}
	a.mu.Lock()
	a.known[login] = true
	a.mu.Unlock()
	return true
}
