package record

import (
	"io"
	"runtime"
	"strings"
	"testing"
)

// TestNestedComponents: each component of a CycloneDX document counts once, however
// they are nested; what is nested beyond reason is passed over, one token at a time.
func TestNestedComponents(t *testing.T) {
	count := func(components string) *counter {
		t.Helper()
		c := &counter{SBOM: &SBOM{}, licenses: map[string]int{}}
		doc := `{"bomFormat":"CycloneDX","specVersion":"1.6","components":` + components + `}`
		if err := c.document(newDecoder(strings.NewReader(doc)), 0); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := count(`[{"name":"a","licenses":[{"license":{"id":"MIT"}},{"expression":"Apache-2.0"}],"components":[{"x":{"components":[{}]}},{"licenses":[]}]},{"licenses":[{"license":{"name":"Own"}}]}]`)
	if c.Packages != 4 || c.licenses["MIT AND Apache-2.0"] != 1 || c.licenses["Own"] != 1 || c.Unknown != 2 {
		t.Errorf("%d packages, %v, %d unknown", c.Packages, c.licenses, c.Unknown)
	}
	const depth = 400
	if c := count(strings.Repeat(`[{"components":`, depth) + `[]` + strings.Repeat(`}]`, depth)); c.Packages > maxComponents+1 || c.Packages < maxComponents {
		t.Errorf("%d packages", c.Packages)
	}
}

// TestCostlyDocuments: 32 MiB that nobody has signed cost no more than what one value may
// have.
func TestCostlyDocuments(t *testing.T) {
	const size = 32 << 20
	for name, doc := range map[string]io.Reader{
		"lists in lists":      strings.NewReader(`{"x":` + strings.Repeat("[", size)),
		"packages in lists":   strings.NewReader(`{"packages":[` + strings.Repeat("[", size)),
		"a licence of words":  strings.NewReader(`{"spdxVersion":"SPDX-2.3","packages":[{"licenseDeclared":"` + strings.Repeat("a ", size/2) + `"}]}`),
		"a text":              strings.NewReader(`{"x":"` + strings.Repeat("a", size) + `"}`),
		"a name":              strings.NewReader(`{"` + strings.Repeat("a", size) + `":1}`),
		"components in lists": strings.NewReader(`{"components":[{"licenses":` + strings.Repeat("[", size)),
		"nothing":             strings.NewReader(strings.Repeat(" ", size)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c := &counter{SBOM: &SBOM{}, licenses: map[string]int{}}
		err := c.document(newDecoder(doc), 0)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: it was read", name)
		}
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 8*maxValue {
			t.Errorf("%s: %d MiB", name, cost>>20)
		}
	}
	own := ownSBOM{}
	if err := components(newDecoder(strings.NewReader(`{"a":[1],"components":[{},{"hashes":[]},{"name":"n","hashes":[{"content":"c"}],"properties":[{"name":"oobbundle:check","value":"v"}]}],"b":{}}`)), own); err != nil || len(own) != 1 {
		t.Errorf("%v %v", own, err)
	}
	if own := own.of("sha256:c", "n"); len(own.checks) != 1 || own.checks[0] != "v" {
		t.Errorf("%v", own)
	}
}
