package pull

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// TestSeeds checks how many seeds of each fuzz target are accepted and refused.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzPluginArchive", "FuzzChart", "FuzzSignature")
	seeds.Count(t, "FuzzPluginArchive", pluginSeeds(t), 5, 21, 0, fuzzPlugin(t.TempDir()))
	seeds.Count(t, "FuzzChart", chartSeeds(t), 3, 10, 0, fuzzChart)
	seeds.Count(t, "FuzzSignature", signatureSeeds(t), 4, 14, 0, fuzzSignature(t))
}

// pluginInput is a plugin's archive as a tar, and a plugin.json that is put into a valid
// archive.
type pluginInput struct{ archive, manifest []byte }

// tarOf returns members as an uncompressed tar.
func tarOf(tb testing.TB, members []member) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(&m.header); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func pluginSeeds(tb testing.TB) seeds.Of[pluginInput] {
	whole := tarOf(tb, good())
	flat := tarOf(tb, []member{reg("plugin.json", strings.ReplaceAll(goodManifest, "server/dist/", "")), reg("plugin-linux-amd64", "x")})
	minimal := []byte(`{"id":"a.b","version":"1.2.3"}`)
	s := seeds.Of[pluginInput]{Taken: []pluginInput{
		{whole, []byte(goodManifest)}, {flat, []byte(goodManifest)}, {tarOf(tb, []member{reg("x/plugin.json", string(minimal))}), minimal},
		{whole, []byte(`{"id":"abc","version":"v0.0.1-rc.1+x","server":{"executable":"./server/dist/plugin-linux-amd64"}}`)},
		{whole, []byte(`{"id":"abc","version":"1.2.3","props":{"deep":[1e3,null,{"id":"x"}]},"other":{"Id":"y"}}`)},
	}}
	for _, m := range []string{
		``, `[]`, `null`, `{}`, `{"id":"abc"}`, `{"id":"../x","version":"1.2.3"}`,
		`{"id":"a..b","version":"1.2.3"}`, `{"id":"ABC","version":"1.2.3"}`, `{"id":"abc","version":"latest"}`,
		`{"id":"abc","version":"1.2.3","ID":"x"}`, `{"id":"abc","version":"1.2.3","id":"x"}`,
		`{"id":"abc","version":"1.2.3","ver` + "\u017f" + `ion":"2.0.0"}`, `{"id":"abc","version":"1.2.3"}{}`,
		`{"id":"abc","version":"1.2.3","server":{"executable":"none"}}`,
		`{"id":"abc","version":"1.2.3","server":{"executables":{"linux-arm64":"x"}}}`, "{\"id\":\"abc\",\"version\":\"1.2.3\",\"name\":\"\xff\"}",
	} {
		s.Refused = append(s.Refused, pluginInput{whole, []byte(m)})
	}
	for _, members := range [][]member{
		append(good(), reg("com.example.demo/plugin.yaml", "id: x")), append(good(), reg("other/x", "")),
		good()[2:], append(good(), reg("com.example.demo/WEBAPP/dist/main.js", "")),
	} {
		s.Refused = append(s.Refused, pluginInput{tarOf(tb, members), minimal})
	}
	s.Refused = append(s.Refused, pluginInput{whole[:1000], minimal})
	return s
}

// FuzzPluginArchive checks that an accepted plugin has an id and a version that the
// server accepts, and that the server reads the same manifest from it.
func FuzzPluginArchive(f *testing.F) {
	for _, s := range pluginSeeds(f).All() {
		f.Add(s.archive, s.manifest)
	}
	check := fuzzPlugin(f.TempDir())
	f.Fuzz(func(t *testing.T, archive, manifest []byte) { check(t, pluginInput{archive, manifest}) })
}

func fuzzPlugin(dir string) func(t *testing.T, in pluginInput) bool {
	path := filepath.Join(dir, "p.tar.gz")
	take := func(t *testing.T, plain []byte) bool {
		if err := os.WriteFile(path, seeds.Gzip(plain), 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := inspectPlugin(t.Context(), path, []bundle.Platform{{OS: "linux", Architecture: "amd64"}})
		if err != nil {
			if !errors.Is(err, bundle.ErrFormat) && !errors.Is(err, bundle.ErrLimit) && !errors.Is(err, bundle.ErrPolicy) {
				t.Fatalf("refused without a reason: %v", err)
			}
			return false
		}
		if !pluginID.MatchString(m.ID) || strings.Contains(m.ID, "..") || !pluginVersion.MatchString(m.Version) {
			t.Fatalf("taken: %+v", m)
		}
		if server := readAsServer(t, plain); !reflect.DeepEqual(m, server) {
			t.Fatalf("read as\n%+v\nand by the server as\n%+v", m, server)
		}
		return true
	}
	return func(t *testing.T, in pluginInput) bool {
		members := good()
		members[1] = reg("com.example.demo/plugin.json", string(in.manifest))
		taken := take(t, in.archive)
		return take(t, tarOf(t, members)) && taken
	}
}

// readAsServer reads plugin.json as the server does (model.FindManifest of
// github.com/mattermost/mattermost/server/public): with encoding/json, from the only
// top-level directory, or else from the top level.
func readAsServer(t *testing.T, plain []byte) (m PluginManifest) {
	t.Helper()
	files, tops, flat := map[string][]byte{}, map[string]bool{}, false
	r := tar.NewReader(bytes.NewReader(plain))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join("/", h.Name)[1:]
		if name == "" {
			continue
		}
		top, _, deep := strings.Cut(name, "/")
		tops[top] = true
		if h.Typeflag != tar.TypeDir {
			flat = flat || !deep
			if files[name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	name := "plugin.json"
	for top := range tops {
		if len(tops) == 1 && !flat {
			name = top + "/plugin.json"
		}
	}
	if err := json.NewDecoder(bytes.NewReader(files[name])).Decode(&m); err != nil {
		t.Fatalf("taken, and the server says %v of %q", err, files[name])
	}
	return m
}

// chartInput is a repository's index as raw bytes, the fields of a chart in a valid
// index, and a chart's archive as a tar.
type chartInput struct {
	index                      []byte
	name, version, description string
	archive                    []byte
}

func chartSeeds(tb testing.TB) seeds.Of[chartInput] {
	const index = "apiVersion: v1\nentries:\n  demo:\n  - version: 1.2.3\n    urls:\n    - demo-1.2.3.tgz\n"
	chart := func(files ...string) []byte {
		var members []member
		for i := 0; i < len(files); i += 2 {
			members = append(members, reg(files[i], files[i+1]))
		}
		return tarOf(tb, members)
	}
	const about = "apiVersion: v2\nname: demo\nversion: 1.2.3\nappVersion: \"7.1\"\n"
	minimal := chart("demo/Chart.yaml", about)
	whole := chart(
		"demo/Chart.yaml",
		about,
		"demo/values.yaml",
		"image: {repository: acme/app, tag: \"\"}\nside: {image: \"busybox:1\"}\nlist: [{image: a/b:1}]\n",
		"demo/templates/a.yaml",
		"  - image: docker.io/library/nginx:1\n  image: \"{{ .Values.image }}\"\n",
		"demo/charts/sub/Chart.yaml",
		strings.Replace(about, "demo", "sub", 1),
		"demo/charts/sub/values.yaml",
		"image: {registry: quay.io, repository: x/y, tag: 5}\n",
	)
	return seeds.Of[chartInput]{
		Taken: []chartInput{
			{
				[]byte(index),
				"demo",
				"1.2.3",
				"",
				minimal,
			},
			{[]byte(strings.ReplaceAll(index, "1.2.3", `"1.10"`)), "demo", "1.10", "many\nlines\n\n  of: it\n", whole},
			{[]byte(index + "generated: now\n"), "a1-b", "1.0.0+x", strings.Repeat("long \"text\" ", 40), whole},
		},
		Refused: []chartInput{
			{
				[]byte(index),
				"demo",
				"1",
				"",
				nil,
			},
			{[]byte(index), "demo", "1", "", []byte("<html>")},
			{[]byte(index), "demo", "1", "", chart("demo/values.yaml", "a: b")},
			{
				[]byte(index),
				"demo",
				"1",
				"",
				chart("demo/Chart.yaml", "name: ["),
			},
			{[]byte(index), "demo", "1", "", chart("demo/Chart.yaml", "apiVersion: v2\nname: ../x\nversion: 1\n")},
			{
				[]byte(index),
				"demo",
				"1",
				"",
				chart("demo/Chart.yaml", about, "demo/../../x", ""),
			},
			{[]byte(index), "demo", "1", "", chart("demo/Chart.yaml", about, "demo/values.yaml", "a: &a [*a]")},
			{
				[]byte("entries:\n  demo:\n  - version: [\n"),
				"demo",
				"1",
				"",
				minimal,
			},
			{[]byte("entries:\n  demo:\n    version: 1\n"), "demo", "1", "", minimal},
			{[]byte("entries:\n  demo:\n  - {version: 1, urls: 5}\n"), "demo", "1", "", minimal},
		},
	}
}

// FuzzChart checks that a chart is found in an index that Helm writes, whatever else the
// index contains. It also checks that the images of a chart are complete references, and
// at most maxChartImages.
func FuzzChart(f *testing.F) {
	for _, s := range chartSeeds(f).All() {
		f.Add(s.index, s.name, s.version, s.description, s.archive)
	}
	f.Fuzz(func(t *testing.T, index []byte, name, version, description string, archive []byte) {
		fuzzChart(t, chartInput{index, name, version, description, archive})
	})
}

// chartName matches the chart names that Helm accepts (pkg/lint/rules).
var chartName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,60}$`)

func fuzzChart(t *testing.T, in chartInput) bool {
	list, err := chartEntries(bytes.NewReader(in.index), in.name)
	if err != nil && !errors.Is(err, bundle.ErrFormat) && !errors.Is(err, bundle.ErrLimit) {
		t.Fatalf("refused without a reason: %v", err)
	}
	taken := err == nil && len(list) > 0 || !strings.Contains(string(in.index), in.name)
	if chartName.MatchString(in.name) && printable(in.version) && printable(in.description) {
		findChart(t, in)
	}
	chart, err := loadChart(t.Context(), seeds.Gzip(in.archive))
	if err != nil {
		if !errors.Is(err, bundle.ErrFormat) && !errors.Is(err, bundle.ErrLimit) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	images := chartImages(chart, map[string]any{"image": map[string]any{"tag": in.version}})
	for _, s := range images {
		if r, err := bundle.ParseReference(s); err != nil || r.String() != s {
			t.Fatalf("the image %q: %v", s, err)
		}
	}
	if len(images) > maxChartImages {
		t.Fatalf("%d images", len(images))
	}
	return taken
}

// printable reports whether Helm would accept a text in an index.
func printable(s string) bool {
	return s != "" && utf8.ValidString(s) && len(s) < 10_000 &&
		strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == 0xfeff }) < 0
}

// findChart checks that a chart is found in an index with similar names around it.
func findChart(t *testing.T, in chartInput) {
	t.Helper()
	type entry struct {
		Name        string   `yaml:"name"`
		Version     string   `yaml:"version"`
		Description string   `yaml:"description"`
		Digest      string   `yaml:"digest"`
		URLs        []string `yaml:"urls"`
	}
	one := func(name, version, digest string) []entry {
		return []entry{
			{name, version, in.description, digest, []string{name + ".tgz"}},
			{name, "0.0.1", in.description, "old", []string{"old.tgz"}},
		}
	}
	index, err := yaml.Dump(map[string]any{"apiVersion": "v1", "generated": "2026-01-01T00:00:00Z", "entries": map[string][]entry{
		"0-" + in.name: one(
			"0",
			"1",
			"x",
		),
		in.name:           one(in.name, in.version, "the one"),
		in.name + "-more": one(in.name, in.version, "another"),
		"zz-" + in.name:   one("zz", "2", "y"),
	}}, yaml.WithV2Defaults())
	if err != nil {
		t.Fatal(err)
	}
	list, err := chartEntries(bytes.NewReader(index), in.name)
	if err != nil || len(list) != 2 || list[0].Version != in.version || list[0].Digest != "the one" || len(list[0].URLs) != 1 ||
		list[0].URLs[0] != in.name+".tgz" {
		t.Fatalf("%+v, %v in\n%s", list, err, index)
	}
}

// signatureInput is a payload that the test signs with the key, a Sigstore bundle that
// was not signed with the key, and a detached OpenPGP signature.
type signatureInput struct {
	payload, bundle, openpgp []byte
}

var signedImage = bundle.DigestOf([]byte("image"))

func signatureSeeds(tb testing.TB) seeds.Of[signatureInput] {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", "openpgp", name))
		if err != nil {
			tb.Fatal(err)
		}
		return data
	}
	simple := `{"critical":{"identity":{"docker-reference":"a"},"image":{"docker-manifest-digest":"` + string(
		signedImage,
	) + `"},"type":"cosign container image signature"},"optional":null}`
	statement := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"` + signedImage.Hex() + `"}}],` +
		`"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`
	envelope := `{"mediaType":"x","verificationMaterial":{},"dsseEnvelope":{"payload":"` + base64.StdEncoding.EncodeToString(
		[]byte(statement),
	) + `","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AAAA"}]}}`
	sig, armored := read("archive.sig"), read("archive.sig.asc")
	s := seeds.Of[signatureInput]{Taken: []signatureInput{
		{
			[]byte(simple),
			[]byte(envelope),
			sig,
		},
		{[]byte(statement), []byte(envelope), armored},
		{[]byte(simple), nil, append([]byte("\n"), armored...)},
		{[]byte(statement), []byte("{}"), sig},
	}}
	for _, payload := range []string{
		``, `{}`, `null`, strings.Replace(simple, signedImage.Hex(), strings.Repeat("0", 64), 1),
		strings.Replace(simple, "cosign container", "atomic container", 1),
		strings.Replace(statement, "sign/v1", "attest/v1", 1), strings.Replace(statement, `"subject":[`, `"subject":[{},`, 1),
		strings.Replace(statement, signedImage.Hex(), "", 1), simple + "{}",
	} {
		s.Refused = append(s.Refused, signatureInput{[]byte(payload), []byte(envelope), sig})
	}
	flipped := bytes.Clone(sig)
	flipped[len(flipped)-1] ^= 1
	for _, pgp := range [][]byte{nil, sig[:len(sig)-1], flipped, []byte("-----BEGIN PGP SIGNATURE-----\n\n"), read("key.asc")} {
		s.Refused = append(s.Refused, signatureInput{[]byte(simple), nil, pgp})
	}
	return s
}

// FuzzSignature checks that a signature is accepted only if the key signed the payload,
// the payload names the image, and its form states its purpose.
func FuzzSignature(f *testing.F) {
	for _, s := range signatureSeeds(f).All() {
		f.Add(s.payload, s.bundle, s.openpgp)
	}
	check := fuzzSignature(f)
	f.Fuzz(func(t *testing.T, payload, sigstore, openpgp []byte) {
		check(t, signatureInput{payload, sigstore, openpgp})
	})
}

func fuzzSignature(tb testing.TB) func(t *testing.T, in signatureInput) bool {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		tb.Fatal(err)
	}
	key, err := publickey.Parse(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		tb.Fatal(err)
	}
	pgp, err := os.ReadFile(filepath.Join("testdata", "openpgp", "key.asc"))
	if err != nil {
		tb.Fatal(err)
	}
	signed := func(t *testing.T, message string) []byte {
		sum := sha256.Sum256([]byte(message))
		sig, err := ecdsa.SignASN1(rand.Reader, private, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	i := &Image{Top: bundle.Descriptor{Digest: signedImage}}
	return func(t *testing.T, in signatureInput) bool {
		if i.sigstoreBundle(in.bundle, key) == nil {
			t.Fatalf("nobody signed %q", in.bundle)
		}
		taken := false
		sig := signed(t, string(in.payload))
		if i.simpleSigning(in.payload, base64.StdEncoding.EncodeToString(sig), key) == nil {
			taken = true
			if !strings.Contains(string(in.payload), signedImage.Hex()) && !strings.Contains(string(in.payload), `\u`) {
				t.Fatalf("%q speaks of another image", in.payload)
			}
			changed := append(bytes.Clone(in.payload), ' ')
			if i.simpleSigning(changed, base64.StdEncoding.EncodeToString(sig), key) == nil {
				t.Fatalf("%q was not signed", changed)
			}
		}
		envelope := map[string]any{"dsseEnvelope": map[string]any{
			"payload":     in.payload,
			"payloadType": payloadInToto,
			"signatures": []any{
				map[string]any{"sig": signed(t, fmt.Sprintf("DSSEv1 %d %s %d %s", len(payloadInToto), payloadInToto, len(in.payload), in.payload))},
			},
		}}
		data, err := json.Marshal(envelope)
		if err != nil {
			t.Fatal(err)
		}
		if i.sigstoreBundle(data, key) == nil {
			if taken {
				t.Fatalf("%q is taken in both forms", in.payload)
			}
			taken = true
			if !strings.Contains(string(in.payload), signedImage.Hex()) && !strings.Contains(string(in.payload), `\u`) {
				t.Fatalf("%q speaks of another image", in.payload)
			}
		}
		return openPGP(t, in.openpgp, pgp) && taken
	}
}

// openPGP reports whether a detached signature over the file archive is valid. It also
// checks that a valid signature is refused for another file.
func openPGP(t *testing.T, sig, key []byte) bool {
	t.Helper()
	dir := filepath.Join("testdata", "openpgp")
	by, found, err := checkOpenPGP(filepath.Join(dir, "archive"), sig, []manifests.Key{{Name: "test", Data: key}})
	if err != nil {
		if !errors.Is(err, bundle.ErrSignature) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	if found.Name != "test" || len(by) != 40 {
		t.Fatalf("made by %q, key %q", by, found.Name)
	}
	if _, _, err := checkOpenPGP(
		filepath.Join(dir, "key.asc"), sig,
		[]manifests.Key{{Name: "test", Data: key}},
	); !errors.Is(
		err, bundle.ErrSignature,
	) {
		t.Fatalf("the same signature over another file: %v", err)
	}
	return true
}
