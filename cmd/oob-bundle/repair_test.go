//go:build linux && amd64 && !race

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// blobsOf returns the hex digests of a bundle's blobs.
func blobsOf(t *testing.T, path string) map[string]bool {
	t.Helper()
	list := map[string]bool{}
	for r := tar.NewReader(bytes.NewReader(readFile(t, path))); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok {
			list[hex] = true
		}
	}
}

// TestRepairEarlier: if blobs of an earlier release are damaged, repair with the current bundle
// fails and names the earlier bundle. repair with the earlier bundle restores the blobs.
func TestRepairEarlier(t *testing.T) {
	w := newFaultWorld(t)
	install := func(name string, more ...string) []string {
		return append([]string{"install", "in/" + name + ".oob.tar", "--key", "in/key.pub", "--root", "site"}, more...)
	}
	command(t, w.dir, w.program, install("one", "--values", "in/site.yaml")...)
	command(t, w.dir, w.program, install("two")...)
	newer, spoilt := blobsOf(t, filepath.Join(w.dir, "in/two.oob.tar")), 0
	for hex := range blobsOf(t, filepath.Join(w.dir, "in/one.oob.tar")) {
		p := filepath.Join(w.dir, "site/registry/docker/registry/v2/blobs/sha256", hex[:2], hex, "data")
		if !newer[hex] {
			world.Write(t, p, append(readFile(t, p), 'x'), 0o644)
			spoilt++
		}
	}
	if spoilt == 0 {
		t.Fatal("the two bundles have the same blobs")
	}
	repair := func(name string) (string, int) {
		c := exec.Command(w.program, "repair", "in/"+name+".oob.tar", "--key", "in/key.pub", "--root", "site")
		c.Dir = w.dir
		out, err := c.CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return string(out), exit.ExitCode()
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(out), 0
	}
	if out, code := repair("two"); code != 1 || !strings.Contains(out, "run repair with the one that brought them: app 1.0.0 (sha256:") {
		t.Errorf("the newer one: exit status %d\n%s", code, out)
	}
	if out, code := repair("one"); code != 0 {
		t.Errorf("the earlier one: exit status %d\n%s", code, out)
	}
	command(t, w.dir, w.program, "status", "--check", "--root", "site")
	command(t, w.dir, w.program, "rollback", "--root", "site")
	command(t, w.dir, w.program, "status", "--check", "--root", "site")
}
