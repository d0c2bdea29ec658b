package install_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// hosted returns a bundle of one image with the given files for the host.
func (w *fixture) hosted(sequence int64, doc bundle.Host, files map[string]string, templates ...string) []byte {
	c := world.NewContent("hosted")
	c.Info.Sequence = sequence
	c.Add("docker.io/library/app:1", c.Image("linux/amd64", string(rune('a'+sequence))))
	for _, path := range sortedNames(files) {
		c.HostFile(path, files[path])
		if slices.Contains(templates, path) {
			c.Doc.Files[len(c.Doc.Files)-1].As = bundle.AsTemplate
		}
	}
	c.Doc.Host = &doc
	return c.File(w.t, w.key)
}

func sortedNames(m map[string]string) (names []string) {
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func values(v map[string]string) choice { return func(s *site) { s.Values = v } }
func hostRoot(dir string) choice        { return func(s *site) { s.HostRoot = dir } }

// TestNothingFailsAfterTheJournal: problems with values, names or host files are found before
// the switch, so that no installation is left unfinished.
func TestNothingFailsAfterTheJournal(t *testing.T) {
	merge := func(file string) bundle.Host {
		return bundle.Host{
			Values: []bundle.Value{{Name: "internalHosts", About: "x", Default: "a"}},
			Merges: []bundle.Merge{{File: file, Patch: "p.json"}},
		}
	}
	link := func(path string) bundle.Host {
		return bundle.Host{Links: []bundle.Link{{Path: path, File: "p.json"}}}
	}
	long := strings.Repeat("n", 251)
	for name, x := range map[string]struct {
		host    bundle.Host
		patch   string
		values  map[string]string
		prepare func(t *testing.T, root, data string)
		works   bool
	}{
		"a value that breaks a patch": {
			host: merge("config.json"), patch: `{"h":"{{ .Values.internalHosts }}"}`,
			values: map[string]string{"internalHosts": `DOMAIN\host`},
		},
		"a value that ends a patch": {
			host: merge("config.json"), patch: `{"h":"{{ .Values.internalHosts }}"}`,
			values: map[string]string{"internalHosts": `"`},
		},
		"a patch that is not JSON":         {host: merge("config.json"), patch: `h: 1`},
		"a health address":                 {host: bundle.Host{Health: []string{`http://{{ fail "no" }}`}}, patch: `{}`},
		"a health address without a value": {host: bundle.Host{Health: []string{`http://{{ .Values.none }}`}}, patch: `{}`},
		"a file that is a directory": {host: merge("config.json"), patch: `{}`, prepare: func(t *testing.T, _, data string) {
			mkdir(t, filepath.Join(data, "config.json"))
		}},
		"a parent that is a file": {host: merge("conf/config.json"), patch: `{}`, prepare: func(t *testing.T, _, data string) {
			write(t, filepath.Join(data, "conf"), "x")
		}},
		"a file that is not JSON": {host: merge("config.json"), patch: `{}`, prepare: func(t *testing.T, _, data string) {
			write(t, filepath.Join(data, "config.json"), "x")
		}},
		"a directory that is a file": {
			host: bundle.Host{Directories: []bundle.Directory{{Path: "a/b"}}}, patch: `{}`,
			prepare: func(t *testing.T, _, data string) { write(t, filepath.Join(data, "a"), "x") },
		},
		"a link below a dangling link": {host: link("/etc/nginx/conf.d/app.conf"), patch: `{}`, prepare: func(t *testing.T, root, _ string) {
			mkdir(t, filepath.Join(root, "etc/nginx"))
			symlink(t, "/nowhere/at/all", filepath.Join(root, "etc/nginx/conf.d"))
		}},
		"a link below a link to itself": {host: link("/etc/nginx/conf.d/app.conf"), patch: `{}`, prepare: func(t *testing.T, root, _ string) {
			mkdir(t, filepath.Join(root, "etc/nginx"))
			symlink(t, "conf.d", filepath.Join(root, "etc/nginx/conf.d"))
		}},
		"a link below a file": {host: link("/etc/nginx/conf.d/app.conf"), patch: `{}`, prepare: func(t *testing.T, root, _ string) {
			write(t, filepath.Join(root, "etc/nginx"), "x")
		}},
		"a directory at the new name of a link": {
			host: link("/etc/nginx/conf.d/app.conf"), patch: `{}`,
			prepare: func(t *testing.T, root, _ string) { mkdir(t, filepath.Join(root, "etc/nginx/conf.d/.app.conf.new/x")) },
		},
		"a directory at the new name of a file": {
			host: merge("config.json"), patch: `{"a":1}`,
			prepare: func(t *testing.T, _, data string) { mkdir(t, filepath.Join(data, ".config.json.new/x")) },
		},
		"a link at a directory": {host: link("/etc/nginx/conf.d/app.conf"), patch: `{}`, prepare: func(t *testing.T, root, _ string) {
			mkdir(t, filepath.Join(root, "etc/nginx/conf.d/app.conf"))
		}},
		"a merge of 252 bytes": {host: merge(long + "x"), patch: `{}`, works: true},
		"a merge of 255 bytes": {host: merge(long + "1234"), patch: `{}`, works: true},
		"a link of 252 bytes":  {host: link("/etc/nginx/conf.d/" + long + "x"), patch: `{}`, works: true},
		"a directory of 255 bytes": {
			host: bundle.Host{Directories: []bundle.Directory{{Path: long + "1234"}}}, patch: `{}`, works: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t)
			etc := filepath.Join(t.TempDir(), "host")
			mkdir(t, etc)
			w.must(w.install(w.hosted(1, bundle.Host{}, map[string]string{"p.json": "{}"}), hostRoot(etc)))
			if x.prepare != nil {
				mkdir(t, filepath.Join(w.root, "deployments/hosted/data"))
				x.prepare(t, etc, filepath.Join(w.root, "deployments/hosted/data"))
			}
			before := w.tree()
			_, err := w.install(w.hosted(2, x.host, map[string]string{"p.json": x.patch}, "p.json"), hostRoot(etc), values(x.values))
			if x.works {
				if err != nil {
					t.Fatal(err)
				}
				w.undo("hosted", rollback)
				w.undo("hosted", uninstall)
				return
			}
			if err == nil || errors.Is(err, install.ErrIncomplete) {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(before, w.tree()); diff != "" {
				t.Errorf("something was changed: %.500s", diff)
			}
			w.undo("hosted", uninstall)
		})
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	world.Write(t, path, []byte(text), 0o644)
}

func symlink(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Skip(err)
	}
}

// TestLeavingAnUnfinishedChange: an installation that stops at any step can be reverted and
// uninstalled.
func TestLeavingAnUnfinishedChange(t *testing.T) {
	host := bundle.Host{Merges: []bundle.Merge{{File: "config.json", Patch: "p.json"}}}
	for _, first := range []bool{true, false} {
		for step := 1; ; step++ {
			w := newFixture(t)
			one, two := w.hosted(1, host, map[string]string{"p.json": `{"a":1}`}), w.hosted(2, host, map[string]string{"p.json": `{"b":2}`})
			if !first {
				w.must(w.install(one))
			}
			tags := w.tags()
			ends, _ := pulledAt(step)
			_, err := w.install(two, ends)
			if err == nil {
				break
			}
			if !errors.Is(err, install.ErrIncomplete) {
				continue
			}
			target, err := embedded(t.Context(), w.root)
			if err != nil {
				t.Fatal(err)
			}
			j, err := install.TakeBack(t.Context(), install.Site{Root: w.root, Target: target}, "hosted")
			if err != nil || j == nil {
				t.Fatalf("step %d: %v, %v", step, j, err)
			}
			if journals, err := ledger.ReadJournals(w.root); err != nil || len(journals) > 0 {
				t.Fatalf("step %d: %v, %v", step, journals, err)
			}
			state, err := ledger.Read(w.root)
			if err != nil {
				t.Fatal(err)
			}
			d, err := state.Find("hosted", "")
			if err == nil && d.Current().Version == "1.0.0" && !first { // it was reverted, or completed
				if got := w.tags(); len(got) < len(tags) {
					t.Errorf("step %d: the tags are %v and were %v", step, got, tags)
				}
			} else if !first {
				t.Errorf("step %d: %v", step, err)
			}
			if err == nil {
				w.undo("hosted", uninstall)
			}
			w.collect()
			if got := w.tags(); len(got) > 0 {
				t.Errorf("step %d: %v is left", step, got)
			}
		}
	}
}

// immutable is a target that refuses to move the tags that rule selects.
type immutable struct {
	install.Target
	rule  func(repo, tag string) bool
	moved *[]string
}

func (i immutable) Tag(ctx context.Context, repo, tag string, to bundle.Digest) error {
	now, err := i.Resolve(ctx, repo, tag)
	if err != nil {
		return err
	}
	if now != "" && i.rule(repo, tag) { // even if the value does not change
		return install.ErrRefused
	}
	*i.moved = append(*i.moved, repo+":"+tag)
	return i.Target.Tag(ctx, repo, tag, to)
}

// TestImmutableTags: if the registry does not let one tag move, the whole change is refused
// and every tag stays as it was. Tags with the right value cause no error.
func TestImmutableTags(t *testing.T) {
	for name, rule := range map[string]func(repo, tag string) bool{
		"all":             func(string, string) bool { return true },
		"one repository":  func(repo, _ string) bool { return strings.HasSuffix(repo, "/app") },
		"the other":       func(repo, _ string) bool { return strings.HasSuffix(repo, "/web") },
		"the channel tag": func(_, tag string) bool { return strings.HasPrefix(tag, "channel-") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t)
			var moved []string
			fixed := wrapped(func(e install.Target) install.Target { return immutable{e, rule, &moved} })
			one := w.bundle("demo", 1, w.push("team/app:1", "one"), w.push("team/web:1", "one"))
			two := w.bundle("demo", 2, w.push("team/app:1", "two"), w.push("team/web:1", "two"))
			w.must(w.install(one, fixed))
			before := w.tags()
			if !w.must(w.install(one, fixed)).Nothing {
				t.Error("a second time it did something")
			}
			for range 2 {
				moved = nil
				_, err := w.install(two, fixed)
				if !errors.Is(err, bundle.ErrPolicy) || errors.Is(err, install.ErrIncomplete) {
					t.Fatalf("got %v", err)
				}
				if name == "all" && len(moved) > 0 {
					t.Errorf("%v had moved", moved)
				}
				if diff := cmp.Diff(before, w.tags()); diff != "" {
					t.Errorf("tags: %s", diff)
				}
			}
			// The sequence of the refused bundle is not recorded.
			w.must(w.install(one, fixed))
			// Once the new tags are set, the rule prevents nothing.
			w.must(w.install(two))
			if !w.must(w.install(two, fixed)).Nothing {
				t.Error("a second time it did something")
			}
			w.undo("demo", uninstall)
		})
	}
}

// TestStateRebuilt: a lost or empty record of sequences does not permit a downgrade.
func TestStateRebuilt(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, root string){
		"state removed":          func(t *testing.T, root string) { remove(t, root, "state.json") },
		"state and copy removed": func(t *testing.T, root string) { remove(t, root, "state.json", "state.json.old") },
		"an empty object":        func(t *testing.T, root string) { write(t, filepath.Join(root, "state.json"), "{}") },
		"an empty file":          func(t *testing.T, root string) { write(t, filepath.Join(root, "state.json"), "") },
		"a file of zeros": func(t *testing.T, root string) {
			write(t, filepath.Join(root, "state.json"), strings.Repeat("\x00", 512))
		},
		"a state of nothing": func(t *testing.T, root string) { write(t, filepath.Join(root, "state.json"), emptyState) },
		"a state of nothing, and no copy": func(t *testing.T, root string) {
			remove(t, root, "state.json.old")
			write(t, filepath.Join(root, "state.json"), emptyState)
		},
		"no channels": func(t *testing.T, root string) {
			remove(t, root, "state.json.old")
			write(t, filepath.Join(root, "state.json"), `{"apiVersion":"oobbundle.dev/v1","kind":"State"}`)
		},
		"damaged, and so is the copy": func(t *testing.T, root string) {
			write(t, filepath.Join(root, "state.json"), "x")
			write(t, filepath.Join(root, "state.json.old"), "x")
		},
		"receipts lost too": func(t *testing.T, root string) { remove(t, root, "state.json", "state.json.old", "receipts") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t)
			ref := w.push("team/app:1", "one")
			file := map[int64][]byte{}
			for _, n := range []int64{50, 100, 150, 200, 250} {
				file[n] = w.bundle("demo", n, ref)
			}
			w.must(w.install(file[100]))
			w.must(w.install(file[200]))
			lose(t, w.root)
			for _, n := range []int64{50, 150} {
				if _, err := w.install(file[n]); !errors.Is(err, bundle.ErrPolicy) {
					t.Errorf("sequence %d: %v", n, err)
				}
			}
			if name == "receipts lost too" {
				w.must(w.install(file[250], allowDowngrade))
				w.undo("demo", uninstall)
				return
			}
			w.must(w.install(file[200])) // the installed bundle is accepted
			w.undo("demo", rollback)
			w.must(w.install(file[250]))
			if state, err := ledger.Read(w.root); err != nil || state.Rebuilt != nil {
				t.Errorf("afterwards: %v, %v", state.Rebuilt, err)
			}
			w.undo("demo", uninstall)
			if _, err := w.install(file[150]); !errors.Is(err, bundle.ErrPolicy) {
				t.Errorf("after uninstall, sequence 150: %v", err)
			}
		})
	}
}

const emptyState = `{"apiVersion":"oobbundle.dev/v1","kind":"State","channels":{},"owners":{},"deployments":{}}`

func remove(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(root, n)); err != nil {
			t.Fatal(err)
		}
	}
}
