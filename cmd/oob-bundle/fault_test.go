//go:build linux && amd64 && !race

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/internal/testkit/trace"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

var (
	faultStep  = flag.Int("fault-step", 67, "disturb each N-th call of a run")
	everyFault = flag.Bool("every-fault", false, "inject every kind of fault at a call, not one of them")
)

// stride returns the distance between faulted calls: -fault-step, or about 4 times as much with
// -short.
func stride(t *testing.T) int {
	t.Helper()
	if testing.Short() {
		return 4**faultStep + 1
	}
	return *faultStep
}

// faultWorld is a directory with a connected and an isolated side. It contains inputs that no
// command may change, and the directories out, site and host that commands write to.
type faultWorld struct {
	t             *testing.T
	program, dir  string
	pristine      string // directory with out, site and host as they are before the command
	inputs, wants string // inputs before the command, tree after an undisturbed run
	problems      int
}

// faultCommand is a command for fault injection.
type faultCommand struct {
	name   string
	before [][]string // commands to run first
	spoil  func(w *faultWorld)
	args   []string
	// once is true if a second run of the command has a further effect.
	once bool
	// reads is true if the command only reads.
	reads bool
}

// newFaultWorld creates an upstream, keys and two bundles of one channel.
func newFaultWorld(t *testing.T) *faultWorld {
	t.Helper()
	return newFaultWorldAt(t, memory(t))
}

// memory returns a directory in /dev/shm if there is one. Commands sync whole file systems, so
// on a disk the tests would wait for the data of other processes.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "oob-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newFaultWorldAt(t *testing.T, dir string) *faultWorld {
	t.Helper()
	key := world.NewKey(t)
	up := world.NewRegistry(t, nil)
	layer := world.Layer(world.File{Name: "app", Mode: 0o755, Data: []byte("shared")})
	up.Push(t, "team/app:1", world.Image("linux/amd64", layer))
	up.Push(
		t,
		"team/web:1",
		world.Image("linux/amd64", layer, world.Layer(world.File{Name: "web", Mode: 0o755, Data: []byte("web")})),
	)
	w := &faultWorld{t: t, program: program(t), dir: dir}
	in := filepath.Join(w.dir, "in")
	for name, text := range map[string]string{
		"app.yaml": strings.ReplaceAll(faultManifest, "$UP", up.Host), "app.conf": "image: {{ image \"" + up.Host + "/team/app\" }}\n",
		"secret.env": "PASSWORD={{ .Secrets.password }}\n", "patch.json": `{"Link": false}`, "site.yaml": "domain: chat.site\n",
	} {
		if err := os.MkdirAll(in, 0o755); err != nil {
			t.Fatal(err)
		}
		world.Write(t, filepath.Join(in, name), []byte(text), 0o644)
	}
	world.Write(t, filepath.Join(in, "key.pub"), readFile(t, key.Public), 0o644)
	world.Write(t, filepath.Join(in, "key.pem"), readFile(t, key.Private), 0o600)
	second := world.NewKey(t)
	world.Write(t, filepath.Join(in, "second.pem"), readFile(t, second.Private), 0o600)
	create := []string{"create", "in/app.yaml", "--key", "in/key.pem", "--plain-http", up.Host, "--platform", "linux/amd64", "--jobs", "1"}
	command(t, w.dir, w.program, append(create, "-o", "in/one.oob.tar", "--sequence", "1")...)
	command(t, w.dir, w.program, append(create, "-o", "in/two.oob.tar", "--sequence", "2", "--set", "versions.app=2.0.0")...)
	return w
}

const faultManifest = `apiVersion: oobbundle.dev/v1
kind: Manifest
metadata: {name: app, version: "${versions.app}"}
versions: {app: 1.0.0}
components:
  - name: app
    images: ["$UP/team/app:1", "$UP/team/web:1"]
    files:
      - {source: app.conf, path: etc/app.conf, mode: "0640", as: template}
      - {source: secret.env, path: secret.env, as: template}
      - {source: patch.json, path: patch.json}
    host:
      - values: [{name: domain, kind: host, required: true, about: Name of the site}]
        secrets: [{name: password, length: 20}]
        directories: [{path: app, mode: "0750", owner: "1000:1000"}, {path: app/deep, mode: "0700", owner: "1000:1000"}]
        merges: [{file: conf/config.json, patch: patch.json}]
        links: [{path: /etc/nginx/conf.d/app.conf, file: etc/app.conf}]
`

// prepare runs the commands before c, saves this state, and records the tree that an
// undisturbed run of c leaves.
func (w *faultWorld) prepare(c faultCommand) {
	w.t.Helper()
	for _, d := range []string{"site", "host/etc/nginx/conf.d", "out"} {
		if err := os.MkdirAll(filepath.Join(w.dir, d), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	world.Write(w.t, filepath.Join(w.dir, "host/etc/nginx/conf.d/app.conf"), []byte("the host's own\n"), 0o644)
	for _, args := range c.before {
		command(w.t, w.dir, w.program, args...)
	}
	if c.spoil != nil {
		c.spoil(w)
	}
	w.pristine = w.t.TempDir()
	for _, d := range faultDirs {
		copyTree(w.t, filepath.Join(w.dir, d), filepath.Join(w.pristine, d))
	}
	w.inputs = hostTree(w.t, filepath.Join(w.dir, "in"))
	command(w.t, w.dir, w.program, c.args...)
	w.wants = w.tree()
}

// faultDirs are the directories that commands may write to.
var faultDirs = []string{"site", "host", "out"}

// restore restores the state before the command.
func (w *faultWorld) restore() {
	w.t.Helper()
	for _, d := range faultDirs {
		if err := os.RemoveAll(filepath.Join(w.dir, d)); err != nil {
			w.t.Fatal(err)
		}
		copyTree(w.t, filepath.Join(w.pristine, d), filepath.Join(w.dir, d))
	}
}

// copyTree copies a directory with modes and symbolic links.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dest := filepath.Join(to, strings.TrimPrefix(path, from))
		fi, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			if err := os.MkdirAll(dest, 0o755); err != nil {
				return err
			}
			return os.Chmod(dest, fi.Mode().Perm())
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dest)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(dest, data, 0o600); err != nil {
			return err
		}
		return os.Chmod(dest, fi.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tree describes the content of the directories that commands may write to. It replaces the
// parts that differ between runs: times, generated passwords, and digests of files that contain
// such passwords.
func (w *faultWorld) tree() string {
	w.t.Helper()
	var text strings.Builder
	for _, d := range faultDirs {
		dir := filepath.Join(w.dir, d)
		replace := w.varying(dir)
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(path, w.dir+"/")
			fi, err := e.Info()
			switch {
			case err != nil || name == "site/lock":
				return err
			case e.IsDir():
				fmt.Fprintf(&text, "%s %s\n", name, fi.Mode())
				return nil
			case e.Type()&fs.ModeSymlink != 0:
				to, err := os.Readlink(path)
				fmt.Fprintf(&text, "%s -> %s\n", name, to)
				return err
			}
			data, err := os.ReadFile(path)
			if name == "site/state.json.old" { // the number of writes of the state varies
				if err := bundle.DecodeRecord(data, new(ledger.Ledger)); err != nil {
					return err
				}
				data = nil
			}
			data = installedAt.ReplaceAll(data, nil)
			data = startedAt.ReplaceAll(data, nil)
			data = []byte(replace.Replace(string(data)))
			if strings.HasSuffix(name, ".oob.tar") && len(data) > 0 {
				data = withoutSlot(data)
			}
			fmt.Fprintf(&text, "%s %s %d %x\n", name, fi.Mode(), len(data), sha256.Sum256(data))
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return text.String()
}

var startedAt = regexp.MustCompile(`"started":"[^"]*"|(?m)^created: .*$`)

// varying returns a replacer for passwords and for digests of files that contain one.
func (w *faultWorld) varying(dir string) *strings.Replacer {
	var pairs []string
	paths, _ := filepath.Glob(filepath.Join(dir, "deployments", "*", "secrets.json"))
	for _, p := range paths {
		for _, m := range passwordIn.FindAllSubmatch(readFile(w.t, p), -1) {
			pairs = append(pairs, string(m[1]), "PASSWORD")
			files, _ := filepath.Glob(filepath.Join(filepath.Dir(p), "releases", "*", "*"))
			for _, f := range files {
				if data, err := os.ReadFile(f); err == nil && bytes.Contains(data, m[1]) {
					sum := sha256.Sum256(data)
					pairs = append(pairs, hex.EncodeToString(sum[:]), "DIGEST OF "+filepath.Base(f))
				}
			}
		}
	}
	return strings.NewReplacer(pairs...)
}

var passwordIn = regexp.MustCompile(`"password":"([^"]+)"`)

// withoutSlot returns a bundle without its signatures, which differ in each run.
func withoutSlot(data []byte) []byte {
	head, err := bundle.ReadHead(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return data
	}
	return slices.Concat(data[:head.SlotOffset()], data[head.SlotOffset()+bundle.SlotSize:])
}

// faultCommands returns the commands that create, install and maintain bundles, and the
// read-only commands verify, values and status.
func faultCommands(w *faultWorld) []faultCommand {
	site := []string{"--root", "site"}
	trusting := append([]string{"--key", "in/key.pub"}, site...)
	install := func(name string, more ...string) []string {
		return slices.Concat([]string{"install", "in/" + name + ".oob.tar", "--host-root", "host", "--take-over"}, trusting, more)
	}
	one, two := install("one", "--values", "in/site.yaml"), install("two")
	host := regexp.MustCompile(`[0-9.]+:\d+/team`).FindString(string(readFile(w.t, filepath.Join(w.dir, "in/app.yaml"))))
	up := strings.TrimSuffix(host, "/team")
	return []faultCommand{
		{
			name: "create",
			args: []string{
				"create",
				"in/app.yaml",
				"--key",
				"in/key.pem",
				"--plain-http",
				up,
				"--platform",
				"linux/amd64",
				"--jobs",
				"1",
				"-o",
				"out/new.oob.tar",
				"--lock",
				"in/one.oob.tar.lock.yaml",
			},
		},
		{
			name: "lock",
			args: []string{"lock", "in/app.yaml", "--plain-http", up, "--platform", "linux/amd64", "--sequence", "1", "-o", "out/new.lock.yaml"},
		},
		{name: "sign", args: []string{"sign", "out/one.oob.tar", "--key", "in/second.pem"}, spoil: func(w *faultWorld) {
			world.Write(w.t, filepath.Join(w.dir, "out/one.oob.tar"), readFile(w.t, filepath.Join(w.dir, "in/one.oob.tar")), 0o644)
		}},
		{name: "verify", args: []string{"verify", "in/one.oob.tar", "--key", "in/key.pub", "--root", "site"}, reads: true},
		{name: "values", args: []string{"values", "in/one.oob.tar", "--key", "in/key.pub", "--root", "site"}, reads: true},
		{name: "trust", args: []string{"trust", "add", "in/key.pub", "--channel", "app/*", "--root", "site"}},
		{name: "install", args: one},
		{name: "upgrade", before: [][]string{one}, args: two},
		{name: "status", before: [][]string{one}, args: append([]string{"status", "--check"}, site...), reads: true},
		{name: "rollback", once: true, before: [][]string{one, two}, args: append([]string{"rollback"}, site...)},
		{name: "uninstall", once: true, before: [][]string{one, two}, args: append([]string{"uninstall"}, site...)},
		{name: "repair", before: [][]string{one}, args: slices.Concat([]string{"repair", "in/one.oob.tar"}, trusting), spoil: spoilSite},
		{name: "gc", before: [][]string{one}, args: []string{"registry", "gc", "--root", "site"}, spoil: orphan},
	}
}

// spoilSite damages an installed file and an installed blob.
func spoilSite(w *faultWorld) {
	world.Write(w.t, filepath.Join(w.dir, "site/deployments/app/current/etc/app.conf"), []byte("drift"), 0o640)
	blobs, err := filepath.Glob(filepath.Join(w.dir, "site/registry/docker/registry/v2/blobs/sha256/*/*/data"))
	if err != nil || len(blobs) == 0 {
		w.t.Fatal("no blob to spoil", err)
	}
	largest := slices.MaxFunc(blobs, func(a, b string) int { return cmp.Compare(len(readFile(w.t, a)), len(readFile(w.t, b))) })
	data := readFile(w.t, largest)
	data[len(data)/2] ^= 1
	world.Write(w.t, largest, data, 0o644)
}

// orphan adds an unreferenced blob to the registry.
func orphan(w *faultWorld) {
	data := []byte("nobody's")
	sum := hex.EncodeToString(func() []byte { s := sha256.Sum256(data); return s[:] }())
	dir := filepath.Join(w.dir, "site/registry/docker/registry/v2/blobs/sha256", sum[:2], sum)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	world.Write(w.t, filepath.Join(dir, "data"), data, 0o644)
}

// faultsFor returns the faults that a call can have.
func faultsFor(c trace.Call) []trace.Verdict {
	fail := func(list ...syscall.Errno) []trace.Verdict {
		var out []trace.Verdict
		for _, e := range list {
			out = append(out, trace.Verdict{Errno: e})
		}
		return out
	}
	switch c.Name {
	case "write", "pwrite64":
		return append(fail(syscall.ENOSPC, syscall.EIO, syscall.EDQUOT, syscall.EROFS), trace.Verdict{Short: true})
	case "read", "pread64":
		return append(fail(syscall.EIO), trace.Verdict{Short: true})
	case "openat":
		if c.Changes() {
			return fail(syscall.ENOSPC, syscall.EROFS, syscall.EACCES, syscall.EMFILE, syscall.EDQUOT, syscall.EIO)
		}
		return fail(syscall.EMFILE, syscall.EIO, syscall.EACCES)
	case "fsync", "fdatasync", "syncfs", "close", "getdents64":
		return fail(syscall.EIO)
	case "flock":
		return fail(syscall.ENOLCK)
	}
	if c.Changes() {
		return fail(syscall.EIO, syscall.EROFS, syscall.ENOSPC, syscall.EACCES)
	}
	return fail(syscall.EIO, syscall.EACCES)
}

// TestFaults makes system calls on files fail in every command: it fails call k, for growing k
// until a run has fewer calls, with a fault that such a call can have. With -fault-step 1
// -every-fault it tries every call with every fault.
func TestFaults(t *testing.T) {
	total, fired := 0, 0
	for i := range faultCommands(newFaultWorld(t)) {
		var n, hits int
		w := newFaultWorld(t)
		c := faultCommands(w)[i]
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			n, hits = w.sweep(c)
			t.Logf("%d calls, %d faults", n, hits)
		})
		total, fired = total+n, fired+hits
	}
	t.Logf("%d calls, %d faults in all", total, fired)
}

// sweep runs a command once per fault. It returns the number of calls and of injected faults.
func (w *faultWorld) sweep(c faultCommand) (calls, fired int) {
	w.prepare(c)
	step := stride(w.t)
	for k := 1; ; k += step {
		kinds := 1
		for kind := 0; kind < kinds; kind++ {
			w.restore()
			var hit *trace.Call
			r := w.trace(c.args, func(call trace.Call) trace.Verdict {
				if call.N != k {
					return trace.Verdict{}
				}
				hit = &call
				list := faultsFor(call)
				if *everyFault {
					kinds = len(list)
					return list[kind]
				}
				return list[k/step%len(list)]
			})
			if hit == nil {
				return r.Calls, fired
			}
			fired++
			w.judge(c, *hit, r)
			if w.problems >= 10 {
				w.t.Fatal("enough")
			}
		}
	}
}

func (w *faultWorld) run(args []string) (string, error) {
	c := exec.Command(w.program, args...)
	c.Dir, c.Env = w.dir, append(os.Environ(), "OOB_BUNDLE_PASSWORD=")
	out, err := c.CombinedOutput()
	return string(out), err
}

func (w *faultWorld) trace(args []string, decide func(trace.Call) trace.Verdict) *trace.Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	// GOMAXPROCS=1 makes the order of calls nearly the same in each run.
	r, err := trace.Run(ctx, trace.Options{
		Dir: w.dir, Env: append(os.Environ(), "OOB_BUNDLE_PASSWORD=", "GOMAXPROCS=1"), Below: []string{w.dir}, Decide: decide,
	}, w.program, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// judge checks the result of a command with a fault, and that the same command then finishes.
func (w *faultWorld) judge(c faultCommand, call trace.Call, r *trace.Result) {
	w.t.Helper()
	bad := func(format string, args ...any) {
		w.t.Helper()
		w.problems++
		w.t.Errorf("%s: %s\nexit status %d\n%s%s", call, fmt.Sprintf(format, args...), r.Code, r.Stdout, r.Stderr)
	}
	switch {
	case r.Code == -1: // killed
	case r.Code != 0 && !slices.Contains([]int{6, 8}, r.Code):
		bad("the exit status is neither 6 nor 8")
	case r.Code != 0 && !strings.Contains(r.Stderr, "error: "):
		bad("nothing says what failed")
	case strings.Contains(r.Stderr, "goroutine "):
		bad("a stack")
	}
	w.intact(c, r, bad)
	if c.once && (r.Code == 0 || w.tree() == w.wants) {
		return // the fault came after the command's effect
	}
	if out, err := w.run(c.args); err != nil {
		bad("the same command again: %v\n%s", err, out)
		return
	}
	if diff := gocmp.Diff(strings.Split(w.wants, "\n"), strings.Split(w.tree(), "\n")); diff != "" {
		bad("the same command again leaves something else than an undisturbed run: %s", diff)
	}
}

// intact checks the state after a disturbed run: unchanged inputs, no torn file under a final
// name, and each tag and the release either completely old or completely new.
func (w *faultWorld) intact(c faultCommand, r *trace.Result, bad func(string, ...any)) {
	w.t.Helper()
	if now := hostTree(w.t, filepath.Join(w.dir, "in")); now != w.inputs {
		bad("it has changed its inputs: %s", gocmp.Diff(w.inputs, now))
	}
	if r.Code == 0 && !c.reads {
		if diff := gocmp.Diff(strings.Split(w.wants, "\n"), strings.Split(w.tree(), "\n")); diff != "" {
			bad("it says that it is done, and has left: %s", diff)
		}
	}
	if data, err := os.ReadFile(
		filepath.Join(w.dir, "out/new.oob.tar"),
	); err == nil &&
		!bytes.Equal(withoutSlot(data), withoutSlot(readFile(w.t, filepath.Join(w.dir, "in/one.oob.tar")))) {
		bad("a bundle that is not whole has its final name")
	}
	w.intactRegistry(r.Code == -1, bad)
	w.intactHost(bad)
}

// intactRegistry follows every tag to all its blobs. After a power cut, blobs that no tag
// references yet may be torn, because the next run hashes them.
func (w *faultWorld) intactRegistry(cut bool, bad func(string, ...any)) {
	w.t.Helper()
	registry := filepath.Join(w.dir, "site/registry/docker/registry/v2")
	blob := func(digest string) string {
		hex := strings.TrimPrefix(digest, "sha256:")
		return filepath.Join(registry, "blobs/sha256", hex[:min(2, len(hex))], hex, "data")
	}
	good := func(path string) bool {
		data, err := os.ReadFile(path)
		sum := sha256.Sum256(data)
		return err == nil && hex.EncodeToString(sum[:]) == filepath.Base(filepath.Dir(path))
	}
	spoiled := map[string]bool{} // before the command
	before, _ := filepath.Glob(filepath.Join(w.pristine, "site/registry/docker/registry/v2/blobs/sha256/*/*/data"))
	for _, b := range before {
		spoiled[filepath.Base(filepath.Dir(b))] = !good(b)
	}
	check := func(path, what string) {
		if !good(path) && !spoiled[filepath.Base(filepath.Dir(path))] {
			bad("%s is missing or has other content: %s", what, path)
		}
	}
	if !cut {
		blobs, _ := filepath.Glob(filepath.Join(registry, "blobs/sha256/*/*/data"))
		for _, b := range blobs {
			check(b, "a blob")
		}
	}
	seen := map[string]bool{}
	var follow func(digest, tag string)
	follow = func(digest, tag string) {
		if seen[digest] {
			return
		}
		seen[digest] = true
		check(blob(digest), "what "+tag+" leads to")
		data, _ := os.ReadFile(blob(digest))
		var m struct{ Config *struct{} }
		if json.Unmarshal(data, &m) != nil {
			return // a layer
		}
		for _, d := range digestIn.FindAllSubmatch(data, -1) {
			// An upstream index may name manifests that the bundle does not contain.
			if _, err := os.Stat(blob(string(d[1]))); err == nil || m.Config != nil {
				follow(string(d[1]), tag)
			}
		}
	}
	tags, _ := filepath.Glob(filepath.Join(registry, "repositories/*/*/*/_manifests/tags/*/current/link"))
	more, _ := filepath.Glob(filepath.Join(registry, "repositories/*/*/_manifests/tags/*/current/link"))
	for _, l := range append(tags, more...) {
		follow(string(readFile(w.t, l)), strings.TrimPrefix(l, registry))
	}
}

var digestIn = regexp.MustCompile(`"digest": ?"(sha256:[0-9a-f]{64})"`)

// intactHost checks the files of the current release, and the host's file that a link of the
// release replaces.
func (w *faultWorld) intactHost(bad func(string, ...any)) {
	w.t.Helper()
	site := filepath.Join(w.dir, "site")
	current := filepath.Join(site, "deployments/app/current")
	if _, err := os.Readlink(current); err == nil {
		data, err := os.ReadFile(filepath.Join(current, "release.json"))
		var about struct {
			Files []struct{ Path, SHA256 string }
		}
		if err != nil || json.Unmarshal(data, &about) != nil {
			bad("the current release is not complete: %v", err)
		}
		for _, f := range about.Files {
			content, err := os.ReadFile(filepath.Join(current, f.Path))
			if sum := sha256.Sum256(content); (err != nil || "sha256:"+hex.EncodeToString(sum[:]) != f.SHA256) && string(content) != "drift" {
				bad("file %s of the current release is not what it should be: %v", f.Path, err)
			}
		}
	}
	if content, err := os.ReadFile(filepath.Join(w.dir, "host/etc/nginx/conf.d/app.conf")); err != nil || len(content) == 0 {
		bad("the host's proxy has no configuration any more: %v", err)
	}
}
