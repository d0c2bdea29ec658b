//go:build interop

package main

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"html"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/record"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// noise returns incompressible bytes, always the same for the same name.
func noise(name string, size int) []byte {
	h := fnv.New64a()
	h.Write([]byte(name))
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

// exampleLayers returns layers at about a fiftieth of the real sizes. Images share a few base
// layers.
func exampleLayers(ref bundle.Reference, platform string) []v1.Layer {
	layer := func(name string, size int) v1.Layer {
		return world.Layer(world.File{Name: "content", Mode: 0o644, Data: noise(name, size)})
	}
	sizes := []struct {
		part string
		base string
		size int
	}{
		{
			"mattermost-enterprise-edition",
			"ubuntu",
			5_300_000,
		},
		{"postgres", "debian", 1_900_000},
		{"nginx", "debian", 820_000},
		{"keycloak", "ubi", 4_100_000},
		{
			"minio",
			"ubi",
			1_200_000,
		},
		{"operator", "distroless", 610_000},
		{"velero", "distroless", 1_300_000},
		{"cloudnative", "distroless", 900_000},
		{"rtcd", "distroless", 420_000},
	}
	bases := map[string]int{"ubuntu": 590_000, "debian": 570_000, "ubi": 750_000, "distroless": 41_000}
	h := fnv.New32a()
	h.Write([]byte(ref.Name))
	base, size := "distroless", 200_000+int(h.Sum32()%700_000)
	for _, s := range sizes {
		if strings.Contains(ref.Name, s.part) {
			base, size = s.base, s.size
			break
		}
	}
	return []v1.Layer{layer(base+platform, bases[base]), layer(ref.String()+platform, size)}
}

// recordExample makes two bundles of the out-of-band architecture and the pages of the newer
// one: FILE.html, written by create, and inspected.html.
func recordExample(t *testing.T, program string) (s *site, file string) {
	s = newSite(t)
	s.up.Layers, s.up.SBOM = exampleLayers, exampleSBOM
	s.stock("out-of-band", manifests.Choice{Deployment: "compose", Platforms: []bundle.Platform{{OS: "linux", Architecture: "amd64"}}})
	key := filepath.Join(s.dir, "oob.key")
	if err := os.Rename(s.key.Private, key); err != nil {
		t.Fatal(err)
	}
	create := func(file, sequence string, more ...string) {
		args := []string{
			"create",
			"out-of-band",
			"--key",
			key,
			"-o",
			file,
			"--deployment",
			"compose",
			"--platform",
			"linux/amd64",
			"--with",
			"playbooks",
			"--sequence",
			sequence,
		}
		s.must(slices.Concat(args, s.up.Flags(), more)...)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "medium"), 0o755); err != nil {
		t.Fatal(err)
	}
	older, file := filepath.Join(s.dir, "october.oob.tar"), filepath.Join(s.dir, "medium", "out-of-band_11.7.9_linux-amd64.oob.tar")
	create(older, "1793000000", "--without", "nginx", "--with", "boards")
	create(file, "1795404897", "--with", "calls", "--with", "rtcd", "--reuse", older, "--with-installer="+program)
	s.must("inspect", file, "--html", filepath.Join(s.dir, "inspected.html"), "--against", older)
	return s, file
}

// paper is a page rendered by a browser without a network.
type paper struct {
	text       string // text of the PDF, squeezed
	screenshot string // path
	pdf        string // path
}

func (s side) print(page, name string) paper {
	s.Helper()
	p := paper{screenshot: filepath.Join(s.dir, name+".png"), pdf: filepath.Join(s.dir, name+".pdf")}
	browser := "unshare -n chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir=" + s.dir + "/browser "
	s.sh("timeout 120 " + browser + "--no-pdf-header-footer --print-to-pdf=" + p.pdf + " file://" + page)
	s.sh("timeout 120 " + browser + "--hide-scrollbars --window-size=900,1300 --screenshot=" + p.screenshot + " file://" + page)
	p.text = squeezed(s.sh("pdftotext -raw " + p.pdf + " -"))
	return p
}

// TestInteropRecord prints the transfer record with a browser and reads the PDF and the picture
// with other programs. It then follows the instructions of the record, and of the page beside
// the installer, without a network.
func TestInteropRecord(t *testing.T) {
	s := side{t, t.TempDir()}
	t.Setenv("PATH", filepath.Join(s.source(), "bin/tools")+":"+os.Getenv("PATH"))
	program := filepath.Join(s.dir, "oob-bundle")
	s.sh(
		"cd " + s.source() + " && CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -ldflags='-s -w' -o " + program + " ./cmd/oob-bundle",
	)
	world, file := recordExample(t, program)
	var doc any
	if err := json.Unmarshal([]byte(world.must("inspect", file, "--json")), &doc); err != nil {
		t.Fatal(err)
	}
	identity := doc.(map[string]any)["bundle"].(map[string]any)["digest"].(string)
	names := map[string]bool{"reference": true, "digest": true, "archive": true, "fingerprint": true}
	for name, page := range map[string]string{"made": record.FileName(file), "inspected": filepath.Join(world.dir, "inspected.html")} {
		p := s.print(page, name)
		n := 0
		collect(doc, names, func(field string, value any) {
			if n++; !strings.Contains(p.text, squeezed(value.(string))) {
				t.Errorf("%s: the PDF does not have the %s %s", name, field, value)
			}
		})
		if n < 40 {
			t.Errorf("%s: only %d names and digests were looked for", name, n)
		}
		if got := s.sh("zbarimg -q --raw " + p.screenshot); got != identity {
			t.Errorf("%s: the picture's code says %q, and the identity is %s", name, got, identity)
		}
		s.sh("pdftoppm -r 150 -gray -f 1 -l 1 -singlefile -png " + p.pdf + " " + name + "-paper")
		if got := s.sh("zbarimg -q --raw " + name + "-paper.png"); got != identity {
			t.Errorf("%s: the paper's code says %q, and the identity is %s", name, got, identity)
		}
	}
	if *updateDocs {
		s.sh(
			"mkdir -p " + s.source() + "/docs/images && for n in 1 3; do pdftoppm -r 96 -gray -f $n -l $n -singlefile -png " +
				"made.pdf " + s.source() + "/docs/images/transfer-record-$n; done",
		)
	}
	s.followRecord(world, file, identity)
	s.followReadMe(world, file, identity)
}

// followRecord runs the record's commands for checking a bundle without this program.
func (s side) followRecord(world *site, file, identity string) {
	page, err := os.ReadFile(record.FileName(file))
	if err != nil {
		s.Fatal(err)
	}
	commands, _, _ := strings.Cut(string(page[bytes.Index(page, []byte("<pre>"))+5:]), "</pre>")
	s.sh("mkdir check && cp " + file + " check/ && cp " + world.key.Public + " check/oob.pub")
	out, err := s.try("cd check && unshare -n bash -euxc " + disk.ShellWord(html.UnescapeString(commands)) + " 2>&1")
	if err != nil || !strings.Contains(out, "Verified OK") || !strings.Contains(out, strings.TrimPrefix(identity, "sha256:")+"  index.json") {
		s.Errorf("the commands on the record: %v\n%s", err, out)
	}
}

// followReadMe runs the commands of the page beside the installer, in a test directory instead
// of the system's directories. The commands must detect a changed program.
func (s side) followReadMe(world *site, file, identity string) {
	medium := filepath.Dir(file)
	text, err := os.ReadFile(filepath.Join(medium, "READ-ME-FIRST.txt"))
	if err != nil {
		s.Fatal(err)
	}
	var commands []string
	for _, line := range strings.Split(string(text), "\n") {
		if command, ok := strings.CutPrefix(
			line,
			"     ",
		); ok && !strings.Contains(command, "registry serve") &&
			!strings.Contains(command, "--start") {
			commands = append(commands, command)
		}
	}
	script := strings.Join(commands, "\n") + "\n"
	for from, to := range map[string]string{
		"sudo ": "", "/usr/local/bin/": "~/bin/", " oob.pub": " " + world.key.Public,
		"oob-bundle trust add": "oob-bundle trust add --root ~/root",
		"oob-bundle verify":    "oob-bundle verify --root ~/root",
		"oob-bundle values":    "oob-bundle values --root ~/root",
		"oob-bundle install ":  "oob-bundle install --root ~/root --host-root ~/host ",
	} {
		if !strings.Contains(script, from) {
			s.Errorf("the page does not say %q", from)
		}
		script = strings.ReplaceAll(script, from, to)
	}
	script = strings.ReplaceAll(
		script,
		">~/site.yaml\n",
		">~/site.yaml\nprintf 'domain: chat.site.mil\\nsupportEmail: help@site.mil\\nsmtpServer: mail.site.mil\\ncallsHost: "+
			"192.0.2.7\\n' >~/site.yaml\n",
	)
	s.write("readme.sh", "set -euxo pipefail\nmkdir -p ~/bin\nexport PATH=~/bin:$PATH\ncd \"$1\"\n"+script)
	follow := func(home, from string) (string, error) {
		s.sh("rm -rf " + home + " && mkdir " + home)
		return s.try("HOME=" + s.dir + "/" + home + " unshare -n bash readme.sh " + from + " 2>&1")
	}
	out, err := follow("home", medium)
	fingerprint := strings.TrimPrefix(world.key.Signer.Fingerprint.String(), "SHA256:") + "="
	for _, want := range []string{"Verified OK", fingerprint, "identity  " + identity, "is good"} {
		if err != nil || !strings.Contains(out, want) {
			s.Fatalf("what the page says does not lead to %q: %v\n%s", want, err, out)
		}
	}
	s.sh("cp -r " + medium + " evil && printf x | dd of=evil/oob-bundle_linux-amd64 bs=1 seek=3000000 conv=notrunc status=none")
	if out, err := follow("home2", s.dir+"/evil"); err == nil || strings.Contains(out, "Verified OK") {
		s.Errorf("cosign took a changed program: %s", out)
	}
	s.sh("sed -i '/cosign/,+1d' readme.sh")
	if out, err := follow("home3", s.dir+"/evil"); err == nil || !strings.Contains(out, "erification failure") {
		s.Errorf("openssl took a changed program: %v\n%s", err, out)
	}
}
