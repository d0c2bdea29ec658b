package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

var (
	kills    = flag.Int("kills", 12, "how often create and install are each killed")
	killSeed = flag.Uint64("kill-seed", uint64(time.Now().UnixNano()), "of the moments at which they are killed")
)

// program returns a path at which this test binary runs as oob-bundle.
func program(t *testing.T) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("there are no signals on Windows")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "oob-bundle")
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// slowRegistry returns a registry that sends each blob at rate bytes a second, and the number
// of bytes sent.
func slowRegistry(t *testing.T, rate int64) (*world.Registry, *atomic.Int64) {
	t.Helper()
	sent := &atomic.Int64{}
	return world.NewRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				w = &slowWriter{w, sent, rate}
			}
			next.ServeHTTP(w, r)
		})
	}), sent
}

type slowWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
	rate int64 // bytes a second, for each response
}

func (s *slowWriter) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n, err := s.ResponseWriter.Write(p[:min(len(p), 32<<10)])
		s.sent.Add(int64(n))
		total, p = total+n, p[n:]
		if err != nil {
			return total, err
		}
		time.Sleep(time.Duration(int64(n) * int64(time.Second) / s.rate))
	}
	return total, nil
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func randomLayer(seed byte, n int) v1.Layer {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return static.NewLayer(data, "application/vnd.oci.image.layer.v1.tar")
}

// command runs the program and returns the duration. It fails the test if the program fails.
func command(t *testing.T, dir, program string, args ...string) time.Duration {
	t.Helper()
	c := exec.Command(program, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "OOB_BUNDLE_PASSWORD=")
	begun := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return time.Since(begun)
}

// killed runs the program and kills it after some time. It returns false if the program had
// already ended.
func killed(t *testing.T, dir string, after time.Duration, program string, args ...string) bool {
	t.Helper()
	c := exec.Command(program, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "OOB_BUNDLE_PASSWORD=")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	if err := c.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	err := c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return true
	}
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return false
}

// follow corrects the estimated duration of a run, because the speed of the machine may change.
// Without a correction, all runs might be killed before they start to work, or end before the
// kill.
func follow(length time.Duration, killed, begun bool) time.Duration {
	switch {
	case !killed:
		return length * 9 / 10
	case !begun:
		return length * 11 / 10
	}
	return length
}

// TestKillCreate kills create at random moments. The same command must then make the same bytes
// as an undisturbed run, and must not fetch again the bytes that the journal claims.
func TestKillCreate(t *testing.T) {
	self, key := program(t), world.NewKey(t)
	up, sent := slowRegistry(t, 2<<20)
	var layers []v1.Layer
	for i := range 16 {
		layers = append(layers, randomLayer(byte(i), 200_000+i*40_000))
	}
	ref := up.Push(t, "team/app:1", world.Image("linux/amd64", layers...))
	dir := t.TempDir()
	manifest := fmt.Sprintf(
		"apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: demo, version: 1.0.0}\ncomponents:\n  - name: all\n    images: [%q]\n",
		ref,
	)
	world.Write(t, filepath.Join(dir, "m.yaml"), []byte(manifest), 0o644)
	common := []string{"create", "m.yaml", "--key", key.Private, "--plain-http", up.Host, "--platform", "linux/amd64", "--jobs", "4"}
	length := command(t, dir, self, append(common, "-o", "want.oob.tar")...)
	sent.Store(0)
	command(t, dir, self, append(common, "-o", "want2.oob.tar", "--lock", "want.oob.tar.lock.yaml")...)
	payload := sent.Load()
	want, slot := bundleBytes(t, filepath.Join(dir, "want.oob.tar"))
	page, err := os.ReadFile(filepath.Join(dir, "want.oob.tar.html"))
	if err != nil {
		t.Fatal(err)
	}
	page = bytes.ReplaceAll(page, []byte("want.oob.tar"), []byte("b.oob.tar"))
	args := slices.Concat(common, []string{"-o", "b.oob.tar", "--lock", "want.oob.tar.lock.yaml"})
	moments := rand.New(rand.NewPCG(*killSeed, 1))
	t.Logf("an undisturbed run takes %s and fetches %d bytes; seed %d", length, payload, *killSeed)
	rounds, inside, claimed := *kills, 0, 0
	if testing.Short() {
		rounds = min(rounds, 5)
	}
	for round := 0; round < rounds || claimed < rounds/2 && round < 4*rounds; round++ {
		sent.Store(0)
		after := time.Duration(moments.Float64() * 1.1 * float64(length))
		inTime := killed(t, dir, after, self, args...)
		if inTime {
			inside++
		}
		have := journalClaims(t, filepath.Join(dir, "b.oob.tar.partial.journal"))
		if have > 0 {
			claimed++
		}
		length = follow(length, inTime, have > 0)
		_, statErr := os.Lstat(filepath.Join(dir, "b.oob.tar"))
		finished := statErr == nil
		if _, err := os.Lstat(filepath.Join(dir, "b.oob.tar.html")); finished && err != nil {
			t.Errorf("round %d, killed after %s: the bundle has its name, and no record: %v", round, after, err)
		}
		lost := sent.Load() - have // in transfer, or not synced yet
		command(t, dir, self, args...)
		got, _ := bundleBytes(t, filepath.Join(dir, "b.oob.tar"))
		if len(got) != len(want) || !bytes.Equal(got[:slot], want[:slot]) ||
			!bytes.Equal(got[slot+bundle.SlotSize:], want[slot+bundle.SlotSize:]) {
			t.Fatalf("round %d, killed after %s: other bytes", round, after)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "b.oob.tar.html")); err != nil || !bytes.Equal(got, page) {
			t.Errorf("round %d, killed after %s: another record (%v)", round, after, err)
		}
		// Data in the buffers of the killed process's connections counts as lost too.
		const inConnections = 4 * 4 << 20
		if total := sent.Load(); !finished && total > payload*11/10+lost+inConnections {
			t.Errorf("round %d, killed after %s: %d bytes were fetched for %d, of which %d were lost", round, after, total, payload, lost)
		}
		removeCreated(t, dir, round)
	}
	t.Logf("%d rounds, %d killed, %d with claims in the journal", rounds, inside, claimed)
	if claimed < rounds/2 {
		t.Errorf("in %d rounds the journal claimed something, which proves too little for %d", claimed, rounds)
	}
}

// removeCreated removes the bundle, its lock and its record. There must be no other file.
func removeCreated(t *testing.T, dir string, round int) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "b.oob.tar*"))
	if err != nil || len(left) != 3 {
		t.Fatalf("round %d: left behind: %v, %v", round, left, err)
	}
	for _, f := range left {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

func bundleBytes(t *testing.T, path string) (data []byte, slot int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, err := bundle.ReadHead(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return data, head.SlotOffset()
}

// journalClaims returns the number of bytes that a journal claims.
func journalClaims(t *testing.T, path string) int64 {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var c struct {
			Blob string `json:"blob"`
			Have int64  `json:"have"`
		}
		if json.Unmarshal(lines.Bytes(), &c) != nil {
			break
		}
		have[c.Blob] = c.Have
	}
	var n int64
	for _, h := range have {
		n += h
	}
	return n
}

// TestKillInstall kills install at random moments. The same command must then leave the host in
// the same state as an undisturbed run.
func TestKillInstall(t *testing.T) {
	self, key := program(t), world.NewKey(t)
	up := world.NewRegistry(t, nil)
	var refs []string
	for i := range 8 {
		var layers []v1.Layer
		for k := range 12 {
			layers = append(layers, randomLayer(byte(i*16+k), 700_000))
		}
		refs = append(refs, up.Push(t, fmt.Sprintf("team/app%d:1", i), world.Image("linux/amd64", layers...)))
	}
	path := world.Create(t, world.Options(t, world.Manifest(t, "demo", refs...), key, up))
	dir := t.TempDir()
	args := func(root string) []string { return []string{"install", path, "--key", key.Public, "--root", root} }
	length := command(t, dir, self, args("want")...)
	want := hostTree(t, filepath.Join(dir, "want"))
	moments := rand.New(rand.NewPCG(*killSeed, 2))
	t.Logf("an undisturbed run takes %s; seed %d", length, *killSeed)
	rounds, inside, journaled := *kills, 0, 0
	if testing.Short() {
		rounds = min(rounds, 5)
	}
	for round := 0; round < rounds || journaled < rounds/2 && round < 4*rounds; round++ {
		root := fmt.Sprintf("site%d", round)
		after := time.Duration(moments.Float64() * 1.1 * float64(length))
		inTime, begun := killed(t, dir, after, self, args(root)...), hasJournal(filepath.Join(dir, root))
		if inTime {
			inside++
		}
		if begun {
			journaled++
		}
		length = follow(length, inTime, begun)
		command(t, dir, self, args(root)...)
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(hostTree(t, filepath.Join(dir, root)), "\n")); diff != "" {
			t.Fatalf("round %d, killed after %s: another host: %s", round, after, diff)
		}
		if err := os.RemoveAll(filepath.Join(dir, root)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rounds, %d killed, %d with a journal", rounds, inside, journaled)
	if journaled < rounds/2 {
		t.Errorf("in %d rounds there was a journal, which proves too little for %d", journaled, rounds)
	}
}

// hasJournal reports whether an installation was interrupted while storing or switching.
func hasJournal(root string) bool {
	storing, err := os.Stat(filepath.Join(root, "registry", "incoming.jsonl"))
	if err == nil && storing.Size() > 0 {
		return true
	}
	switching, err := filepath.Glob(filepath.Join(root, "journal", "*.json"))
	return err == nil && len(switching) > 0
}

var installedAt = regexp.MustCompile(`"installed":"[^"]*"`)

// hostTree describes every file below root: path, mode and digest. It ignores the times of
// receipts.
func hostTree(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasPrefix(path, filepath.Join(root, "lock")) {
			return nil // names the lock's holder; each run writes a new one
		}
		if d.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			fmt.Fprintf(&b, "%s -> %s\n", strings.TrimPrefix(path, root), to)
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fi, err := d.Info()
		data = bytes.ReplaceAll(installedAt.ReplaceAll(data, nil), []byte(root), []byte("ROOT"))
		fmt.Fprintf(&b, "%s %s %x\n", strings.TrimPrefix(path, root), fi.Mode(), sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
