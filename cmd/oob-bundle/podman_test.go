package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestPodman: with the value quadlet, podman runs a deployment or install refuses it; Docker
// never runs it.
func TestPodman(t *testing.T) {
	s := newSite(t)
	s.stock("application", manifests.Choice{Deployment: "compose", With: []string{"rtcd", "calls-offloader"}})
	plain, create := s.create("application", "--deployment", "compose")
	s.must(create...)
	stored := filepath.Join(s.dir, "stored.oob.tar")
	s.must(
		slices.Concat(
			[]string{
				"create",
				"application",
				"--sequence",
				"4000000000",
				"--key",
				s.key.Private,
				"-o",
				stored,
				"--deployment",
				"compose",
				"--with",
				"rtcd",
				"--with",
				"calls-offloader",
			},
			s.up.Flags(),
		)...)
	root, values := filepath.Join(s.dir, "root"), filepath.Join(s.dir, "site.yaml")
	install := func(bundle, quadlet string, args ...string) (int, string) {
		t.Helper()
		world.Write(t, values, []byte("domain: chat.site.mil\nquadlet: "+quadlet+"\n"), 0o600)
		status, _, stderr := s.oob(append([]string{"install", bundle, "--key", s.key.Public, "--root", root, "--values", values}, args...)...)
		return status, stderr
	}
	for _, args := range [][]string{{"--start"}, {"--start", "--host-root", filepath.Join(s.dir, "host")}} {
		if status, stderr := install(
			plain,
			"true",
			args...); status != 2 ||
			!strings.Contains(stderr, "podman and systemd look for the units below /etc alone") {
			t.Errorf("%q: exit status %d: %s", args, status, stderr)
		}
	}
	if status, stderr := install(stored, "true"); status != 2 || !strings.Contains(stderr, "quadlet: it would not run calls-offloader") {
		t.Errorf("a server that needs more: exit status %d: %s", status, stderr)
	}
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("a refusal has left something: %v", err)
	}
	for quadlet, says := range map[string]string{
		"false": "docker compose --project-name application up -d",
		"true":  "systemctl status 'application-*'",
	} {
		if status, stderr := install(plain, quadlet); status != 0 {
			t.Fatalf("exit status %d: %s", status, stderr)
		}
		text, err := os.ReadFile(filepath.Join(root, "deployments/application/current/READ-ME-FIRST.txt"))
		if err != nil {
			t.Fatal(err)
		}
		if both := strings.Contains(
			string(text),
			"docker compose",
		) == strings.Contains(
			string(text),
			"systemctl",
		); both ||
			!strings.Contains(string(text), says) {
			t.Errorf("quadlet: %s\n%s", quadlet, text)
		}
	}
	if status, stderr := install(stored, "false"); status != 0 {
		t.Errorf("with Docker everything is run: exit status %d: %s", status, stderr)
	}
}
