package remote_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestNoHome checks that a home of /dev/null, as service accounts have, means no logins.
func TestNoHome(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	t.Setenv("HOME", os.DevNull)
	for _, v := range []string{"XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_AUTH_CONFIG", "NETRC"} {
		t.Setenv(v, "")
	}
	host := strings.TrimPrefix(s.URL, "http://")
	c, err := remote.New(remote.Options{PlainHTTP: []string{host}, Patience: remote.Patience{Pause: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Repository(t.Context(), host, "team/app", remote.Pull); err != nil {
		t.Error(err)
	}
	page, err := c.Page(s.URL + "/x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := page.Read(t.Context(), 10); err != nil {
		t.Error(err)
	}
}

// TestLogins checks that a login is found in each place where podman or Docker keep it,
// and that a place without a login for the registry does not hide the next place.
func TestLogins(t *testing.T) {
	var user string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		if user = name; name == "" || password != "secret-of-"+name {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	of := func(key, user string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, base64.StdEncoding.EncodeToString([]byte(user+":secret-of-"+user)))
	}
	const other = `{"auths":{"other.example":{"auth":"eDp5"}}}`
	const (
		file    = "auth-file.json"
		runtime = "runtime/containers/auth.json"
		podman  = "home/.config/containers/auth.json"
		docker  = "home/.docker/config.json"
		moved   = "docker/config.json"
	)
	for name, test := range map[string]struct {
		files map[string]string
		env   string // DOCKER_AUTH_CONFIG
		moved bool   // DOCKER_CONFIG is set
		user  string
		fails []string
	}{
		"REGISTRY_AUTH_FILE first": {
			files: map[string]string{file: of(host, "a"), runtime: of(host, "b"), podman: of(host, "c"), docker: of(host, "d")},
			env:   of(host, "e"), user: "a",
		},
		"then DOCKER_AUTH_CONFIG": {
			files: map[string]string{file: other, runtime: of(host, "b"), docker: of(host, "d")}, env: of(host, "e"), user: "e",
		},
		"then the runtime directory": {
			files: map[string]string{file: other, runtime: of(host, "b"), podman: of(host, "c"), docker: of(host, "d")}, env: other, user: "b",
		},
		"then podman's in the home": {files: map[string]string{runtime: other, podman: of(host, "c"), docker: of(host, "d")}, user: "c"},
		"then Docker's":             {files: map[string]string{file: other, runtime: "{}", podman: other, docker: of(host, "d")}, user: "d"},
		"Docker's elsewhere": {
			files: map[string]string{podman: other, docker: of(host, "d"), moved: of(host, "m")}, moved: true, user: "m",
		},
		"podman's beside Docker's":     {files: map[string]string{podman: of(host, "c"), docker: other}, user: "c"},
		"podman's beside an empty one": {files: map[string]string{runtime: of(host, "b"), docker: ""}, user: "b"},
		"an entry without a login": {
			files: map[string]string{podman: fmt.Sprintf(`{"auths":{%q:{}}}`, host), docker: of(host, "d")}, user: "d",
		},
		"DOCKER_AUTH_CONFIG alone":   {env: of(host, "e"), user: "e"},
		"the variable beside a file": {files: map[string]string{docker: other}, env: of(host, "e"), user: "e"},
		"of a repository":            {files: map[string]string{podman: of(host+"/team/app", "c")}, user: "c"},
		"of a namespace":             {files: map[string]string{podman: of(host+"/team", "c"), docker: of(host, "d")}, user: "c"},
		"of another namespace":       {files: map[string]string{podman: of(host+"/tea", "c"), docker: of(host, "d")}, user: "d"},
		"by an old URL":              {files: map[string]string{docker: of("https://"+host+"/v1/", "d")}, user: "d"},
		"a helper": {
			files: map[string]string{podman: other, docker: fmt.Sprintf(`{"credHelpers":{%q:"logins"}}`, host)}, user: "h",
		},
		"a helper of podman's": {
			files: map[string]string{podman: fmt.Sprintf(`{"credHelpers":{%q:"logins"}}`, host), docker: of(host, "d")}, user: "h",
		},
		"a store": {files: map[string]string{docker: `{"credsStore":"logins"}`}, user: "h"},
		"a helper that knows none": {
			files: map[string]string{podman: fmt.Sprintf(`{"credHelpers":{%q:"none"}}`, host), docker: of(host, "d")}, user: "d",
		},
		"a helper that is missing": {
			files: map[string]string{podman: fmt.Sprintf(`{"credHelpers":{%q:"missing"}}`, host), docker: of(host, "d")},
			fails: []string{podman, "docker-credential-missing"},
		},
		"a damaged file":             {files: map[string]string{runtime: `{"auths":`, docker: of(host, "d")}, fails: []string{runtime}},
		"a damaged file of Docker's": {files: map[string]string{docker: `[]`}, fails: []string{docker}},
		"a damaged login": {
			files: map[string]string{podman: fmt.Sprintf(`{"auths":{%q:{"auth":"%%%%"}}}`, host)}, fails: []string{podman},
		},
		"a damaged variable": {
			files: map[string]string{docker: of(host, "d")}, env: `{"auths"`, fails: []string{"DOCKER_AUTH_CONFIG"},
		},
		"a damaged file that is not it": {files: map[string]string{podman: of(host, "c"), docker: "["}, user: "c"},
		"none anywhere": {
			files: map[string]string{podman: other, docker: other}, fails: []string{"asked as nobody", runtime, podman, docker},
		},
		"none at all": {fails: []string{"asked as nobody", runtime, podman, docker}},
		"a wrong one": {
			files: map[string]string{podman: strings.Replace(of(host, "c"), "auth\":\"", "username\":\"c\",\"password\":\"wrong\",\"x\":\"", 1)},
			fails: []string{`user "c" of `, podman},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("HOME", filepath.Join(dir, "home"))
			t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "runtime"))
			for _, v := range []string{"XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"} {
				t.Setenv(v, "")
			}
			t.Setenv("DOCKER_AUTH_CONFIG", test.env)
			if test.moved {
				t.Setenv("DOCKER_CONFIG", filepath.Join(dir, "docker"))
			}
			for path, text := range test.files {
				if path == file {
					t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, file))
				}
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
					t.Fatal(err)
				}
				world.Write(t, filepath.Join(dir, path), []byte(text), 0o600)
			}
			world.Write(
				t, filepath.Join(dir, "docker-credential-logins"),
				[]byte("#!/bin/sh\necho '{\"Username\":\"h\",\"Secret\":\"secret-of-h\"}'\n"),
				0o755,
			)
			world.Write(
				t, filepath.Join(dir, "docker-credential-none"),
				[]byte("#!/bin/sh\necho 'credentials not found in native keychain'\nexit 1\n"),
				0o755,
			)
			t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
			c, err := remote.New(remote.Options{PlainHTTP: []string{host}, Patience: remote.Patience{Pause: 1}})
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Repository(t.Context(), host, "team/app", remote.Pull)
			if err == nil {
				_, err = r.Tags(t.Context())
			}
			for _, want := range test.fails {
				if !strings.Contains(fmt.Sprint(err), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
			if strings.Contains(fmt.Sprint(err), "secret-of") {
				t.Errorf("a password is shown: %v", err)
			}
			if len(test.fails) == 0 && (user != test.user || err != nil && !strings.Contains(err.Error(), "list of tags")) {
				t.Errorf("asked as %q: %v", user, err)
			}
		})
	}
}
