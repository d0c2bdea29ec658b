package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/oob-bundle/oob-bundle/verify/trust"
)

// hashOf returns a hash as htpasswd writes it.
func hashOf(t *testing.T, password string, cost int) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(hash), "$2a$", "$2y$", 1)
}

func accountsFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "accounts")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAccountsTakeTheSameTime: an invalid login costs the same for every name, whether or not
// the account exists, and whatever the costs in the file.
func TestAccountsTakeTheSameTime(t *testing.T) {
	for name, c := range map[string]struct {
		costs []int
		work  int // rounds of an invalid login
	}{
		"as htpasswd -B":  {[]int{5}, 1 << 5},
		"as this program": {[]int{6, 6}, 1 << 6},
		"mixed":           {[]int{4, 5, 7}, 1 << 7},
		"far apart":       {[]int{9, 4}, 1 << 9},
	} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			for i, cost := range c.costs {
				fmt.Fprintf(&text, "user%d:%s\n", i, hashOf(t, "right", cost))
			}
			a, err := ReadAccounts(accountsFile(t, text.String()))
			if err != nil {
				t.Fatal(err)
			}
			work := 0
			compare := a.logins.compare
			a.logins.compare = func(hash, password []byte) error {
				cost, err := bcrypt.Cost(hash)
				if err != nil {
					t.Errorf("%s is compared with, which is no hash", hash)
				}
				work += 1 << cost
				if err = compare(hash, password); err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
					t.Errorf("%s: %v", hash, err) // the comparison took no time
				}
				return err
			}
			login := func(user, password string, want bool) {
				t.Helper()
				work = 0
				if got := a.current().good(user, password); got != want || work != c.work {
					t.Errorf("%s:%s: %t after %d rounds instead of %d", user, password, got, work, c.work)
				}
			}
			for _, wrong := range []string{"wrong", "", "right ", strings.Repeat("x", maxPassword)} {
				login("nobody", wrong, false)
				login("", wrong, false)
				for i := range c.costs {
					login(fmt.Sprint("user", i), wrong, false)
				}
			}
			login("nobody", "right", false)
			for i := range c.costs {
				login(fmt.Sprint("user", i), "right", true)
			}
			work = 0 // a password that is too long reveals no names either
			for _, user := range []string{"user0", "nobody"} {
				if a.current().good(user, strings.Repeat("x", maxPassword+1)) || work != 0 {
					t.Errorf("%s: %d rounds", user, work)
				}
			}
		})
	}
}

// TestAccountsRefused: a file that other users can change, or that contains anything but
// bcrypt hashes, is not used. The error contains the fix and no password.
func TestAccountsRefused(t *testing.T) {
	good := "one:" + hashOf(t, "x", 4) + "\n"
	for text, want := range map[string]string{
		"":              "has no account; add one with oob-bundle registry account or htpasswd -B",
		"# nothing\n\n": "has no account",
		"one\n":         "line 1: not NAME:HASH",
		"one:\n":        "line 1: not NAME:HASH",
		good + "two:canary\n": "line 2: a password that is not hashed, or hashed with crypt is not supported, only " +
			"bcrypt; set the password again with",
		"one:$apr1$salt$canary\n":                      "MD5 (the default of htpasswd) is not supported",
		"one:{SHA}canary=\n":                           "SHA-1 (htpasswd -s) is not supported",
		"one:$5$salt$canary\n":                         "SHA-256 is not supported",
		"one:$6$salt$canary\n":                         "SHA-512 is not supported",
		"one:$argon2id$v=19$m=1$canary":                "Argon2 is not supported",
		"one:$y$j9T$canary":                            "yescrypt is not supported",
		"one:$2y$05$canary\n":                          "a damaged bcrypt hash is not supported",
		"one:$2y$05$" + strings.Repeat("!", 53) + "\n": "a damaged bcrypt hash is not supported",
		"one:$2y$31$" + strings.Repeat("a", 53) + "\n": "bcrypt cost 31; use at most 17",
		good + "# comment\n" + good:                    "line 3: duplicate account",
		"o ne" + good[3:]:                              "line 1: the name has other characters",
		strings.Repeat("a", 65) + good[3:]:             "is too long",
	} {
		_, err := ReadAccounts(accountsFile(t, text))
		if !errors.Is(err, ErrAccounts) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ReadAccounts(t.TempDir()); !errors.Is(err, ErrAccounts) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := ReadAccounts(accountsFile(t, "\n# who\n  one:"+hashOf(t, "x", 4)+"\r\n")); err != nil {
		t.Error(err)
	}
}

func TestAccountsOthersCanWrite(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("access lists are not modes")
	}
	path := accountsFile(t, "one:"+hashOf(t, "right", 4)+"\n")
	for _, mode := range []os.FileMode{0o666, 0o602, 0o620, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadAccounts(path); !errors.Is(err, trust.ErrWritable) || !strings.Contains(err.Error(), "chmod go-w "+path) {
			t.Errorf("%v: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := ReadAccounts(path)
	if err != nil || !a.current().good("one", "right") {
		t.Fatal(err)
	}
	// The same holds while the file is in use.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if a.current().good("one", "right") {
		t.Error("a file that others can write lets somebody in")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if !a.current().good("one", "right") {
		t.Error("the file is safe again, and is not read")
	}
}
