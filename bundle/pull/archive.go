package pull

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/mholt/archives"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Limits of a plugin's archive. The server unpacks it, so what we let through
// has to be harmless there.
const (
	maxEntries         = 100_000
	maxUnpacked        = 4 << 30 // bytes
	maxRatio           = 200     // unpacked to packed
	minUnpackedFree    = 64 << 20
	maxPluginJSON      = 1 << 20 // bytes
	maxPluginManifests = 8
	maxEntryName       = 255 // bytes
)

// PluginManifest is what of a plugin.json matters here (model.Manifest of
// github.com/mattermost/mattermost/server/public).
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

// archive is what was seen of a plugin's archive.
type archive struct {
	roots      map[string]bool // first components
	rootFiles  bool            // a file stands at the top
	manifests  map[string][]byte
	executable map[string]bool // path → it may be run
	seen       map[string]bool // names, without case
	entries    int
	unpacked   int64
}

// inspectPlugin reads a plugin's archive from its first to its last byte and
// refuses what no plugin needs: links, devices, names that lead elsewhere,
// sparse files, bombs, data behind the end. Errors wrap bundle.ErrFormat,
// bundle.ErrLimit or bundle.ErrPolicy.
func inspectPlugin(ctx context.Context, name string, platforms []bundle.Platform) (m PluginManifest, err error) {
	f, err := os.Open(name)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return m, err
	}
	a := &archive{roots: map[string]bool{}, manifests: map[string][]byte{}, executable: map[string]bool{}, seen: map[string]bool{}}
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

// checkKeys refuses keys that the server, which does not look at case, would
// take for others than we do.
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

func (a *archive) read(ctx context.Context, f io.Reader, packed int64) error {
	plain, err := archives.Gz{}.OpenReader(f)
	if err != nil {
		return fmt.Errorf("%w: it is not a .tar.gz: %w", bundle.ErrFormat, err)
	}
	limit := min(int64(maxUnpacked), max(packed*maxRatio, minUnpackedFree))
	bounded := &boundedReader{plain, limit}
	err = archives.Tar{}.Extract(ctx, bounded, func(_ context.Context, info archives.FileInfo) error { return a.entry(info, limit) })
	if err == nil {
		err = onlyZeros(bounded)
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil && !errors.Is(err, bundle.ErrFormat) && !errors.Is(err, bundle.ErrLimit) && !errors.Is(err, bundle.ErrPolicy):
		err = fmt.Errorf("%w: its archive is damaged: %w", bundle.ErrFormat, err)
	}
	return errors.Join(err, plain.Close())
}

// boundedReader ends a decompression that yields too much.
type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: its archive unpacks to more than a plugin can have", bundle.ErrLimit)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// onlyZeros reads what stands behind the end of a tar: padding, and no more.
func onlyZeros(r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if strings.Trim(string(buf[:n]), "\x00") != "" {
			return fmt.Errorf("%w: there is data behind the end of its archive", bundle.ErrFormat)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (a *archive) entry(info archives.FileInfo, limit int64) error {
	h, ok := info.Header.(*tar.Header)
	if !ok {
		return fmt.Errorf("%w: its archive is not a tar", bundle.ErrFormat)
	}
	if a.entries++; a.entries > maxEntries {
		return fmt.Errorf("%w: its archive has more than %d entries", bundle.ErrLimit, maxEntries)
	}
	name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if h.Typeflag == tar.TypeDir && (name == "" || name == ".") {
		return nil
	}
	if err := checkEntry(h, name); err != nil {
		return err
	}
	if a.unpacked += h.Size; h.Size < 0 || a.unpacked > limit {
		return fmt.Errorf("%w: its archive unpacks to more than a plugin can have", bundle.ErrLimit)
	}
	first, rest, deep := strings.Cut(name, "/")
	a.roots[first] = true
	if h.Typeflag == tar.TypeDir {
		return nil
	}
	// Two names that are one file where case does not count are one too many.
	if low := strings.ToLower(name); a.seen[low] {
		return fmt.Errorf("%w: its archive has %q twice", bundle.ErrFormat, h.Name)
	} else {
		a.seen[low] = true
	}
	a.rootFiles = a.rootFiles || !deep
	a.executable[name] = h.Mode&0o111 != 0
	if base := path.Base(name); (base == "plugin.json" || base == "plugin.yaml" || base == "plugin.yml") && (!deep || !strings.Contains(rest, "/")) {
		if len(a.manifests) == maxPluginManifests {
			return fmt.Errorf("%w: its archive has more than %d manifests", bundle.ErrLimit, maxPluginManifests)
		}
		return a.keep(info, name)
	}
	return nil
}

func checkEntry(h *tar.Header, name string) error {
	bad := func(what string) error {
		return fmt.Errorf("%w: its archive has %s: %q", bundle.ErrFormat, what, h.Name)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeSymlink, tar.TypeLink:
		return bad("a link")
	default:
		return bad("something that is neither a file nor a directory")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return bad("a sparse file")
		}
	}
	switch {
	case name == "" || path.Clean(name) != name || path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../"):
		return bad("a name that leads elsewhere")
	case len(name) > maxEntryName || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == ':' }):
		return bad("a name that not every system can have")
	case h.Mode&0o7000 != 0:
		return bad("a file that runs as somebody else")
	}
	return nil
}

// keep reads a file that may be the plugin's manifest.
func (a *archive) keep(info archives.FileInfo, name string) error {
	if info.Size() > maxPluginJSON {
		return fmt.Errorf("%w: its %s has %d bytes", bundle.ErrLimit, name, info.Size())
	}
	f, err := info.Open()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPluginJSON+1))
	a.manifests[name] = data
	return errors.Join(err, f.Close())
}

// manifest finds plugin.json where the server does: in the one directory at the
// top, or at the top itself. Base is that directory, with a slash.
func (a *archive) manifest() (data []byte, base string, err error) {
	if len(a.roots) == 1 && !a.rootFiles {
		for r := range a.roots {
			base = r + "/"
		}
	}
	for _, other := range []string{"plugin.yaml", "plugin.yml"} {
		if a.manifests[base+other] != nil {
			return nil, "", fmt.Errorf("%w: it has a %s, which the server would take for its manifest; only plugin.json is read here", bundle.ErrFormat, other)
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
		return fmt.Errorf("%w: its plugin.json has the id %q, which the server does not take", bundle.ErrFormat, m.ID)
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
			return fmt.Errorf("%w: plugin %s %s says that %s is its program for %s, and does not have it", bundle.ErrFormat, m.ID, m.Version, file, p)
		}
		if !runs {
			return fmt.Errorf("%w: plugin %s %s has %s without permission to run", bundle.ErrFormat, m.ID, m.Version, file)
		}
	}
	return nil
}
