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
// NAME:BCRYPT a line. A file that changes is read again; while it cannot be used,
// nobody may.
type Accounts struct {
	path string

	mu     sync.Mutex
	read   fs.FileInfo // the file when it was read, or nil
	logins *logins
}

// logins are what one reading of the file says.
type logins struct {
	hashes map[string][]byte // by name

	mu    sync.Mutex
	known map[[32]byte]bool // logins that were good, hashed: bcrypt is slow on purpose
}

func newLogins(hashes map[string][]byte) *logins {
	return &logins{hashes: hashes, known: map[[32]byte]bool{}}
}

var accountName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// ReadAccounts reads the file at path. Errors wrap ErrAccounts, or are the file
// system's.
func ReadAccounts(path string) (*Accounts, error) {
	fi, err := os.Stat(path) // before it is read: what changes then is seen later
	if err != nil {
		return nil, err
	}
	hashes, err := readHashes(path)
	if err != nil {
		return nil, err
	}
	return &Accounts{path: path, read: fi, logins: newLogins(hashes)}, nil
}

func readHashes(path string) (map[string][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	hashes := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || !accountName.MatchString(name) || err != nil || hashes[name] != nil {
			return nil, fmt.Errorf("%w: %s, line %d is not NAME:BCRYPT, as htpasswd -B or oob-bundle registry account write it, or the name is there twice", ErrAccounts, path, n)
		}
		hashes[name] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrAccounts, path, err)
	}
	if len(hashes) == 0 {
		return nil, fmt.Errorf("%w: %s names nobody", ErrAccounts, path)
	}
	return hashes, nil
}

// SetAccount gives an account a password in the file at path, which is made if
// it is not there; an empty password removes the account. It reports whether there
// was one of that name. The caller is the only writer. Errors wrap ErrAccounts, or
// are the file system's.
func SetAccount(path, name string, password []byte) (had bool, err error) {
	if !accountName.MatchString(name) {
		return false, fmt.Errorf("%w: %q is not a name of letters, digits and . _ @ -", ErrAccounts, name)
	}
	if len(password) > maxPassword {
		return false, fmt.Errorf("%w: a password has at most %d bytes", ErrAccounts, maxPassword)
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(string(old)), "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), name+":"): // as it is read
			had = true
		case line != "":
			lines = append(lines, line)
		}
	}
	if !had && len(password) == 0 {
		return false, nil
	}
	if len(password) > 0 {
		hash, err := bcrypt.GenerateFromPassword(password, bcrypt.DefaultCost)
		if err != nil {
			return had, err
		}
		lines = append(lines, name+":"+string(hash))
	}
	slices.Sort(lines)
	return had, bundle.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// Protect lets requests through to next only with a good login.
func (a *Accounts) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, ok := r.BasicAuth()
		if !ok || !a.current().good(name, password) {
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

func (l *logins) good(name, password string) bool {
	login := sha256.Sum256([]byte(name + "\x00" + password))
	l.mu.Lock()
	known := l.known[login]
	l.mu.Unlock()
	if known {
		return true
	}
	hash, ok := l.hashes[name]
	if !ok {
		hash = nobody
	}
	if len(password) > maxPassword || bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !ok {
		return false
	}
	l.mu.Lock()
	l.known[login] = true
	l.mu.Unlock()
	return true
}

// current returns the logins of the file as it is now: who was removed is out at
// once.
func (a *Accounts) current() *logins {
	a.mu.Lock()
	defer a.mu.Unlock()
	fi, err := os.Stat(a.path)
	if err == nil && a.read != nil && os.SameFile(fi, a.read) && fi.ModTime().Equal(a.read.ModTime()) && fi.Size() == a.read.Size() {
		return a.logins
	}
	var hashes map[string][]byte
	if err == nil {
		hashes, err = readHashes(a.path)
	}
	a.read, a.logins = fi, newLogins(hashes)
	if err != nil {
		a.read = nil // it is looked at again
	}
	return a.logins
}
