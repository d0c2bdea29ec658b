package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/foreign"
)

const (
	maxPluginJSON      = 1 << 20 // bytes
	maxPluginManifests = 8
)

// PluginManifest contains the fields of a plugin.json that this package uses
// (model.Manifest of github.com/mattermost/mattermost/server/public).
type PluginManifest struct {
	ID               string         `json:"id"`
	Name             string         `json:"name"`
	Version          string         `json:"version"`
	MinServerVersion string         `json:"min_server_version"`
	Props            map[string]any `json:"props"`
	Server           *struct {
		Executables map[string]string `json:"executables"`
		Executable  string            `json:"executable"`
	} `json:"server"`
}

var (
	pluginID      = regexp.MustCompile(`^[a-z0-9_.-]{3,190}$`)
	pluginVersion = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+([-+][A-Za-z0-9.+-]+)?$`)
)

// archive records what was found in a plugin's archive.
type archive struct {
	roots      map[string]bool // first path components
	rootFiles  bool            // there is a file at the top level
	manifests  map[string][]byte
	executable map[string]bool // path → has an execute permission
}

// inspectPlugin reads and checks a plugin's archive. The Mattermost server unpacks the
// archive, so an accepted archive must be harmless there. Errors wrap bundle.ErrFormat,
// bundle.ErrLimit or bundle.ErrPolicy.
func inspectPlugin(ctx context.Context, name string, platforms []bundle.Platform) (m PluginManifest, err error) {
	f, err := disk.OpenRegular(name)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return m, err
	}
	a := &archive{roots: map[string]bool{}, manifests: map[string][]byte{}, executable: map[string]bool{}}
	if err := a.read(ctx, f, fi.Size()); err != nil {
		return m, err
	}
	data, base, err := a.manifest()
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%w: its plugin.json: %w", bundle.ErrFormat, err)
	}
	if err := checkKeys(data); err != nil {
		return m, err
	}
	return m, a.check(m, base, platforms)
}

// checkKeys refuses keys that differ from a known key only in case. The server ignores
// case and would read such a key as the known one.
func checkKeys(data []byte) error {
	var top map[string]any
	if err := json.Unmarshal(data, &top); err != nil {
		return fmt.Errorf("%w: its plugin.json: %w", bundle.ErrFormat, err)
	}
	server, _ := top["server"].(map[string]any)
	for _, keys := range []map[string]any{top, server} {
		for k := range keys {
			for _, known := range []string{"id", "name", "version", "min_server_version", "props", "server", "executables", "executable"} {
				if k != known && strings.EqualFold(k, known) {
					return fmt.Errorf("%w: its plugin.json has the key %q, which the server would take for %q", bundle.ErrFormat, k, known)
				}
			}
		}
	}
	return nil
}

// read reads the whole archive, to its last byte.
func (a *archive) read(ctx context.Context, f io.Reader, packed int64) error {
	return foreign.Walk(ctx, f, packed, a.entry)
}

func (a *archive) entry(e foreign.Entry) error {
	first, rest, deep := strings.Cut(e.Name, "/")
	a.roots[first] = true
	if e.Dir {
		return nil
	}
	a.rootFiles = a.rootFiles || !deep
	a.executable[e.Name] = e.Mode&0o111 != 0
	if base := path.Base(
		e.Name,
	); (base == "plugin.json" || base == "plugin.yaml" || base == "plugin.yml") &&
		(!deep || !strings.Contains(rest, "/")) {
		if len(a.manifests) == maxPluginManifests {
			return fmt.Errorf("%w: its archive has more than %d manifests", bundle.ErrLimit, maxPluginManifests)
		}
		return a.keep(e)
	}
	return nil
}

// keep reads and stores a file that may be the plugin's manifest.
func (a *archive) keep(e foreign.Entry) error {
	if e.Size > maxPluginJSON {
		return fmt.Errorf("%w: its %s has %d bytes", bundle.ErrLimit, e.Name, e.Size)
	}
	f, err := e.Open()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPluginJSON+1))
	a.manifests[e.Name] = data
	return errors.Join(err, f.Close())
}

// manifest returns plugin.json from the place where the server looks for it: the only
// top-level directory, or else the top level itself. base is that directory with a
// trailing slash, or "".
func (a *archive) manifest() (data []byte, base string, err error) {
	if len(a.roots) == 1 && !a.rootFiles {
		for r := range a.roots {
			base = r + "/"
		}
	}
	for _, other := range []string{"plugin.yaml", "plugin.yml"} {
		if a.manifests[base+other] != nil {
			return nil, "", fmt.Errorf(
				"%w: it has a %s, which the server would take for its manifest; only plugin.json is read here",
				bundle.ErrFormat, other,
			)
		}
	}
	data, ok := a.manifests[base+"plugin.json"]
	if !ok {
		return nil, "", fmt.Errorf("%w: there is no plugin.json where the server looks for it; is it a Mattermost plugin?", bundle.ErrFormat)
	}
	return data, base, nil
}

func (a *archive) check(m PluginManifest, base string, platforms []bundle.Platform) error {
	if !pluginID.MatchString(m.ID) || strings.Contains(m.ID, "..") {
		return fmt.Errorf("%w: its plugin.json has the id %q; it has to be of small letters, digits and ._-", bundle.ErrFormat, m.ID)
	}
	if !pluginVersion.MatchString(m.Version) {
		return fmt.Errorf("%w: its plugin.json has the version %q", bundle.ErrFormat, m.Version)
	}
	if m.Server == nil || len(m.Server.Executables) == 0 && m.Server.Executable == "" {
		return nil
	}
	for _, p := range platforms {
		file, ok := m.Server.Executables[p.OS+"-"+p.Architecture]
		if !ok {
			file = m.Server.Executable
		}
		if file == "" {
			return fmt.Errorf("%w: plugin %s %s has no program for %s", bundle.ErrPolicy, m.ID, m.Version, p)
		}
		runs, there := a.executable[base+path.Clean(strings.TrimPrefix(file, "./"))]
		if !there {
			return fmt.Errorf(
				"%w: plugin %s %s says that %s is its program for %s, and does not have it",
				bundle.ErrFormat, m.ID, m.Version, file, p,
			)
		}
		if !runs {
			return fmt.Errorf("%w: plugin %s %s has %s without permission to run", bundle.ErrFormat, m.ID, m.Version, file)
		}
	}
	return nil
}
