package record

import (
	"encoding/json"
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
		if err := c.document(json.NewDecoder(strings.NewReader(doc)), 0); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := count(`[{"name":"a","licenses":[{"license":{"id":"MIT"}},{"expression":"Apache-2.0"}],"components":[{"x":{"components":[{}]}},{"licenses":[]}]},{"licenses":[{"license":{"name":"Own"}}]}]`)
	if c.Packages != 4 || c.licenses["MIT AND Apache-2.0"] != 1 || c.licenses["Own"] != 1 || c.Unknown != 2 {
		t.Errorf("%d packages, %v, %d unknown", c.Packages, c.licenses, c.Unknown)
	}
	const depth = 5000
	if c := count(strings.Repeat(`[{"components":`, depth) + `[]` + strings.Repeat(`}]`, depth)); c.Packages > maxComponents+1 || c.Packages < maxComponents {
		t.Errorf("%d packages", c.Packages)
	}
}
