//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// secretSide is a directory in which the program runs with secrets, and its whole output.
type secretSide struct {
	t       *testing.T
	program string
	dir     string
	env     []string
	printed bytes.Buffer
}

func (s *secretSide) run(args ...string) {
	s.t.Helper()
	cmd := exec.Command(s.program, args...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), s.env...)
	out, err := cmd.CombinedOutput()
	s.printed.Write(out)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// holders lists the files below the directory that contain a text, with their modes.
func (s *secretSide) holders(text string) []string {
	s.t.Helper()
	var list []string
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if fi, err := d.Info(); err == nil && bytes.Contains(data, []byte(text)) {
			list = append(list, fmt.Sprintf("%s %04o", strings.TrimPrefix(path, s.dir+"/"), fi.Mode().Perm()))
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// TestSecretsStay: the password of a key stays in the environment of the program. A password
// generated on the site is stored only in files that only their owner can read.
func TestSecretsStay(t *testing.T) {
	const password = "canary-of-the-key"
	up := world.NewRegistry(t, nil)
	up.Push(t, "team/app:1", world.Image("linux/amd64", world.Layer(world.File{Name: "app", Mode: 0o755, Data: []byte("app")})))
	s := &secretSide{t: t, program: program(t), dir: t.TempDir(), env: []string{"OOB_BUNDLE_PASSWORD=" + password}}
	manifest := `apiVersion: oobbundle.dev/v1
kind: Manifest
metadata: {name: app, version: "${versions.app}"}
versions: {app: 1.0.0}
components:
  - name: app
    images: ["` + up.Host + `/team/app:1"]
    files: [{source: secret.env, path: secret.env, mode: "0644", as: template}]
    host:
      - secrets: [{name: password, length: 32}]
`
	world.Write(t, filepath.Join(s.dir, "app.yaml"), []byte(manifest), 0o644)
	world.Write(
		t, filepath.Join(s.dir, "secret.env"),
		[]byte("# ${versions.app}\nPASSWORD={{ .Secrets.password }}\nV={{ .Version }}\n"),
		0o644,
	)
	// The credential helper records its environment, that of the program's child processes.
	helper := "#!/bin/sh\nenv >>" + s.dir + "/helper\necho '{\"Username\":\"u\",\"Secret\":\"p\"}'\n"
	if err := errors.Join(os.Mkdir(filepath.Join(s.dir, "bin"), 0o700), os.Mkdir(filepath.Join(s.dir, "docker"), 0o700)); err != nil {
		t.Fatal(err)
	}
	world.Write(t, filepath.Join(s.dir, "bin/docker-credential-spy"), []byte(helper), 0o755)
	world.Write(t, filepath.Join(s.dir, "docker/config.json"), []byte(`{"credHelpers":{"`+up.Host+`":"spy"}}`), 0o600)
	s.env = append(
		s.env,
		"COSIGN_PASSWORD="+password,
		"OOB_BUNDLE_ACCOUNT_PASSWORD="+password,
		"PATH="+s.dir+"/bin:"+os.Getenv("PATH"),
		"DOCKER_CONFIG="+s.dir+"/docker",
	)
	s.run("key", "generate")
	s.run("key", "generate", "--output-prefix", "second")
	create := []string{"create", "app.yaml", "--key", "oob.key", "--plain-http", up.Host, "--platform", "linux/amd64"}
	s.run(append(create, "-o", "one.oob.tar", "--sequence", "1")...)
	s.run(append(create, "-o", "two.oob.tar", "--sequence", "2", "--set", "versions.app=2.0.0", "--json")...)
	s.run("sign", "one.oob.tar", "--key", "second.key")
	trusting := []string{"--key", "oob.pub", "--root", "site"}
	s.run(append([]string{"install", "one.oob.tar", "--json"}, trusting...)...)
	m := regexp.MustCompile(`"password":"([^"]+)"`).FindSubmatch(readFile(t, filepath.Join(s.dir, "site/deployments/app/secrets.json")))
	if m == nil {
		t.Fatal("no password was made")
	}
	made := string(m[1])
	s.run(append([]string{"install", "two.oob.tar", "--dry-run", "--json"}, trusting...)...)
	s.run(append([]string{"install", "two.oob.tar"}, trusting...)...)
	s.run("status", "--check", "--json", "--root", "site")
	world.Write(t, filepath.Join(s.dir, "site/deployments/app/current/secret.env"), []byte("drift"), 0o600)
	s.run(append([]string{"repair", "two.oob.tar", "--json"}, trusting...)...)
	s.run("rollback", "--root", "site", "--json")
	s.run(append([]string{"values", "two.oob.tar"}, trusting...)...)
	s.run("inspect", "two.oob.tar", "--json")
	for _, secret := range []string{password, made} {
		if strings.Contains(s.printed.String(), secret) {
			t.Errorf("%q was printed", secret)
		}
	}
	if asked := s.holders("DOCKER_CONFIG="); len(asked) != 1 {
		t.Errorf("the helper was not asked: %v", asked)
	}
	if list := s.holders(password); len(list) > 0 {
		t.Errorf("the key's password stands in %v", list)
	}
	list := s.holders(made)
	for _, holder := range list {
		if !strings.HasSuffix(holder, " 0600") || !strings.HasPrefix(holder, "site/deployments/app/") {
			t.Errorf("a password of the site stands in %s", holder)
		}
	}
	if len(list) < 2 {
		t.Errorf("it stands in %v only, and what uses it would be more", list)
	}
	s.run("uninstall", "--root", "site", "--json")
	if list := s.holders(made); !slices.Equal(list, []string{"site/deployments/app/secrets.json 0600"}) {
		t.Errorf("after uninstall it stands in %v", list)
	}
}

// TestNoCore: a program that a signal kills while it holds a private key leaves no core dump.
func TestNoCore(t *testing.T) {
	key := world.NewKey(t)
	for _, signal := range []syscall.Signal{syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGQUIT, syscall.SIGILL} {
		asked := make(chan struct{}, 100)
		up := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-r.Context().Done()
		}))
		host := strings.TrimPrefix(up.URL, "http://")
		dir := t.TempDir()
		world.Write(
			t, filepath.Join(dir, "m.yaml"),
			[]byte(
				"apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: app, version: 1.0.0}\ncomponents:\n  - name: app\n "+
					"   images: [\""+host+"/app:1\"]\n",
			),
			0o644,
		)
		cmd := exec.Command(
			"sh",
			"-c",
			`ulimit -c unlimited; exec "$@"`,
			"sh",
			program(t),
			"create",
			"m.yaml",
			"--key",
			key.Private,
			"--plain-http",
			host,
		)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "OOB_BUNDLE_PASSWORD=")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-asked // by now it has read the key
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if err == nil || !ok || ws.CoreDump() {
			t.Errorf("%s: %v, with a core file: %v", signal, err, ok && ws.CoreDump())
		}
		up.Close()
	}
}
