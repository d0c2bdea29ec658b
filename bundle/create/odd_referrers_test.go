package create_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/pull"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/network"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

const artifactManifest = "application/vnd.oci.artifact.manifest.v1+json"

// oddRegistry is an upstream with an image and its SBOM, and with odd answers about the
// image's referrers.
type oddRegistry struct {
	*world.Registry
	answer func(w http.ResponseWriter, r *http.Request) bool // false means that the registry must answer

	amd, arm, sbom v1.Image
	index          v1.ImageIndex
	top            bundle.Digest
}

func newOddRegistry(t *testing.T) *oddRegistry {
	t.Helper()
	o := &oddRegistry{}
	o.Registry = world.NewRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if o.answer == nil || !o.answer(w, r) {
				next.ServeHTTP(w, r)
			}
		})
	})
	o.amd, o.arm = world.Image("linux/amd64", world.Layer(file("a"))), world.Image("linux/arm64", world.Layer(file("b")))
	o.index = world.Index(o.amd, o.arm)
	o.Push(t, "team/app:1", o.index)
	d, err := o.index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	o.top = bundle.Digest(d.String())
	o.sbom = about(world.ArtifactOf("application/spdx+json", []byte(`{"spdx":1}`), nil), o.amd)
	o.Push(t, "team/app:sbom", o.sbom)
	return o
}

func descriptorOf(t *testing.T, what partial.Describable) v1.Descriptor {
	t.Helper()
	d, err := partial.Descriptor(what)
	if err != nil {
		t.Fatal(err)
	}
	return *d
}

// list answers the referrers API with list for one subject, and with an empty list for others.
func (o *oddRegistry) list(subject bundle.Digest, list ...v1.Descriptor) {
	o.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !network.IsReferrers(r) {
			return false
		}
		index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
		if strings.HasSuffix(r.URL.Path, string(subject)) {
			index.Manifests = list
		}
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		_ = json.NewEncoder(w).Encode(index)
		return true
	}
}

// also adds an answer for paths with the given suffix.
func (o *oddRegistry) also(suffix string, answer func(w http.ResponseWriter, r *http.Request)) {
	before := o.answer
	o.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, suffix) {
			answer(w, r)
			return true
		}
		return before != nil && before(w, r)
	}
}

func answers(status int, mediaType, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, body)
		}
	}
}

// run creates a bundle with short retry pauses, and returns the warnings.
func (o *oddRegistry) run(t *testing.T, opts create.Options) (warnings string, r *create.Result, err error) {
	t.Helper()
	client, err := remote.New(remote.Options{PlainHTTP: []string{o.Host}, Patience: remote.Patience{Pause: 1}})
	if err != nil {
		t.Fatal(err)
	}
	opts.Source = &pull.Source{Client: client}
	opts.Warn = func(format string, args ...any) { warnings += fmt.Sprintf(format, args...) + "\n" }
	r, err = create.Run(t.Context(), opts)
	return warnings, r, err
}

// TestOddReferrers checks that an image is carried whatever the registry answers about
// its referrers, and that a warning names each referrer that is not carried.
func TestOddReferrers(t *testing.T) {
	hash := func(c string) bundle.Digest { return bundle.Digest("sha256:" + strings.Repeat(c, 64)) }
	strange := func(mediaType string, d bundle.Digest) v1.Descriptor {
		h, err := v1.NewHash(string(d))
		if err != nil {
			t.Fatal(err)
		}
		return v1.Descriptor{MediaType: types.MediaType(mediaType), Digest: h, Size: 100}
	}
	tag := func(d bundle.Digest) string { return "/manifests/sha256-" + d.Hex() }
	for name, test := range map[string]struct {
		odd     func(t *testing.T, o *oddRegistry, amd, sbom bundle.Digest)
		warns   []string // words besides the image and --without-referrers; empty means no warning
		carried bool     // whether the SBOM is carried
	}{
		"the tag answers with the subject": {odd: func(t *testing.T, o *oddRegistry, _, _ bundle.Digest) {
			o.answer = func(w http.ResponseWriter, r *http.Request) bool {
				before, hex, ok := strings.Cut(r.URL.Path, "/manifests/sha256-")
				if ok {
					hex, _, _ = strings.Cut(hex, ".") // cosign's tags too
					r.URL.Path = before + "/manifests/sha256:" + hex
				}
				return false
			}
		}},
		"the tag is another image": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.Push(t, "team/app:sha256-"+amd.Hex(), world.Image("linux/amd64", world.Layer(file("c"))))
		}, warns: []string{"sha256-", "not a list"}},
		"the tag is another index": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			other := world.Image("linux/amd64", world.Layer(file("c")))
			o.Push(t, "team/app:sha256-"+amd.Hex(), world.Index(other))
		}, warns: []string{"does not refer to"}},
		"the tag is a web page": {odd: func(_ *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.also(tag(amd), answers(200, "text/html", "<html>"))
		}, warns: []string{"text/html"}},
		"the tag is forbidden": {odd: func(_ *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.also(tag(amd), answers(403, "text/plain", "no"))
		}, warns: []string{"403"}},
		"a cosign tag is forbidden": {odd: func(_ *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.also(tag(amd)+".att", answers(403, "text/plain", "no"))
		}, warns: []string{amd64Att, "403"}, carried: true},
		"a cosign tag is an index": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.Push(t, "team/app:sha256-"+amd.Hex()+".att", world.Index(o.arm))
		}, warns: []string{amd64Att, "not a signature"}, carried: true},
		"a cosign tag has lost a blob": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.Push(t, "team/app:sha256-"+amd.Hex()+".att", world.ArtifactOf("application/vnd.dsse.envelope.v1+json", []byte("{}{}"), nil))
			o.also("/blobs/"+string(bundle.DigestOf([]byte("{}{}"))), answers(404, "text/plain", "gone"))
		}, warns: []string{amd64Att, "404"}, carried: true},
		"null instead of a list": {odd: func(_ *testing.T, o *oddRegistry, _, _ bundle.Digest) {
			o.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if network.IsReferrers(r) {
					answers(200, bundle.TypeOCIIndex, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}`)(w, r)
				}
				return network.IsReferrers(r)
			}
		}},
		"null instead of a list, under the tag": {odd: func(_ *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.also(
				tag(amd),
				answers(200, bundle.TypeOCIIndex, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}`),
			)
		}},
		"an empty list": {odd: func(_ *testing.T, o *oddRegistry, amd, _ bundle.Digest) { o.list(amd) }},
		"a list of another content type": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd, descriptorOf(t, o.sbom))
			before := o.answer
			o.answer = func(w http.ResponseWriter, r *http.Request) bool {
				return before(retyped{w, "application/json; charset=utf-8"}, r)
			}
		}, carried: true},
		"a list that is forbidden": {odd: func(_ *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd)
			o.also("/referrers/"+string(amd), answers(403, "text/plain", "no"))
		}, warns: []string{"403"}},
		"a list that fails": {odd: func(_ *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd)
			o.also("/referrers/"+string(amd), answers(500, "text/plain", "oops"))
		}, warns: []string{"500"}},
		"a list that is cut short": {odd: func(_ *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd)
			o.also("/referrers/"+string(amd), answers(200, bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[{"mediaType":`))
		}, warns: []string{string(amd64Digest)}},
		"one is gone": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd, strange(bundle.TypeOCIManifest, hash("a")), descriptorOf(t, o.sbom))
		}, warns: []string{string(hash("a")), "404"}, carried: true},
		"one is forbidden": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd, strange(bundle.TypeOCIManifest, hash("a")), descriptorOf(t, o.sbom))
			o.also(string(hash("a")), answers(403, "text/plain", "no"))
		}, warns: []string{string(hash("a")), "403"}, carried: true},
		"one fails": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd, strange(bundle.TypeOCIManifest, hash("a")), descriptorOf(t, o.sbom))
			o.also(string(hash("a")), answers(500, "text/plain", "oops"))
		}, warns: []string{string(hash("a")), "500"}, carried: true},
		"one fails at first": {odd: func(t *testing.T, o *oddRegistry, amd, sbom bundle.Digest) {
			o.list(amd, descriptorOf(t, o.sbom))
			before, asked := o.answer, new(atomic.Int64)
			o.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, string(sbom)) && asked.Add(1) < 3 {
					w.WriteHeader(http.StatusBadGateway)
					return true
				}
				return before(w, r)
			}
		}, carried: true},
		"one is of the old artifact type": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd, strange(artifactManifest, hash("b")), descriptorOf(t, o.sbom))
		}, warns: []string{string(hash("b")), artifactManifest}, carried: true},
		"one is served with the old artifact type": {
			odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
				data := `{"mediaType":"` + artifactManifest + `","artifactType":"x/y","blobs":[]}`
				d := bundle.DigestOf([]byte(data))
				o.list(amd, strange(bundle.TypeOCIManifest, d), descriptorOf(t, o.sbom))
				o.also(string(d), answers(200, artifactManifest, data))
			},
			warns: []string{
				string(bundle.DigestOf([]byte(`{"mediaType":"` + artifactManifest + `","artifactType":"x/y","blobs":[]}`))), artifactManifest,
			},
			carried: true,
		},
		"one has no subject": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd, descriptorOf(t, o.sbom), strange(bundle.TypeOCIManifest, o.artifact(t, "none", nil)))
		}, warns: []string{"does not refer to"}, carried: true},
		"one has another subject": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd, descriptorOf(t, o.sbom), strange(bundle.TypeOCIManifest, o.artifact(t, "other", o.arm)))
		}, warns: []string{"does not refer to"}, carried: true},
		"one has lost its blob": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			d := o.artifact(t, "lost content", o.amd)
			o.list(amd, descriptorOf(t, o.sbom), strange(bundle.TypeOCIManifest, d))
			o.also("/blobs/"+string(bundle.DigestOf([]byte("lost content"))), answers(404, "text/plain", "gone"))
		}, warns: []string{"404"}, carried: true},
		"one has lost a large blob": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			large := strings.Repeat("0123456789abcdef", 1<<17)
			d := o.artifact(t, large, o.amd)
			o.list(amd, descriptorOf(t, o.sbom), strange(bundle.TypeOCIManifest, d))
			o.also("/blobs/"+string(bundle.DigestOf([]byte(large))), answers(404, "text/plain", "gone"))
		}, warns: []string{"404"}, carried: true},
		"one has a damaged blob": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			d := o.artifact(t, "good content", o.amd)
			o.list(amd, descriptorOf(t, o.sbom), strange(bundle.TypeOCIManifest, d))
			o.also("/blobs/"+string(bundle.DigestOf([]byte("good content"))), answers(200, "text/plain", "evil content"))
		}, warns: []string{string(bundle.DigestOf([]byte("good content")))}, carried: true},
		"the digest is no digest": {odd: func(t *testing.T, o *oddRegistry, amd, sbom bundle.Digest) {
			entry := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, bundle.TypeOCIManifest, sbom, descriptorOf(t, o.sbom).Size)
			o.list(amd)
			o.also(
				"/referrers/"+string(amd),
				answers(
					200, bundle.TypeOCIIndex,
					`{"schemaVersion":2,"manifests":[{"mediaType":"`+bundle.TypeOCIManifest+`","digest":"sha512:ab/../x","size":1},`+entry+`]}`,
				),
			)
		}, warns: []string{"sha512:ab"}, carried: true},
		"an entry is no descriptor": {odd: func(t *testing.T, o *oddRegistry, amd, sbom bundle.Digest) {
			entry := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, bundle.TypeOCIManifest, sbom, descriptorOf(t, o.sbom).Size)
			o.list(amd)
			o.also("/referrers/"+string(amd), answers(200, bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":["x",null,{"size":"7"},`+entry+`]}`))
		}, warns: []string{"descriptor"}, carried: true},
		"the size is wrong": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			d := descriptorOf(t, o.sbom)
			d.Size++
			o.list(amd, d)
		}, carried: true},
		"a list that lists itself": {odd: func(t *testing.T, o *oddRegistry, amd, sbom bundle.Digest) {
			o.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !network.IsReferrers(r) {
					return false
				}
				index := v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{descriptorOf(t, o.sbom)}}
				w.Header().Set("Content-Type", string(types.OCIImageIndex))
				_ = json.NewEncoder(w).Encode(index)
				return true
			}
		}, warns: []string{"does not refer to"}, carried: true},
		"many that are gone": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			list := []v1.Descriptor{descriptorOf(t, o.sbom)}
			for n := range 300 {
				list = append(list, strange(bundle.TypeOCIManifest, bundle.DigestOf(fmt.Append(nil, n))))
			}
			o.list(amd, list...)
		}, warns: []string{"more than 200"}, carried: true},
		"a list without end": {odd: func(_ *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			o.list(amd)
			o.also("/referrers/"+string(amd), func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", fmt.Sprintf(`<%s?n=1>; rel="next"`, r.URL.Path))
				answers(200, bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[]}`)(w, r)
			})
		}, warns: []string{"more than 100 pages"}},
		"deeply nested": {odd: func(t *testing.T, o *oddRegistry, amd, _ bundle.Digest) {
			chain := map[string]v1.Descriptor{string(amd): descriptorOf(t, o.sbom)}
			last := o.sbom
			for n := range 5 {
				next := about(world.ArtifactOf("text/plain", fmt.Append(nil, n), nil), last)
				o.Push(t, fmt.Sprintf("team/app:deep%d", n), next)
				chain[string(digestOf(t, last))] = descriptorOf(t, next)
				last = next
			}
			o.answer = func(w http.ResponseWriter, r *http.Request) bool {
				_, subject, ok := strings.Cut(r.URL.Path, "/referrers/")
				if d, found := chain[subject]; ok && found {
					body, _ := json.Marshal(v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{d}})
					answers(200, bundle.TypeOCIIndex, string(body))(w, r)
					return true
				}
				return false
			}
		}, warns: []string{"more than 3 deep"}, carried: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOddRegistry(t)
			amd, sbom := digestOf(t, o.amd), digestOf(t, o.sbom)
			test.odd(t, o, amd, sbom)
			opts := world.Options(t, world.Manifest(t, "demo", o.Host+"/team/app:1"), world.NewKey(t))
			warnings, r, err := o.run(t, opts)
			if err != nil {
				t.Fatalf("the image was not carried: %v", err)
			}
			reader, d, _ := read(t, r.Output)
			if d.Images[0].Digest != o.top {
				t.Errorf("it carries %s", d.Images[0].Digest)
			}
			if got := slices.Contains(d.Images[0].Referrers, sbom); got != test.carried {
				t.Errorf("the SBOM is carried: %t", got)
			}
			for _, ref := range d.Images[0].Referrers {
				if _, ok := reader.Place(ref); !ok {
					t.Errorf("%s is named and not carried", ref)
				}
			}
			checkWarnings(t, o, warnings, test.warns)
		})
	}
}

// checkWarnings checks that the warnings contain all words, or that there are no warnings
// if words is empty.
func checkWarnings(t *testing.T, o *oddRegistry, warnings string, words []string) {
	t.Helper()
	amd := digestOf(t, o.amd)
	if len(words) == 0 && warnings != "" {
		t.Errorf("it warns: %s", warnings)
	}
	if len(words) > 0 {
		words = append(slices.Clone(words), o.Host+"/team/app:1: ", "--without-referrers")
	}
	for _, want := range words {
		want = strings.ReplaceAll(want, amd64Att, "sha256-"+amd.Hex()+".att")
		if want = strings.ReplaceAll(want, string(amd64Digest), string(amd)); !strings.Contains(warnings, want) {
			t.Errorf("no warning has %q: %s", want, warnings)
		}
	}
	if n := strings.Count(warnings, "\n"); n > 250 {
		t.Errorf("%d warnings", n)
	}
}

// Placeholders for names that are known only at run time.
const (
	amd64Att    = "$ATT"
	amd64Digest = "$AMD"
)

// artifact pushes an artifact and returns its digest. subject may be nil.
func (o *oddRegistry) artifact(t *testing.T, content string, subject v1.Image) bundle.Digest {
	t.Helper()
	a := world.ArtifactOf("text/plain", []byte(content), nil)
	if subject != nil {
		a = about(a, subject)
	}
	o.Push(t, "team/app:artifact", a)
	return digestOf(t, a)
}

// retyped sets the content type of every answer.
type retyped struct {
	http.ResponseWriter
	mediaType string
}

func (w retyped) Write(p []byte) (int, error) {
	w.Header().Set("Content-Type", w.mediaType)
	return w.ResponseWriter.Write(p)
}

// TestOddReferrersAndRules checks that a required signature that cannot be fetched is
// missing, and that a good signature counts although another referrer is broken.
func TestOddReferrersAndRules(t *testing.T) {
	for name, broken := range map[string]bool{"the signature is gone": true, "another one is gone": false} {
		t.Run(name, func(t *testing.T) {
			o := newOddRegistry(t)
			key := world.NewKey(t)
			o.Push(t, "team/app:sha256-"+o.top.Hex()+".sig", world.CosignSignature(t, key, o.top))
			gone := "/manifests/sha256-" + o.top.Hex() + ".att"
			if broken {
				gone = "/manifests/sha256-" + o.top.Hex() + ".sig"
			}
			o.also(gone, answers(403, "text/plain", "no"))
			public, err := os.ReadFile(key.Public)
			if err != nil {
				t.Fatal(err)
			}
			m, err := manifests.Parse(
				fmt.Appendf(nil, `{"apiVersion": "oobbundle.dev/v1", "kind": "Manifest", "metadata": {"name": "demo", "version": "1"},
"keys": {"maker": %q}, "verifyImages": [{"images": "**", "keys": ["maker"]}], "components": [{"name": "a", "images": [%q]}]}`,
					public, o.Host+"/team/app:1"),
			)
			if err != nil {
				t.Fatal(err)
			}
			warnings, _, err := o.run(t, world.Options(t, m, world.NewKey(t)))
			if broken && (!errors.Is(err, bundle.ErrSignature) || !strings.Contains(err.Error(), "403")) {
				t.Errorf("got %v", err)
			}
			if !broken && (err != nil || !strings.Contains(warnings, ".att")) {
				t.Errorf("got %v, warnings %s", err, warnings)
			}
		})
	}
}
