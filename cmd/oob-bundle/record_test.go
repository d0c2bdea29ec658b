package main

import (
	"encoding/json"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/record"
	"github.com/oob-bundle/oob-bundle/manifests"
)

var (
	style  = regexp.MustCompile(`(?s)<style>.*?</style>`)
	markup = regexp.MustCompile(`<[!/]?[A-Za-z][^>]*>`)
	spaces = regexp.MustCompile(`\s+`)
)

// squeezed removes white space, so that text with line breaks can be found.
func squeezed(s string) string { return spaces.ReplaceAllString(s, "") }

// pageText returns the text of a page, squeezed.
func pageText(page []byte) string {
	return squeezed(html.UnescapeString(markup.ReplaceAllString(style.ReplaceAllString(string(page), ""), " ")))
}

// collect calls found for every field of a JSON document whose name is in names.
func collect(v any, names map[string]bool, found func(name string, value any)) {
	switch x := v.(type) {
	case map[string]any:
		for k, child := range x {
			if names[k] {
				found(k, child)
			}
			collect(child, names, found)
		}
	case []any:
		for _, child := range x {
			collect(child, names, found)
		}
	}
}

func exampleSBOM(ref bundle.Reference) []byte {
	return fmt.Appendf(nil, `{"spdxVersion":"SPDX-2.3","name":%q}`, ref)
}

// TestRecordSaysAll: the page contains all names, digests and sizes of inspect --json, for a
// whole architecture.
func TestRecordSaysAll(t *testing.T) {
	s := newSite(t)
	s.up.SBOM = exampleSBOM
	s.stock("application", manifests.Choice{Deployment: "compose", Platforms: []bundle.Platform{{OS: "linux", Architecture: "amd64"}}})
	file, args := s.create("application", "--deployment", "compose", "--platform", "linux/amd64")
	s.must(args...)
	page := filepath.Join(s.dir, "page.html")
	data := s.must("inspect", file, "--json", "--html", page)
	sbom := regexp.MustCompile(`(?m)^  sbom      "docker\.io/library/postgres:[^"]+" "SPDX JSON" sha256:[0-9a-f]{64}$`)
	if text := s.must("inspect", file); !sbom.MatchString(text) {
		t.Errorf("inspect does not list the SBOM of postgres:\n%s", text)
	}
	var doc any
	if err := json.Unmarshal([]byte(data), &doc); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{page, record.FileName(file)} {
		html, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := pageText(html)
		n := 0
		names := map[string]bool{
			"reference":   true,
			"digest":      true,
			"archive":     true,
			"size":        true,
			"bytes":       true,
			"fileBytes":   true,
			"fingerprint": true,
			"id":          true,
			"version":     true,
			"path":        true,
			"mode":        true,
			"format":      true,
			"created":     true,
		}
		collect(doc, names, func(name string, value any) {
			want, ok := value.(string)
			if x, isNumber := value.(float64); isNumber {
				want, ok = commas(int64(x)), true
			}
			if n++; !ok || !strings.Contains(text, squeezed(want)) {
				t.Errorf("%s does not have the %s %v", path, name, value)
			}
		})
		if n < 100 {
			t.Errorf("only %d fields were compared", n)
		}
	}
}
