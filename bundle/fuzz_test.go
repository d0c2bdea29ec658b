package bundle_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestSeeds checks the number of seeds of each fuzz target, and whether each seed is accepted.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzDeployment", "FuzzIndex", "FuzzManifest", "FuzzPath", "FuzzReader", "FuzzReference", "FuzzSlot", "FuzzVolumes")
	seeds.Count(t, "FuzzDeployment", deploymentSeeds(), 2, 33, 0, fuzzDeployment)
	seeds.Count(t, "FuzzIndex", indexSeeds(), 2, 19, 0, fuzzIndex)
	seeds.Count(t, "FuzzManifest", manifestSeeds(), 4, 20, 0, fuzzManifest)
	seeds.Count(t, "FuzzPath", pathSeeds(), 6, 21, 0, fuzzPath)
	seeds.Count(t, "FuzzReader", readerSeeds(t), 2, 8, 0, fuzzReader(worked().file(t)))
	seeds.Count(t, "FuzzReference", referenceSeeds(), 12, 14, 2, fuzzReference)
	seeds.Count(t, "FuzzSlot", slotSeeds(t), 4, 9, 0, fuzzSlot)
}

// lenient fails the test if encoding/json, which accepts much more, reads an accepted document
// differently.
func lenient(t *testing.T, data []byte, accepted any) {
	t.Helper()
	other := reflect.New(reflect.TypeOf(accepted).Elem())
	if err := json.Unmarshal(data, other.Interface()); err != nil {
		t.Fatalf("accepted, and encoding/json says %v of %q", err, data)
	}
	if !reflect.DeepEqual(other.Interface(), accepted) {
		t.Fatalf("%q is read as\n%+v\nand by encoding/json as\n%+v", data, accepted, other.Elem())
	}
}

// altered returns variants of a document, each with one replaced text.
func altered(doc []byte, pairs ...string) (list [][]byte) {
	for i := 0; i < len(pairs); i += 2 {
		next := strings.Replace(string(doc), pairs[i], pairs[i+1], 1)
		if next == string(doc) {
			panic("the seed changes nothing: " + pairs[i])
		}
		list = append(list, []byte(next))
	}
	return list
}

func indexSeeds() seeds.Of[[]byte] {
	doc := worked().index()
	first := strings.Index(string(doc), `{"mediaType":`)
	return seeds.Of[[]byte]{
		Taken: [][]byte{doc, []byte(" " + string(doc) + "\n")},
		Refused: append(altered(doc,
			`"schemaVersion":2`, `"schemaVersion":3`,
			`"schemaVersion":2`, `"schemaVersion":2.0`,
			`"schemaVersion":2`, `"schemaVersion":2,"schemaVersion":2`,
			`"schemaVersion":2`, `"schemaVersion":2,"SchemaVersion":2`,
			`"schemaVersion":2`, `"schemaVersion":2,"more":1`,
			`"schemaVersion":2`, `"schemaVersion":null`,
			`bundle.v1"`, `bundle.v2"`,
			`bundle.v1"`, `other"`,
			`"dev.oobbundle.name"`, `"dev.oobbundle.nameless"`,
			`"dev.oobbundle.sequence":"7"`, `"dev.oobbundle.sequence":"07"`,
			`"dev.oobbundle.sequence":"7"`, `"dev.oobbundle.sequence":"-7"`,
			`"dev.oobbundle.sequence":"7"`, `"dev.oobbundle.sequence":"9223372036854775808"`,
			`"linux/amd64"`, `"Linux"`,
			`"size":`, `"size":-`,
			`docker.io/library/hello:1`, `hello:1`,
			`2026-01-02T`, `yesterday`,
		), []byte(`{"schemaVersion":2}`), []byte(string(doc)+"{}"),
			[]byte(string(doc[:first])+`{"mediaType":"a","digest":"sha256:0","size":1},`+string(doc[first:]))),
	}
}

// FuzzIndex: an accepted index is within the limits, is accepted with the same meaning after
// it is written again, and reads the same in encoding/json.
func FuzzIndex(f *testing.F) {
	for _, s := range indexSeeds().All() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) { fuzzIndex(t, data) })
}

func fuzzIndex(t *testing.T, data []byte) bool {
	x, info, err := bundle.ParseIndex(data)
	if err != nil {
		return false
	}
	again, info2, err := bundle.ParseIndex(encode(x))
	if err != nil || !reflect.DeepEqual(info, info2) || !bytes.Equal(encode(x), encode(again)) {
		t.Fatalf("%q became %q: %v", data, encode(x), err)
	}
	if err := info.Check(); err != nil || len(x.Manifests) > bundle.MaxReferences || len(data) > bundle.MaxManifest {
		t.Fatalf("%q: %v", data, err)
	}
	for _, d := range x.Manifests {
		sound(t, d)
	}
	lenient(t, data, x)
	return true
}

// sound fails the test if a descriptor was accepted that no reader may follow.
func sound(t *testing.T, d bundle.Descriptor) {
	t.Helper()
	if _, err := bundle.ParseDigest(string(d.Digest)); err != nil || d.Size < 0 || d.Size > bundle.MaxBlob || len(d.URLs) > 0 {
		t.Fatalf("%+v was taken", d)
	}
	if d.Data != nil && d.Verify(d.Data) != nil {
		t.Fatalf("%+v has other data in it", d)
	}
}

func slotSeeds(tb testing.TB) seeds.Of[[]byte] {
	encoded := func(n int) []byte {
		slot, err := bundle.EncodeSlot(signatures(n))
		if err != nil {
			tb.Fatal(err)
		}
		return bytes.TrimRight(slot, "\n")
	}
	one, two := encoded(1), encoded(2)
	line := string(one)
	return seeds.Of[[]byte]{
		Taken: [][]byte{one, two, encoded(32), append(bytes.Clone(one), '\n')},
		Refused: append(altered(one,
			`"hint":"`, `"hint": "`,
			`"mediaType"`, `"mediatype"`,
			`v0.3`, `v0.2`,
			`SHA2_256`, `SHA2_512`,
			`="`, `"`,
		), []byte{}, []byte(line+"\n"+line), []byte(line+"\n\n"+line), []byte("\n"+line)),
	}
}

// FuzzSlot: an accepted slot has the one spelling.
func FuzzSlot(f *testing.F) {
	for _, s := range slotSeeds(f).All() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, lines []byte) { fuzzSlot(t, lines) })
}

func fuzzSlot(t *testing.T, lines []byte) bool {
	if len(lines) > bundle.SlotSize {
		return false
	}
	slot := append(bytes.Clone(lines), bytes.Repeat([]byte{'\n'}, bundle.SlotSize-len(lines))...)
	list, err := bundle.ParseSlot(slot)
	if err != nil {
		return false
	}
	again, err := bundle.EncodeSlot(list)
	if err != nil || !bytes.Equal(again, slot) {
		t.Fatalf("%q is taken and written as %q", lines, bytes.TrimRight(again, "\n"))
	}
	if len(list) == 0 || len(list) > bundle.MaxSignatures {
		t.Fatalf("%d signatures in %q", len(list), lines)
	}
	return true
}

// manifestInput is a manifest or index. Its descriptor has the media type that index selects.
type manifestInput struct {
	data  []byte
	index bool
}

func manifestSeeds() seeds.Of[manifestInput] {
	c := worked()
	image := c.blobs[c.roots[0].Digest]
	index := []byte(
		`{"schemaVersion":2,"mediaType":"` + bundle.TypeOCIIndex + `","manifests":[{"mediaType":"` + bundle.TypeOCIManifest +
			`","digest":"` + someDigest +
			`","size":1,"platform":{"architecture":"arm","os":"linux","variant":"v7"}}],"annotations":{"A":"1","b":"2"},"unknown":[null,1e3]}`,
	)
	minimal := []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"` + someDigest + `","size":1}]}`)
	withSubject := []byte(
		strings.Replace(
			string(image),
			`"config":`,
			`"subject":{"mediaType":"a","digest":"`+someDigest+`","size":1},"artifactType":"b/c","config":`,
			1,
		),
	)
	s := seeds.Of[manifestInput]{Taken: []manifestInput{{image, false}, {index, true}, {minimal, true}, {withSubject, false}}}
	for _, data := range altered(image,
		`"schemaVersion":2`, `"schemaVersion":1`,
		`"schemaVersion":2`, `"schemaVersion":2,"fsLayers":[]`,
		`"schemaVersion":2`, `"schemaVersion":2,"manifests":[]`,
		`"config":`, `"konfig":`,
		`"layers":`, `"Layers":`,
		`"layers":`, `"layer\u017f":`,
		`"layers":`, `"layers":[],"layers":`,
		`"mediaType":"application/vnd.oci.image.manifest.v1+json"`, `"mediaType":"application/vnd.docker.distribution.manifest.v2+json"`,
		`"size":1024`, `"size":-1`,
		`"size":1024`, `"size":17592186044417`,
		`"size":1024`, `"size":1.5`,
		`"size":1024`, `"size":1024,"urls":["https://e.example/"]`,
		`"size":1024`, `"size":1024,"data":"AAAA"`,
		`"digest":"sha256:`, `"digest":"sha512:`,
		`"digest":"sha256:`, `"digest":"sha256:../`,
		`}]}`, "}]}\x00",
		`}]}`, "}]}{}",
	) {
		s.Refused = append(s.Refused, manifestInput{data, false})
	}
	s.Refused = append(s.Refused, manifestInput{[]byte("[]"), true}, manifestInput{image, true},
		manifestInput{[]byte(strings.Replace(string(index), `"os":`, `"OS.Version":"10","os":`, 1)), true})
	return s
}

// FuzzManifest: an accepted manifest has only sound descriptors and reads the same in
// encoding/json.
func FuzzManifest(f *testing.F) {
	for _, s := range manifestSeeds().All() {
		f.Add(s.data, s.index)
	}
	f.Fuzz(func(t *testing.T, data []byte, index bool) { fuzzManifest(t, manifestInput{data, index}) })
}

func fuzzManifest(t *testing.T, in manifestInput) bool {
	d := bundle.Descriptor{MediaType: bundle.TypeOCIManifest, Digest: bundle.DigestOf(in.data), Size: int64(len(in.data))}
	if in.index {
		d.MediaType = bundle.TypeOCIIndex
	}
	m, err := bundle.ParseManifest(d, in.data)
	if err != nil {
		return false
	}
	for _, c := range m.Children() {
		sound(t, c)
	}
	if m.Subject != nil {
		sound(t, *m.Subject)
	}
	var other struct {
		MediaType   string              `json:"mediaType"`
		Config      *bundle.Descriptor  `json:"config"`
		Layers      []bundle.Descriptor `json:"layers"`
		Manifests   []bundle.Descriptor `json:"manifests"`
		Subject     *bundle.Descriptor  `json:"subject"`
		Annotations map[string]string   `json:"annotations"`
	}
	if err := json.Unmarshal(in.data, &other); err != nil {
		t.Fatalf("taken, and encoding/json says %v of %q", err, in.data)
	}
	if !reflect.DeepEqual(m.Config, other.Config) || !reflect.DeepEqual(m.Subject, other.Subject) || !equalLists(m.Layers, other.Layers) ||
		!equalLists(m.Manifests, other.Manifests) || !reflect.DeepEqual(m.Annotations, other.Annotations) {
		t.Fatalf("%q is read as\n%+v\nand by encoding/json as\n%+v", in.data, m, other)
	}
	return true
}

func equalLists(a, b []bundle.Descriptor) bool {
	return slices.EqualFunc(a, b, func(x, y bundle.Descriptor) bool { return reflect.DeepEqual(x, y) })
}

// patch is a change of the worked example, which is too large for the fuzzer to mutate well.
type patch struct {
	at   uint32
	data []byte
	cut  uint32
}

func readerSeeds(tb testing.TB) seeds.Of[patch] {
	example := worked().file(tb)
	return seeds.Of[patch]{
		Taken: []patch{{0, nil, 0}, {68608, example[68608:69632], 0}},
		Refused: []patch{
			{1536, []byte("{}"), 0}, {124, []byte("77777777777"), 512}, {68608, example[69632:70144], 1}, {0, nil, 1},
			{0, nil, 1024}, {0, []byte("\x1f\x8b"), 0}, {156, []byte("2"), 0}, {1024 + 124, []byte("-0000000010"), 0},
		},
	}
}

// FuzzReader: an accepted file is exactly the file that its root describes.
func FuzzReader(f *testing.F) {
	for _, s := range readerSeeds(f).All() {
		f.Add(s.at, s.data, s.cut)
	}
	check := fuzzReader(worked().file(f))
	f.Fuzz(func(t *testing.T, at uint32, data []byte, cut uint32) { check(t, patch{at, data, cut}) })
}

func fuzzReader(example []byte) func(t *testing.T, p patch) bool {
	return func(t *testing.T, p patch) bool {
		file := bytes.Clone(example)
		copy(file[int(p.at)%len(file):], p.data)
		file = file[:len(file)-int(p.cut)%len(file)]
		r, err := read(file)
		if err != nil {
			return false
		}
		if _, err := r.Deployment(); err != nil {
			return false
		}
		out := memory(make([]byte, r.Size))
		head, err := bundle.ReadHead(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.WriteFrame(out, head.Slot); err != nil {
			t.Fatal(err)
		}
		for _, m := range r.Blobs() {
			copy(out[m.Data:m.Data+m.Size], file[m.Data:])
		}
		if !bytes.Equal(out, file) {
			t.Fatal("another file than the one that was taken")
		}
		return true
	}
}

func referenceSeeds() seeds.Of[string] {
	return seeds.Of[string]{
		Taken: []string{
			"nginx", "a.b:1/c/d:e@" + someDigest, "[::1]:5/a", "localhost:5001/a", "Registry.Example.com/a:1", "index.docker.io/nginx", someDigest,
			"linux/amd64", "linux/arm64/v8", "linux/arm", "linux/arm/v6", bundle.Fingerprint{1}.String(),
		},
		Refused: []string{
			"",
			"A",
			"a:",
			"a:b:c",
			"a b",
			"a/../b",
			"http://a/b",
			"a@sha512:" + strings.Repeat("0", 128),
			"a@sha256:00",
			strings.Repeat("a", 300),
			"Linux/amd64",
			"linux/amd64/v1/x/",
			"SHA256:" + strings.Repeat("A", 42) + "B",
			"sha256:" + strings.Repeat("A", 64) + "@",
		},
	}
}

// FuzzReference: accepted references, platforms, digests and fingerprints read the same after
// they are written in full.
func FuzzReference(f *testing.F) {
	for _, s := range referenceSeeds().All() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { fuzzReference(t, s) })
}

func fuzzReference(t *testing.T, s string) bool {
	taken := false
	if r, err := bundle.ParseReference(s); err == nil {
		taken = true
		again, err := bundle.ParseReference(r.String())
		if err != nil || again != r || len(r.String()) > bundle.MaxName {
			t.Fatalf("%q is %q, and that is %q: %v", s, r, again, err)
		}
		if site := r.SiteRepository(); !fs.ValidPath(site) || !filepath.IsLocal(site) || strings.ContainsAny(site, ":[]@\\") {
			t.Fatalf("%q is %q on the site", s, site)
		}
	}
	if p, err := bundle.ParsePlatform(s); err == nil {
		taken = true
		again, err := bundle.ParsePlatform(p.String())
		if err != nil || again.String() != p.String() || !p.Matches(again) || len(p.String()) > len(s)+len("/v7") {
			t.Fatalf("%q is %q, and that is %q: %v", s, p, again, err)
		}
	}
	if d, err := bundle.ParseDigest(s); err == nil {
		taken = true
		if string(d) != s || "sha256:"+d.Hex() != s || len(s) != 71 || strings.ToLower(s) != s {
			t.Fatalf("%q is the digest %q", s, d)
		}
	}
	if fp, err := bundle.ParseFingerprint(s); err == nil {
		taken = true
		if fp.String() != s {
			t.Fatalf("%q is the fingerprint %q", s, fp)
		}
	}
	return taken
}

func pathSeeds() seeds.Of[string] {
	return seeds.Of[string]{
		Taken: []string{
			"a",
			"etc/nginx/nginx.conf",
			"..a",
			"/etc/systemd/system/web.service",
			"/etc/rancher/k3s/registries.yaml",
			strings.Repeat("a", 255) + "/b",
		},
		Refused: []string{
			"",
			".",
			"..",
			"../a",
			"a/..",
			"a/../b",
			"a//b",
			"./a",
			"a/",
			"/a",
			`a\b`,
			"C:a",
			"a\nb",
			"ü",
			"a?",
			strings.Repeat("a", 256), strings.Repeat("a/", 512) + "a",
			"/etc/systemd/system/",
			"/etc/systemd/system/../../passwd",
			"/etc/systemd/systemx/a",
			"/etc/rancher/k3s/registries.yaml/a",
		},
	}
}

// FuzzPath: an accepted path stays below its directory by the standard library's rules. Every
// such path is accepted if a file system can have its names.
func FuzzPath(f *testing.F) {
	for _, s := range pathSeeds().All() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { fuzzPath(t, s) })
}

func fuzzPath(t *testing.T, s string) bool {
	h := bundle.Host{Directories: []bundle.Directory{{Path: s}}}
	accepted := h.Check(nil, nil) == nil
	printable := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`\:*?"<>|`, r) }) < 0
	tooLong := func(name string) bool { return len(name) > 255 }
	short := len(s) <= 1024 && !slices.ContainsFunc(strings.Split(s, "/"), tooLong)
	want := printable && short && fs.ValidPath(s) && filepath.IsLocal(s) && path.Clean(s) == s && s != "."
	if accepted != want {
		t.Fatalf("%q: taken is %v", s, accepted)
	}
	if accepted && !below("/data", filepath.Join("/data", s)) {
		t.Fatalf("%q leads to %q", s, filepath.Join("/data", s))
	}
	h = bundle.Host{Links: []bundle.Link{{Path: s, File: "f"}}}
	linked := h.Check([]bundle.HostFile{{Path: "f"}}, nil) == nil
	if linked && !slices.ContainsFunc([]string{
		"/etc/systemd/system/", "/etc/containers/systemd/", "/etc/nginx/conf.d/", "/etc/nginx/sites-enabled/", "/etc/containerd/certs.d/",
		"/etc/containers/registries.conf.d/", "/etc/rancher/k3s/registries.yaml",
	}, func(p string) bool {
		at := filepath.Join("/host", s)
		return at == "/host"+p && !strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/") && below("/host"+p, at)
	}) {
		t.Fatalf("a link may stand at %q", s)
	}
	return accepted || linked
}

// below reports whether p is in dir, and not dir itself.
func below(dir, p string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && rel != "." && filepath.IsLocal(rel)
}

// rich returns a bundle with one of everything that a deployment document can name.
func rich() *content {
	c := newContent("rich")
	c.image("docker.io/library/hello:1", c.blob("application/vnd.oci.image.layer.v1.tar", strings.Repeat("\x00", 1024)))
	artifact := func(kind string, layers ...bundle.Descriptor) bundle.Digest {
		d, blobs := bundle.NewArtifact(kind, nil, layers...)
		for digest, data := range blobs {
			c.blobs[digest] = data
		}
		c.roots = append(c.roots, d)
		return d.Digest
	}
	archive, sig, key := c.blob(
		bundle.TypePluginArchive,
		"archive",
	), c.blob(
		bundle.TypePluginSignature,
		"signature",
	), c.blob(
		bundle.TypePluginKey,
		"key",
	)
	c.doc.Plugins = []bundle.Plugin{{
		ID: "com.example.demo", Version: "1.2.3", Name: "demo-1.2.3.tar.gz", Archive: archive.Digest, Signature: sig.Digest, Key: key.Digest,
		Manifest: artifact(bundle.TypePlugin, archive, sig, key),
	}}
	for name, as := range map[string]string{
		"web/site.conf": bundle.AsTemplate, "server": bundle.AsArchive, "images.yaml": bundle.AsImages, "patch.json": "",
	} {
		content := c.blob(bundle.TypeFileContent, name)
		strip := 0
		if as == bundle.AsArchive {
			strip = 1
		}
		c.doc.Files = append(c.doc.Files, bundle.HostFile{
			Path:     name,
			Mode:     "0644",
			As:       as,
			Strip:    strip,
			Platform: "linux/amd64",
			Manifest: artifact(bundle.TypeFile, content),
			Digest:   content.Digest,
			Size:     content.Size,
		})
	}
	slices.SortFunc(c.doc.Files, func(a, b bundle.HostFile) int { return strings.Compare(a.Path, b.Path) })
	c.doc.Form, c.doc.Versions, c.doc.Settings = "compose", map[string]string{"web": "1"}, map[string]string{"a": "b"}
	c.doc.Charts = []bundle.Chart{
		{Name: "hello", Version: "1", Repository: "https://e.example", Reference: "docker.io/library/hello:1", Digest: someDigest},
	}
	c.doc.Components = []bundle.Component{
		{Name: "web", Images: []string{"docker.io/library/hello:1"}, Plugins: []string{"com.example.demo"}, Files: []string{"patch.json"}},
	}
	c.doc.Host = &bundle.Host{
		Values: []bundle.Value{
			{Name: "domain", Kind: "host", Required: true, About: "Name of the site"},
			{Name: "quadlet", Kind: "flag", Default: "false"},
		},
		Secrets:     []bundle.Secret{{Name: "adminPassword", Length: 32}},
		Directories: []bundle.Directory{{Path: "web", Owner: "101:101", Mode: "0750"}},
		Merges:      []bundle.Merge{{File: "web/config.json", Patch: "patch.json"}},
		Links:       []bundle.Link{{Path: "/etc/nginx/conf.d/web.conf", File: "web/site.conf", If: "quadlet"}},
		Health:      []string{"http://127.0.0.1/"},
		Database:    &bundle.Database{Service: "db", Directory: "db", User: "web", Name: "web"},
		Cluster: []bundle.Step{
			{Stage: "operators", Chart: "hello", Release: "hello", Namespace: "web", Values: "patch.json", Keep: true},
			{
				Stage: "application", Apply: "patch.json", If: "{{ .Values.quadlet }}", Health: []string{"web/web:80/"},
				Wait: []bundle.Condition{{Object: "webs.example.com/web", Field: "status.state", Value: "stable"}},
			},
		},
	}
	return c
}

// geometry is the layout that the deployment document under test is compared with.
var geometry = func() *bundle.Geometry {
	c := rich()
	g, err := bundle.NewGeometry(c.index(), c.load)
	if err != nil {
		panic(err)
	}
	return g
}()

func deploymentSeeds() seeds.Of[[]byte] {
	doc := encode(rich().doc)
	return seeds.Of[[]byte]{
		Taken: append(altered(doc, `"mode":"0750"`, `"mode":"0700"`), doc),
		Refused: append(altered(doc,
			`"kind":"Deployment"`, `"kind":"Manifest"`,
			`"oobbundle.dev/v1"`, `"oobbundle.dev/v2"`,
			`"oobbundle.dev/v1"`, `"oobbundle.dev/v2","more":1`,
			`"name":"rich"`, `"name":"poor"`,
			`"kind"`, `"Kind"`,
			`"images":[{`, `"images":[{},{`,
			`"images":[{`, `"images":null,"x":[{`,
			`"repository":"docker.io/library/hello"`, `"repository":"docker.io/library/bye"`,
			`"tag":"1"`, `"tag":"2"`,
			`"partial"`, `"partiaI"`,
			`"manifests":[`, `"manifests":["`+someDigest+`",`,
			`"manifests":[`, `"referrers":["`+someDigest+`"],"manifests":[`,
			`"id":"com.example.demo"`, `"id":"../demo"`,
			`"name":"demo-1.2.3.tar.gz"`, `"name":"a/demo"`,
			`"mode":"0644"`, `"mode":"4755"`,
			`"path":"patch.json"`, `"path":"../patch.json"`,
			`"path":"patch.json"`, `"path":"WEB"`,
			`"path":"patch.json"`, `"path":"IMAGES.yaml"`,
			`"as":"archive","strip":1`, `"as":"archive","strip":9`,
			`"as":"archive"`, `"as":"script"`,
			`"file":"web/config.json"`, `"file":"/web/config.json"`,
			`"patch":"patch.json"`, `"patch":"none.json"`,
			`/etc/nginx/conf.d/web.conf`, `/etc/passwd`,
			`"if":"quadlet"`, `"if":"domain"`,
			`"length":32`, `"length":3`,
			`"owner":"101:101"`, `"owner":"root"`,
			`"user":"web"`, `"user":"-web"`,
			`"stage":"operators"`, `"stage":"later"`,
			`"chart":"hello"`, `"chart":"none"`,
			`"release":"hello"`, `"release":"Hello"`,
			`"apply":"patch.json"`, `"apply":"none.json"`,
			`"field":"status.state"`, `"field":"status[0]"`,
		), []byte(`{}`)),
	}
}

// FuzzDeployment: an accepted deployment document is accepted after it is written again, reads
// the same in encoding/json, and has no path that leads elsewhere.
func FuzzDeployment(f *testing.F) {
	for _, s := range deploymentSeeds().All() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) { fuzzDeployment(t, data) })
}

func fuzzDeployment(t *testing.T, data []byte) bool {
	var d, again bundle.Deployment
	if err := bundle.DecodeStrict(data, &d); err != nil {
		if errors.Is(err, bundle.ErrFormat) == errors.Is(err, bundle.ErrNewer) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	lenient(t, data, &d)
	if err := d.Check(geometry); err != nil {
		if newer := d.APIVersion != bundle.APIVersion &&
			strings.HasPrefix(d.APIVersion, "oobbundle.dev/"); errors.Is(err, bundle.ErrNewer) != newer ||
			errors.Is(err, bundle.ErrFormat) == newer {
			t.Fatalf("refused for another reason: %v", err)
		}
		return false
	}
	written := encode(d)
	if err := bundle.DecodeStrict(written, &again); err != nil {
		t.Fatalf("%q was written as %q: %v", data, written, err)
	}
	if err := again.Check(geometry); err != nil || !bytes.Equal(written, encode(again)) {
		t.Fatalf("%q was written as %q: %v", data, written, err)
	}
	paths := checkPaths(t, data, d)
	if d.Host != nil {
		checkHost(t, data, d.Host, paths)
	}
	return true
}

// checkPaths fails the test if a file or a plugin of the document leads elsewhere. It returns
// the paths of the files in lower case.
func checkPaths(t *testing.T, data []byte, d bundle.Deployment) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	for _, x := range d.Files {
		low := strings.ToLower(x.Path)
		if !below("/release", filepath.Join("/release", x.Path)) || seen[low] || len(x.Mode) != 4 || x.Mode[0] != '0' || x.Strip < 0 ||
			x.Strip > 8 {
			t.Fatalf("%+v in %q", x, data)
		}
		seen[low] = true
	}
	for _, p := range d.Plugins {
		if path.Base(p.Name) != p.Name || path.Base(p.ID) != p.ID {
			t.Fatalf("%+v in %q", p, data)
		}
	}
	return seen
}

// checkHost fails the test if the host part of the document leads elsewhere.
func checkHost(t *testing.T, data []byte, h *bundle.Host, paths map[string]bool) {
	t.Helper()
	for _, s := range h.Secrets {
		if s.Length < 16 || s.Length > 256 {
			t.Fatalf("%+v in %q", s, data)
		}
	}
	for _, p := range h.Directories {
		if !below("/data", filepath.Join("/data", p.Path)) {
			t.Fatalf("%+v in %q", p, data)
		}
	}
	for _, s := range h.Cluster {
		if s.Apply != "" && !paths[strings.ToLower(s.Apply)] || s.Values != "" && !paths[strings.ToLower(s.Values)] {
			t.Fatalf("%+v in %q", s, data)
		}
	}
	for _, m := range h.Merges {
		if !below("/data", filepath.Join("/data", m.File)) || !paths[strings.ToLower(m.Patch)] {
			t.Fatalf("%+v in %q", m, data)
		}
	}
}
