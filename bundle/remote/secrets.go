package remote

import (
	"encoding/base64"
	"slices"
	"strings"
	"sync"
)

// secrets are what was sent as a login. What a server answers is shown to people,
// and some answer with what they were asked.
type secrets struct {
	mu   sync.Mutex
	list []string
}

// minSecret is the length below which hiding a word would make messages
// unreadable and help nobody.
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

// addHeader takes the value of an Authorization header.
func (s *secrets) addHeader(value string) {
	scheme, rest, _ := strings.Cut(value, " ")
	s.add(rest)
	if plain, err := base64.StdEncoding.DecodeString(rest); err == nil && scheme == "Basic" {
		_, password, _ := strings.Cut(string(plain), ":")
		s.add(password)
	}
}

// hide takes them out of a text.
func (s *secrets) hide(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.list {
		text = strings.ReplaceAll(text, v, "(secret)")
	}
	return text
}

// hidden is an error whose text holds no secret.
type hidden struct {
	error
	text string
}

func (e *hidden) Error() string { return e.text }
func (e *hidden) Unwrap() error { return e.error }
