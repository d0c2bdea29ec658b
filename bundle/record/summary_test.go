package record_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/record"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// read describes the bundle at path. The bundle stays open until the test ends.
func read(t *testing.T, path string) *record.Summary {
	t.Helper()
	f, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	s, err := record.Read(f, f.Size())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func layer(name string, size int) world.File {
	return world.File{Name: name, Mode: 0o644, Data: []byte(strings.Repeat(name+" ", size))}
}

const (
	spdx      = `{"spdxVersion":"SPDX-2.3","packages":[{"licenseDeclared":"MIT"}]}`
	statement = `{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[]}`
)

// fixture is two bundles, the second newer, with images that share a layer, SBOMs of
// one image, a partial index, an artifact and a file.
type fixture struct {
	up           *world.Registry
	older, newer string // paths
}

func newFixture(t *testing.T) fixture {
	up, key := world.NewRegistry(t, nil), world.NewKey(t)
	base := world.Layer(layer("base", 3000))
	one := world.Image("linux/amd64", base, world.Layer(layer("one", 100)))
	up.Push(t, "team/one:1", one)
	up.Push(t, "team/two:1", world.Image("linux/amd64", base, world.Layer(layer("two", 100))))
	up.Push(t, "team/two:2", world.Image("linux/amd64", base, world.Layer(layer("two again", 200))))
	amd := world.Image("linux/amd64", world.Layer(layer("multi", 10)))
	up.Push(
		t,
		"team/multi:1",
		world.WithAttestation(world.Index(amd, world.Image("linux/arm64", world.Layer(layer("arm", 10)))), amd),
	)
	up.Push(t, "team/gone:1", world.Image("linux/amd64", world.Layer(layer("gone", 10))))
	up.Push(t, "team/notes:1", world.Artifact([]byte("not an image")))
	d, err := one.Digest()
	if err != nil {
		t.Fatal(err)
	}
	tag := "team/one:sha256-" + d.Hex
	up.Push(t, tag+".sbom", world.ArtifactOf("text/spdx+json", []byte(spdx), nil))
	up.Push(t, tag+".att", world.ArtifactOf("application/vnd.dsse.envelope.v1+json", []byte(statement),
		map[string]string{"predicateType": "https://cyclonedx.org/bom"}))
	bundleOf := func(name, images string, file string) string {
		dir := t.TempDir()
		world.Write(t, filepath.Join(dir, "a.conf"), []byte(file), 0o644)
		var list []string
		for _, i := range strings.Fields(images) {
			list = append(list, up.Host+"/team/"+i)
		}
		text := fmt.Sprintf(
			"apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: demo, version: %s}\ncomponents:\n  - name: all\n    "+
				"images: [\"%s\"]\n    files: [{source: a.conf, path: etc/a.conf, mode: \"0640\"}]\n",
			name,
			strings.Join(list, `", "`),
		)
		path := filepath.Join(dir, "m.yaml")
		world.Write(t, path, []byte(text), 0o644)
		m, err := manifests.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		o := world.Options(t, m, key, up)
		return world.Create(t, o)
	}
	return fixture{up, bundleOf("1.0.0", "one:1 two:1 gone:1", "old"), bundleOf("1.1.0", "one:1 two:2 multi:1 notes:1", "new")}
}

func TestSummary(t *testing.T) {
	w := newFixture(t)
	s := read(t, w.newer)
	by := map[string]record.Image{}
	for _, i := range s.Images {
		by[strings.TrimPrefix(i.Reference, w.up.Host+"/team/")] = i
	}
	checkKinds(t, by)
	if a, b := by["one:1"].Shared, by["two:2"].Shared; a != b || a == 0 || a != s.Shares.Shared {
		t.Errorf("the base is shared: %d, %d, counted as %d", a, b, s.Shares.Shared)
	}
	if by["multi:1"].Shared != 0 || len(by["multi:1"].Evidence) != 1 || !by["multi:1"].Partial {
		t.Errorf("the partial one: %+v", by["multi:1"])
	}
	x := s.Shares
	if sum := x.Images + x.Shared + x.Charts + x.Plugins + x.Files + x.Evidence + x.Documents; sum != s.Bytes || x.Evidence == 0 ||
		x.Files == 0 ||
		x.Documents == 0 {
		t.Errorf("the shares are %+v, together %d of %d", x, sum, s.Bytes)
	}
	fi, err := os.Stat(w.newer)
	if err != nil || fi.Size() != s.FileBytes {
		t.Errorf("the file has %d bytes (%v)", s.FileBytes, err)
	}
	if f := s.Files[0]; f.Source != "a.conf" || !slices.Equal(f.Checks, []string{"file of the author's"}) {
		t.Errorf("the file: %+v", f)
	}
}

// checkKinds compares kind, size and platform of each image with the pushed content.
func checkKinds(t *testing.T, by map[string]record.Image) {
	t.Helper()
	for name, kind := range map[string]string{
		"one:1": record.KindImage, "two:2": record.KindImage, "multi:1": record.KindImage, "notes:1": record.KindArtifact,
	} {
		i := by[name]
		if i.Kind != kind || i.Size <= 0 || i.Shared < 0 || i.Shared >= i.Size {
			t.Errorf("%s: %+v", name, i)
		}
		if kind == record.KindImage && i.Manifests[0].Platform != "linux/amd64" {
			t.Errorf("%s is for %q", name, i.Manifests[0].Platform)
		}
	}
}

func TestSBOMs(t *testing.T) {
	w := newFixture(t)
	s := read(t, w.newer)
	if len(s.SBOMs) == 0 {
		t.Fatal("no SBOM is listed")
	}
	if own := s.SBOMs[0]; own.Of != "" || own.Format != "CycloneDX JSON" || own.Size == 0 {
		t.Errorf("the first is not the bundle's own: %+v", own)
	}
	image := w.up.Host + "/team/one:1"
	want := []record.SBOM{
		{Of: image, Digest: bundle.DigestOf([]byte(statement)), Size: int64(len(statement)), Format: "CycloneDX JSON"},
		{Of: image, Digest: bundle.DigestOf([]byte(spdx)), Size: int64(len(spdx)), Format: "SPDX JSON"},
	}
	if got := s.SBOMs[1:]; !slices.Equal(got, want) {
		t.Errorf("%+v\ninstead of\n%+v", got, want)
	}
}

// TestSBOMsAreNotRead checks that a damaged SBOM is listed like any other.
func TestSBOMsAreNotRead(t *testing.T) {
	data, err := os.ReadFile(newFixture(t).newer)
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte(spdx))+20] ^= 1
	s, err := record.Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if last := s.SBOMs[len(s.SBOMs)-1]; last.Digest != bundle.DigestOf([]byte(spdx)) {
		t.Errorf("%+v", last)
	}
}

// TestRepeatedSBOM checks that a layer that a manifest lists a thousand times is listed once.
func TestRepeatedSBOM(t *testing.T) {
	c := world.NewContent("repeated")
	image := c.Image("linux/amd64", "x")
	c.Add("docker.io/library/app:1", image)
	layer := c.Blob("application/spdx+json", []byte(spdx))
	config := c.Blob(bundle.TypeOCIConfig, []byte(`{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}`))
	d, data := bundle.NewManifest(config, nil, slices.Repeat([]bundle.Descriptor{layer}, 1000)...)
	c.Blobs[d.Digest] = data
	c.Add("docker.io/library/app:sha256-"+image.Digest.Hex()+".sbom", d)
	file := c.File(t, world.NewKey(t))
	s, err := record.Read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	want := []record.SBOM{{Of: "docker.io/library/app:1", Digest: layer.Digest, Size: layer.Size, Format: "SPDX JSON"}}
	if !slices.Equal(s.SBOMs, want) {
		t.Errorf("%+v", s.SBOMs)
	}
}

func TestCompare(t *testing.T) {
	w := newFixture(t)
	s, old := read(t, w.newer), read(t, w.older)
	if err := s.Compare(old); err != nil {
		t.Fatal(err)
	}
	c := s.Changes
	got := map[string]record.Change{}
	for _, x := range slices.Concat(c.Images, c.Files) {
		got[strings.TrimPrefix(x.Name, w.up.Host+"/team/")] = x
	}
	checkChanges(t, got)
	if c.Same != 1 || len(got) != 5 || c.NewBytes <= 0 || c.NewBytes >= s.Bytes {
		t.Errorf("%d things as before, %d changed, %d new bytes: %+v", c.Same, len(got), c.NewBytes, got)
	}
	// A bundle compared with itself has no changes.
	if err := s.Compare(read(t, w.newer)); err != nil || s.Changes.NewBytes != 0 || len(s.Changes.Images)+len(s.Changes.Files) != 0 {
		t.Errorf("against itself: %+v, %v", s.Changes, err)
	}
}

// checkChanges compares the reported changes with the differences between the two bundles.
func checkChanges(t *testing.T, got map[string]record.Change) {
	t.Helper()
	if x := got["two:2"]; x.What != record.Changed || !strings.HasSuffix(x.Was, "/two:1") || x.Old == x.New || x.NewBytes <= 0 ||
		x.NewBytes > 2000 {
		t.Errorf("the changed image: %+v", x)
	}
	if x := got["multi:1"]; x.What != record.Added || x.NewBytes <= 0 {
		t.Errorf("the added image: %+v", x)
	}
	if x := got["gone:1"]; x.What != record.Removed || x.NewBytes != 0 {
		t.Errorf("the removed image: %+v", x)
	}
	if x := got["etc/a.conf"]; x.What != record.Changed || x.Old != bundle.DigestOf([]byte("old")) || x.New != bundle.DigestOf([]byte("new")) {
		t.Errorf("the file: %+v", x)
	}
}

// TestContract checks that the fields of inspect --json keep their names and places.
func TestContract(t *testing.T) {
	data, err := json.Marshal(read(t, newFixture(t).newer))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"verified", "bundle.digest", "bundle.name", "bundle.version", "bundle.channel", "bundle.sequence", "bundle.created", "bundle.platforms",
		"signatures.fingerprint", "signatures.trusted", "signatures.valid",
		"images.reference", "images.digest", "images.partial", "images.manifests.digest",
		"components.name", "charts", "plugins", "files.path", "files.mode", "files.digest", "files.size", "files.manifest", "blobs", "bytes",
		"sboms.digest", "sboms.size", "sboms.format",
	} {
		var at any = doc
		for _, key := range strings.Split(path, ".") {
			if list, ok := at.([]any); ok {
				at = list[0]
			}
			m, _ := at.(map[string]any)
			if at = m[key]; at == nil {
				t.Fatalf("there is no %s", path)
			}
		}
	}
}
