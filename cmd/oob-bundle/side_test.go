//go:build interop || e2e || kubernetes

package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// side is a directory in which real programs run.
type side struct {
	*testing.T
	dir string
}

// sh runs a shell line in the directory and returns what it prints on stdout.
func (s side) sh(line string) string {
	s.Helper()
	out, err := s.try(line)
	if err != nil {
		s.Fatalf("%s: %v", line, err)
	}
	return out
}

func (s side) try(line string) (string, error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // not t.Context: sh also runs in Cleanup
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", line)
	cmd.Dir = s.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.Logf("%s\n%s%s", line, out, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

func (s side) write(name, text string) {
	s.Helper()
	world.Write(s.T, filepath.Join(s.dir, name), []byte(text), 0o644)
}

// serve starts a stock distribution registry and returns its address.
func (s side) serve(addr string) string {
	s.Helper()
	config := "registry-" + strings.ReplaceAll(addr, ":", "-")
	s.write(
		config+".yml",
		"version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"+
			"storage: {filesystem: {rootdirectory: "+s.dir+"/"+config+"}, delete: {enabled: true}}\n"+
			"http: {addr: "+addr+"}\n",
	)
	s.start(addr, "registry", "serve", config+".yml")
	return addr
}

// start starts a program in the directory and waits until it listens. It is killed when
// the test ends.
func (s side) start(addr string, args ...string) *exec.Cmd {
	s.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s.sh(
		"for _ in $(seq 100); do (exec 3<>/dev/tcp/" + strings.ReplaceAll(addr, ":", "/") + ") 2>/dev/null && exit 0; sleep 0.1; done; exit 1",
	)
	return cmd
}
