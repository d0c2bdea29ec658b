//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestOptional starts the application architecture with optional components. MinIO, the calls
// server and Prometheus are real programs; Grafana is replaced by sleep, and the calls plugin
// is a stand-in.
func TestOptional(t *testing.T) {
	site := newSite(t)
	site.up.Registry = world.NewRegistryAt(t, t.TempDir(), nil) // real images are large
	s := side{t, site.dir}
	built := s.prepare()
	choice := manifests.Choice{
		Deployment: "compose", With: []string{"calls", "rtcd", "object-storage", "monitoring"},
		Set: map[string]string{"versions.postgres": "15"},
	}
	all := site.stock("application", choice)
	debian := layerOf(t, filepath.Join(built, "rootfs.tar"))
	layer := func(name string) v1.Layer { return layerOf(t, filepath.Join(built, name+".tar")) }
	for name, img := range map[string]v1.Image{
		"docker.io/library/postgres":                         imageOf(t, postgresConfig, debian),
		"docker.io/library/nginx":                            imageOf(t, nginxConfig, debian),
		"docker.io/mattermost/mattermost-enterprise-edition": imageOf(t, serverConfig, s.serverLayer(built, "server-2")),
		"docker.io/mattermost/rtcd": imageOf(t, v1.Config{
			User: "calls", WorkingDir: "/opt/rtcd/bin", Entrypoint: []string{"./rtcd"},
		}, layer("rtcd")),
		"docker.io/minio/minio": imageOf(t, v1.Config{Entrypoint: []string{"/minio"}}, layer("minio")),
		"quay.io/prometheus/prometheus": imageOf(t, v1.Config{
			User: "65534:65534", WorkingDir: "/prometheus", Entrypoint: []string{"/usr/bin/prometheus"},
			Cmd: []string{"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"},
		}, debian, layer("prometheus")),
		"docker.io/grafana/grafana": imageOf(t, v1.Config{User: "472:0", Entrypoint: []string{"/bin/sleep", "infinity"}}, debian),
	} {
		done := false
		for _, i := range all.Images {
			if i.Reference.Repository() == name {
				site.up.Registry.Push(t, name+":"+i.Reference.Tag, img)
				done = true
			}
		}
		if !done {
			t.Fatalf("%s is not among %v", name, all.Images)
		}
	}
	args := []string{"--deployment", "compose", "--platform", "linux/amd64", "--set", "versions.postgres=15"}
	for _, c := range choice.With {
		args = append(args, "--with", c)
	}
	file, create := site.create("application", args...)
	site.must(create...)

	m := newMachine(s, "oob-e2e-o")
	sent := m.sent()
	s.write("site.yaml", "domain: chat.site.mil\nhttpPort: 8080\ncallsHost: 203.0.113.2\n")
	flags := " --key " + site.key.Public + " --root " + m.root + " --host-root " + m.dir + "/etc-of-1 --values site.yaml"
	m.run("oob-bundle install " + file + flags + " --start --start-timeout 2m")
	m.run(
		"docker ps --format '{{.Label \"com.docker.compose.service\"}} {{.Status}}' | sort >services; test $(wc -l " +
			"<services) = 7 && ! grep -i restarting services || { cat services >&2; exit 1; }",
	)

	// Uploaded files are stored in MinIO, in an automatically created bucket, and can be read
	// after a restart of all services.
	m.wants(201, "", "POST", "/api/v4/users", `{"email":"a@site.mil","username":"admin","password":"Correct-horse-1"}`)
	token := m.login()
	var team, channel struct{ ID string }
	m.decode(m.wants(201, token, "POST", "/api/v4/teams", `{"name":"team","display_name":"Team","type":"O"}`), &team)
	m.decode(m.wants(200, token, "GET", "/api/v4/teams/"+team.ID+"/channels/name/town-square", ""), &channel)
	var upload struct {
		Infos []struct{ ID string } `json:"file_infos"`
	}
	m.decode(
		m.run(
			"echo carried across >note.txt; curl -sS -f -m 20 -H 'Authorization: Bearer "+token+"' -F channel_id="+channel.ID+" -F files=@note.txt "+
				"http://127.0.0.1:8065/api/v4/files",
		),
		&upload,
	)
	if len(upload.Infos) != 1 {
		t.Fatalf("uploaded: %v", upload)
	}
	data := filepath.Join(m.root, "deployments/application/data")
	if found := m.run("find " + data + "/object-storage/mattermost -name note.txt"); !strings.Contains(found, "note.txt") {
		t.Errorf("the file is not in MinIO's bucket: %s", found)
	}
	m.run(
		"cd " + m.root + "/deployments/application/current && if docker compose version >/dev/null 2>&1; then docker compose " +
			"-p application restart; else docker-compose -p application restart; fi",
	)
	m.run("for _ in $(seq 60); do curl -sf -m 2 http://127.0.0.1:8065/api/v4/system/ping >/dev/null && exit 0; sleep 1; done; exit 1")
	if got := m.wants(200, m.login(), "GET", "/api/v4/files/"+upload.Infos[0].ID, ""); got != "carried across" {
		t.Errorf("the file comes back as %q", got)
	}

	// The calls plugin could register, and the server knows the address of the calls server.
	rtcd := "http://" + m.address("rtcd") + ":8045"
	if v := m.run("curl -sS -f -m 10 " + rtcd + "/version"); !strings.Contains(v, "buildVersion") {
		t.Errorf("the calls server: %s", v)
	}
	if got := m.run(
		"curl -sS -m 10 -o registered -w '%{http_code}' -d '{\"clientID\": \"chat.site.mil\", \"authKey\": " +
			"\"a-key-that-the-plugin-makes-up-itself\"}' " + rtcd + "/register",
	); got != "201" {
		t.Errorf("registering is answered with %s: %s", got, m.run("cat registered"))
	}
	m.run("exec 3<>/dev/tcp/127.0.0.1/8443")
	if ports := m.run(
		"docker port $(docker ps -q --filter label=com.docker.compose.service=rtcd)",
	); !strings.Contains(
		ports,
		"8443/udp -> 0.0.0.0:8443",
	) {
		t.Errorf("ports of the calls server: %s", ports)
	}
	if env := m.run(
		"docker inspect --format '{{json .Config.Env}}' $(docker ps -q --filter label=com.docker.compose.service=mattermost)",
	); !strings.Contains(
		env,
		"MM_CALLS_RTCD_SERVICE_URL=http://rtcd:8045",
	) {
		t.Errorf("the server is not told of it: %s", env)
	}

	// Prometheus scrapes the server, which answers only with a licence, and stores its data
	// below the data directory, where the operator's backup finds it.
	targets := m.run("curl -sS -f -m 10 http://" + m.address("prometheus") + ":9090/api/v1/targets")
	if !strings.Contains(targets, `"scrapeUrl":"http://mattermost:8067/metrics"`) {
		t.Errorf("Prometheus' targets: %s", targets)
	}
	m.run("test -d " + data + "/prometheus/wal")
	m.run("oob-bundle status --check --root " + m.root)
	for name, path := range map[string]string{"object-storage": "object-storage", "grafana": "grafana"} {
		if id := m.run(
			"docker inspect --format '{{.State.Status}}' $(docker ps -q --filter label=com.docker.compose.service=" + name + ")",
		); id != "running" {
			t.Errorf("%s is %s", name, id)
		}
		if _, err := os.Stat(filepath.Join(data, path)); err != nil {
			t.Error(err)
		}
	}
	if now := m.sent(); now != sent {
		t.Errorf("%d packets left for elsewhere", now-sent)
	}
}

// address returns the address of a service's container.
func (m *machine) address(service string) string {
	m.Helper()
	return m.run(
		"docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' $(docker ps -q --filter " +
			"label=com.docker.compose.service=" + service + ")",
	)
}

func (m *machine) decode(text string, v any) {
	m.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		m.Fatal(fmt.Errorf("%w in %s", err, text))
	}
}
