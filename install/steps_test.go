package install_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// clusterContent is a bundle for a cluster: a login of the site, a chart and a service that
// depends on a value.
func clusterContent() *world.Content {
	c := world.NewContent("chat")
	c.Doc.Form = "kubernetes"
	c.Add("docker.io/library/app:1", c.Image("linux/amd64", "app"))
	c.Chart("charts.example", "db", "1.2.3", "the archive")
	template := func(path, text string) {
		c.HostFile(path, text)
		c.Doc.Files[len(c.Doc.Files)-1].As = bundle.AsTemplate
	}
	template("login.yaml", `login: {{ yaml (siteFile "login") }}`)
	template("more.yaml", `more: {{ .Values.more }}`)
	template("values.yaml", `a: b`)
	template("READ-ME", `{{ range steps }}{{ .Apply }}{{ .Chart }} {{ .Namespace }}
{{ end }}`)
	c.Doc.Host = &bundle.Host{
		Values: []bundle.Value{
			{Name: "login", About: "a login", Kind: "file"}, {Name: "more", About: "more", Kind: "flag", Default: "false"},
			{Name: "space", About: "namespace", Default: "chat"},
		},
		Cluster: []bundle.Step{
			{Stage: "application", Apply: "more.yaml", If: "{{ .Values.more }}", Health: []string{"{{ .Values.space }}/app:80/"}},
			{Stage: "operators", Chart: "db", Release: "db", Namespace: "{{ .Values.space }}-db", Values: "values.yaml", Keep: true},
			{Stage: "namespaces", Apply: "login.yaml"},
		},
		Database: &bundle.Database{
			Service: "db", User: "u", Name: "n", Selector: "app={{ .Name }}", Namespace: "{{ .Values.space }}", If: "{{ .Values.more }}",
		},
	}
	return c
}

// TestStepsOfACluster checks that a release lists the steps in their order with templates filled
// in, has the archives of its charts, and keeps what the site's files contain to itself.
func TestStepsOfACluster(t *testing.T) {
	w := newFixture(t)
	file := clusterContent().File(t, w.key)
	login := filepath.Join(t.TempDir(), "login")
	world.Write(t, login, []byte("a \"secret\" login"), 0o600)
	with := func(more string) choice {
		return func(s *site) { s.Values = map[string]string{"login": login, "more": more} }
	}
	r := w.must(w.install(file, with("false")))
	steps := func(a *host.About) string {
		var list []string
		for _, s := range a.Cluster {
			list = append(list, s.String())
		}
		return strings.Join(list, "; ")
	}
	if got := steps(r.Release); got != "apply login.yaml; chart db-1.2.3.tgz as db in chat-db" {
		t.Errorf("the steps are %s", got)
	}
	if r.Release.Database != nil {
		t.Errorf("the database is %+v", r.Release.Database)
	}
	dir := filepath.Join(host.Base(w.root, "chat"), "current")
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if got := read("charts/db-1.2.3.tgz"); got != "the archive" {
		t.Errorf("the chart is %q", got)
	}
	if got := read("READ-ME"); got != "login.yaml \ncharts/db-1.2.3.tgz chat-db\n" {
		t.Errorf("READ-ME lists %q", got)
	}
	if got := read("login.yaml"); got != `login: "a \"secret\" login"` {
		t.Errorf("the login is %s", got)
	}
	if fi, err := os.Stat(filepath.Join(dir, "login.yaml")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the file with the login: %v, %v", fi.Mode(), err)
	}

	more := w.must(w.install(file, with("true")))
	if got := steps(more.Release); !strings.HasSuffix(got, "; apply more.yaml") || more.Release.ID == r.Release.ID {
		t.Errorf("with more the steps are %s", got)
	}
	d := more.Release.Database
	if d == nil || d.Selector != "app=chat" || d.Namespace != "chat" || more.Release.Cluster[2].Health[0] != "chat/app:80/" {
		t.Errorf("with more: %+v, %+v", d, more.Release.Cluster)
	}
	world.Write(t, login, []byte("another"), 0o600)
	if other := w.must(w.install(file, with("true"))); other.Release.ID == more.Release.ID || read("login.yaml") != `login: "another"` {
		t.Errorf("another login is not another release: %s", read("login.yaml"))
	}
	world.Write(t, login, []byte{0xff, 0xfe}, 0o600)
	if _, err := w.install(file, with("true")); err == nil || !strings.Contains(err.Error(), "is not text") {
		t.Errorf("a login that is not text: %v", err)
	}
}
