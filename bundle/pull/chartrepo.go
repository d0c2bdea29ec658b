package pull

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
)

// checkPlain is the lock's check for content that an attacker on the network could change.
const checkPlain = "nothing: it came by plain http"

// fromRepository finds a chart in the index.yaml of a web repository, fetches it and
// returns its archive. The URL in the index may point to a registry.
func (s *Source) fromRepository(ctx context.Context, c *Chart, r Request) ([]byte, error) {
	base := strings.TrimSuffix(c.Wanted.Repository, "/") + "/"
	index, err := s.page(base + "index.yaml")
	if err != nil {
		return nil, err
	}
	entries, err := s.chartVersions(ctx, index, c.Wanted.Name, r.Dir)
	if err != nil {
		return nil, err
	}
	v, err := pickVersion(entries, c.Wanted.Name, c.Wanted.Version)
	if err != nil {
		return nil, err
	}
	if len(v.URLs) == 0 {
		return nil, fmt.Errorf("%w: the index of %s gives no URL for it", bundle.ErrFormat, base)
	}
	u, err := url.Parse(v.URLs[0])
	if err != nil {
		return nil, fmt.Errorf("%w: the index of %s gives the URL %q", bundle.ErrFormat, base, v.URLs[0])
	}
	var archive []byte
	if u.Scheme == "oci" {
		archive, err = s.fromIndexedRegistry(ctx, c, u, r)
	} else {
		archive, err = s.fromIndexedPage(ctx, c, base, u, v)
	}
	if err != nil || v.Digest == "" {
		return archive, err
	}
	want := plainDigest(v.Digest)
	ofManifest := c.OCI != nil && c.OCI.Top.Digest.Hex() == want // which contains the archive's digest
	if got := bundle.DigestOf(archive).Hex(); got != want && !ofManifest {
		return nil, fmt.Errorf("%w: it has the sha256 %s, and the repository's index says %s", bundle.ErrDigest, got, v.Digest)
	}
	switch {
	case index.Encrypted():
		c.Check = "digest of the repository's index"
	case c.OCI == nil:
		c.Check = checkPlain
	}
	return archive, nil
}

// plainDigest returns the hexadecimal form of a digest in an index.
func plainDigest(digest string) string {
	return strings.TrimPrefix(strings.ToLower(digest), "sha256:")
}

// fromIndexedRegistry fetches a chart whose URL in the index points to a registry, and
// returns its archive.
func (s *Source) fromIndexedRegistry(ctx context.Context, c *Chart, u *url.URL, r Request) ([]byte, error) {
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: the index gives %s, which is not oci://HOST/NAME:TAG", bundle.ErrFormat, u.Redacted())
	}
	name := u.Host + u.Path
	if slash := strings.LastIndexByte(name, '/'); !strings.ContainsAny(name[slash+1:], ":@") {
		name += ":" + strings.ReplaceAll(c.Wanted.Version, "+", "_")
	}
	from, err := bundle.ParseReference(name)
	if err != nil || !isHost(u.Host) {
		return nil, fmt.Errorf("%w: the index gives %s, which is not oci://HOST/NAME:TAG", bundle.ErrFormat, u)
	}
	return s.fromRegistry(ctx, c, from, r)
}

// fromIndexedPage fetches a chart whose URL in the index points to a web server, and
// returns its archive.
func (s *Source) fromIndexedPage(ctx context.Context, c *Chart, base string, u *url.URL, v chartVersion) ([]byte, error) {
	from, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	page, err := s.page(from.ResolveReference(u).String())
	if err != nil {
		return nil, err
	}
	digest := pinOf(c.Wanted.SHA256)
	if digest == "" {
		digest = pinOf(plainDigest(v.Digest))
	}
	if c.Check = "TLS of the repository alone"; !page.Encrypted() {
		c.Check = checkPlain
	}
	return page.ReadPinned(ctx, maxChart, digest)
}

// chartVersions returns the versions of one chart in an index. The index is stored in dir
// while it is read.
func (s *Source) chartVersions(ctx context.Context, index *remote.Page, name, dir string) (list []chartVersion, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "index-*.new")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := index.Save(ctx, f, maxChartIndex); err != nil {
		return nil, err
	}
	return chartEntries(f, name)
}

// pickVersion returns a version of a chart from the entries of the index.
func pickVersion(entries []chartVersion, name, version string) (chartVersion, error) {
	if len(entries) == 0 {
		return chartVersion{}, fmt.Errorf("%w: %w: the repository has no chart %s; check its name", remote.ErrRegistry, remote.ErrNotFound, name)
	}
	if i := slices.IndexFunc(entries, func(v chartVersion) bool { return v.Version == version }); i >= 0 {
		return entries[i], nil
	}
	var have []string
	for _, v := range entries[:min(len(entries), 5)] {
		have = append(have, v.Version)
	}
	return chartVersion{}, fmt.Errorf("%w: %w: the repository has no version %s of the chart %s; the newest are %s",
		remote.ErrRegistry, remote.ErrNotFound, version, name, strings.Join(have, ", "))
}
