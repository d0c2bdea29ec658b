//go:build interop

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// upstream builds and pushes real images: Debian from debootstrap, PostgreSQL and nginx from
// Debian's packages (Docker's schema 2), an image with zstd layers, a complete index, an index
// with attestations of which the bundle carries one platform, and an artifact.
func (s side) upstream(up string) {
	s.Helper()
	s.sh(
		"[ -f /var/cache/oob-interop/rootfs.tar.gz ] || { mkdir -p /var/cache/oob-interop; d=$(mktemp -d); debootstrap " +
			"--variant=minbase bookworm $d; tar -C $d -czf rootfs.tar.gz .; rm -rf $d; mv rootfs.tar.gz /var/cache/oob-interop/; }",
	)
	s.sh("mkdir -p debian postgres nginx && cp /var/cache/oob-interop/rootfs.tar.gz debian/")
	s.write("debian/Dockerfile", "FROM scratch\nADD rootfs.tar.gz /\nCMD [\"/bin/bash\"]\n")
	s.write(
		"postgres/Dockerfile",
		"FROM "+up+"/real/debian:bookworm\nRUN apt-get update && apt-get install -y --no-install-recommends postgresql-15 && "+
			"apt-get clean && rm -rf /var/lib/apt/lists/*\nUSER postgres\nENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin "+
			"PGDATA=/var/lib/postgresql/data\nRUN initdb -A trust\nCMD [\"postgres\"]\n",
	)
	s.write(
		"nginx/Dockerfile",
		"FROM "+up+"/real/debian:bookworm\nRUN apt-get update && apt-get install -y --no-install-recommends nginx-light && "+
			"apt-get clean && rm -rf /var/lib/apt/lists/*\n",
	)
	s.sh("docker build -q --network host -t " + up + "/real/debian:bookworm debian")
	s.sh("docker build -q --network host -t " + up + "/real/postgres:15 postgres")
	s.sh("docker build -q --network host -t " + up + "/real/nginx:1.22 nginx")
	for _, ref := range []string{"debian:bookworm", "postgres:15", "nginx:1.22"} {
		s.sh("docker push -q " + up + "/real/" + ref)
	}
	s.sh(
		"skopeo copy -q docker-daemon:" + up + "/real/debian:bookworm oci:zstd:1 --format oci --dest-compress-format zstd && " +
			"skopeo copy -q oci:zstd:1 docker://" + up + "/real/debian:zstd --dest-tls-verify=false",
	)
	var layers []world.File
	for _, arch := range []string{"amd64", "arm64"} {
		s.sh("cd " + s.source() + " && CGO_ENABLED=0 GOARCH=" + arch + " go build -o " + s.dir + "/tool-" + arch + " ./cmd/oob-bundle")
		program, err := os.ReadFile(filepath.Join(s.dir, "tool-"+arch))
		if err != nil {
			s.Fatal(err)
		}
		layers = append(layers, world.File{Name: "app", Mode: 0o755, Data: program})
	}
	amd, arm := world.Image("linux/amd64", world.Layer(layers[0])), world.Image("linux/arm64", world.Layer(layers[1]))
	r := &world.Registry{Host: up}
	r.Push(s.T, "real/tool:1", world.WithAttestation(world.WithAttestation(world.Index(amd, arm), amd), arm))
	r.Push(s.T, "real/both:1", world.WithAttestation(world.Index(amd), amd))
	s.write("artifact.txt", "not an image\n")
	s.sh("oras push --plain-http " + up + "/real/artifact:1 --artifact-type application/vnd.example.notes artifact.txt:text/plain")
}

// source is the root of this module.
func (s side) source() string {
	s.Helper()
	wd, err := os.Getwd()
	if err != nil {
		s.Fatal(err)
	}
	return filepath.Dir(filepath.Dir(wd))
}

// real lists the references of the bundle, without the host.
var real = []string{"debian:bookworm", "postgres:15", "nginx:1.22", "debian:zstd", "tool:1", "both:1", "artifact:1"}

// TestInterop tests create and install with real images, real registries and other programs
// that read the same formats.
func TestInterop(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root: it starts a Docker engine in a network namespace")
	}
	s := side{t, t.TempDir()}
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+filepath.Join(s.source(), "bin/tools")+":"+os.Getenv("PATH"))
	t.Setenv("OOB_BUNDLE_PASSWORD", "")
	t.Setenv("COSIGN_PASSWORD", "")
	t.Setenv("REGCTL_CONFIG", filepath.Join(s.dir, "regctl.json"))
	s.sh("cd " + s.source() + " && CGO_ENABLED=0 go build -o " + bin + "/oob-bundle ./cmd/oob-bundle")
	const up = "127.0.0.1:5701"
	s.serve(up)
	s.upstream(up)

	manifest := "apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: real, version: 1.0.0}\ncomponents:\n  - " +
		"name: all\n    images:\n"
	for _, ref := range real {
		manifest += "      - " + up + "/real/" + ref + "\n"
	}
	s.write("real.yaml", manifest)
	s.sh("oob-bundle key generate && oob-bundle create real.yaml --key oob.key --platform linux/amd64 --plain-http " + up + " -o real.oob.tar")
	s.sh(
		"tar -xOf real.oob.tar index.json >index.json && tar -xOf real.oob.tar signatures.jsonl | sed -n 1p >s.json && " +
			"sha256sum index.json >identity",
	)

	t.Run("cosign", func(t *testing.T) { side{t, s.dir}.cosign() })
	t.Run("archives", func(t *testing.T) { side{t, s.dir}.archives(up) })
	t.Run("layout", func(t *testing.T) { side{t, s.dir}.layout(up) })
	t.Run("stock registry", func(t *testing.T) { side{t, s.dir}.stockRegistry(up) })
	t.Run("isolated", func(t *testing.T) {
		out := side{
			t, s.dir,
		}.sh(
			"unshare -n -m bash " + s.source() + "/cmd/oob-bundle/testdata/isolated.sh " + s.dir + " " + strings.ReplaceAll(
				up,
				":",
				"_",
			) + "/real 2>&1",
		)
		t.Log(out)
		if !strings.Contains(out, "isolated: all is well") {
			t.Error("the script ended early")
		}
	})
	t.Run("signatures and charts", func(t *testing.T) { side{t, s.dir}.carried(up) })
	t.Run("one write", func(t *testing.T) { side{t, s.dir}.oneWrite(up) })
	t.Run("no room in tmp", func(t *testing.T) { side{t, s.dir}.noTmp(up) })
	t.Run("full disk", func(t *testing.T) { side{t, s.dir}.fullDisk(up) })
	t.Run("digests", func(t *testing.T) { side{t, s.dir}.digests(up) })
}

// cosign checks that cosign accepts our signature and refuses a changed index, and that each
// program signs with the other's keys.
func (s side) cosign() {
	const check = "cosign verify-blob --key oob.pub --bundle s.json --insecure-ignore-tlog "
	s.sh(check + "index.json")
	s.sh("sed 's/real/reel/' index.json >changed.json")
	if _, err := s.try(check + "changed.json"); err == nil {
		s.Error("cosign accepted a changed index")
	}
	s.sh("rm -f cosign.*; cosign generate-key-pair && cp real.oob.tar second.oob.tar && oob-bundle sign second.oob.tar --key cosign.key")
	s.sh("oob-bundle verify second.oob.tar --key oob.pub --key cosign.pub --threshold 2 --root nowhere")
	s.sh(
		"tar -xOf second.oob.tar signatures.jsonl | sed -n 2p >s2.json && cosign verify-blob --key cosign.pub --bundle " +
			"s2.json --insecure-ignore-tlog index.json",
	)
	s.sh(
		"cosign sign-blob --key oob.key --use-signing-config=false --tlog-upload=false --bundle ours.json --yes index.json " +
			"&& cosign verify-blob --key oob.pub --bundle ours.json --insecure-ignore-tlog index.json",
	)
	s.sh(
		"openssl genpkey -algorithm ed25519 -out ed.pem && openssl pkey -in ed.pem -pubout -out ed.pub && chmod 600 ed.pem " +
			"&& oob-bundle sign second.oob.tar --key ed.pem",
	)
	s.sh(
		"tar -xOf second.oob.tar signatures.jsonl | sed -n 3p >s3.json && cosign verify-blob --key ed.pub --bundle s3.json " +
			"--insecure-ignore-tlog index.json",
	)
}

// archives checks that programs that read docker save archives read a bundle.
func (s side) archives(up string) {
	images := []string{"debian:bookworm", "postgres:15", "nginx:1.22", "debian:zstd", "tool:1", "both:1"}
	for _, ref := range images { // images built here must not hide a failed load
		s.sh("docker rmi -f " + up + "/real/" + ref + " >/dev/null 2>&1 || :; podman rmi -f " + up + "/real/" + ref + " >/dev/null 2>&1 || :")
	}
	s.sh("docker load -i real.oob.tar && podman load -i real.oob.tar")
	for _, ref := range images {
		s.sh("docker image inspect " + up + "/real/" + ref)
		s.sh("podman image inspect " + up + "/real/" + ref)
		s.sh("rm -rf copy && skopeo copy -q docker-archive:real.oob.tar:" + up + "/real/" + ref + " dir:copy")
	}
	s.sh("docker run --rm --network none " + up + "/real/debian:bookworm cat /etc/debian_version")
}

// carried checks that cosign verifies its upstream signatures on the site, and that Helm pulls a
// chart from there. Both run in a network namespace without a route, with a registry that lists
// referrers and with one that does not.
func (s side) carried(up string) {
	s.sh("rm -f cosign.* stranger.*; cosign generate-key-pair && cosign generate-key-pair --output-key-prefix stranger")
	// Both forms: a Sigstore bundle as a referrer, and the older tag.
	s.sh(
		"cosign sign --key cosign.key --use-signing-config=false --tlog-upload=false --allow-insecure-registry " +
			"--allow-http-registry --yes " + up + "/real/nginx@" + world.Digest(
			s.T, up+"/real/nginx:1.22",
		),
	)
	s.sh(
		"cosign sign --key cosign.key --new-bundle-format=false --use-signing-config=false --tlog-upload=false " +
			"--allow-insecure-registry --allow-http-registry --yes " + up + "/real/postgres@" + world.Digest(
			s.T, up+"/real/postgres:15",
		),
	)
	s.sh(
		"rm -rf demo demo-*.tgz && helm create demo >/dev/null && helm package demo >/dev/null && helm push --plain-http " +
			"demo-0.1.0.tgz oci://" + up + "/charts",
	)
	manifest := "apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: signed, version: 1.0.0}\nkeys: {maker: " +
		"%s}\nverifyImages: [{images: \"" + up + "/real/*\", keys: [maker]}]\n" +
		"components:\n  - name: all\n    images: [" + up + "/real/nginx:1.22, " + up + "/real/postgres:15]\n    charts: " +
		"[{repository: oci://" + up + "/charts, name: demo, version: 0.1.0}]\n"
	s.write("signed.yaml", fmt.Sprintf(manifest, "cosign.pub"))
	s.write("stranger.yaml", fmt.Sprintf(manifest, "stranger.pub"))
	s.sh("oob-bundle create signed.yaml --key oob.key --platform linux/amd64 --plain-http " + up + " -o signed.oob.tar 2>warnings")
	if w := s.sh("cat warnings"); !strings.Contains(w, "names the image docker.io/library/nginx:1.16.0, which is not carried") {
		s.Errorf("nothing says that the chart's image is missing: %s", w)
	}
	if status := s.sh(
		"status=0; oob-bundle create stranger.yaml --key oob.key --platform linux/amd64 --plain-http " + up + " -o x.oob.tar " +
			"2>/dev/null || status=$?; echo $status",
	); status != "4" {
		s.Errorf("signed by somebody else: exit status %s", status)
	}
	const site = "127.0.0.1:5703"
	s.serve(site)
	s.sh("oob-bundle install signed.oob.tar --key oob.pub --root carried")
	s.sh("oob-bundle install signed.oob.tar --key oob.pub --root carried-outside --registry " + site + " --plain-http " + site)
	check := func(where string) string {
		prefix := where + "/" + strings.ReplaceAll(up, ":", "_")
		verify := "cosign verify --key cosign.pub --insecure-ignore-tlog --private-infrastructure --allow-insecure-registry " +
			"--allow-http-registry "
		return verify + prefix + "/real/nginx:1.22 >/dev/null && " +
			verify + "--new-bundle-format=false " + prefix + "/real/postgres:15 >/dev/null" +
			" && ! cosign verify --key stranger.pub --insecure-ignore-tlog --private-infrastructure --allow-insecure-registry " +
			"--allow-http-registry " + prefix + "/real/nginx:1.22 2>/dev/null" +
			" && rm -rf pulled && mkdir pulled && helm pull --plain-http oci://" + prefix + "/charts/demo --version 0.1.0 -d " +
			"pulled && cmp pulled/demo-0.1.0.tgz demo-0.1.0.tgz"
	}
	s.sh(
		"unshare -n bash -ec 'ip link set lo up; oob-bundle registry serve --root carried --listen 127.0.0.1:5000 & " +
			"server=$!; trap \"kill $server\" EXIT; " +
			"for i in $(seq 50); do curl -sf http://127.0.0.1:5000/v2/ >/dev/null && break; sleep 0.1; done; " + check(
			"127.0.0.1:5000",
		) + "'",
	)
	s.sh(check(site))
	// With TLS and accounts, as on a network: other clients use the site's certificate
	// authority and a login.
	image := "127.0.0.1:5704/" + strings.ReplaceAll(up, ":", "_") + "/real/nginx:1.22"
	s.sh("OOB_BUNDLE_ACCOUNT_PASSWORD=let-me-in oob-bundle registry account puller --root carried")
	s.sh(
		"oob-bundle registry serve --root carried --listen 127.0.0.1:5704 --tls --name 127.0.0.1 --accounts carried/accounts " +
			"& server=$!; trap 'kill $server' EXIT; " +
			"for i in $(seq 50); do [ -e carried/tls/ca.crt ] && curl -so /dev/null --cacert carried/tls/ca.crt " +
			"https://127.0.0.1:5704/v2/ && break; sleep 0.1; done; " +
			"mkdir -p certs && cp carried/tls/ca.crt certs/ && skopeo inspect --raw --cert-dir certs --creds puller:let-me-in " +
			"docker://" + image + " >/dev/null && " +
			"! skopeo inspect --raw --cert-dir certs --creds puller:wrong docker://" + image + " 2>/dev/null && ! skopeo " +
			"inspect --raw --cert-dir certs --no-creds docker://" + image + " 2>/dev/null && " +
			"! skopeo inspect --raw --creds puller:let-me-in docker://" + image + " 2>/dev/null && podman pull -q --cert-dir " +
			"certs --creds puller:let-me-in " + image + " && podman rmi -f " + image,
	)
}

// layout checks that programs that read an OCI layout read a bundle, packed and unpacked.
func (s side) layout(up string) {
	s.sh("rm -rf layout && mkdir layout && tar -xf real.oob.tar -C layout")
	s.sh("oras manifest fetch --oci-layout-path real.oob.tar " + up + "/real/nginx:1.22")
	s.sh("oras manifest fetch --oci-layout layout@" + world.Digest(s.T, up+"/real/nginx:1.22"))
	s.sh("skopeo inspect --raw oci-archive:real.oob.tar:" + up + "/real/debian:zstd")
	s.sh("regctl manifest get ocidir://layout@" + world.Digest(s.T, up+"/real/both:1"))
	s.sh("crane push --insecure --index layout " + up + "/from/layout:1")
	identity := "sha256:" + strings.Fields(s.sh("cat identity"))[0]
	if got := world.Digest(s.T, up+"/from/layout:1"); got != identity {
		s.Errorf("crane pushed %s, and the bundle is %s", got, identity)
	}
}

// stockRegistry checks that an unmodified distribution registry accepts the whole tree,
// including the root.
func (s side) stockRegistry(up string) {
	const site = "127.0.0.1:5702"
	s.serve(site)
	s.sh("oob-bundle install real.oob.tar --key oob.pub --root host --registry " + site + "/mirror --plain-http " + site)
	for _, ref := range real {
		there := site + "/mirror/" + strings.ReplaceAll(up, ":", "_") + "/real/" + ref
		if ref == "tool:1" {
			continue // partial: the tag names the platform's manifest, see digests
		}
		if want, got := world.Digest(s.T, up+"/real/"+ref), world.Digest(s.T, there); got != want {
			s.Errorf("%s is %s and upstream %s", there, got, want)
		}
	}
	identity := strings.Fields(s.sh("cat identity"))[0]
	if got := world.Digest(s.T, site+"/mirror/oob-bundle/real:oob-"+identity[:16]); got != "sha256:"+identity {
		s.Errorf("the root is %s", got)
	}
	s.sh("crane validate --insecure --remote " + site + "/mirror/" + strings.ReplaceAll(up, ":", "_") + "/real/postgres:15")
}

// fullDisk checks that create and install exit with 8 on a real file system that is too small,
// and that the same command succeeds after the file system grew.
func (s side) fullDisk(up string) {
	s.sh("mkdir -p small && mount -t tmpfs -o size=8m tmpfs small")
	defer func() { // not in Cleanup: the test's context is canceled there
		s.sh("umount small")
	}()
	status := func(command, want string) {
		s.Helper()
		if got := s.sh("status=0; " + command + " >/dev/null 2>stderr || status=$?; echo $status"); got != want {
			s.Errorf("%s: exit status %s instead of %s: %s", command, got, want, s.sh("cat stderr"))
		}
	}
	create := "oob-bundle create real.yaml --key oob.key --platform linux/amd64 --plain-http " + up + " -o small/x.oob.tar"
	install := "oob-bundle install real.oob.tar --key oob.pub --root small/site"
	status(create, "8")
	status(install, "8")
	s.sh("! ls small/x.oob.tar small/x.oob.tar.partial 2>/dev/null")
	s.sh("oob-bundle status --root small/site | grep 'Nothing is installed'")
	s.sh("mount -o remount,size=1g small")
	status(install, "0")
	status(create, "0")
	s.sh("mount -o remount,ro small")
	status("oob-bundle install real.oob.tar --key oob.pub --root small/other", "8")
}

// oneWrite counts reads and writes with strace. create must write the payload once, only to the
// output; install must read the payload once and write it once, only to the store.
func (s side) oneWrite(up string) {
	info, err := os.Stat(filepath.Join(s.dir, "real.oob.tar"))
	if err != nil {
		s.Fatal(err)
	}
	size := info.Size()
	const little = 1 << 20
	check := func(what string, got, least, most int64) {
		s.Helper()
		s.Logf("%s: %d bytes, for a bundle of %d", what, got, size)
		if got < least || got > most {
			s.Errorf("%s: %d bytes instead of %d to %d", what, got, least, most)
		}
	}
	s.sh(
		"strace -f -y -qq -e trace=write,pwrite64,writev,pwritev,copy_file_range,sendfile -o trace oob-bundle create " +
			"real.yaml --key oob.key --platform linux/amd64 --plain-http " + up + " -o once.oob.tar",
	)
	written := s.traced("trace", func(path string) string {
		switch {
		case strings.HasSuffix(path, "once.oob.tar.partial"):
			return "output"
		case strings.HasPrefix(path, "/"):
			return "elsewhere"
		}
		return "network"
	})
	check("create writes to the output", written["output"], size, size+little)
	check("create writes to other files", written["elsewhere"], 0, little)
	s.sh(
		"strace -f -y -qq -e trace=write,pwrite64,writev,pwritev,copy_file_range,sendfile,read,pread64,readv -o trace " +
			"oob-bundle install real.oob.tar --key oob.pub --root once",
	)
	moved := s.traced("trace", func(path string) string {
		switch {
		case strings.HasSuffix(path, "real.oob.tar"):
			return "bundle"
		case strings.Contains(path, "/once/registry/"):
			return "store"
		case strings.HasPrefix(path, "/"):
			return "elsewhere"
		}
		return "network"
	})
	check("install reads of the bundle", moved["bundle"], size*98/100, size+2*little)
	check("install writes to the store", moved["store"], size*98/100, size+2*little)
	check("install touches of other files", moved["elsewhere"], 0, 2*little)
	s.sh("rm -r once once.oob.tar")
}

var (
	tracedCall    = regexp.MustCompile(`^(\d+) +\w+\(\d+<([^>]*)>`)
	tracedResumed = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>`)
	tracedResult  = regexp.MustCompile(`= (\d+)$`)
)

// traced sums the bytes that the calls in a trace moved, by class of path.
func (s side) traced(file string, class func(path string) string) map[string]int64 {
	s.Helper()
	f, err := os.Open(filepath.Join(s.dir, file))
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	sums, pending := map[string]int64{}, map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		path := ""
		if m := tracedCall.FindStringSubmatch(line); m != nil {
			path = m[2]
			if strings.HasSuffix(line, "<unfinished ...>") {
				pending[m[1]] = path
				continue
			}
		} else if m := tracedResumed.FindStringSubmatch(line); m != nil {
			path = pending[m[1]]
		}
		if m := tracedResult.FindStringSubmatch(line); m != nil && path != "" {
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				s.Fatal(err)
			}
			sums[class(path)] += n
		}
	}
	if lines.Err() != nil || len(sums) == 0 {
		s.Fatalf("the trace cannot be read: %v", lines.Err())
	}
	return sums
}

// noTmp runs create, verify and install with a full /tmp.
func (s side) noTmp(up string) {
	s.sh("cp $(command -v oob-bundle) ./oob && mkdir -p /run/oob-interop")
	s.sh(`unshare -m bash -euc 'mount --bind . /run/oob-interop; mount -t tmpfs -o size=4k tmpfs /tmp; cd /run/oob-interop
		head -c 4096 /dev/zero >/tmp/full; ! echo more >/tmp/more
		./oob create real.yaml --key oob.key --platform linux/amd64 --plain-http ` + up + ` -o notmp.oob.tar
		./oob verify notmp.oob.tar --key oob.pub --root notmp
		./oob install notmp.oob.tar --key oob.pub --root notmp'`)
	s.sh("rm -r notmp notmp.oob.tar oob && rmdir /run/oob-interop")
}

// digests compares the digests of the upstream, the bundle and the isolated side.
func (s side) digests(up string) {
	data, err := os.ReadFile(filepath.Join(s.dir, "real.oob.tar"))
	if err != nil {
		s.Fatal(err)
	}
	receipts, err := filepath.Glob(filepath.Join(s.dir, "site/receipts/*.json"))
	if err != nil || len(receipts) != 1 {
		s.Fatalf("%v, %v", receipts, err)
	}
	var receipt struct {
		Images []struct {
			Upstream, Index string
			Digest          bundle.Digest
		}
	}
	text, err := os.ReadFile(receipts[0])
	if err != nil {
		s.Fatal(err)
	}
	if err := json.Unmarshal(text, &receipt); err != nil || len(receipt.Images) != len(real) {
		s.Fatalf("%d images, %v", len(receipt.Images), err)
	}
	for _, i := range receipt.Images {
		want := world.Digest(s.T, i.Upstream)
		got := string(i.Digest)
		if strings.HasSuffix(i.Upstream, "tool:1") {
			if got == want {
				s.Errorf("%s should be partial", i.Upstream)
			}
			got = i.Index
		}
		if got != want {
			s.Errorf("%s: upstream %s, on the site %s", i.Upstream, want, got)
		}
		if !strings.Contains(string(data), i.Digest.Hex()) {
			s.Errorf("%s is not in the bundle", i.Digest)
		}
	}
}
