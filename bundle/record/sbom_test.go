package record

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
)

func TestSBOMFormat(t *testing.T) {
	annotated := func(mediaType, key, value string) bundle.Descriptor {
		return bundle.Descriptor{MediaType: mediaType, Annotations: map[string]string{key: value}}
	}
	typed := func(mediaType string) bundle.Descriptor { return bundle.Descriptor{MediaType: mediaType} }
	const inToto, dsse = "application/vnd.in-toto+json", "application/vnd.dsse.envelope.v1+json"
	const sigstore = "application/vnd.dev.sigstore.bundle.v0.3+json"
	for name, c := range map[string]struct {
		manifest bundle.Manifest
		layer    bundle.Descriptor
		tag      string
		want     string
	}{
		"SPDX":                       {layer: typed("application/spdx+json"), want: "SPDX JSON"},
		"SPDX by cosign":             {layer: typed("text/spdx+json"), tag: "sha256-0.sbom", want: "SPDX JSON"},
		"SPDX as text":               {layer: typed("text/spdx"), want: "SPDX tag-value"},
		"SPDX as XML":                {layer: typed("text/spdx+xml"), want: "SPDX XML"},
		"CycloneDX":                  {layer: typed("application/vnd.cyclonedx+json"), want: "CycloneDX JSON"},
		"CycloneDX in capitals":      {layer: typed("application/vnd.CycloneDX+XML"), want: "CycloneDX XML"},
		"CycloneDX without encoding": {layer: typed("application/vnd.cyclonedx"), want: "CycloneDX"},
		"Syft":                       {layer: typed("application/vnd.syft+json"), want: "Syft JSON"},
		"artifact type": {
			manifest: bundle.Manifest{ArtifactType: "application/spdx+json"}, layer: typed("application/octet-stream"), want: "SPDX JSON",
		},
		"artifact type without JSON": {
			manifest: bundle.Manifest{ArtifactType: "sbom/cyclonedx"}, layer: typed("application/json"), want: "CycloneDX JSON",
		},
		"BuildKit": {layer: annotated(inToto, "in-toto.io/predicate-type", "https://spdx.dev/Document"), want: "SPDX JSON"},
		"cosign attest": {
			layer: annotated(dsse, "predicateType", "https://cyclonedx.org/bom"), tag: "sha256-0.att", want: "CycloneDX JSON",
		},
		"sigstore bundle": {
			manifest: bundle.Manifest{
				ArtifactType: sigstore, Annotations: map[string]string{"dev.sigstore.bundle.predicateType": "https://spdx.dev/Document/v2.3"},
			},
			layer: typed(sigstore), want: "SPDX JSON",
		},
		"other format under the tag": {layer: typed("text/plain"), tag: "sha256-0.sbom", want: "text/plain"},
		"provenance":                 {layer: annotated(inToto, "in-toto.io/predicate-type", "https://slsa.dev/provenance/v1")},
		"statement of unknown type":  {layer: typed(inToto), tag: "sha256-0.att"},
		"signature":                  {layer: typed("application/vnd.dev.cosign.simplesigning.v1+json"), tag: "sha256-0.sig"},
		"file system":                {layer: typed("application/vnd.oci.image.layer.v1.tar+gzip")},
	} {
		if got := sbomFormat(&c.manifest, c.layer, c.tag); got != c.want {
			t.Errorf("%s: %q instead of %q", name, got, c.want)
		}
	}
}

func TestOwnSBOM(t *testing.T) {
	own := ownSBOM{}
	const doc = `{"a":[1],"components":[{},{"hashes":[]},{"name":"n","hashes":[{"content":"c"}],` +
		`"properties":[{"name":"oobbundle:check","value":"v"},{"name":"oobbundle:source","value":"s"}]}],"b":{}}`
	if err := own.read([]byte(doc)); err != nil || len(own) != 1 {
		t.Errorf("%v %v", own, err)
	}
	if got := own.of("sha256:c", "n"); len(got.checks) != 1 || got.checks[0] != "v" || got.source != "s" {
		t.Errorf("%v", got)
	}
	for _, doc := range []string{
		"", "null", "[]", `{`, `{"components":{}}`, `{"components":[1]}`, `{"components":[{}`, `{"a":`, `{"components":[{"name":{}}]}`,
	} {
		if err := (ownSBOM{}).read([]byte(doc)); err == nil {
			t.Errorf("%s was read", doc)
		}
	}
}

// TestCostlyDocuments checks that reading a hostile SBOM of 8 MiB allocates at most
// 256 MiB in total.
func TestCostlyDocuments(t *testing.T) {
	for name, doc := range map[string][]byte{
		"lists in lists":        append([]byte(`{"x":`), bytes.Repeat([]byte("["), maxOwn)...),
		"a text":                fmt.Appendf(nil, `{"x":%q}`, strings.Repeat("a", maxOwn)),
		"a name":                fmt.Appendf(nil, `{%q:1}`, strings.Repeat("a", maxOwn)),
		"components of nothing": fmt.Appendf(nil, `{"components":[%s{}]}`, strings.Repeat("{},", maxOwn/3)),
		"one large component":   fmt.Appendf(nil, `{"components":[{"properties":[%s{}]}]}`, strings.Repeat("{},", maxOwn/3)),
		"components of one MiB": fmt.Appendf(
			nil, `{"components":[%s{}]}`, strings.Repeat(`{"hashes":[`+strings.Repeat("{},", maxComponent/3-100)+"{}]},", 7),
		),
		"lists in components":    append([]byte(`{"components":[`), bytes.Repeat([]byte("["), maxOwn)...),
		"a component of nothing": append([]byte(`{"components":[`), bytes.Repeat([]byte(" "), maxOwn)...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = (ownSBOM{}).read(doc) // some of them are well-formed
		runtime.ReadMemStats(&after)
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 32*maxOwn {
			t.Errorf("%s: %d MiB", name, cost>>20)
		}
	}
}
