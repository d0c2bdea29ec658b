package pull

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// TestChartIndexForms checks that one index is read in all forms that YAML allows for it.
func TestChartIndexForms(t *testing.T) {
	const block = "apiVersion: v1\nentries:\n  api:\n  - name: api\n    version: 9.9.9\n    urls: [api.tgz]\n" +
		"  web:\n  - name: web\n    version: 1.2.3\n    digest: abc\n    urls:\n    - web-1.2.3.tgz\n  - name: web\n    " +
		"version: 1.10\n    urls: [web-1.10.tgz]\n" +
		"generated: \"2026-01-01T00:00:00Z\"\n"
	const list = `[{"name":"web","version":"1.2.3","digest":"abc","urls":["web-1.2.3.tgz"]},` +
		`{"name":"web","version":"1.10","urls":["web-1.10.tgz"]}]`
	replace := func(pairs ...string) string {
		out := strings.NewReplacer(pairs...).Replace(block)
		if out == block {
			t.Fatalf("%q changes nothing", pairs)
		}
		return out
	}
	for name, index := range map[string]string{
		"block style":           block,
		"JSON":                  `{"apiVersion":"v1","entries":{"api":[{"version":"9.9.9"}],"web":` + list + `},"generated":"x"}`,
		"JSON over lines":       "{\n\t\"apiVersion\": \"v1\",\n\t\"entries\": {\n\t\t\"api\": [],\n\t\t\"web\": " + list + "\n\t}\n}\n",
		"JSON with other types": `{"entries":{"api":{"urls":5},"web":` + list + `,"zero":null}}`,
		"JSON with escaped text": `{"entries":{"web":` +
			strings.ReplaceAll(list, `"name":`, `"description":"\ud83d\ude00 \/ \u007f","name":`) + `}}`,
		"JSON with numbers":     `{"entries":{"web":` + strings.ReplaceAll(list, `"1.10"`, "1.10") + `}}`,
		"JSON with a key twice": `{"entries":{"web":` + strings.ReplaceAll(list, `"name":`, `"version":"7","urls":["a"],"name":`) + `}}`,
		"JSON with a BOM":       "\ufeff" + `{"entries":{"web":` + list + `}}`,
		"JSON behind a marker":  "--- {\"entries\":{\"web\":" + list + "}}\n",
		"flow style": "{apiVersion: v1, entries: {api: [], web: [{version: 1.2.3, digest: abc, urls: " +
			"[web-1.2.3.tgz]}, {version: 1.10, urls: [web-1.10.tgz]}]}}",
		"entries in flow style":         "apiVersion: v1\nentries: {\"web\": " + list + "}\n",
		"entries in flow style, wide":   "apiVersion: v1\nentries: {\n\"api\": [\n],\n\"web\": " + list + "\n}\n",
		"a chart on one line":           "entries:\n  api: []\n  web: " + list + "\n",
		"a chart in braces at the edge": "entries:\n  api: [\n  ]\n  web: [\n  " + strings.Trim(list, "[]") + "\n  ]\n",
		"a list on the next line":       "entries:\n  web:\n    " + list + "\n",
		"versions on one line each": "entries:\n  web:\n  - {version: 1.2.3, digest: abc, urls: [web-1.2.3.tgz]}\n  - " +
			"{version: 1.10, urls: [web-1.10.tgz]}\n",
		"a double-quoted key":           replace("  web:", `  "web":`),
		"an escaped key":                replace("  web:", `  "\u0077eb" :`),
		"a single-quoted key":           replace("  web:", `  'web':`),
		"quoted entries":                replace("entries:", `"entries" : # all`),
		"comments":                      replace("  web:", "# x:\n  # web: [] \n  web: # the web\n      # y"),
		"comments that look like lists": replace("  web:", "  #- a\n  web:\n#  - version: 7\n  # - version: 8"),
		"CRLF":                          strings.ReplaceAll(block, "\n", "\r\n"),
		"CR":                            strings.ReplaceAll(block, "\n", "\r"),
		"a BOM":                         "\ufeff" + block,
		"a marker":                      "---\n" + block,
		"a directive":                   "%YAML 1.2\n---\n" + block,
		"a second document":             block + "---\nentries:\n  web: []\n",
		"an end and a second document":  block + "...\n---\nentries: {}\n",
		"deeper lists": replace(
			"\n  - name", "\n      - name", "\n    version", "\n        version",
			"\n    urls", "\n        urls", "\n    digest", "\n        digest", "\n    - web", "\n        - web",
		),
		"wide dashes": replace(
			"  - name: web\n    version", "  -   name: web\n      version", "\n    digest", "\n      digest",
			"\n    urls:\n    -", "\n      urls:\n      -", "\n    urls: [web-1.10", "\n      urls: [web-1.10",
		),
		"a dash alone":         replace("  - name: web", "  -\n    name: web"),
		"an indented document": "  " + strings.ReplaceAll(strings.TrimSuffix(block, "\n"), "\n", "\n  ") + "\n",
		"keys in one column": "entries:\n web:\n - {version: 1.2.3, digest: abc, urls: [web-1.2.3.tgz]}\n - " +
			"{version: 1.10, urls: [web-1.10.tgz]}\n api:\n - version: 1\n",
		"an alias of another chart": replace("  - name: api", "  - &a\n    name: api", "  web:", "  other:\n  - *a\n  web:"),
		"an alias in the chart":     replace("urls: [api.tgz]", "digest: &d abc", "digest: abc", "digest: *d"),
		"an anchor on the chart":    replace("  web:", "  web: &all"),
		"the chart as an alias":     strings.NewReplacer("  web:", "  base: &all", "generated:", "  web: *all\ngenerated:").Replace(block),
		"a merge": strings.NewReplacer(
			"entries:", "base: &all", "generated:", "entries:\n  <<: *all\n  other: []\ngenerated:",
		).Replace(block),
		"a complex key":  replace("  web:\n", "  ? web\n  :\n"),
		"a tag":          replace("  web:", "  web: !!seq"),
		"text with tabs": replace("digest: abc", "description: \"a\tb\"\n    digest: abc"),
		"tabs between":   replace("  web:", "  web:\t", "digest: abc", "digest:\tabc"),
		"text that looks like a chart": replace("    digest: abc", "    description: |\n      web:\n      - version: 7\n\n "+
			"      # x\n    digest: abc", "urls: [api.tgz]", "description: >-\n      entries:\n        web:\n        - version: 8"),
		"quoted text over lines": replace("    digest: abc", "    description: \"web:\n      - version: 7\n\n      "+
			"web: [\"\n    digest: abc", "urls: [api.tgz]", "description: 'it''s\n      web:\n      - version: 8'"),
		"plain text over lines":          replace("urls: [api.tgz]", "description: it\n      \"web: [ {\n      - web"),
		"a chart with other types":       replace("urls: [api.tgz]", "urls: 5"),
		"entries after others":           replace("apiVersion: v1", "apiVersion: v1\nextra:\n  web:\n  - version: 7\nmore: [\n  a ]"),
		"no last newline":                strings.TrimSuffix(strings.TrimSuffix(block, "\n"), "\ngenerated: \"2026-01-01T00:00:00Z\""),
		"an unknown field of odd shapes": replace("    digest: abc", "    ? more\n    : {c: [d]}\n    digest: abc"),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := chartEntries(strings.NewReader(index), "web")
			want := "[{1.2.3 [web-1.2.3.tgz] abc} {1.10 [web-1.10.tgz] }]"
			if err != nil || fmt.Sprint(got) != want {
				t.Errorf("got %v, %v in\n%s", got, err, index)
			}
			if got, err := chartEntries(strings.NewReader(index), "eb"); err != nil || len(got) > 0 {
				t.Errorf("another chart has %v, %v", got, err)
			}
		})
	}
}

// TestBadChartIndex checks that an invalid index is refused, and not read as empty.
func TestBadChartIndex(t *testing.T) {
	for name, index := range map[string]string{
		"a web page":           "<html><body>sign in</body></html>",
		"a text":               "not found",
		"a list":               "- a\n- b\n",
		"entries are a list":   "entries:\n- web\n",
		"a deeper list":        "entries:\n  - web\n",
		"cut JSON":             `{"entries":{"web":[{"version":"1"}]`,
		"cut flow style":       "entries: {web: [",
		"the chart is a text":  "entries:\n  web: 1.0.0\n",
		"the chart is a map":   "entries:\n  web:\n    version: 1.0.0\n",
		"JSON of another type": `{"entries":{"web":[{"version":"1","urls":5}]}}`,
		"an unknown alias":     "entries:\n  web:\n  - version: *x\n",
		"bad indentation":      "entries:\n    api: []\n  web: []\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := chartEntries(strings.NewReader(index), "web"); !errors.Is(err, bundle.ErrFormat) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// writeIndex writes an index with many versions of three charts. It has 40 MB, like the
// indexes of the largest repositories.
func writeIndex(t *testing.T, json bool) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "index.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	var b bytes.Buffer
	about := strings.Repeat("lorem ipsum ", 250)
	if json {
		b.WriteString(`{"apiVersion":"v1","entries":{`)
	} else {
		b.WriteString("apiVersion: v1\nentries:\n")
	}
	for i, chart := range []string{"api", "web", "zzz"} {
		if json {
			b.WriteString(strings.Repeat(",", min(i, 1)) + `"` + chart + `":[`)
		} else {
			b.WriteString("  " + chart + ":\n")
		}
		for n := range 4000 {
			if json {
				fmt.Fprintf(
					&b,
					`%s{"name":%q,"version":"1.0.%d","description":%q,"keywords":["a","b"],"urls":["%s-1.0.%d.tgz"]}`,
					strings.Repeat(",", min(n, 1)), chart, n, about, chart, n,
				)
			} else {
				fmt.Fprintf(
					&b,
					"  - name: %s\n    version: 1.0.%d\n    description: |\n      %s\n    keywords:\n    - a\n    - b\n    urls:\n    - %s-1.0.%d.tgz\n",
					chart, n, about, chart, n,
				)
			}
		}
		b.WriteString(strings.Repeat("]", map[bool]int{true: 1}[json]))
		if _, err := b.WriteTo(f); err != nil {
			t.Fatal(err)
		}
	}
	if json {
		b.WriteString("}}")
		if _, err := b.WriteTo(f); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// TestLargeChartIndex checks that skipped data counts against no limit and takes no memory.
func TestLargeChartIndex(t *testing.T) {
	for _, json := range []bool{false, true} {
		f := writeIndex(t, json)
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC() // drops the garbage of earlier tests
		stop, peak := make(chan bool), make(chan uint64)
		go func() {
			var m runtime.MemStats
			var most uint64
			for {
				select {
				case <-stop:
					peak <- most
					return
				case <-time.After(5 * time.Millisecond):
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapInuse)
				}
			}
		}()
		list, err := chartEntries(f, "web")
		stop <- true
		most := <-peak
		if err != nil || len(list) != 4000 || list[3999].Version != "1.0.3999" || len(list[7].URLs) != 1 {
			t.Fatalf("JSON %v: %d versions, %v", json, len(list), err)
		}
		t.Logf("JSON %v: %d MB, %d MiB of heap", json, size/1e6, most>>20)
		if most > 56<<20 {
			t.Errorf("JSON %v: it took %d MiB", json, most>>20)
		}
	}
}

// TestLargeChartVersion checks that a version in JSON is not decoded as a whole.
func TestLargeChartVersion(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"entries":{"web":[{"version":"1.2.3","urls":["web.tgz"`)
	b.WriteString(strings.Repeat(`,"x"`, 1<<20))
	b.WriteString(`],"annotations":{"0":"x"`)
	for n := range 500_000 {
		fmt.Fprintf(&b, `,"k%d":"v"`, n)
	}
	b.WriteString("}}]}}")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	list, err := chartEntries(strings.NewReader(b.String()), "web")
	runtime.ReadMemStats(&after)
	if err != nil || fmt.Sprint(list) != "[{1.2.3 [web.tgz] }]" {
		t.Fatal(list, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
		t.Errorf("it took %d MiB", took>>20)
	}
}
