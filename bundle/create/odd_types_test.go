package create_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/network"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// served rewrites a registry's answers to GET requests for manifests.
func served(change func(h http.Header, body string) string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !network.IsManifest(r) {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			body := rec.Body.String()
			if rec.Code == http.StatusOK {
				w.Header().Del("Content-Length")
				body = change(w.Header(), body)
			}
			w.WriteHeader(rec.Code)
			_, _ = io.WriteString(w, body)
		})
	}
}

// TestOddContentTypes checks that the mediaType in a manifest counts, whatever the
// Content-Type header is.
func TestOddContentTypes(t *testing.T) {
	image := world.Image("linux/amd64", world.Layer(file("a")))
	docker := world.DockerImage("linux/amd64", world.Layer(file("b")))
	index := world.Index(image, world.Image("linux/arm64", world.Layer(file("c"))))
	for _, contentType := range []string{
		"application/json", "application/json; charset=utf-8", "TEXT/PLAIN", "text/plain;charset=UTF-8", "application/octet-stream",
		"binary/octet-stream", "", "nonsense; ;=", "/", "application/vnd.oci.image.manifest.v1+json; charset",
	} {
		t.Run(contentType, func(t *testing.T) {
			up := world.NewRegistry(t, served(func(h http.Header, body string) string {
				h["Content-Type"] = nil
				if contentType != "" {
					h.Set("Content-Type", contentType)
				}
				return body
			}))
			var refs []string
			for name, what := range map[string]types.MediaType{
				"image": types.OCIManifestSchema1, "docker": types.DockerManifestSchema2, "index": types.OCIImageIndex,
			} {
				var ref string
				switch what {
				case types.OCIManifestSchema1:
					ref = up.Push(t, "team/"+name+":1", image)
				case types.DockerManifestSchema2:
					ref = up.Push(t, "team/"+name+":1", docker)
				default:
					ref = up.Push(t, "team/"+name+":1", index)
				}
				d := digestByHead(t, up.Host, "team/"+name)
				refs = append(refs, ref, up.Host+"/team/"+name+"@"+d)
			}
			o := world.Options(t, world.Manifest(t, "demo", refs...), world.NewKey(t), up)
			_, d, _ := read(t, world.Create(t, o))
			if len(d.Images) != len(refs) {
				t.Errorf("%d images", len(d.Images))
			}
		})
	}
}

func digestByHead(t *testing.T, host, repo string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+host+"/v2/"+repo+"/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, accept := range []string{bundle.TypeOCIIndex, bundle.TypeOCIManifest, bundle.TypeDockerManifest} {
		req.Header.Add("Accept", accept)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.Body.Close() != nil {
		t.Fatal(err)
	}
	return res.Header.Get("Docker-Content-Digest")
}

// TestManifestKinds checks which kinds of manifest are carried and which are refused.
func TestManifestKinds(t *testing.T) {
	config := []byte(`{"os":"linux","architecture":"amd64"}`)
	desc := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, bundle.TypeOCIConfig, bundle.DigestOf(config), len(config))
	schema1 := `{"schemaVersion":1,"name":"team/app","tag":"1","architecture":"amd64","fsLayers":[{"blobSum":"` + string(
		bundle.DigestOf(config),
	) + `"}],"history":[{"v1Compatibility":"{}"}]`
	signed := schema1 + `,"signatures":[{"header":{"jwk":{"crv":"P-256","kid":"x","kty":"EC","x":"a","y":"b"},"alg":"ES256"},` +
		`"signature":"s","protected":"p"}]}`
	schema1 += "}"
	const old = "Docker's schema 1"
	for name, test := range map[string]struct {
		contentType, body, says string
	}{
		"manifest without mediaType":          {"application/json", `{"schemaVersion":2,"config":` + desc + `,"layers":[]}`, ""},
		"no type at all":                      {"", `{"schemaVersion":2,"config":` + desc + `,"layers":[]}`, ""},
		"index without mediaType":             {"text/plain", `{"schemaVersion":2,"manifests":[]}`, ""},
		"index without mediaType, upper case": {"Application/Vnd.OCI.Image.Index.v1+JSON", `{"schemaVersion":2,"manifests":[]}`, ""},
		"both": {
			"application/json", `{"schemaVersion":2,"config":` + desc + `,"layers":[],"manifests":[]}`, "application/json",
		},
		"neither":                  {"application/json", `{"schemaVersion":2}`, "application/json"},
		"an error with status 200": {"application/json", `{"errors":[{"code":"DENIED"}]}`, "application/json"},
		"a web page":               {"application/json", `<html>`, "application/json"},
		"a list":                   {"application/json", `[]`, "application/json"},
		"the old artifact":         {"application/json", `{"mediaType":"` + artifactManifest + `","blobs":[]}`, artifactManifest},
		"two types": {
			bundle.TypeOCIManifest, `{"schemaVersion":2,"mediaType":"` + bundle.TypeOCIIndex + `","manifests":[]}`, "calls itself",
		},
		"schema 1":                  {"application/vnd.docker.distribution.manifest.v1+json", schema1, old},
		"schema 1, signed":          {"application/vnd.docker.distribution.manifest.v1+prettyjws", signed, old},
		"schema 1 as json":          {"application/json", schema1, old},
		"schema 1, signed, as json": {"application/json; charset=utf-8", signed, old},
		"schema 1, signed, as text": {"text/plain", signed, old},
		"schema 1 without a type":   {"", schema1, old},
		"schema 1 as schema 2":      {bundle.TypeDockerManifest, signed, old},
		"schema 1, upper case":      {"APPLICATION/VND.DOCKER.DISTRIBUTION.MANIFEST.V1+PRETTYJWS", signed, old},
	} {
		for _, by := range []string{"tag", "digest"} {
			t.Run(name+" by "+by, func(t *testing.T) {
				d := bundle.DigestOf([]byte(test.body))
				stated := string(d)
				if test.says == old { // its digest is that of the signed part
					stated = string(bundle.DigestOf([]byte(schema1)))
				}
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.URL.Path == "/v2/":
					case strings.HasSuffix(r.URL.Path, "/manifests/1"), strings.HasSuffix(r.URL.Path, "/manifests/"+stated):
						w.Header()["Content-Type"] = nil
						if test.contentType != "" {
							w.Header().Set("Content-Type", test.contentType)
						}
						w.Header().Set("Docker-Content-Digest", stated)
						_, _ = io.WriteString(w, test.body)
					case strings.HasSuffix(r.URL.Path, "/blobs/"+string(bundle.DigestOf(config))):
						_, _ = w.Write(config)
					default:
						w.WriteHeader(http.StatusNotFound)
					}
				}))
				defer s.Close()
				up := &world.Registry{Host: strings.TrimPrefix(s.URL, "http://")}
				ref := up.Host + "/team/app:1"
				if by == "digest" {
					ref = up.Host + "/team/app@" + stated
				}
				o := &oddRegistry{Registry: up}
				_, r, err := o.run(t, world.Options(t, world.Manifest(t, "demo", ref), world.NewKey(t)))
				if test.says != "" {
					if !errors.Is(err, remote.ErrRegistry) || !strings.Contains(err.Error(), test.says) {
						t.Errorf("got %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, got, _ := read(t, r.Output); got.Images[0].Digest != d {
					t.Errorf("it carries %s", got.Images[0].Digest)
				}
			})
		}
	}
}
