package world

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// Upstream replaces every server that a selection names: registries, the plugin store, chart
// repositories and file hosts. One registry and one web server on loopback serve them, each
// below its own name.
type Upstream struct {
	Registry *Registry
	Web      string // HOST:PORT
	Key      string // path of the OpenPGP public key that signed the plugins

	// Layers returns the layers of an image; nil gives each image one small layer.
	Layers func(ref bundle.Reference, platform string) []v1.Layer
	// SBOM returns the SPDX document for an image; nil publishes none.
	SBOM func(ref bundle.Reference) []byte

	tb     testing.TB
	signer *openpgp.Entity
	cosign *Key // signed the images
	mu     sync.Mutex
	pages  map[string][]byte // by HOST/PATH
	hosts  map[string]string // upstream host → mirror
	pins   map[string]string // hash by name
	pushed map[string]bool
	charts map[string]map[string]string // entry of the newest by repository and name
}

// NewUpstream starts an upstream without content.
func NewUpstream(tb testing.TB) *Upstream {
	tb.Helper()
	u := &Upstream{
		tb: tb, Registry: NewRegistry(tb, nil), signer: NewPGP(tb), cosign: NewKey(tb), pages: map[string][]byte{}, hosts: map[string]string{},
		pins: map[string]string{}, pushed: map[string]bool{}, charts: map[string]map[string]string{},
	}
	u.Key = WritePGP(tb, u.signer)
	s := httptest.NewServer(u)
	tb.Cleanup(s.Close)
	u.Web = strings.TrimPrefix(s.URL, "http://")
	return u
}

func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	data, ok := u.pages[strings.TrimPrefix(r.URL.Path, "/")]
	u.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// Page publishes content at a URL of any host.
func (u *Upstream) Page(rawURL string, data []byte) {
	u.tb.Helper()
	at, err := url.Parse(rawURL)
	if err != nil {
		u.tb.Fatal(err)
	}
	u.mu.Lock()
	u.pages[at.Host+at.Path] = data
	u.hosts[at.Host] = u.Web + "/" + at.Host
	u.mu.Unlock()
}

// Flags returns the flags with which create finds the content.
func (u *Upstream) Flags() []string {
	list := []string{"--plain-http", u.Registry.Host, "--plain-http", u.Web, "--set", "keys.mattermost-plugins=" + u.Key}
	for _, host := range sorted(u.hosts) {
		list = append(list, "--mirror", host+"="+u.hosts[host])
	}
	for _, name := range sorted(u.pins) {
		list = append(list, "--set", "sha256."+name+"="+u.pins[name])
	}
	return list
}

func sorted(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Add publishes everything that a selection names. Single reports whether an image exists for
// linux/amd64 only.
func (u *Upstream) Add(s *manifests.Selection, single func(ref string) bool) {
	u.tb.Helper()
	for _, i := range s.Images {
		u.Image(i.Reference, single(i.Reference.String()))
	}
	for _, p := range s.Plugins {
		u.Plugin(p.URL, PluginFacts(p.ID, p.Version))
	}
	for _, c := range s.Charts {
		u.chart(s, c)
	}
	for _, f := range s.Files {
		content := []byte("stand-in for " + f.Source + "\n")
		switch {
		case !strings.Contains(f.Source, "://"):
			continue // it is in the catalogue or beside the manifest
		case f.As == bundle.AsArchive:
			content = Gzip(tarOf(
				File{"mattermost/bin/mattermost", 0o755, content}, File{"mattermost/config/README.md", 0o644, content},
				File{"mattermost/prepackaged_plugins/README", 0o644, content}, File{"mattermost/client/root.html", 0o644, content}))
		case f.As == bundle.AsImages:
			content = []byte(
				"# operator\napiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n        - " +
					"name: operator\n          image: mattermost/mattermost-operator:" + s.Versions["operator"] + " # pinned\n",
			)
		}
		u.Page(f.Source, content)
		if f.Pin != "" {
			u.pins[f.Pin] = bundle.DigestOf(content).Hex()
		}
	}
}

// Image publishes an image: for linux/amd64 only if single, otherwise an index with arm64 too.
func (u *Upstream) Image(ref bundle.Reference, single bool) {
	u.tb.Helper()
	u.hosts[ref.Host] = u.Registry.Host + "/" + ref.Host
	if u.pushed[ref.String()] {
		return
	}
	u.pushed[ref.String()] = true
	of := func(platform string) []v1.Layer {
		if u.Layers != nil {
			return u.Layers(ref, platform)
		}
		return []v1.Layer{Layer(File{"about", 0o644, []byte(ref.String() + " " + platform)})}
	}
	amd := Image("linux/amd64", of("linux/amd64")...)
	name := ref.Host + "/" + ref.Name + ":" + ref.Tag
	var what ggcr.Taggable = amd
	if !single {
		what = Index(amd, Image("linux/arm64", of("linux/arm64")...))
	}
	d := bundle.Digest(Digest(u.tb, u.Registry.Push(u.tb, name, what)))
	u.Registry.Push(u.tb, ref.Host+"/"+ref.Name+":sha256-"+d.Hex()+".sig", CosignSignature(u.tb, u.cosign, d))
	if u.SBOM != nil {
		u.Registry.Push(u.tb, ref.Host+"/"+ref.Name+":sha256-"+d.Hex()+".sbom", ArtifactOf("text/spdx+json", u.SBOM(ref), nil))
	}
}

// Facts is the content of a plugin.json.
type Facts struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Version   string            `json:"version"`
	MinServer string            `json:"min_server_version,omitempty"`
	Props     map[string]string `json:"props,omitempty"`
	Server    *struct {
		Executables map[string]string `json:"executables"`
	} `json:"server,omitempty"`
}

// PluginFacts returns the plugin.json of published Mattermost plugins, reduced to the fields
// that the rules need.
func PluginFacts(id, version string) Facts {
	f := Facts{ID: id, Name: id, Version: version}
	f.Server = &struct {
		Executables map[string]string `json:"executables"`
	}{map[string]string{"linux-amd64": "server/dist/plugin-linux-amd64", "linux-arm64": "server/dist/plugin-linux-arm64"}}
	least := map[string]string{ // from each plugin's own plugin.json
		"playbooks 2.9.4": "11.1.0", "playbooks 2.10.1": "11.9.0", "playbooks 2.11.1": "11.9.0",
		"focalboard 9.2.7": "10.7.0", "focalboard 9.3.1": "11.9.0",
		"com.mattermost.calls 1.11.6": "10.0.0", "com.mattermost.calls 1.12.2": "11.0.0",
		"com.mattermost.plugin-matrix-bridge 0.1.12": "10.7.1", "com.mattermost.mscalendar 1.6.2": "10.7.0",
		"com.mattermost.plugin-msteams-devsecops 0.8.0": "10.7.1",
	}
	f.MinServer = least[id+" "+version]
	if f.MinServer == "" {
		f.MinServer = "6.2.1"
	}
	if id == "com.mattermost.calls" {
		f.Props = map[string]string{
			"calls_recorder_version": "v0.8.13", "calls_transcriber_version": "v0.7.2",
			"min_rtcd_version": "v0.17.0", "min_offloader_version": "v0.9.0",
		}
	}
	return f
}

// Archive returns a plugin archive with these facts and further files.
func (f Facts) Archive(more ...File) []byte {
	data, err := json.Marshal(f)
	Must(err)
	files := []File{{f.ID + "/plugin.json", 0o644, data}, {f.ID + "/webapp/dist/main.js", 0o644, []byte("// " + f.ID)}}
	if f.Server != nil {
		for _, name := range sorted(f.Server.Executables) {
			files = append(files, File{f.ID + "/" + f.Server.Executables[name], 0o755, []byte("program for " + name)})
		}
	}
	return Gzip(tarOf(append(files, more...)...))
}

// ArchiveOf returns a plugin archive in which every executable has the given content.
func (f Facts) ArchiveOf(program []byte) []byte {
	data, err := json.Marshal(f)
	Must(err)
	files := []File{{f.ID + "/plugin.json", 0o644, data}}
	for _, name := range sorted(f.Server.Executables) {
		files = append(files, File{f.ID + "/" + f.Server.Executables[name], 0o755, program})
	}
	return Gzip(tarOf(files...))
}

// Gzip compresses data.
func Gzip(data []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(data)
	Must(err)
	Must(w.Close())
	return buf.Bytes()
}

// Plugin publishes a signed plugin at a URL.
func (u *Upstream) Plugin(rawURL string, f Facts) {
	u.tb.Helper()
	data := f.Archive()
	u.Page(rawURL, data)
	u.Page(rawURL+".sig", SignPGP(u.tb, u.signer, data))
}

// chart publishes a chart in its repository. Its values name the images of its component.
func (u *Upstream) chart(s *manifests.Selection, c manifests.WantedChart) {
	var images []string
	for _, comp := range s.Components {
		for _, i := range comp.Charts {
			if s.Charts[i].Name == c.Name {
				for _, k := range comp.Images {
					images = append(images, s.Images[k].Reference.String())
				}
			}
		}
	}
	data := Chart(c.Name, c.Version, images...)
	base := strings.TrimSuffix(c.Repository, "/")
	file := c.Name + "-" + c.Version + ".tgz"
	u.Page(base+"/"+file, data)
	entry := fmt.Sprintf(
		"  %s:\n  - apiVersion: v2\n    name: %s\n    version: %s\n    digest: %s\n    urls:\n    - %s\n",
		c.Name, c.Name, c.Version, bundle.DigestOf(data).Hex(), file,
	)
	if u.charts[base] == nil {
		u.charts[base] = map[string]string{}
	}
	u.charts[base][c.Name] = entry
	index := "apiVersion: v1\nentries:\n"
	for _, name := range slices.Sorted(maps.Keys(u.charts[base])) {
		index += u.charts[base][name]
	}
	u.Page(base+"/index.yaml", []byte(index))
}

// Chart returns a chart whose values name the given images.
func Chart(name, version string, images ...string) []byte {
	values := "replicas: 1\n"
	for i, ref := range images {
		r, err := bundle.ParseReference(ref)
		Must(err)
		values += fmt.Sprintf("part%d:\n  image:\n    repository: %s\n    tag: %q\n", i, r.Repository(), r.Tag)
	}
	return Gzip(tarOf(
		File{name + "/Chart.yaml", 0o644, []byte(fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\nappVersion: \"1\"\n", name, version))},
		File{name + "/values.yaml", 0o644, []byte(values)},
		File{name + "/templates/a.yaml", 0o644, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")},
	))
}

// HelmChart returns a chart as an OCI artifact, as Helm pushes it.
func HelmChart(name, version string) v1.Image {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, "application/vnd.cncf.helm.config.v1+json")
	img, err := mutate.AppendLayers(img, static.NewLayer(Chart(name, version), "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))
	Must(err)
	return img
}

// NewPGP creates an OpenPGP key.
func NewPGP(tb testing.TB) *openpgp.Entity {
	tb.Helper()
	e, err := openpgp.NewEntity(
		"Tests",
		"",
		"tests@example.com",
		&packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048, DefaultHash: crypto.SHA256},
	)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// WritePGP writes the armored public key and returns its path.
func WritePGP(tb testing.TB, e *openpgp.Entity) string {
	tb.Helper()
	var buf bytes.Buffer
	w, err := armor.Encode(&buf, openpgp.PublicKeyType, nil)
	if err == nil {
		err = e.Serialize(w)
	}
	if err != nil {
		tb.Fatal(err)
	}
	Must(w.Close())
	file := filepath.Join(tb.TempDir(), path.Base(strings.ReplaceAll(tb.Name(), "/", "_"))+".asc")
	Write(tb, file, buf.Bytes(), 0o644)
	return file
}

// SignPGP returns a binary detached signature.
func SignPGP(tb testing.TB, e *openpgp.Entity, data []byte) []byte {
	tb.Helper()
	var buf bytes.Buffer
	if err := openpgp.DetachSign(&buf, e, bytes.NewReader(data), nil); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}
