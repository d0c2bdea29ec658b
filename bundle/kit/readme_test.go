package kit

import (
	"crypto/ed25519"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestReadMe compares the pages with the golden files, and checks their length and width.
func TestReadMe(t *testing.T) {
	plain := ReadMe{
		Bundle: record.About{Digest: bundle.DigestOf([]byte("root")), Name: "app", Version: "1.0.0", Platforms: []string{"linux/amd64"}},
		Name:   "app_1.0.0_linux-amd64.oob.tar", Public: "oob.pub", Record: "app_1.0.0_linux-amd64.oob.tar.html",
		Program: "oob-bundle_linux-amd64", ProgramVersion: "v1.2.3", ProgramDigest: bundle.DigestOf([]byte("program")),
	}
	asking := plain
	asking.Name, asking.Volumes, asking.Startable = "ddil 11.oob.tar", []string{"ddil 11.oob.tar.001", "ddil 11.oob.tar.002"}, true
	asking.Values = []bundle.Value{{Name: "domain", Required: true}, {Name: "port"}, {Name: "callsHost", Required: true}}
	asking.public = ed25519.PublicKey{}
	for name, r := range map[string]ReadMe{"plain.txt": plain, "asking.txt": asking} {
		got, err := r.text()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name)
		if *update {
			if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, got, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || string(want) != string(got) {
			t.Errorf("%s is not what is written (go test ./bundle/kit -update): %v", path, err)
		}
		if n := strings.Count(string(got), "\n"); n > 72 {
			t.Errorf("%s has %d lines", name, n)
		}
		for _, line := range strings.Split(string(got), "\n") {
			if len([]rune(line)) > 84 && !strings.HasPrefix(line, "     ") { // commands are not wrapped
				t.Errorf("%s: %q", name, line)
			}
		}
	}
}
