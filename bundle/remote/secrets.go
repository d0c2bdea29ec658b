package remote

import (
	"encoding/base64"
	"slices"
	"strings"
	"sync"
)

// secrets contains the credentials that were sent. They are hidden in messages, because
// messages quote servers, and some servers repeat the request in their answer.
type secrets struct {
	mu   sync.Mutex
	list []string
}

// minSecret is the length in bytes below which a secret is not hidden: hiding short words
// would make messages unreadable.
const minSecret = 4

func (s *secrets) add(list ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range list {
		if len(v) >= minSecret && !slices.Contains(s.list, v) {
			s.list = append(s.list, v)
		}
	}
}

// addHeader adds the credentials in the value of an Authorization header.
func (s *secrets) addHeader(value string) {
	scheme, rest, _ := strings.Cut(value, " ")
	s.add(rest)
	if plain, err := base64.StdEncoding.DecodeString(rest); err == nil && scheme == "Basic" {
		_, password, _ := strings.Cut(string(plain), ":")
		s.add(password)
	}
}

// hide replaces all secrets in a text.
func (s *secrets) hide(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.list {
		text = strings.ReplaceAll(text, v, "(secret)")
	}
	return text
}

// hidden is an error with another text, such as one without secrets.
type hidden struct {
	error
	text string
}

func (e *hidden) Error() string { return e.text }
func (e *hidden) Unwrap() error { return e.error }
