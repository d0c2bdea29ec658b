package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestAnotherBundle: a registry that answers with a different bundle is refused, although that
// bundle is signed by a trusted key.
func TestAnotherBundle(t *testing.T) {
	key, site := world.NewKey(t), world.NewRegistry(t, nil)
	dir := t.TempDir()
	oob := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := run(args, &out, &out)
		return code, out.String()
	}
	fill := func(name, channel string) {
		c := world.NewContent(name)
		c.Info.Channel = channel
		c.Add("docker.io/library/app:1", c.Image("linux/amd64", "content of "+channel))
		file := filepath.Join(dir, strings.ReplaceAll(channel, "/", "-"))
		world.Write(t, file, c.File(t, key), 0o644)
		code, out := oob(
			"install",
			file,
			"--key",
			key.Public,
			"--root",
			filepath.Join(dir, "root of "+filepath.Base(file)),
			"--registry",
			site.Host,
			"--plain-http",
			site.Host,
			"--take-over",
		)
		if code != 0 {
			t.Fatal(code, out)
		}
	}
	fill("frontend", "frontend/stable")
	fill("database", "database/stable")
	tags := func(name string) (list map[string]string) {
		list = map[string]string{}
		for _, tag := range site.Tags(t, "oob-bundle/"+name) {
			list[strings.SplitN(tag, "-", 2)[0]] = tag
		}
		return list
	}
	frontend, database := tags("frontend"), tags("database")
	lies := func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = strings.Replace(r.URL.Path, "/oob-bundle/frontend/", "/oob-bundle/database/", 1)
		for kind, tag := range frontend {
			r.URL.Path = strings.Replace(r.URL.Path, "/manifests/"+tag, "/manifests/"+database[kind], 1)
		}
		forward(site.Host).ServeHTTP(w, r)
	}
	proxy := httptest.NewServer(http.HandlerFunc(lies))
	t.Cleanup(proxy.Close)
	host := strings.TrimPrefix(proxy.URL, "http://")
	for _, ref := range []string{
		"frontend", "frontend:" + frontend["channel"], "frontend:" + frontend["oob"], "frontend:" + database["channel"],
		"database:" + frontend["channel"], "database:" + frontend["oob"],
	} {
		for _, command := range [][]string{{"install"}, {"install", "--dry-run"}, {"values"}, {"repair"}} {
			args := append(append([]string{}, command...), "oci://"+host+"/oob-bundle/"+ref, "--key", key.Public, "--plain-http", host)
			code, out := oob(append(args, "--root", filepath.Join(dir, "new"))...)
			if code != 5 || !regexp.MustCompile(`answers .*with another bundle`).MatchString(out) {
				t.Errorf("%v: %d %s", args, code, out)
			}
		}
	}
	code, out := oob(
		"install",
		"oci://"+host+"/oob-bundle/database",
		"--key",
		key.Public,
		"--plain-http",
		host,
		"--root",
		filepath.Join(dir, "new"),
	)
	if code != 0 {
		t.Errorf("the right one: %d %s", code, out)
	}
}
