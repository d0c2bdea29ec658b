package install_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// fixture is an upstream registry, an author's key, and a site.
type fixture struct {
	t    *testing.T
	up   *world.Registry
	key  *world.Key
	root string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return &fixture{t, world.NewRegistry(t, nil), world.NewKey(t), filepath.Join(t.TempDir(), "site")}
}

// push stores an image that contains text under REPOSITORY:TAG.
func (w *fixture) push(ref, text string) string {
	return w.up.Push(
		w.t, ref,
		world.Image("linux/amd64", world.Layer(world.File{Name: "app", Mode: 0o755, Data: []byte(text)})),
	)
}

// bundle creates a bundle of the references.
func (w *fixture) bundle(name string, sequence int64, refs ...string) []byte {
	return w.bundleWith(name, refs, func(o *create.Options) { o.Sequence = &sequence })
}

func (w *fixture) bundleWith(name string, refs []string, change func(*create.Options)) []byte {
	w.t.Helper()
	o := world.Options(w.t, world.Manifest(w.t, name, refs...), w.key, w.up)
	change(&o)
	data, err := os.ReadFile(world.Create(w.t, o))
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

type choice func(*site)

// site holds the settings of one installation.
type site struct {
	install.Options
	target func(ctx context.Context, root string) (install.Registry, error)
	ctx    context.Context
}

func allowDowngrade(s *site) { s.AllowDowngrade = true }
func takeOver(s *site)       { s.TakeOver = true }

func embedded(ctx context.Context, root string) (install.Registry, error) {
	e, err := registry.OpenEmbedded(ctx, root)
	if err != nil {
		return install.Registry{}, err
	}
	return e.Registry(), nil
}

// wrapped wraps the embedded registry's target.
func wrapped(wrap func(install.Target) install.Target) choice {
	return func(s *site) {
		s.target = func(ctx context.Context, root string) (install.Registry, error) {
			r, err := embedded(ctx, root)
			r.Target = wrap(r.Target)
			return r, err
		}
	}
}

// install does the same as the install command.
func (w *fixture) install(file []byte, choices ...choice) (*install.Result, error) {
	w.t.Helper()
	policy := verify.Policy{Keys: []verify.Key{w.key.Trusted}}
	s := site{
		Options: install.Options{Root: w.root, Policy: policy, Warn: w.t.Logf}, ctx: context.Background(),
		target: embedded,
	}
	for _, c := range choices {
		c(&s)
	}
	v, err := verify.Open(s.ctx, bytes.NewReader(file), int64(len(file)), policy)
	if err != nil {
		return nil, err
	}
	lock, err := install.Acquire(w.root)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := lock.Release(); err != nil {
			w.t.Error(err)
		}
	}()
	target, err := s.target(s.ctx, w.root)
	if err != nil {
		return nil, err
	}
	plan, err := install.NewPlan(s.ctx, v, target, s.Options)
	if err != nil {
		return nil, err
	}
	return plan.Apply(s.ctx, bundle.Watch{})
}

func (w *fixture) must(r *install.Result, err error) *install.Result {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// tags returns the digest of every tag in the site's registry.
func (w *fixture) tags() map[string]string {
	w.t.Helper()
	tags := map[string]string{}
	err := filepath.WalkDir(w.root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "/current/link") {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name := strings.TrimSuffix(path[strings.Index(path, "/repositories/")+len("/repositories/"):], "/current/link")
			tags[strings.Replace(name, "/_manifests/tags/", ":", 1)] = string(data)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	return tags
}

// tree returns all files below the root's parent directory.
func (w *fixture) tree() map[string]string {
	w.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Dir(w.root), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files[path] = ""
		if d.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			files[path] = "-> " + to
			return err
		}
		if !d.IsDir() {
			data, err := os.ReadFile(path)
			files[path] = string(data)
			return err
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

func (w *fixture) siteName(ref string) string {
	r, err := bundle.ParseReference(ref)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.SiteRepository() + ":" + r.Tag
}

func TestInstall(t *testing.T) {
	w := newFixture(t)
	ref := w.push("team/app:1", "one")
	file := w.bundle("demo", 1, ref)
	r := w.must(w.install(file))
	if r.Nothing || len(r.Receipt.Images) != 1 || string(r.Receipt.Images[0].Digest) != world.Digest(t, ref) {
		t.Errorf("%+v", r.Receipt)
	}
	if got := w.tags()[w.siteName(ref)]; got != world.Digest(t, ref) {
		t.Errorf("the tag is %q", got)
	}
	checkReceipt(t, filepath.Join(w.root, "receipts"))
	before := w.tree()
	again := w.must(w.install(file))
	if !again.Nothing {
		t.Error("the second installation did something")
	}
	if diff := cmp.Diff(r.Receipt, again.Receipt); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before, w.tree()); diff != "" {
		t.Error(diff)
	}
}

// TestTagsThatWereTurned: the same bundle repairs tags that were changed.
func TestTagsThatWereTurned(t *testing.T) {
	w := newFixture(t)
	ref := w.push("team/app:1", "one")
	file := w.bundle("demo", 1, ref)
	w.must(w.install(file))
	want := w.tags()
	e, err := registry.OpenEmbedded(t.Context(), w.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Tag(t.Context(), strings.TrimSuffix(w.siteName(ref), ":1"), "1", ""); err != nil {
		t.Fatal(err)
	}
	if r := w.must(w.install(file)); r.Nothing {
		t.Error("a missing tag was not noticed")
	}
	if diff := cmp.Diff(want, w.tags()); diff != "" {
		t.Error(diff)
	}
}

func TestSequences(t *testing.T) {
	w := newFixture(t)
	ref := w.push("team/app:1", "one")
	one := w.bundle("demo", 1, ref)
	ref = w.push("team/app:1", "two")
	two := w.bundle("demo", 2, ref)
	ref = w.push("team/app:1", "other two")
	otherTwo := w.bundle("demo", 2, ref)
	w.must(w.install(one))
	w.must(w.install(two))
	for name, file := range map[string][]byte{"older": one, "same sequence, another bundle": otherTwo} {
		before := w.tree()
		if _, err := w.install(file); !errors.Is(err, bundle.ErrPolicy) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, w.tree()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if r := w.must(w.install(two)); !r.Nothing {
		t.Error("the installed one was installed again")
	}
	if _, err := w.install(otherTwo, allowDowngrade); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("another bundle of the same sequence is no older one: %v", err)
	}
	w.must(w.install(one, allowDowngrade))
	if state, err := ledger.Read(w.root); err != nil || state.Channels["demo/linux/amd64"].Sequence != 1 {
		t.Errorf("after going back: %+v, %v", state, err)
	}
	w.must(w.install(otherTwo))
}

func TestOwners(t *testing.T) {
	w := newFixture(t)
	ref := w.push("team/app:1", "one")
	w.must(w.install(w.bundle("demo", 1, ref)))
	ref = w.push("team/app:1", "two")
	for _, c := range []struct {
		name string
		file []byte
	}{
		{"a tag", w.bundle("other", 2, ref)},
		{"a deployment name", w.bundleWith("demo", []string{w.push("team/else:1", "x")}, func(o *create.Options) { o.Channel = "foreign" })},
	} {
		before := w.tree()
		if _, err := w.install(c.file); !errors.Is(err, bundle.ErrPolicy) || !strings.Contains(err.Error(), "--take-over") {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(before, w.tree()); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		w.must(w.install(c.file, takeOver))
	}
}

var byteStep = flag.Int64("byte-step", 5, "change every N-th byte of a payload")

// TestEveryPayloadByte changes bytes that verify.Open does not read (every one with -byte-step
// 1). A bundle that is refused while it is stored must leave no trace.
func TestEveryPayloadByte(t *testing.T) {
	w := newFixture(t)
	file := w.bundle("demo", 1, w.push("team/app:1", "one"))
	reader, err := verify.Open(t.Context(), bytes.NewReader(file), int64(len(file)), verify.Policy{Keys: []verify.Key{w.key.Trusted}})
	if err != nil {
		t.Fatal(err)
	}
	before := w.tree()
	refused := 0
	for _, m := range reader.Blobs() {
		for at := m.Data; at < m.Data+m.Size; at++ {
			if at%*byteStep != 0 || testing.Short() && at%16 != 0 {
				continue
			}
			file[at] ^= 1 << (at % 8)
			_, err := w.install(file)
			file[at] ^= 1 << (at % 8)
			if !errors.Is(err, bundle.ErrDigest) {
				t.Fatalf("byte %d: %v", at, err)
			}
			if diff := cmp.Diff(before, w.tree()); diff != "" {
				t.Fatalf("byte %d: %s", at, diff)
			}
			refused++
		}
	}
	t.Logf("%d changed bytes, all refused without a trace", refused)
	w.must(w.install(file))
}

// TestBadByteInAnUpgrade: the old state stays, byte for byte.
func TestBadByteInAnUpgrade(t *testing.T) {
	w := newFixture(t)
	w.must(w.install(w.bundle("demo", 1, w.push("team/app:1", "one"))))
	before := w.tree()
	file := w.bundle("demo", 2, w.push("team/app:1", "two"), w.push("team/new:1", "new"))
	reader, err := verify.Open(t.Context(), bytes.NewReader(file), int64(len(file)), verify.Policy{Keys: []verify.Key{w.key.Trusted}})
	if err != nil {
		t.Fatal(err)
	}
	blobs := reader.Blobs()
	last := blobs[len(blobs)-1]
	file[last.Data] ^= 1
	if _, err := w.install(file); !errors.Is(err, bundle.ErrDigest) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, w.tree()); diff != "" {
		t.Error(diff)
	}
	file[last.Data] ^= 1
	w.must(w.install(file))
}

// plug fails at a given step. Several goroutines may use it.
type plug struct {
	mu    sync.Mutex
	left  int
	fired bool
}

var errPulled = errors.New("the plug was pulled")

func (p *plug) step() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		p.fired = true
		return errPulled
	}
	p.left--
	return nil
}

// pulledAt stops an installation at the given step of its target.
func pulledAt(step int) (choice, *plug) {
	p := &plug{left: step}
	return func(s *site) {
		s.target = func(ctx context.Context, root string) (install.Registry, error) {
			r, err := embedded(ctx, root)
			r.Target, r.Store = failing{r.Target, p}, failingStore{r.Store, p}
			return r, err
		}
	}, p
}

// failing is a target whose calls fail from one step on.
type failing struct {
	install.Target
	plug *plug
}

func (f failing) PutBlob(ctx context.Context, repo string, d bundle.Descriptor, from string, open func() io.Reader) error {
	if err := f.plug.step(); err != nil {
		return err
	}
	return f.Target.PutBlob(ctx, repo, d, from, open)
}

func (f failing) PutManifest(ctx context.Context, repo string, m *bundle.Manifest, data []byte) error {
	if err := f.plug.step(); err != nil {
		return err
	}
	return f.Target.PutManifest(ctx, repo, m, data)
}

func (f failing) Tag(ctx context.Context, repo, tag string, to bundle.Digest) error {
	if err := f.plug.step(); err != nil {
		return err
	}
	return f.Target.Tag(ctx, repo, tag, to)
}

// failingStore is the store of a failing target.
type failingStore struct {
	install.Store
	plug *plug
}

func (f failingStore) Sync() error {
	if err := f.plug.step(); err != nil {
		return err
	}
	return f.Store.Sync()
}

// TestInterruptedAnywhere stops an upgrade at each step. The same command then finishes the
// upgrade. Installing the old bundle or a third one instead reverts the upgrade first.
func TestInterruptedAnywhere(t *testing.T) {
	w := newFixture(t)
	w.up.Push(t, "team/same:1", world.Image("linux/amd64", world.Layer(world.File{Name: "s", Data: []byte("same")})))
	same := w.up.Host + "/team/same:1"
	one := w.bundle("demo", 1, w.push("team/app:1", "one"), same)
	two := w.bundle("demo", 2, w.push("team/app:1", "two"), same, w.push("team/new:1", "new"))
	three := w.bundle("demo", 3, w.push("team/app:1", "three"), same)
	w.must(w.install(one))
	oldTags := w.tags()
	w.must(w.install(two))
	newTags := w.tags()
	for step := 0; ; step++ {
		for name, then := range map[string][]byte{"the same": two, "the old": one, "a third": three} {
			w.root = filepath.Join(t.TempDir(), "site")
			w.must(w.install(one))
			pulled, plug := pulledAt(step)
			_, err := w.install(two, pulled)
			if !plug.fired {
				if err != nil || step < 10 {
					t.Fatalf("step %d: %v", step, err)
				}
				t.Logf("an upgrade has %d steps", step)
				return
			}
			if !errors.Is(err, errPulled) {
				t.Fatalf("step %d: %v", step, err)
			}
			for tag, digest := range w.tags() {
				if digest != oldTags[tag] && digest != newTags[tag] {
					t.Errorf("step %d: %s is %s, neither old nor new", step, tag, digest)
				}
			}
			w.must(w.install(then))
			if j, err := ledger.ReadJournals(w.root); len(j) > 0 || err != nil {
				t.Fatalf("step %d, then %s: the journal is still there: %v, %v", step, name, j, err)
			}
			switch name {
			case "the same":
				if diff := cmp.Diff(newTags, w.tags()); diff != "" {
					t.Fatalf("step %d: %s", step, diff)
				}
			case "the old":
				w.must(w.install(two)) // an upgrade that was started is not refused
				w.must(w.install(two))
				w.root = filepath.Join(t.TempDir(), "site")
				w.must(w.install(one))
				pulled, _ := pulledAt(step)
				if _, err := w.install(two, pulled); !errors.Is(err, errPulled) {
					t.Fatalf("step %d again: %v", step, err)
				}
				w.must(w.install(one))
				if got := w.tags(); got[w.siteName(w.up.Host+"/team/app:1")] != oldTags[w.siteName(w.up.Host+"/team/app:1")] ||
					got[w.siteName(w.up.Host+"/team/new:1")] != "" {
					t.Fatalf("step %d: %v", step, got)
				}
			}
		}
	}
}

// TestExternalSequence: a host without records cannot put an older bundle into a shared
// registry.
func TestExternalSequence(t *testing.T) {
	w := newFixture(t)
	shared := world.NewRegistry(t, nil)
	client, err := remote.New(remote.Options{PlainHTTP: []string{shared.Host}})
	if err != nil {
		t.Fatal(err)
	}
	external := func(s *site) {
		s.target = func(context.Context, string) (install.Registry, error) {
			return registry.OpenExternal(client, shared.Host+"/mirror", install.CentralRepository("demo")).Registry(), nil
		}
	}
	one := w.bundle("demo", 1, w.push("team/app:1", "one"))
	ref := w.push("team/app:1", "two")
	two := w.bundle("demo", 2, ref)
	w.must(w.install(two, external))
	onSite := shared.Host + "/mirror/" + w.siteName(ref)
	if got := world.Digest(t, onSite); got != world.Digest(t, ref) {
		t.Errorf("%s is %s", onSite, got)
	}
	w.root = filepath.Join(t.TempDir(), "second host")
	if _, err := w.install(one, external); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("older: %v", err)
	}
	w.must(w.install(two, external))
	w.root = filepath.Join(t.TempDir(), "third host")
	w.must(w.install(one, external, allowDowngrade))
}

// checkReceipt validates receipts against the published schema.
func checkReceipt(t *testing.T, dir string) {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("../docs/receipt.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no receipts", err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%v\n%s", err, data)
		}
	}
}

// TestExternalSameSequence: the registry's sequence counts in addition to the host's own.
func TestExternalSameSequence(t *testing.T) {
	w := newFixture(t)
	shared := world.NewRegistry(t, nil)
	client, err := remote.New(remote.Options{PlainHTTP: []string{shared.Host}})
	if err != nil {
		t.Fatal(err)
	}
	external := func(s *site) {
		s.target = func(context.Context, string) (install.Registry, error) {
			return registry.OpenExternal(client, shared.Host, install.CentralRepository("demo")).Registry(), nil
		}
	}
	one := w.bundle("demo", 1, w.push("team/app:1", "one"))
	two := w.bundle("demo", 2, w.push("team/app:1", "two"))
	other := w.bundle("demo", 2, w.push("team/app:1", "other two"))
	w.must(w.install(one, external))
	first := w.root
	w.root = filepath.Join(t.TempDir(), "second host")
	w.must(w.install(two, external))
	w.root = first
	if _, err := w.install(other, external); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("the registry has another bundle with that sequence: %v", err)
	}
	if _, err := w.install(one, external); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("the registry is further: %v", err)
	}
}

// TestPresentBlobs: a damaged bundle is refused even if the site already has the damaged blob,
// and what an interrupted run left stays unchanged.
func TestPresentBlobs(t *testing.T) {
	w := newFixture(t)
	one := w.bundle("demo", 1, w.push("team/app:1", "one"))
	two := w.bundle("demo", 2, w.push("team/app:1", "one"), w.push("team/b:1", "b"))
	w.must(w.install(one))
	pulled, _ := pulledAt(22)
	if _, err := w.install(two, pulled); !errors.Is(err, errPulled) {
		t.Fatal(err)
	}
	before := w.tree()
	three := w.bundle("demo", 3, w.up.Host+"/team/app:1")
	v, err := verify.Open(t.Context(), bytes.NewReader(three), int64(len(three)), verify.Policy{Keys: []verify.Key{w.key.Trusted}})
	if err != nil {
		t.Fatal(err)
	}
	last := v.Blobs()[len(v.Blobs())-1] // the layer, which the site already has
	three[last.Data] ^= 1
	if _, err := w.install(three); !errors.Is(err, bundle.ErrDigest) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, w.tree()); diff != "" {
		t.Error(diff)
	}
}

// TestTwoDeploymentsOfAChannel: each keeps what it owns.
func TestTwoDeploymentsOfAChannel(t *testing.T) {
	w := newFixture(t)
	onX := func(sequence int64) func(*create.Options) {
		return func(o *create.Options) { o.Channel, o.Sequence = "x", &sequence }
	}
	ref := w.push("team/app:1", "one")
	w.must(w.install(w.bundleWith("aaa", []string{ref}, onX(1))))
	w.must(w.install(w.bundleWith("bbb", []string{w.push("team/b:1", "b")}, onX(2))))
	ref = w.push("team/app:1", "evil")
	if _, err := w.install(w.bundle("evil", 1, ref)); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("got %v", err)
	}
}

func TestLocked(t *testing.T) {
	root := t.TempDir()
	first, err := install.Acquire(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install.Acquire(root); !errors.Is(err, install.ErrLocked) || !strings.Contains(err.Error(), "process") {
		t.Errorf("got %v", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := install.Acquire(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestNewerState: a document of a newer program is refused, not interpreted.
func TestNewerState(t *testing.T) {
	w := newFixture(t)
	file := w.bundle("demo", 1, w.push("team/app:1", "one"))
	w.must(w.install(file))
	for _, newer := range []string{
		`{"apiVersion":"oobbundle.dev/v2","kind":"State"}`, `{"apiVersion":"oobbundle.dev/v2","kind":"State","more":1}`,
		`{"apiVersion":"oobbundle.dev/v1","kind":"Register"}`,
	} {
		world.Write(t, filepath.Join(w.root, "state.json"), []byte(newer), 0o644)
		if _, err := w.install(file); !errors.Is(err, bundle.ErrNewer) {
			t.Errorf("%s: %v", newer, err)
		}
	}
}

// TestTagsOfEarlierReleases: a tag of an earlier release is removed when no rollback can reach
// that release any more, and with the deployment.
func TestTagsOfEarlierReleases(t *testing.T) {
	w := newFixture(t)
	before := w.tags()
	var refs []string
	for i := range 4 {
		ref := w.push(fmt.Sprintf("team/app:%d", i+1), fmt.Sprint("content ", i))
		refs = append(refs, w.siteName(ref))
		w.must(w.install(w.bundle("demo", int64(i+1), ref)))
	}
	tags := w.tags()
	for i, ref := range refs {
		if _, ok := tags[ref]; ok != (i > 0) { // the current release and two before it
			t.Errorf("%s: it is there: %v; %v", ref, ok, tags)
		}
	}
	state, err := ledger.Read(w.root)
	if err != nil {
		t.Fatal(err)
	}
	d, err := state.Find("demo", "")
	if err != nil {
		t.Fatal(err)
	}
	e, err := registry.OpenEmbedded(t.Context(), w.root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install.Uninstall(t.Context(), install.Site{Root: w.root, Target: e.Registry()}, d); err != nil {
		t.Fatal(err)
	}
	if after := w.tags(); !maps.Equal(before, after) {
		t.Errorf("after uninstall there are %v", after)
	}
}
