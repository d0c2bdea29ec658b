//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestPipesWithoutWriter: no command hangs on a pipe without a writer in place of a file.
func TestPipesWithoutWriter(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	pipe := path("fifo")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	key := world.NewKey(t)
	world.Write(t, path("b.oob.tar"), world.Small(t, key), 0o644)
	manifest := func(name, component string) {
		head := "apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: a, version: \"1\"}\ncomponents:\n- name: a\n  "
		world.Write(t, path(name), []byte(head+component+"\n"), 0o644)
	}
	manifest("m.yaml", "images: [localhost:1/a:1]")
	manifest("f.yaml", "files: [{source: fifo, path: a}]")
	for _, name := range []string{"root/registry", "accounts"} {
		if err := os.MkdirAll(path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(path("accounts/accounts"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"verify PIPE --key PUBLIC",
		"verify BUNDLE --key PIPE",
		"inspect PIPE",
		"inspect BUNDLE --against PIPE",
		"inspect BUNDLE --html PIPE",
		"install BUNDLE --key PIPE --root DIR/root",
		"install PIPE --key PUBLIC --root DIR/root",
		"install BUNDLE --key PUBLIC --root DIR/root --values PIPE --dry-run",
		"install BUNDLE --key PUBLIC --root DIR/root --registry localhost:1 --ca-file PIPE",
		"values PIPE --key PUBLIC",
		"values BUNDLE --key PIPE",
		"trust add PIPE --root DIR/root",
		"create PIPE --key PRIVATE",
		"create DIR/m.yaml --key PIPE -o DIR/out.tar",
		"create DIR/m.yaml --key PRIVATE -o DIR/out.tar --lock PIPE",
		"create DIR/m.yaml --key PRIVATE -o DIR/out.tar --ca-file PIPE",
		"create DIR/m.yaml --key PRIVATE -o DIR/out.tar --reuse PIPE",
		"create DIR/m.yaml --key PRIVATE -o DIR/out.tar --with-installer=PIPE",
		"create DIR/m.yaml --key PRIVATE -o PIPE",
		"create DIR/f.yaml --key PRIVATE -o DIR/out.tar",
		"lock PIPE",
		"lock DIR/m.yaml --diff PIPE",
		"sign BUNDLE --key PIPE",
		"sign PIPE --key PRIVATE",
		"registry serve --root DIR/root --accounts PIPE",
		"registry serve --root DIR/root --tls-cert PIPE --tls-key PRIVATE",
		"registry serve --root DIR/root --tls-cert PUBLIC --tls-key PIPE",
		"registry account someone --root DIR/accounts",
	} {
		t.Run(line, func(t *testing.T) {
			t.Setenv("OOB_BUNDLE_PASSWORD", "")
			t.Setenv("OOB_BUNDLE_ACCOUNT_PASSWORD", "password")
			args := strings.Fields(strings.NewReplacer("PIPE", pipe, "BUNDLE", path("b.oob.tar"), "PUBLIC", key.Public,
				"PRIVATE", key.Private, "DIR", dir).Replace(line))
			refusedInTime(t, args)
		})
	}
}

func refusedInTime(t *testing.T, args []string) {
	t.Helper()
	var out, err strings.Builder // of the command
	code := make(chan int, 1)
	go func() { code <- run(args, &out, &err) }()
	select {
	case c := <-code:
		if c != 2 && c != 7 {
			t.Errorf("exit %d: %s%s", c, out.String(), err.String())
		}
		if !strings.Contains(err.String(), "pipe") && !strings.Contains(err.String(), "not a file") &&
			!strings.Contains(err.String(), "not a transfer record") {
			t.Errorf("the message names no pipe: %s", err.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not return")
	}
}

// TestPipesWithWriter: a key may be read from a pipe of another program.
func TestPipesWithWriter(t *testing.T) {
	dir := t.TempDir()
	key := world.NewKey(t)
	file := filepath.Join(dir, "b.oob.tar")
	world.Write(t, file, world.Small(t, key), 0o644)
	data, err := disk.ReadFile(key.Public, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() { _ = os.WriteFile(pipe, data, 0) }()
	var out, errors strings.Builder
	if code := run([]string{"verify", file, "--key", pipe}, &out, &errors); code != 0 {
		t.Errorf("exit %d: %s", code, errors.String())
	}
}
