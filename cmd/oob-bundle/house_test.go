package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/oob-bundle/oob-bundle/"

// wall is the list of imports that a package may have.
type wall struct {
	room string
	may  string // packages of this module that it may import directly
	// Which of net/http and os/exec it may import, also indirectly. mholt/archives imports
	// net/http; go-containerregistry (credential helpers) imports both.
	reaches string
	why     string
}

// walls has a row for every package, starting with the format.
var walls = []wall{
	{"bundle/disk", "", "", "files know nothing of bundles"},
	{
		"bundle", "bundle/disk", "",
		"the format is a value: who reads it must not be able to reach a network, a program or a key",
	},
	{"bundle/publickey", "bundle", "", "one place decides which keys there are and what they accept"},
	{"bundle/foreign", "bundle", "net/http", "archives of others are read here, and nothing else happens to them"},
	{"bundle/record", "bundle bundle/disk", "", "what is reported about a bundle comes from the bundle"},
	{
		"bundle/sign", "bundle bundle/disk bundle/publickey", "",
		"private keys stay away from connections",
	},
	{
		"bundle/kit", "bundle bundle/disk bundle/record bundle/sign", "",
		"the program that goes along is a file; it is not run",
	},
	{"bundle/remote", "bundle bundle/disk", "net/http os/exec", "connections are made here and know nothing of manifests or keys"},
	{
		"bundle/pull", "bundle bundle/disk bundle/foreign bundle/publickey bundle/remote manifests", "net/http os/exec",
		"upstream's content is fetched and judged here; nothing is signed",
	},
	{
		"bundle/create",
		"bundle bundle/disk bundle/foreign bundle/kit bundle/pull bundle/record bundle/remote bundle/sign manifests", "net/http os/exec",
		"the connected side installs nothing",
	},
	{"manifests", "bundle bundle/disk", "", "documents are read, not followed"},
	{"verify", "bundle bundle/publickey", "", "what decides about trust reads a file and nothing else"},
	{"verify/trust", "bundle bundle/disk bundle/publickey verify", "", "the same, for the keys"},
	{"install/host", "bundle bundle/disk bundle/foreign verify", "net/http", "files of the host are written here; no program is run for it"},
	{"install/ledger", "bundle bundle/disk install/host", "net/http", "records are read and compared without looking at a registry"},
	{
		"install", "bundle bundle/disk install/host install/ledger verify verify/trust", "net/http",
		"the transaction knows registries as an interface, and fetches nothing from upstream",
	},
	{
		"install/registry", "bundle bundle/disk bundle/remote install install/ledger verify/trust", "net/http os/exec",
		"the isolated side neither fetches from upstream nor signs",
	},
	{"install/service", "bundle bundle/disk install/host", "net/http os/exec", "programs of the host are run here and nowhere else"},
	{
		"install/operate",
		"bundle bundle/record bundle/remote install install/host install/ledger install/registry install/service verify",
		"net/http os/exec",
		"what an operator does is a function with options and a result, without flags",
	},
	{
		"cmd/oob-bundle", "bundle bundle/create bundle/disk bundle/kit bundle/pull bundle/record bundle/remote bundle/sign install " +
			"install/host install/ledger install/operate install/registry install/service manifests verify verify/trust",
		"net/http os/exec",
		"flags are parsed and results printed; the test kit is not shipped",
	},
}

// onlyIn lists, for some imports, the only packages that may import them directly.
var onlyIn = map[string]string{
	"net/http":                  "bundle/remote install/registry install/service install/operate",
	"os/exec":                   "install/service",
	"github.com/spf13/cobra":    "cmd/oob-bundle",
	"github.com/mholt/archives": "bundle/foreign",
}

// TestWalls: every package imports only the packages of this module that its row allows. It
// reaches net/http and os/exec only if its row allows that, and imports a package of onlyIn
// directly only if listed there.
func TestWalls(t *testing.T) {
	known := map[string]bool{}
	for _, w := range walls {
		known[w.room] = true
		may := strings.Fields(w.may)
		for _, path := range strings.Fields(list(t, "-f", `{{join .Imports " "}}`, "./"+w.room)) {
			if own, ok := strings.CutPrefix(path, module); ok && !slices.Contains(may, own) {
				t.Errorf("%s imports %s; it must not: %s", w.room, own, w.why)
			}
			if only, ok := onlyIn[path]; ok && !slices.Contains(strings.Fields(only), w.room) {
				t.Errorf("%s imports %s, which is for %s; it must not: %s", w.room, path, only, w.why)
			}
		}
		deps := strings.Fields(list(t, "-deps", "./"+w.room))
		for _, path := range []string{"net/http", "os/exec"} {
			if slices.Contains(deps, path) && !strings.Contains(w.reaches, path) {
				t.Errorf("%s reaches %s; it must not: %s", w.room, path, w.why)
			}
		}
	}
	for _, path := range strings.Fields(list(t, "./...")) {
		room := strings.TrimPrefix(path, module)
		if !known[room] && !strings.HasPrefix(room, "internal/testkit/") {
			t.Errorf("%s has no row among the walls", room)
		}
	}
}

// TestRooms: every package has a package comment.
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
