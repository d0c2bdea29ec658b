//go:build interop

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/hostile"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestCosignLines passes the lines of TestLines of package verify to cosign verify-blob. The
// table gives the reason for each difference.
func TestCosignLines(t *testing.T) {
	s := side{t, t.TempDir()}
	t.Setenv("PATH", filepath.Join(s.source(), "bin/tools")+":"+os.Getenv("PATH"))
	cosign, err := exec.LookPath("cosign")
	if err != nil {
		t.Fatal(err)
	}
	root := world.Rich("x").IndexJSON()
	world.Write(t, filepath.Join(s.dir, "index.json"), root, 0o644)
	same, differ := 0, 0
	for _, row := range hostile.Lines(t, root) {
		t.Run(row.Name, func(t *testing.T) {
			text := row.Text
			if row.Name != "a line break" {
				text, _, _ = bytes.Cut(text, []byte("\n"))
			}
			path := filepath.Join(s.dir, "s.json")
			world.Write(t, path, text, 0o644)
			out, err := exec.Command(
				cosign,
				"verify-blob",
				"--key",
				row.Public,
				"--bundle",
				path,
				"--insecure-ignore-tlog",
				filepath.Join(s.dir, "index.json"),
			).CombinedOutput()
			if (err == nil) != row.Cosign {
				t.Errorf("cosign accepts it: %v; the table says %v\n%s", err == nil, row.Cosign, out)
			}
			if row.Good == row.Cosign {
				same++
				return
			}
			differ++
			if row.Good {
				t.Error("verify takes what cosign does not")
			}
			t.Logf("only cosign accepts it: %s", row.Why)
		})
	}
	t.Logf("%d signatures: of %d cosign says the same, %d it accepts and verify does not", same+differ, same, differ)
}
