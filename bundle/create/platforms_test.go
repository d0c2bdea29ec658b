package create_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// rawIndex pushes an index of images with the given platforms, and returns their digests.
// A platform is JSON; an empty string means no platform. A platform that starts with
// "@N " makes the entry a BuildKit attestation of entry N.
func rawIndex(t *testing.T, up *world.Registry, ref string, platforms ...string) (entries []bundle.Digest) {
	t.Helper()
	repo, tag, _ := strings.Cut(ref, ":")
	var list []string
	for i, p := range platforms {
		img := world.Image("linux/amd64", world.Layer(file(fmt.Sprint(ref, i))))
		up.Push(t, fmt.Sprintf("%s:entry%d", repo, i), img)
		d := descriptorOf(t, img)
		var about int
		annotations := ""
		if _, err := fmt.Sscanf(p, "@%d ", &about); err == nil {
			_, p, _ = strings.Cut(p, " ")
			of := bundle.DigestOf([]byte("nothing"))
			if about < len(entries) {
				of = entries[about]
			}
			annotations = fmt.Sprintf(`,"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":%q}`, of)
		}
		if p != "" {
			p = `,"platform":` + p
		}
		list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s%s}`, d.MediaType, d.Digest, d.Size, p, annotations))
		entries = append(entries, bundle.Digest(d.Digest.String()))
	}
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, bundle.TypeOCIIndex, strings.Join(list, ","))
	req, err := http.NewRequestWithContext(
		t.Context(), http.MethodPut,
		"http://"+up.Host+"/v2/"+repo+"/manifests/"+tag,
		bytes.NewReader([]byte(body)),
	)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", bundle.TypeOCIIndex)
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.Body.Close() != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("%v, %v", res, err)
	}
	return entries
}

func platformJSON(s string) string {
	parts := append(strings.Split(s, "/"), "")
	variant := ""
	if parts[2] != "" {
		variant = fmt.Sprintf(`,"variant":%q`, parts[2])
	}
	return fmt.Sprintf(`{"os":%q,"architecture":%q%s}`, parts[0], parts[1], variant)
}

// TestChoosePlatforms checks that the manifests that engines would choose are carried.
func TestChoosePlatforms(t *testing.T) {
	win := func(version string) string {
		return fmt.Sprintf(`{"os":"windows","architecture":"amd64","os.version":%q}`, version)
	}
	p := platformJSON
	for name, test := range map[string]struct {
		entries, asked []string
		manifests      []int // nil means the whole index
		company        []int
		class          error
		says           string
	}{
		"v6 for v7": {entries: []string{p("linux/amd64"), p("linux/arm/v6")}, asked: []string{"linux/arm/v7"}, manifests: []int{1}},
		"v5 for v7": {entries: []string{p("linux/amd64"), p("linux/arm/v5")}, asked: []string{"linux/arm"}, manifests: []int{1}},
		"the best of three": {
			entries: []string{p("linux/arm/v5"), p("linux/arm/v6"), p("linux/arm/v8")}, asked: []string{"linux/arm/v7"}, manifests: []int{1},
		},
		"the best comes last": {
			entries: []string{p("linux/arm/v5"), p("linux/arm/v6"), p("linux/arm/v7")}, asked: []string{"linux/arm/v7"}, manifests: []int{2},
		},
		"the best comes first": {
			entries: []string{p("linux/arm/v7"), p("linux/arm/v6"), p("linux/arm/v5")}, asked: []string{"linux/arm/v7"}, manifests: []int{0},
		},
		"no variant is v7": {entries: []string{p("linux/arm"), p("linux/arm/v6")}, asked: []string{"linux/arm/v7"}, manifests: []int{0}},
		"v7 not for v6": {
			entries: []string{p("linux/arm/v7"), p("linux/amd64")}, asked: []string{"linux/arm/v6"},
			class: bundle.ErrPolicy, says: "only for linux/arm/v7, linux/amd64",
		},
		"v7 for v8": {entries: []string{p("linux/arm/v7"), p("linux/amd64")}, asked: []string{"linux/arm/v8"}, manifests: []int{0}},
		"one for two": {
			entries: []string{p("linux/arm/v6"), p("linux/amd64")}, asked: []string{"linux/arm/v7", "linux/arm/v6"}, manifests: []int{0},
		},
		"arm64/v8":     {entries: []string{p("linux/amd64"), p("linux/arm64/v8")}, asked: []string{"linux/arm64"}, manifests: []int{1}},
		"arm64 for v9": {entries: []string{p("linux/amd64"), p("linux/arm64")}, asked: []string{"linux/arm64/v9"}, manifests: []int{1}},
		"amd64/v1 for v2": {
			entries: []string{p("linux/arm64"), p("linux/amd64/v1")}, asked: []string{"linux/amd64/v2"}, manifests: []int{1},
		},
		"amd64 for v3": {
			entries: []string{p("linux/amd64"), p("linux/amd64/v2"), p("linux/amd64/v4")}, asked: []string{"linux/amd64/v3"}, manifests: []int{1},
		},
		"amd64/v2 not for v1": {
			entries: []string{p("linux/amd64/v2"), p("linux/arm64")}, asked: []string{"linux/amd64"},
			class: bundle.ErrPolicy, says: "only for linux/amd64/v2",
		},
		"arm not for arm64": {
			entries: []string{p("linux/arm/v7"), p("linux/amd64")},
			asked:   []string{"linux/arm64"}, class: bundle.ErrPolicy, says: "none for linux/arm64",
		},
		"386 not for amd64": {
			entries: []string{p("linux/386"), p("linux/arm64")}, asked: []string{"linux/amd64"},
			class: bundle.ErrPolicy, says: "none for linux/amd64",
		},
		"other variants": {
			entries: []string{p("linux/mips/hardfloat"), p("linux/amd64")},
			asked:   []string{"linux/mips"}, class: bundle.ErrPolicy, says: "none for linux/mips",
		},
		"the first of two": {
			entries: []string{p("linux/amd64"), p("linux/amd64/v1"), p("linux/arm64")}, asked: []string{"linux/amd64"}, manifests: []int{0},
		},
		"an empty platform": {entries: []string{"{}"}, asked: []string{"linux/amd64"}},
		"empty platforms": {
			entries: []string{"{}", `{"os":"","architecture":""}`, p("unknown/unknown"), p("linux/unknown")}, asked: []string{"linux/amd64"},
		},
		"unknown alone":      {entries: []string{p("unknown/unknown")}, asked: []string{"linux/amd64"}},
		"attestations alone": {entries: []string{"@7 " + p("unknown/unknown"), "@7 " + p("unknown/unknown")}, asked: []string{"linux/amd64"}},
		"empty beside images": {
			entries: []string{p("linux/amd64"), p("linux/arm64"), "{}", p("unknown/unknown"), ""},
			asked:   []string{"linux/amd64"}, manifests: []int{0}, company: []int{2, 3, 4},
		},
		"attestations": {
			entries: []string{
				p("linux/amd64"), p("linux/arm64"), "@0 " + p("unknown/unknown"), "@1 " + p("unknown/unknown"), "@0 {}", "@1 {}", "@0 ",
			},
			asked: []string{"linux/amd64"}, manifests: []int{0}, company: []int{2, 4, 6},
		},
		"everything is asked": {entries: []string{p("linux/amd64"), "{}", "@0 " + p("unknown/unknown")}, asked: []string{"linux/amd64"}},
		"two versions": {
			entries: []string{p("linux/amd64"), win("10.0.17763.1"), win("10.0.20348.2")}, asked: []string{"windows/amd64"}, manifests: []int{1, 2},
		},
		"two versions, and all": {entries: []string{win("10.0.17763.1"), win("10.0.20348.2")}, asked: []string{"windows/amd64"}},
		"one version twice": {
			entries: []string{p("linux/amd64"), win("10.0.17763.1"), win("10.0.17763.1"), win("10.0.20348.2")},
			asked:   []string{"windows/amd64"}, manifests: []int{1, 3},
		},
		"features": {
			entries: []string{
				p("linux/amd64"), `{"os":"windows","architecture":"amd64","os.features":["win32k"]}`, `{"os":"windows","architecture":"amd64"}`,
			},
			asked: []string{"windows/amd64"}, manifests: []int{2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			up := world.NewRegistry(t, nil)
			entries := rawIndex(t, up, "team/app:1", test.entries...)
			o := world.Options(t, world.Manifest(t, "demo", up.Host+"/team/app:1"), world.NewKey(t), up)
			o.Platforms = nil
			for _, s := range test.asked {
				p, err := bundle.ParsePlatform(s)
				if err != nil {
					t.Fatal(err)
				}
				o.Platforms = append(o.Platforms, p)
			}
			r, err := create.Run(t.Context(), o)
			if test.class != nil {
				if !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, d, _ := read(t, r.Output)
			app := d.Images[0]
			want := []bundle.Digest{app.Digest}
			if test.manifests != nil {
				want = digests(entries, test.manifests)
			}
			if !slices.Equal(app.Manifests, want) || app.Partial != (test.manifests != nil) {
				t.Errorf("manifests %v, want %v; partial: %t", app.Manifests, want, app.Partial)
			}
			if want := digests(entries, test.company); !slices.Equal(app.Attestations, want) {
				t.Errorf("beside them %v, want %v", app.Attestations, want)
			}
		})
	}
}

func digests(all []bundle.Digest, which []int) (list []bundle.Digest) {
	for _, i := range which {
		list = append(list, all[i])
	}
	return list
}

// TestPlatformsOfOneBundle checks that images for different compatible variants fit into
// one bundle, both indexes and single images.
func TestPlatformsOfOneBundle(t *testing.T) {
	up := world.NewRegistry(t, nil)
	rawIndex(t, up, "team/old:1", platformJSON("linux/amd64"), platformJSON("linux/arm/v6"))
	rawIndex(t, up, "team/new:1", platformJSON("linux/amd64"), platformJSON("linux/arm/v7"))
	up.Push(t, "team/single:1", withVariant(t, world.Image("linux/arm", world.Layer(file("single"))), "v6"))
	m := world.Manifest(t, "demo", up.Host+"/team/old:1", up.Host+"/team/new:1", up.Host+"/team/single:1")
	o := world.Options(t, m, world.NewKey(t), up)
	o.Platforms = []bundle.Platform{{OS: "linux", Architecture: "arm", Variant: "v7"}}
	if _, d, _ := read(t, world.Create(t, o)); len(d.Images) != 3 {
		t.Errorf("%d images", len(d.Images))
	}
	o.Platforms[0].Variant = "v5"
	o.Output += ".v5"
	if _, err := create.Run(t.Context(), o); !errors.Is(err, bundle.ErrPolicy) {
		t.Errorf("v6 and v7 for v5: %v", err)
	}
}

func withVariant(t *testing.T, img v1.Image, variant string) v1.Image {
	t.Helper()
	return changedConfig(t, img, func(c *v1.ConfigFile) { c.Variant = variant })
}

// TestStrangeEntries checks that an index entry of an unsupported type is left out, and
// that the error names its type if the entry is the chosen image.
func TestStrangeEntries(t *testing.T) {
	const old = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	for name, test := range map[string]struct {
		strange int // which entry
		good    bool
	}{"the image": {0, false}, "another image": {1, true}, "an artifact": {2, true}} {
		t.Run(name, func(t *testing.T) {
			var entry bundle.Digest
			up := world.NewRegistry(t, served(func(h http.Header, body string) string {
				if !strings.Contains(body, `"manifests"`) || entry == "" {
					return body
				}
				h.Del("Docker-Content-Digest")
				before, after, _ := strings.Cut(body, string(entry))
				at := strings.LastIndex(before, bundle.TypeOCIManifest)
				return before[:at] + old + before[at+len(bundle.TypeOCIManifest):] + string(entry) + after
			}))
			entries := rawIndex(t, up, "team/app:1", platformJSON("linux/amd64"), platformJSON("linux/arm64"), "{}")
			entry = entries[test.strange]
			o := world.Options(t, world.Manifest(t, "demo", up.Host+"/team/app:1"), world.NewKey(t), up)
			_, err := create.Run(t.Context(), o)
			if test.good && err != nil || !test.good && (!errors.Is(err, remote.ErrRegistry) || !strings.Contains(err.Error(), old)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func changedConfig(t *testing.T, img v1.Image, change func(*v1.ConfigFile)) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	change(config)
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}
