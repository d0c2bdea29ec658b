package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// mirrors returns configuration files, by path in the release, with which container runtimes
// find images by their upstream names. Docker supports mirrors only for docker.io, so
// deployments that run on Docker use the site's image names instead.
//
// Sources: containerd docs/hosts.md; k3s docs, private registry configuration;
// containers-registries.conf.d(5), which CRI-O reads too.
func mirrors(images []bundle.Image, registry string, plainHTTP bool) (map[string][]byte, error) {
	var hosts []string
	for _, i := range images {
		ref, err := bundle.ParseReference(i.Reference)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(hosts, ref.Host) {
			hosts = append(hosts, ref.Host)
		}
	}
	slices.Sort(hosts)
	scheme := "https"
	if plainHTTP {
		scheme = "http"
	}
	host, prefix, _ := strings.Cut(registry, "/")
	if prefix != "" {
		prefix += "/"
	}
	files := map[string][]byte{}
	var k3s, podman strings.Builder
	k3s.WriteString("# /etc/rancher/k3s/registries.yaml\nmirrors:\n")
	podman.WriteString("# /etc/containers/registries.conf.d/oob-bundle.conf\n")
	for _, h := range hosts {
		site := bundle.SiteHost(h)
		server := h
		if h == "docker.io" {
			server = "registry-1.docker.io"
		}
		files["runtime/containerd/"+site+"/hosts.toml"] = fmt.Appendf(
			nil,
			"# /etc/containerd/certs.d/%s/hosts.toml\nserver = \"https://%s\"\n\n[host.\"%s://%s/v2/%s%s\"]\n  capabilities = "+
				"[\"pull\", \"resolve\"]\n  override_path = true\n",
			h, server, scheme, host, prefix, site,
		)
		fmt.Fprintf(&k3s, "  %q:\n    endpoint: [%q]\n    rewrite:\n      \"^(.*)$\": %q\n", h, scheme+"://"+host, prefix+site+"/$1")
		fmt.Fprintf(
			&podman,
			"\n[[registry]]\nprefix = %q\nlocation = %q\n\n[[registry.mirror]]\nlocation = %q\ninsecure = %t\n",
			h, h, registry+"/"+site, plainHTTP,
		)
	}
	if plainHTTP { // for the registry's own name
		fmt.Fprintf(&podman, "\n[[registry]]\nlocation = %q\ninsecure = true\n", host)
	}
	if len(hosts) > 0 {
		files["runtime/k3s/registries.yaml"] = []byte(k3s.String())
		files["runtime/containers/registries.conf"] = []byte(podman.String())
	}
	return files, nil
}
