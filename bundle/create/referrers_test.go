package create_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// about returns img with subject as its subject.
func about(img v1.Image, subject partial.Describable) v1.Image {
	d, err := partial.Descriptor(subject)
	if err != nil {
		panic(err)
	}
	return mutate.Subject(img, *d).(v1.Image)
}

func digestOf(t *testing.T, img v1.Image) bundle.Digest {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return bundle.Digest(d.String())
}

// bundleSignature returns a signed statement about img as a Sigstore bundle.
func bundleSignature(t *testing.T, key *world.Key, img v1.Image, predicate string) v1.Image {
	t.Helper()
	payload := fmt.Appendf(
		nil,
		`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		digestOf(t, img).Hex(), predicate,
	)
	const kind = "application/vnd.in-toto+json"
	s, err := key.Signer.Sign(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]any{
		"mediaType":    "application/vnd.dev.sigstore.bundle.v0.3+json",
		"dsseEnvelope": map[string]any{"payload": payload, "payloadType": kind, "signatures": []any{map[string]any{"sig": s.Bytes}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return about(world.ArtifactOf("application/vnd.dev.sigstore.bundle.v0.3+json", data, nil), img)
}

func tagOf(d bundle.Digest, suffix string) string { return "team/app:sha256-" + d.Hex() + suffix }

// referrersAPI answers the referrers API from lists by subject. A list of several entries
// has two pages. If *pages is nil, the registry answers.
func referrersAPI(pages *map[string][]v1.Image) func(next http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			subject, ok := strings.CutPrefix(r.URL.Path, "/v2/team/app/referrers/")
			if !ok || *pages == nil {
				next.ServeHTTP(w, r)
				return
			}
			list := (*pages)[subject]
			if len(list) > 1 && r.URL.Query().Get("page") == "" {
				w.Header().Set("Link", fmt.Sprintf(`<%s?page=2>; rel="next"`, r.URL.Path))
				list = list[:1]
			} else if len(list) > 1 {
				list = list[1:]
			}
			index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
			for _, img := range list {
				d, err := partial.Descriptor(img)
				if err != nil {
					panic(err)
				}
				index.Manifests = append(index.Manifests, *d)
			}
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			_ = json.NewEncoder(w).Encode(index)
		})
	}
}

// TestReferrers checks that an image's referrers are carried, from the referrers API and
// from the referrers tag.
func TestReferrers(t *testing.T) {
	for name, api := range map[string]bool{"by the API, on two pages": true, "by the tag that clients keep": false} {
		t.Run(name, func(t *testing.T) {
			var pages map[string][]v1.Image
			up := world.NewRegistry(t, referrersAPI(&pages))
			amd, arm := world.Image("linux/amd64", world.Layer(file("a"))), world.Image("linux/arm64", world.Layer(file("b")))
			index := world.Index(amd, arm)
			ref := up.Push(t, "team/app:1", index)
			up.Push(t, "team/app:latest", index)
			sbom := about(world.ArtifactOf("application/spdx+json", []byte("{}"), nil), amd)
			scan := about(world.ArtifactOf("application/sarif+json", []byte("{}"), nil), amd)
			signed := about(world.ArtifactOf("application/vnd.example.signature", []byte("of the sbom"), nil), sbom)
			other := about(world.ArtifactOf("application/spdx+json", []byte(`{"of":"arm"}`), nil), arm)
			for i, img := range []v1.Image{sbom, scan, signed, other} {
				up.Push(t, fmt.Sprintf("team/app:x%d", i), img)
			}
			if api {
				pages = map[string][]v1.Image{
					string(digestOf(t, amd)): {sbom, scan}, string(digestOf(t, sbom)): {signed}, string(digestOf(t, arm)): {other},
				}
			}
			top, err := index.Digest()
			if err != nil {
				t.Fatal(err)
			}
			up.Push(t, tagOf(bundle.Digest(top.String()), ".sig"), world.CosignSignature(t, world.NewKey(t), bundle.Digest(top.String())))
			up.Push(t, tagOf(digestOf(t, amd), ".att"), world.ArtifactOf("application/vnd.dsse.envelope.v1+json", []byte("{}"), nil))
			o := world.Options(t, world.Manifest(t, "demo", ref, up.Host+"/team/app:latest"), world.NewKey(t), up)
			r, err := create.Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			reader, d, _ := read(t, r.Output)
			app := d.Images[0]
			for what, img := range map[string]v1.Image{"the SBOM": sbom, "the scan": scan, "the signature of the SBOM": signed} {
				if !slices.Contains(app.Referrers, digestOf(t, img)) {
					t.Errorf("%s is not there: %v", what, app.Referrers)
				}
				if _, ok := reader.Place(digestOf(t, img)); !ok {
					t.Errorf("%s is not carried", what)
				}
			}
			if slices.Contains(app.Referrers, digestOf(t, other)) {
				t.Error("the SBOM of a platform that is not carried came too")
			}
			var tags []string
			for _, i := range d.Images {
				tags = append(tags, i.Tag)
			}
			want := []string{"1", "sha256-" + bundle.Digest(top.String()).Hex() + ".sig", "sha256-" + digestOf(t, amd).Hex() + ".att", "latest"}
			slices.Sort(tags)
			slices.Sort(want)
			if !slices.Equal(tags, want) {
				t.Errorf("tags %v, want %v", tags, want)
			}
			if n := len(r.Lock.Images[0].Referrers); n != 5 {
				t.Errorf("the lock has %d referrers", n)
			}
			o.WithoutReferrers, o.Output = true, o.Output+".plain"
			_, d, _ = read(t, world.Create(t, o))
			if len(d.Images) != 2 || len(d.Images[0].Referrers) > 0 {
				t.Errorf("without them: %+v", d.Images)
			}
		})
	}
}

// TestVerifyImages checks that create fails unless a required signature exists and is
// valid.
func TestVerifyImages(t *testing.T) {
	key, stranger := world.NewKey(t), world.NewKey(t)
	img := world.Image("linux/amd64", world.Layer(file("signed")))
	other := world.Image("linux/amd64", world.Layer(file("other")))
	const sign = "https://sigstore.dev/cosign/sign/v1"
	for name, test := range map[string]struct {
		pattern string
		upload  func(up *world.Registry)
		good    bool
		without bool
	}{
		"a tag of cosign's": {"**", func(up *world.Registry) {
			up.Push(t, tagOf(digestOf(t, img), ".sig"), world.CosignSignature(t, key, digestOf(t, img)))
		}, true, false},
		"a Sigstore bundle": {"**", func(up *world.Registry) { up.Push(t, "team/app:s", bundleSignature(t, key, img, sign)) }, true, false},
		"checked and left behind": {
			"**", func(up *world.Registry) { up.Push(t, "team/app:s", bundleSignature(t, key, img, sign)) }, true, true,
		},
		"nothing asked":                   {"docker.io/**", func(*world.Registry) {}, true, false},
		"no signature":                    {"**", func(*world.Registry) {}, false, false},
		"no signature, and none to carry": {"**", func(*world.Registry) {}, false, true},
		"by somebody else": {"**", func(up *world.Registry) {
			up.Push(t, tagOf(digestOf(t, img), ".sig"), world.CosignSignature(t, stranger, digestOf(t, img)))
		}, false, false},
		"of another image": {"**", func(up *world.Registry) {
			up.Push(t, tagOf(digestOf(t, img), ".sig"), world.CosignSignature(t, key, digestOf(t, other)))
		}, false, false},
		"of another image, as a bundle": {"**", func(up *world.Registry) {
			up.Push(t, "team/app:s", about(bundleSignature(t, key, other, sign), img))
		}, false, false},
		"an attestation": {"**", func(up *world.Registry) {
			up.Push(t, "team/app:s", bundleSignature(t, key, img, "https://slsa.dev/provenance/v1"))
		}, false, false},
		"under the tag of another": {"**", func(up *world.Registry) {
			up.Push(t, tagOf(digestOf(t, other), ".sig"), world.CosignSignature(t, key, digestOf(t, img)))
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			up := world.NewRegistry(t, nil)
			ref := up.Push(t, "team/app:1", img)
			test.upload(up)
			public, err := os.ReadFile(key.Public)
			if err != nil {
				t.Fatal(err)
			}
			m, err := manifests.Parse(
				fmt.Appendf(nil, `{"apiVersion": "oobbundle.dev/v1", "kind": "Manifest", "metadata": {"name": "demo", "version": "1"},
"keys": {"maker": %q}, "verifyImages": [{"images": %q, "keys": ["maker"]}], "components": [{"name": "a", "images": [%q]}]}`,
					public, test.pattern, ref),
			)
			if err != nil {
				t.Fatal(err)
			}
			o := world.Options(t, m, world.NewKey(t), up)
			o.WithoutReferrers = test.without
			r, err := create.Run(t.Context(), o)
			if !test.good {
				if !errors.Is(err, bundle.ErrSignature) || !strings.Contains(err.Error(), "maker") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checks := r.Lock.Images[0].Checks
			if asked := test.pattern == "**"; asked != (len(checks) == 1 && strings.HasPrefix(checks[0], "cosign signature by maker")) {
				t.Errorf("the lock says %q", checks)
			}
			if test.without && len(r.Lock.Images[0].Referrers) > 0 {
				t.Error("the signature is carried")
			}
		})
	}
}
