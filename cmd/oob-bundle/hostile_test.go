package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// invoke runs the program in this process.
func invoke(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	limit, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	status = run(args, &out, &err)
	debug.SetMemoryLimit(limit)
	debug.SetGCPercent(percent)
	if strings.Contains(err.String(), "goroutine ") {
		t.Errorf("%q: a stack: %s", args, err.String())
	}
	return status, out.String(), err.String()
}

// tree returns the content and the modes of everything below a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		found[path] = fi.Mode().String()
		if fi.Mode().IsRegular() && fi.Size() < 1<<20 {
			data, err := os.ReadFile(path)
			found[path] += " " + string(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestOtherPaths: all commands that read a bundle refuse a path that is not a regular file,
// immediately and without changing files.
func TestOtherPaths(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("devices and pipes are Linux's here")
	}
	dir, key := t.TempDir(), world.NewKey(t)
	good := filepath.Join(dir, "good.oob.tar")
	world.Write(t, good, world.Rich("x").File(t, key), 0o644)
	link, directory, pipe := filepath.Join(dir, "link.oob.tar"), filepath.Join(dir, "directory"), filepath.Join(dir, "pipe")
	for _, err := range []error{
		os.Symlink(good, link), os.Mkdir(directory, 0o755), makePipe(pipe),
		os.Symlink("loop", filepath.Join(dir, "loop")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "site")
	paths := []struct{ path, text string }{
		{
			link,
			"a symbolic link",
		},
		{directory, "a directory"},
		{pipe, "a pipe"},
		{"/dev/zero", "a device"},
		{"/dev/null", "a device"},
		{"/dev/stdin", "a symbolic link"},
		{"/dev/fd/0", ""},
		{"/proc/self/fd/0", ""},
		{
			filepath.Join(dir, "loop"),
			"a symbolic link",
		},
		{filepath.Join(dir, "missing"), "no such file"},
		{good + "/x", ""},
		{"", ""},
		{"-", ""},
		{strings.Repeat("x", 5000), ""},
		{good + "\x00", ""},
	}
	commands := map[string][]string{
		"verify": {
			"--key",
			key.Public,
			"--root",
			root,
		},
		"install": {"--key", key.Public, "--root", root},
		"values":  {"--key", key.Public, "--root", root},
		"repair":  {"--key", key.Public, "--root", root},
		"inspect": nil,
		"sign":    {"--key", key.Private},
	}
	before := tree(t, dir)
	for name, flags := range commands {
		for _, p := range paths {
			status, stdout, stderr := invoke(t, append(append([]string{name}, flags...), "--", p.path)...)
			if status != 2 && (status != 1 || p.text != "") || !strings.Contains(stderr, p.text) || stdout != "" {
				t.Errorf("%s %.40q: exit %d, %q %.300q", name, p.path, status, stdout, stderr)
			}
		}
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("something was changed: %s", diff)
	}
	if status, _, stderr := invoke(t, "verify", good, "--key", key.Public, "--root", root); status != 0 {
		t.Errorf("the good one: %d %s", status, stderr)
	}
	t.Logf("%d paths for each of %d commands", len(paths), len(commands))
}

// TestGrowing: a partial copy is refused, and so is a file that grows while it is read.
func TestGrowing(t *testing.T) {
	dir, key := t.TempDir(), world.NewKey(t)
	data := world.Rich("x").File(t, key)
	path := filepath.Join(dir, "b.oob.tar")
	args := []string{"verify", path, "--key", key.Public, "--root", filepath.Join(dir, "site")}
	for _, n := range []int{0, 511, 1024, 5000, 70000, len(data) - 512, len(data) - 1} {
		world.Write(t, path, data[:n], 0o644)
		if status, _, stderr := invoke(t, args...); status != 3 {
			t.Errorf("%d bytes are there: %d %s", n, status, stderr)
		}
		if err := os.Truncate(path, int64(len(data))); err != nil { // like a copy program that allocates the full size first
			t.Fatal(err)
		}
		if status, _, stderr := invoke(t, args...); n < len(data)-1024 && status != 3 && status != 4 {
			t.Errorf("%d bytes are there, and zeros: %d %s", n, status, stderr)
		}
	}
	world.Write(t, path, data, 0o644)
	file, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Unchanged(); err != nil {
		t.Error(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("more"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := file.Unchanged(); exitCode(err) != 3 {
		t.Errorf("it grew: %v", err)
	}
	if status, _, stderr := invoke(t, args...); status != 3 || !strings.Contains(stderr, "4 bytes follow") {
		t.Errorf("%d %s", status, stderr)
	}
}

// showable reports whether s contains nothing that a terminal would obey.
func showable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == 0x2028 || r == 0x2029)
	})
}

// TestNothingThatATerminalObeys puts control characters (colours, clear screen, right-to-left,
// invisible) into every text of a bundle that reaches a terminal. None may be printed.
func TestNothingThatATerminalObeys(t *testing.T) {
	dir, key, other := t.TempDir(), world.NewKey(t), world.NewKey(t)
	root := filepath.Join(dir, "site")
	const evil = "\x1b[2J\x1b]0;x\a\u009b31m\u202egnp.exe\u2066\u200b\u2028\r\b\x7f"
	escaped := strings.Trim(strings.ReplaceAll(fmt.Sprintf("%+q", evil), `\x`, `\u00`), `"`)
	escaped = strings.NewReplacer(`\a`, `\u0007`).Replace(escaped)
	changes := map[string]func(c *world.Content){
		"plugin's version":   func(c *world.Content) { c.Doc.Plugins[0].Version = evil },
		"plugin's id":        func(c *world.Content) { c.Doc.Plugins[0].ID = evil },
		"plugin's file":      func(c *world.Content) { c.Doc.Plugins[0].Name = evil },
		"chart's name":       func(c *world.Content) { c.Doc.Charts[0].Name = evil },
		"chart's version":    func(c *world.Content) { c.Doc.Charts[0].Version = evil },
		"chart's repository": func(c *world.Content) { c.Doc.Charts[0].Repository = evil },
		"chart's digest":     func(c *world.Content) { c.Doc.Charts[0].Digest = evil },
		"component's name":   func(c *world.Content) { c.Doc.Components[0].Name = evil },
		"component's need":   func(c *world.Content) { c.Doc.Components[0].Files = []string{evil} },
		"form":               func(c *world.Content) { c.Doc.Form = evil },
		"setting":            func(c *world.Content) { c.Doc.Settings = map[string]string{"x": evil} },
		"path":               func(c *world.Content) { c.Doc.Files[0].Path = evil },
		"mode":               func(c *world.Content) { c.Doc.Files[0].Mode = evil },
		"reference":          func(c *world.Content) { c.Doc.Images[0].Reference = evil },
		"repository":         func(c *world.Content) { c.Doc.Images[0].Repository = evil },
		"tag":                func(c *world.Content) { c.Doc.Images[0].Tag = evil },
		"digest":             func(c *world.Content) { c.Doc.Images[0].Digest = evil },
		"attestation":        func(c *world.Content) { c.Doc.Images[0].Attestations = []bundle.Digest{evil} },
		"kind":               func(c *world.Content) { c.Doc.Kind = evil },
		"about a value":      func(c *world.Content) { c.Doc.Host.Values[0].About = evil },
		"example of a value": func(c *world.Content) { c.Doc.Host.Values[0].Example = evil },
		"a link":             func(c *world.Content) { c.Doc.Host.Links = []bundle.Link{{Path: evil, File: evil}} },
		"a document's key": func(c *world.Content) {
			c.Document = func([]byte) []byte { return []byte(`{"` + escaped + `":null}`) }
		},
		"a root's key": func(c *world.Content) {
			c.Root = func([]byte) []byte { return []byte(`{"` + escaped + `":null}`) }
		},
		"a root's key within": func(c *world.Content) {
			c.Root = func([]byte) []byte { return []byte(`{"annotations":{"` + escaped + `":{"` + escaped + `":-0}}}`) }
		},
		"an annotation's name": func(c *world.Content) {
			c.Root = func(r []byte) []byte {
				return bytes.Replace(r, []byte(`"annotations":{"dev`), []byte(`"annotations":{"dev.oobbundle.`+escaped+`":"","dev`), 1)
			}
		},
		"an annotation":      func(c *world.Content) { c.Roots[0].Annotations["x"] = evil },
		"an artifact's type": func(c *world.Content) { c.Roots[0].ArtifactType = evil },
		"a platform":         func(c *world.Content) { c.Roots[2].Platform = &bundle.Platform{OS: evil, Architecture: evil} },
		"an index's platform": func(c *world.Content) {
			d := c.Image("linux/amd64", "x")
			d.Platform = &bundle.Platform{OS: evil, Architecture: evil, Variant: evil}
			c.Add("docker.io/library/odd:1", c.Index(d))
		},
		"a manifest's key": func(c *world.Content) {
			c.Add("docker.io/library/odd:1", c.Blob(bundle.TypeOCIManifest, []byte(`{"`+escaped+`":1,"`+escaped+`":2}`)))
		},
		"a manifest's media type": func(c *world.Content) {
			c.Add("docker.io/library/odd:1", c.Blob(bundle.TypeOCIManifest, []byte(`{"schemaVersion":2,"mediaType":"`+escaped+`"}`)))
		},
		"a document of the bundle": func(c *world.Content) { addDocument(c, `{"x":"`+"\u009b31m\u202e"+`"}`) },
		"a document that is none":  func(c *world.Content) { addDocument(c, evil) },
		"a document in Latin-1":    func(c *world.Content) { addDocument(c, "{\"x\":\"\x9b31m\"}") },
		"a name":                   func(c *world.Content) { c.Info.Name = evil },
		"a channel":                func(c *world.Content) { c.Info.Channel = evil },
		"a version":                func(c *world.Content) { c.Info.Version = evil },
		"a reference of 4 MB": func(c *world.Content) {
			c.Roots[0].Annotations[bundle.AnnotationRef] = strings.Repeat("x", 4_000_000)
		},
	}
	runs, longest := 0, 0
	for name, change := range changes {
		c := world.Rich("x")
		change(c)
		path := filepath.Join(dir, "b.oob.tar")
		world.Write(t, path, c.File(t, key), 0o644)
		for _, args := range [][]string{
			{"inspect", path}, {"inspect", path, "--json"}, {"inspect", path, "--sbom"},
			{"verify", path, "--key", key.Public, "--root", root},
			{"verify", path, "--key", key.Public, "--root", root, "--json"},
			{"verify", path, "--key", other.Public, "--root", root},
			{"values", path, "--key", key.Public, "--root", root},
			{"values", path, "--key", key.Public, "--root", root, "--json"},
			{"install", path, "--key", key.Public, "--root", root, "--dry-run"},
			{"install", path, "--key", key.Public, "--root", root, "--dry-run", "--json"},
		} {
			runs++
			status, stdout, stderr := invoke(t, args...)
			if !showable(stdout) || !showable(stderr) {
				t.Errorf("%s: %s: %q %q", name, args[0], stdout, stderr)
			}
			if args[len(args)-1] == "--json" && status == 0 && !json.Valid([]byte(stdout)) {
				t.Errorf("%s: %s: no JSON: %s", name, args[0], stdout)
			}
			if longest = max(longest, len(stderr)); len(stderr) > maxMessage+1024 {
				t.Errorf("%s: %s: a message of %d bytes", name, args[0], len(stderr))
			}
		}
	}
	// File names on the medium.
	odd := filepath.Join(dir, "a"+strings.ReplaceAll(evil, "/", "")+".oob.tar")
	world.Write(t, odd, []byte("x"), 0o644)
	for _, args := range [][]string{
		{"inspect", odd}, {"verify", odd, "--key", key.Public, "--root", root},
		{"verify", odd + "x", "--key", key.Public, "--root", root}, {"verify", odd, "--key", odd, "--root", root},
		{evil}, {"verify", "--" + evil},
	} {
		runs++
		if _, stdout, stderr := invoke(t, args...); !showable(stdout) || !showable(stderr) {
			t.Errorf("%q: %q %q", args, stdout, stderr)
		}
	}
	t.Logf("%d texts, %d runs; the longest message had %d bytes", len(changes), runs, longest)
}

// addDocument adds an SBOM of the bundle with the given text.
func addDocument(c *world.Content, text string) {
	d, blobs := bundle.NewArtifact(bundle.TypeSBOM, nil, c.Blob(bundle.TypeCycloneDX, []byte(text)))
	for digest, data := range blobs {
		c.Blobs[digest] = data
	}
	c.Roots = append([]bundle.Descriptor{d}, c.Roots...)
}

// TestPrintable checks which characters are escaped and which are not.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain, with\na second line\tand a tab":  "plain, with\na second line\tand a tab",
		"caf\u00e9 \u65e5\u672c\u00a0\U0001f512": "caf\u00e9 \u65e5\u672c\u00a0\U0001f512",
		"\x1b[2J":                                `\x1b[2J`,
		"\u202e\u009b\xff":                       `\u202e\u009b\xff`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	for _, text := range []string{"\u009b\u202e", "\U000e0001", "caf\u00e9\x7f"} {
		data, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if out := printableJSON(string(data)); json.Unmarshal([]byte(out), &got) != nil || got != text || !showable(out) {
			t.Errorf("%q became %q", text, out)
		}
	}
}

// allocated returns the total number of bytes that this process has allocated.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// TestBombs reads roots and documents of up to 4 MiB that are built to be expensive. It bounds
// the total of allocated bytes, which is an upper bound for the memory in use. The times are
// logged only.
func TestBombs(t *testing.T) {
	dir, key := t.TempDir(), world.NewKey(t)
	root := filepath.Join(dir, "site")
	room := func(unit int) int { return (bundle.MaxManifest - 8192) / unit }
	shared := func(c *world.Content, d bundle.Descriptor) {
		for i := range 1990 {
			c.Add(fmt.Sprintf("docker.io/library/a:%d", i), d)
		}
	}
	layers := func(n int) string {
		l := fmt.Sprintf(`{"mediaType":%q,"digest":"%s","size":1}`, world.TypeLayer, bundle.DigestOf([]byte("x")))
		return strings.TrimSuffix(strings.Repeat(l+",", n), ",")
	}
	hostile := func(text func(root []byte) []byte) func(c *world.Content) {
		return func(c *world.Content) { c.Root = text }
	}
	bombs := []struct {
		name   string
		change func(c *world.Content)
		good   bool
	}{
		{"a root of empty descriptors", hostile(func(r []byte) []byte {
			return bytes.Replace(r, []byte(`"manifests":[`), append([]byte(`"manifests":[`), bytes.Repeat([]byte("{},"), room(3))...), 1)
		}), false},
		{"a root of keys", hostile(func(r []byte) []byte {
			var b strings.Builder
			for i := range room(14) {
				fmt.Fprintf(&b, `"%07x":"",`, i)
			}
			return bytes.Replace(r, []byte(`"annotations":{`), []byte(`"annotations":{`+b.String()), 1)
		}), true},
		{"a root of one text", hostile(func(r []byte) []byte {
			return bytes.Replace(r, []byte(`"annotations":{`), []byte(`"annotations":{"x":"`+strings.Repeat("x", room(1))+`",`), 1)
		}), true},
		{"a root of lists in lists", hostile(func([]byte) []byte { return bytes.Repeat([]byte("["), bundle.MaxManifest) }), false},
		{"a root of one number", hostile(func(r []byte) []byte {
			return bytes.Replace(r, []byte(`"schemaVersion":2`), append([]byte(`"schemaVersion":`), bytes.Repeat([]byte("9"), room(1))...), 1)
		}), false},
		{"2,000 references to one index of 30,000 manifests", func(c *world.Content) {
			m := string(world.Encode(c.Image("linux/amd64", "x")))
			shared(
				c,
				c.Blob(
					bundle.TypeOCIIndex,
					[]byte(`{"schemaVersion":2,"manifests":[`+strings.TrimSuffix(strings.Repeat(m+",", room(len(m)+1)), ",")+`]}`),
				),
			)
		}, true},
		{"2,000 references to one image of 30,000 layers", func(c *world.Content) {
			config := c.Blob(bundle.TypeOCIConfig, []byte("{}"))
			c.Blob(world.TypeLayer, []byte("x"))
			shared(
				c,
				c.Blob(
					bundle.TypeOCIManifest,
					[]byte(`{"schemaVersion":2,"config":`+string(world.Encode(config))+`,"layers":[`+layers(25_000)+`]}`),
				),
			)
		}, false},
		{"2,000 references to one partial index of 4 MiB", func(c *world.Content) {
			amd := c.Image("linux/amd64", "x")
			m := string(world.Encode(amd))
			index := c.Blob(
				bundle.TypeOCIIndex,
				[]byte(`{"schemaVersion":2,"manifests":[`+strings.TrimSuffix(strings.Repeat(m+",", room(len(m)+1)), ",")+`]}`),
			)
			c.Partial("docker.io/library/a:first", index, amd)
			for i := range 1900 {
				ref := fmt.Sprintf("docker.io/library/a:%d", i)
				d := amd
				d.Annotations = map[string]string{bundle.AnnotationRef: ref}
				c.Roots = append(c.Roots, d)
				image := c.Doc.Images[len(c.Doc.Images)-1]
				image.Reference, image.Tag = ref, fmt.Sprint(i)
				c.Doc.Images = append(c.Doc.Images, image)
			}
		}, true},
		{"a deployment of components that need many files", func(c *world.Content) {
			for i := range 1900 {
				c.HostFile(fmt.Sprintf("f%d", i), "x")
			}
			need := make([]string, 300_000)
			for i := range need {
				need[i] = "f1899"
			}
			c.Doc.Components = []bundle.Component{{Name: "x", Images: []string{}, Files: need}}
		}, true},
		{"a deployment of merges", func(c *world.Content) {
			c.HostFile("p", "{}")
			c.Doc.Host.Merges = make([]bundle.Merge, 90_000)
			for i := range c.Doc.Host.Merges {
				c.Doc.Host.Merges[i] = bundle.Merge{File: "a", Patch: "p"}
			}
		}, true},
		{"a deployment of attestations", func(c *world.Content) {
			c.Roots = append(c.Roots, c.Image("linux/amd64", "unnamed"))
			at := c.Roots[len(c.Roots)-1].Digest
			list := make([]bundle.Digest, 50_000)
			for i := range list {
				list[i] = at
			}
			c.Doc.Images[0].Attestations = list
		}, true},
		{"a deployment of empty components", func(c *world.Content) {
			c.Document = func(d []byte) []byte {
				return bytes.Replace(
					d,
					[]byte(`"components":[`),
					append(append([]byte(`"components":[`), bytes.Repeat([]byte("{},"), room(3))...), "{}"...),
					1,
				)
			}
		}, false},
		{"an index of empty descriptors", func(c *world.Content) {
			c.Add(
				"docker.io/library/odd:1",
				c.Blob(
					bundle.TypeOCIIndex,
					append(append([]byte(`{"schemaVersion":2,"manifests":[`), bytes.Repeat([]byte("{},"), room(3))...), "{}]}"...),
				),
			)
		}, false},
		{"a manifest of lists in lists in what nobody knows", func(c *world.Content) {
			c.Add(
				"docker.io/library/odd:1",
				c.Blob(
					bundle.TypeOCIManifest,
					append(append([]byte(`{"schemaVersion":2,"fsLayers":[`), bytes.Repeat([]byte("[],"), room(3))...), "[]]}"...),
				),
			)
		}, false},
	}
	const most = 256 << 20
	for _, bomb := range bombs {
		t.Run(bomb.name, func(t *testing.T) {
			c := world.NewContent("bomb")
			c.Doc.Host = &bundle.Host{}
			c.Add("docker.io/library/one:1", c.Image("linux/amd64", "x"))
			bomb.change(c)
			path := filepath.Join(dir, "b.oob.tar")
			data := c.File(t, key)
			world.Write(t, path, data, 0o644)
			size := len(data)
			for _, args := range [][]string{
				{"inspect", path, "--json"}, {"verify", path, "--key", key.Public, "--root", root},
				{"values", path, "--key", key.Public, "--root", root},
			} {
				runtime.GC()
				before, start := allocated(), time.Now()
				status, stdout, stderr := invoke(t, args...)
				bytes, took := allocated()-before, time.Since(start)
				if want := args[0] != "inspect"; bomb.good && want && status != 0 || !bomb.good && status != 3 || status != 0 && status != 3 {
					t.Errorf("%s: %d %.200s %.300s", args[0], status, stdout, stderr)
				}
				if bytes > most {
					t.Errorf("%s allocated %d MiB", args[0], bytes>>20)
				}
				t.Logf(
					"%-8s exit %d, %5d MiB allocated in all, %v, a file of %d KiB",
					args[0], status, bytes>>20, took.Round(time.Millisecond), size>>10,
				)
			}
		})
	}
}
