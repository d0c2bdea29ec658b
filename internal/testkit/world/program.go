package world

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Program builds a Linux program for this machine's architecture. The program does nothing,
// but its build information names the given package. It replaces oob-bundle, which takes long
// to build.
func Program(tb testing.TB, mainPackage string) string {
	tb.Helper()
	dir := tb.TempDir()
	const module = "github.com/oob-bundle/oob-bundle"
	at := filepath.Join(dir, mainPackage[len(module):])
	if err := os.MkdirAll(at, 0o755); err != nil {
		tb.Fatal(err)
	}
	Write(tb, filepath.Join(dir, "go.mod"), []byte("module "+module+"\n\ngo 1.26\n"), 0o644)
	Write(tb, filepath.Join(at, "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o644)
	out := filepath.Join(dir, "program")
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, mainPackage)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOFLAGS=", "GOWORK=off")
	if said, err := c.CombinedOutput(); err != nil {
		tb.Fatalf("go build: %v\n%s", err, said)
	}
	return out
}
