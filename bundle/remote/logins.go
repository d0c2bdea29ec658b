package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// login is the credentials for a registry.
type login struct {
	authn.AuthConfig        // empty for none
	who              string // for messages
}

// findLogin returns the first login for the repository in the places where podman and
// Docker keep logins, or an empty login if there is none. Errors name the place.
func findLogin(repo name.Repository, host string) (login, error) {
	keys := loginKeys(repo, host)
	var looked []string
	for _, p := range loginPlaces() {
		looked = append(looked, p.name)
		file, err := p.load()
		if err != nil {
			return login{}, err
		}
		if file == nil {
			continue
		}
		found, err := keys.in(file)
		if err != nil {
			return login{}, fmt.Errorf("%w: the login for %s in %s: %w", ErrRegistry, host, p.name, err)
		}
		if found == (types.AuthConfig{}) {
			continue
		}
		l := login{who: fmt.Sprintf("user %q of %s", found.Username, p.name), AuthConfig: authn.AuthConfig{
			Username:      found.Username,
			Password:      found.Password,
			Auth:          found.Auth,
			IdentityToken: found.IdentityToken,
			RegistryToken: found.RegistryToken,
		}}
		if found.Username == "" {
			l.who = "the owner of a token of " + p.name
		}
		return l, nil
	}
	return login{who: fmt.Sprintf("nobody (no login for %s in %s)", host, strings.Join(looked, ", "))}, nil
}

// loginPlace is a document with logins.
type loginPlace struct {
	name string // for messages
	path string // empty: data is the document
	data string
}

// loginPlaces returns the places to search for logins: first those of
// containers-auth.json(5), in that order, and then Docker's configuration. Places that the
// environment sets come before those in the home directory.
func loginPlaces() (list []loginPlace) {
	add := func(parts ...string) {
		path := filepath.Join(parts...)
		list = append(list, loginPlace{name: path, path: path})
	}
	if path := os.Getenv("REGISTRY_AUTH_FILE"); path != "" {
		add(path)
	}
	if data := os.Getenv("DOCKER_AUTH_CONFIG"); data != "" {
		list = append(list, loginPlace{name: "DOCKER_AUTH_CONFIG", data: data})
	}
	const podman = "containers/auth.json"
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		add(dir, podman)
	} else if runtime.GOOS == "linux" {
		add("/run/containers", fmt.Sprint(os.Getuid()), "auth.json")
	}
	home, err := os.UserHomeDir()
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		add(dir, podman)
	} else if err == nil {
		add(home, ".config", podman)
	}
	docker := os.Getenv("DOCKER_CONFIG")
	if docker == "" && err == nil {
		docker = filepath.Join(home, ".docker")
	}
	if docker != "" {
		path := filepath.Join(docker, "config.json")
		list = append(list, loginPlace{name: "Docker's configuration " + path, path: path})
	}
	return list
}

// load reads the document. It returns nil if there is none.
func (p loginPlace) load() (*configfile.ConfigFile, error) {
	data := []byte(p.data)
	if p.path != "" {
		var err error
		data, err = disk.ReadFile(p.path, maxCertificates)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // ENOTDIR: the home is /dev/null
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	file, err := config.LoadFromReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: the logins in %s cannot be read: %w", ErrRegistry, p.name, err)
	}
	return file, nil
}

// loginKeySet is the names under which a login may be stored.
type loginKeySet struct {
	names  []string // of the repository, of its parent namespaces, and of the registry
	server string   // under which a credential helper knows the registry
}

func loginKeys(repo name.Repository, host string) loginKeySet {
	hub := repo.RegistryStr() == name.DefaultRegistry
	if hub {
		host = "docker.io"
	}
	k := loginKeySet{server: host}
	for path := repo.RepositoryStr(); path != "."; path = filepath.ToSlash(filepath.Dir(path)) {
		k.names = append(k.names, host+"/"+path)
	}
	k.names = append(k.names, host)
	if hub {
		k.names, k.server = append(k.names, name.DefaultRegistry), authn.DefaultAuthKey
	}
	return k
}

// in returns the login in a file, or an empty one. Credential helpers take precedence
// over logins in the file itself.
func (k loginKeySet) in(file *configfile.ConfigFile) (types.AuthConfig, error) {
	ask := func(helper, server string) (types.AuthConfig, error) {
		found, err := credentials.NewNativeStore(file, helper).Get(server)
		if err != nil {
			return types.AuthConfig{}, fmt.Errorf("the credential helper docker-credential-%s: %w", helper, err)
		}
		return plainLogin(found), nil
	}
	for _, key := range append(slices.Clone(k.names), k.server) {
		if helper := file.CredentialHelpers[key]; helper != "" {
			return ask(helper, key)
		}
	}
	if file.CredentialsStore != "" {
		if found, err := ask(file.CredentialsStore, k.server); err != nil || found != (types.AuthConfig{}) {
			return found, err
		}
	}
	for _, key := range k.names {
		if found := plainLogin(file.AuthConfigs[key]); found != (types.AuthConfig{}) {
			return found, nil
		}
		for _, filed := range slices.Sorted(maps.Keys(file.AuthConfigs)) {
			if found := plainLogin(file.AuthConfigs[filed]); fileKey(filed) == key && found != (types.AuthConfig{}) {
				return found, nil
			}
		}
	}
	return types.AuthConfig{}, nil
}

// plainLogin returns c without the fields that are not credentials.
func plainLogin(c types.AuthConfig) types.AuthConfig {
	return types.AuthConfig{
		Username:      c.Username,
		Password:      c.Password,
		Auth:          c.Auth,
		IdentityToken: c.IdentityToken,
		RegistryToken: c.RegistryToken,
	}
}

// fileKey returns the registry or repository that the key of an entry names. Keys of older
// entries are URLs such as https://index.docker.io/v1/.
func fileKey(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	s = strings.TrimSuffix(s, "/")
	return strings.TrimSuffix(strings.TrimSuffix(s, "/v1"), "/v2")
}
