package main

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/oob-bundle/oob-bundle/"

// TestWalls holds the direction of imports and says why each wall is there.
func TestWalls(t *testing.T) {
	for _, wall := range []struct {
		room    string
		without []string
		why     string
	}{
		{
			"bundle", []string{
				"net/http", "os/exec", "github.com/mholt/archives", module + "manifests", module + "verify", module + "install",
				module + "bundle/remote", module + "bundle/sign",
			},
			"the format is a value: whoever reads it must not be able to reach a network, a program or a key",
		},
		{
			"bundle/record", []string{
				"net/http", "os/exec", module + "manifests", module + "verify", module + "install", module + "bundle/remote",
				module + "bundle/sign",
			},
			"what is told about a bundle comes from the bundle",
		},
		{"bundle/kit", []string{"net/http", "os/exec", module + "bundle/remote", module + "bundle/pull", module + "install"},
			"the program that goes along is a file that is there, and it is not run"},
		{
			"verify", []string{
				"net/http", "os/exec", "github.com/mholt/archives", module + "bundle/pull", module + "bundle/sign",
				module + "bundle/create", module + "bundle/remote", module + "install",
			},
			"what decides about trust reads a file and nothing else",
		},
		{"verify/trust", []string{"net/http", "os/exec", module + "bundle/sign", module + "bundle/remote"},
			"the same, for the keys"},
		{"bundle/sign", []string{"net/http", "os/exec", module + "bundle/remote", module + "bundle/pull"},
			"private keys stay away from connections"},
		{"manifests", []string{"net/http", "os/exec", module + "bundle/remote"},
			"documents are read, not followed"},
		{"install", []string{module + "bundle/pull", module + "bundle/sign", module + "bundle/create", module + "manifests"},
			"the isolated side neither fetches from upstream nor signs"},
		{
			"install/operate", []string{
				module + "bundle/pull", module + "bundle/sign", module + "bundle/create", module + "manifests",
				"github.com/spf13/cobra",
			},
			"what an operator does is a function with options and a result, without flags",
		},
		{"install/registry", []string{module + "bundle/pull", module + "bundle/sign", module + "bundle/create", module + "manifests"},
			"the isolated side neither fetches from upstream nor signs"},
		{"bundle/create", []string{module + "install"},
			"the connected side installs nothing"},
		{"cmd/oob-bundle", []string{module + "internal/testkit"},
			"the world of the tests is not shipped"},
	} {
		deps := map[string]bool{}
		for _, d := range strings.Fields(list(t, "-deps", "./"+wall.room)) {
			deps[d] = true
		}
		if !deps[module+wall.room] {
			t.Fatalf("go list knows no %s", wall.room)
		}
		for _, w := range wall.without {
			if deps[w] {
				t.Errorf("%s reaches %s; it must not: %s", wall.room, w, wall.why)
			}
		}
	}
}

// TestRooms: every package has a comment that says what it is.
func TestRooms(t *testing.T) {
	for _, line := range strings.Split(strings.TrimSpace(list(t, "-f", "{{.ImportPath}}\t{{.Doc}}", "./...")), "\n") {
		if path, doc, _ := strings.Cut(line, "\t"); doc == "" {
			t.Errorf("%s has no package comment", path)
		}
	}
}

func list(t *testing.T, args ...string) string {
	t.Helper()
	return goTool(t, append([]string{"list"}, args...)...)
}

func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %v: %v", args, err)
	}
	return string(out)
}
