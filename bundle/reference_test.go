package bundle_test

import (
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
)

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestReference(t *testing.T) {
	tests := []struct{ in, full, site string }{
		{"nginx", "docker.io/library/nginx:latest", "docker.io/library/nginx"},
		{"nginx:1", "docker.io/library/nginx:1", "docker.io/library/nginx"},
		{"team/app", "docker.io/team/app:latest", "docker.io/team/app"},
		{"index.docker.io/nginx:1", "docker.io/library/nginx:1", "docker.io/library/nginx"},
		{"ghcr.io/a/b:2", "ghcr.io/a/b:2", "ghcr.io/a/b"},
		{"localhost:5001/a:1", "localhost:5001/a:1", "localhost_5001/a"},
		{"127.0.0.1:5001/a:1", "127.0.0.1:5001/a:1", "127.0.0.1_5001/a"},
		{"Registry.Example.com/a:1", "registry.example.com/a:1", "registry.example.com/a"},
		{"[::1]:5001/a:1", "[::1]:5001/a:1", "0000-0000-0000-0000-0000-0000-0000-0001_5001/a"},
		{"a/b@" + someDigest, "docker.io/a/b@" + someDigest, "docker.io/a/b"},
		{"a/b:1@" + someDigest, "docker.io/a/b:1@" + someDigest, "docker.io/a/b"},
	}
	for _, test := range tests {
		r, err := bundle.ParseReference(test.in)
		if err != nil || r.String() != test.full || r.SiteRepository() != test.site {
			t.Errorf("%s: got %s and %s, %v; want %s and %s", test.in, r, r.SiteRepository(), err, test.full, test.site)
			continue
		}
		if again, err := bundle.ParseReference(r.String()); err != nil || again != r {
			t.Errorf("%s: read again as %s, %v", r, again, err)
		}
	}
	for _, bad := range []string{
		"", "A", "a:", "a:b:c", "a b", "a/../b", "http://a/b", "a@sha512:" + strings.Repeat("0", 128), "a@sha256:00", strings.Repeat("a", 300),
		strings.Repeat("0", 240), "[::1]:5001/" + strings.Repeat("a", 220) + ":1", "[2001:db8::1]/" + strings.Repeat("a/", 108) + "b",
	} {
		if r, err := bundle.ParseReference(bad); err == nil {
			t.Errorf("%q was taken as %s", bad, r)
		}
	}
}

func TestPlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/arm64/v8": "linux/arm64", "linux/arm": "linux/arm/v7",
		"linux/arm/v6": "linux/arm/v6", "linux/amd64/v3": "linux/amd64/v3",
	} {
		p, err := bundle.ParsePlatform(in)
		if err != nil || p.String() != want {
			t.Errorf("%s: %s, %v", in, p, err)
		}
	}
	for _, bad := range []string{"", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "Linux/amd64", "linux/../x"} {
		if p, err := bundle.ParsePlatform(bad); err == nil {
			t.Errorf("%q was taken as %s", bad, p)
		}
	}
}
