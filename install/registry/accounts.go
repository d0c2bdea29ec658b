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
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/verify/trust"
)

// ErrAccounts marks an accounts file that cannot be used.
var ErrAccounts = errors.New("accounts not usable")

// maxPassword is the number of password bytes that bcrypt uses.
const maxPassword = 72

// Accounts are the users that may pull, by name. They come from a file in the format of
// htpasswd -B, one NAME:BCRYPT per line. A file that changes is read again. While the file is
// unusable, no user may pull.
type Accounts struct {
	path string

	mu     sync.Mutex
	read   fs.FileInfo // the file when it was read, or nil
	logins *logins
}

// logins are the accounts from one reading of the file.
type logins struct {
	hashes  map[string][]byte // by name
	cost    int               // the highest cost of the hashes
	compare func(hash, password []byte) error
	gate    chan struct{} // limits the number of concurrent comparisons

	mu    sync.Mutex
	known map[[32]byte]bool // hashes of successful logins: bcrypt is slow on purpose
}

func newLogins(hashes map[string][]byte) *logins {
	l := &logins{
		hashes:  hashes,
		cost:    bcrypt.MinCost,
		compare: bcrypt.CompareHashAndPassword,
		gate:    make(chan struct{}, runtime.GOMAXPROCS(0)),
		known:   map[[32]byte]bool{},
	}
	for _, h := range hashes {
		l.cost = max(l.cost, costOf(h))
	}
	return l
}

// costOf returns the cost of a valid hash, or 0.
func costOf(hash []byte) int {
	cost, err := bcrypt.Cost(hash)
	if err != nil {
		return 0
	}
	return cost
}

// bcryptHash matches a complete bcrypt hash. A comparison with a damaged hash ends at once,
// and that timing would reveal that the account exists.
var bcryptHash = regexp.MustCompile(`^\$2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

var accountName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// Limits for an accounts file.
const (
	maxAccounts = 4 << 20 // bytes
	maxCost     = 17      // as in htpasswd; a comparison takes seconds at this cost
)

// ReadAccounts reads the file at path. Errors wrap ErrAccounts or trust.ErrWritable, or are
// the file system's.
func ReadAccounts(path string) (*Accounts, error) {
	fi, err := os.Stat(path) // before reading, so that a change during reading is noticed later
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
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a file", ErrAccounts, path)
	}
	if err := trust.RefuseWritable(path); err != nil {
		return nil, err
	}
	data, err := disk.ReadFile(path, maxAccounts)
	if errors.Is(err, bundle.ErrLimit) {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrAccounts, path, maxAccounts)
	}
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
		name, hash, _ := strings.Cut(line, ":")
		if hashes[name] != nil {
			return nil, fmt.Errorf("%w: %s, line %d: duplicate account", ErrAccounts, path, n)
		}
		if err := checkAccount(name, hash); err != nil {
			return nil, fmt.Errorf("%w: %s, line %d: %w", ErrAccounts, path, n, err)
		}
		hashes[name] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrAccounts, path, err)
	}
	if len(hashes) == 0 {
		return nil, fmt.Errorf("%w: %s has no account; add one with oob-bundle registry account or htpasswd -B",
			ErrAccounts, path)
	}
	return hashes, nil
}

// checkAccount returns an error for an invalid account. The error does not contain the line,
// because the line may contain a password.
func checkAccount(name, hash string) error {
	if hash == "" {
		return errors.New("not NAME:HASH; set the password with oob-bundle registry account or htpasswd -B")
	}
	if !accountName.MatchString(name) {
		return errors.New("the name has other characters than letters, digits and . _ @ -, or is too long")
	}
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || !bcryptHash.MatchString(hash) {
		return fmt.Errorf("%s is not supported, only bcrypt; "+
			"set the password again with oob-bundle registry account or htpasswd -B", hashFormat(hash))
	}
	if cost > maxCost {
		return fmt.Errorf("bcrypt cost %d; use at most %d, such as with htpasswd -B -C 12", cost, maxCost)
	}
	return nil
}

// hashFormat names the format of a hash that is not a bcrypt hash.
func hashFormat(hash string) string {
	for prefix, name := range map[string]string{
		"$apr1$": "MD5 (the default of htpasswd)", "$1$": "MD5", "{SHA}": "SHA-1 (htpasswd -s)", "{SSHA}": "SHA-1",
		"$5$": "SHA-256", "$6$": "SHA-512", "$argon2": "Argon2", "$7$": "scrypt", "$y$": "yescrypt", "$2": "a damaged bcrypt hash",
	} {
		if strings.HasPrefix(hash, prefix) {
			return name
		}
	}
	return "a password that is not hashed, or hashed with crypt"
}

// SetAccount sets the password of an account in the file at path, and creates the file if
// necessary. An empty password removes the account. Had reports whether the account existed.
// The caller must be the only writer. Errors wrap ErrAccounts, or are the file system's.
func SetAccount(path, name string, password []byte) (had bool, err error) {
	if !accountName.MatchString(name) {
		return false, fmt.Errorf("%w: %q is not a name of letters, digits and . _ @ -", ErrAccounts, name)
	}
	if len(password) > maxPassword {
		return false, fmt.Errorf("%w: a password has at most %d bytes", ErrAccounts, maxPassword)
	}
	old, err := disk.ReadFile(path, maxAccounts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(string(old)), "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), name+":"): // compared as the reader does
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
	return had, disk.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// Protect passes a request to next only with a valid login.
func (a *Accounts) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, ok := r.BasicAuth()
		if !ok || !a.current().good(name, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="oob-bundle registry"`)
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"a login is needed"}]}`)) // the client may be gone
			return
		}
		next.ServeHTTP(w, r)
	})
}

// dummyHash returns a well-formed hash of the given cost with no known password.
func dummyHash(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$7EqJtq98hPqEX7fNZaFWoOhi5BkX4Yq9uGkHn6gk8M1bXW9e5cN9K", cost)
}

// good reports whether a login is valid. An invalid login takes the same time for every name,
// known or unknown: that of one comparison at the highest cost in the file.
func (l *logins) good(name, password string) bool {
	login := sha256.Sum256([]byte(name + "\x00" + password))
	l.mu.Lock()
	known := l.known[login]
	l.mu.Unlock()
	if known {
		return true
	}
	if len(password) > maxPassword {
		return false
	}
	l.gate <- struct{}{}
	defer func() { <-l.gate }()
	hash, exists := l.hashes[name]
	if !exists {
		hash = dummyHash(l.cost)
	}
	equal := l.compare(hash, []byte(password)) == nil
	// The time doubles with the cost: comparisons at costs c, c, c+1, … up to max-1 together
	// take as long as one at max.
	for cost := costOf(hash); cost < l.cost; cost++ {
		_ = l.compare(dummyHash(cost), []byte(password)) // only for the time
	}
	if !equal || !exists {
		return false
	}
	l.mu.Lock()
	l.known[login] = true
	l.mu.Unlock()
	return true
}

// current returns the logins of the present file, so that a removed account is refused at
// once.
func (a *Accounts) current() *logins {
	a.mu.Lock()
	defer a.mu.Unlock()
	fi, err := os.Stat(a.path)
	if err == nil && a.read != nil && sameFile(fi, a.read) {
		return a.logins
	}
	var hashes map[string][]byte
	if err == nil {
		hashes, err = readHashes(a.path)
	}
	a.read, a.logins = fi, newLogins(hashes)
	if err != nil {
		a.read = nil // read again with the next request
	}
	return a.logins
}

// sameFile reports whether a file is unchanged.
func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}
