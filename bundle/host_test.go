package bundle_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// TestHostCheck checks what a bundle may not require of a host, even if it is signed.
func TestHostCheck(t *testing.T) {
	link := func(paths ...string) bundle.Host {
		var h bundle.Host
		for _, p := range paths {
			h.Links = append(h.Links, bundle.Link{Path: p, File: "f"})
		}
		return h
	}
	value := func(v bundle.Value) bundle.Host { return bundle.Host{Values: []bundle.Value{v}} }
	for name, c := range map[string]struct {
		host bundle.Host
		ok   bool
	}{
		"a unit":                           {link("/etc/systemd/system/app.service"), true},
		"a unit of podman's":               {link("/etc/containers/systemd/app-web.container", "/etc/containers/systemd/app.network"), true},
		"a site of NGINX":                  {link("/etc/nginx/conf.d/app.conf"), true},
		"a mirror of containerd":           {link("/etc/containerd/certs.d/docker.io/hosts.toml"), true},
		"the same place twice":             {link("/etc/nginx/conf.d/app.conf", "/etc/nginx/conf.d/app.conf"), false},
		"a change of somebody else's unit": {link("/etc/systemd/system/ssh.service.d/x.conf"), false},
		"a unit that boots by itself":      {link("/etc/systemd/system/multi-user.target.wants/x.service"), false},
		"a change of podman's unit":        {link("/etc/containers/systemd/x.container.d/x.conf"), false},
		"below a place for files":          {link("/etc/nginx/conf.d/x/app.conf"), false},
		"something else than a unit":       {link("/etc/systemd/system/app"), false},
		"elsewhere":                        {link("/etc/cron.d/app"), false},
		"a data directory of the site's":   {value(bundle.Value{Name: "dataDirectory", Kind: "directory"}), true},
		"a data directory of the author's": {
			value(bundle.Value{Name: "dataDirectory", Kind: "directory", Default: "/var/lib/oob-bundle"}), false,
		},
		"a data directory that is any text": {value(bundle.Value{Name: "dataDirectory"}), false},
		"a default that is no port":         {value(bundle.Value{Name: "port", Kind: "port", Default: "abc"}), false},
		"a default that is a port":          {value(bundle.Value{Name: "port", Kind: "port", Default: "8065"}), true},
		"a file with a default":             {value(bundle.Value{Name: "license", Kind: "file", Default: "/etc/license"}), true},
		"an address to ask":                 {bundle.Host{Health: []string{"http://{{ .Values.domain }}/"}}, true},
		"an address that is no template":    {bundle.Host{Health: []string{"http://{{ .Values.domain"}}, false},
		"plugins in a directory":            {bundle.Host{Plugins: "app/plugins"}, true},
		"plugins in one that is not known":  {bundle.Host{Plugins: `{{ if eq .Form "linux" }}app/{{ end }}plugins`}, true},
		"plugins in one that is none":       {bundle.Host{Plugins: "/etc/x"}, false},
		"plugins by an unknown function":    {bundle.Host{Plugins: "{{ nofunc }}"}, false},
		"another directory with a default":  {value(bundle.Value{Name: "mediaDirectory", Kind: "directory", Default: "/srv"}), true},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.host.Check([]bundle.HostFile{{Path: "f"}}, nil)
			if err != nil && !errors.Is(err, bundle.ErrFormat) {
				t.Errorf("%v", err)
			}
			if err = errors.Join(err, c.host.Installable()); c.ok != (err == nil) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestHostCheckOfManyMerges: the time grows with the number of paths, not with its square.
// Comparing 100,000 paths with one another takes minutes.
func TestHostCheckOfManyMerges(t *testing.T) {
	var h bundle.Host
	for n := range 100_000 {
		h.Merges = append(h.Merges, bundle.Merge{File: fmt.Sprintf("dir%d/deep/file", n), Patch: "p"})
		h.Directories = append(h.Directories, bundle.Directory{Path: fmt.Sprintf("dir%d/other", n)})
	}
	files := []bundle.HostFile{{Path: "p"}}
	start := time.Now()
	if err := h.Check(files, nil); err != nil {
		t.Error(err)
	}
	h.Merges = append(h.Merges, bundle.Merge{File: "DIR99999", Patch: "p"})
	if err := h.Check(files, nil); !errors.Is(err, bundle.ErrFormat) {
		t.Errorf("a file that is a directory: %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestHostCheckOfOverlappingPaths(t *testing.T) {
	for name, c := range map[string]struct {
		directories, merged []string
		ok                  bool
	}{
		"apart":                           {[]string{"a", "b/c"}, []string{"a/x", "b/c/x", "d"}, true},
		"the same file twice":             {nil, []string{"a/x", "a/x"}, true},
		"the same beginning":              {[]string{"ab/c"}, []string{"a", "ab/d"}, true},
		"a declared directory":            {[]string{"a"}, []string{"a"}, false},
		"in other case":                   {[]string{"A/b"}, []string{"a/B"}, false},
		"on the way to a directory":       {[]string{"a/b/c"}, []string{"a"}, false},
		"on the way to a file":            {nil, []string{"a/b", "a/b/c/d"}, false},
		"on the way to a file, in a case": {nil, []string{"a/B/x", "a/b"}, false},
	} {
		var h bundle.Host
		for _, d := range c.directories {
			h.Directories = append(h.Directories, bundle.Directory{Path: d})
		}
		for _, f := range c.merged {
			h.Merges = append(h.Merges, bundle.Merge{File: f, Patch: "p"})
		}
		if err := h.Check([]bundle.HostFile{{Path: "p"}}, nil); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
