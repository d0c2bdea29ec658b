package bundle

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/distribution/reference"
)

// Reference is an upstream image reference in full: HOST[:PORT]/NAME with a
// tag, a digest or both, such as docker.io/library/nginx:1.30.
type Reference struct {
	Host   string // with port
	Name   string // repository path without host
	Tag    string // empty if the image is given by digest alone
	Digest Digest // empty if the image is given by tag alone
}

// ParseReference parses a reference as Docker does: short names belong to docker.io/library,
// and a reference without tag and digest means :latest.
func ParseReference(s string) (Reference, error) {
	named, err := reference.ParseDockerRef(s)
	if err != nil || len(s) > MaxName {
		return Reference{}, fmt.Errorf("%q is not an image reference such as registry.example.com/team/app:1.2", s)
	}
	full, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%q: %w", s, err)
	}
	r := Reference{Host: strings.ToLower(reference.Domain(named)), Name: reference.Path(named)}
	if t, ok := full.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := full.(reference.Digested); ok {
		if r.Digest, err = ParseDigest(d.Digest().String()); err != nil {
			return Reference{}, fmt.Errorf("%q: only sha256 digests are supported", s)
		}
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	if literal, ok := strings.CutPrefix(r.Host, "["); ok {
		literal, _, _ = strings.Cut(literal, "]")
		if a, err := netip.ParseAddr(literal); err != nil || !a.Is6() || a.Zone() != "" {
			return Reference{}, fmt.Errorf("%q: %q is not an IPv6 address", s, literal)
		}
	}
	if full := r.String(); len(full) > MaxName {
		return Reference{}, fmt.Errorf("%q has %d bytes in full, at most %d are allowed", full, len(full), MaxName)
	}
	// Registries refuse longer names (distribution/reference, RepositoryNameTotalLengthMax).
	if name := r.SiteRepository(); len(name) > MaxName {
		return Reference{}, fmt.Errorf(
			"%q would be the repository %q on a site, which has %d bytes; registries take at most %d",
			s, name, len(name), MaxName,
		)
	}
	// Docker also recognizes a host by its capitals. In lower case it must still be a host.
	if again, err := reference.ParseNormalizedNamed(r.String()); err != nil || reference.Domain(again) != r.Host {
		return Reference{}, fmt.Errorf("%q: write the host in lower case, with a dot or a port", s)
	}
	return r, nil
}

// String returns the reference in full.
func (r Reference) String() string {
	s := r.Repository()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// Repository returns HOST[:PORT]/NAME.
func (r Reference) Repository() string { return r.Host + "/" + r.Name }

// SiteRepository returns the repository of the image on the site's registry. It keeps the
// host, so that two upstreams never collide. The host is spelled as a path component of the
// distribution specification (a port's colon becomes an underscore).
func (r Reference) SiteRepository() string { return SiteHost(r.Host) + "/" + r.Name }

// SiteHost returns the first component of [Reference.SiteRepository] for a host.
func SiteHost(of string) string {
	host, port, _ := strings.Cut(of, ":")
	if rest, ok := strings.CutPrefix(of, "["); ok {
		literal, after, _ := strings.Cut(rest, "]")
		if a, err := netip.ParseAddr(literal); err == nil {
			host = strings.ReplaceAll(a.StringExpanded(), ":", "-")
		}
		port = strings.TrimPrefix(after, ":")
	}
	if port != "" {
		host += "_" + port
	}
	return host
}
