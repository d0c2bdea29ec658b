package record

import (
	"errors"
	"flag"
	"html"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
)

var update = flag.Bool("update", false, "write the golden files anew")

func digest(s string) bundle.Digest { return bundle.DigestOf([]byte(s)) }

// full returns a page with all kinds of content.
func full() Page {
	return Page{
		File:    "demo.oob.tar",
		Volumes: []Volume{{"demo.oob.tar.001", 4_000_000}, {"demo.oob.tar.002", 1_234_567}},
		Summary: &Summary{
			Bundle: About{
				digest("root"),
				"demo",
				"1.2.3",
				"demo/linux/amd64",
				1767323045,
				"2026-01-02T03:04:05Z",
				[]string{"linux/amd64", "linux/arm64"},
			},
			Signatures: []Signature{
				{Fingerprint: "SHA256:ufyFB0U3mCfkzDdBSZrlZVFFskf6WNhqLLs7lrblvyE"},
				{Fingerprint: "SHA256:OWp++srYjrDdi2CdCB97tx6rwZk02/NE0wU3hB4n+Vg"},
			},
			Images: []Image{
				{
					Reference: "registry.example.com/team/web:2",
					Digest:    digest("web"),
					Partial:   true,
					Kind:      KindImage,
					Size:      3_000_000,
					Shared:    1_000_000,
					Manifests: []Manifest{
						{"linux/amd64", digest("web amd64"), 1_500_000}, {"linux/arm64", digest("web arm64"), 1_500_000},
					},
					Checks:   []string{"cosign signature by maker"},
					Evidence: []Evidence{{digest("attestation"), "application/vnd.in-toto+json", 2_345}},
				},
				{
					Reference: "docker.io/library/postgres:17",
					Digest:    digest("postgres"),
					Kind:      KindImage,
					Size:      2_000_000,
					Shared:    1_000_000,
					Manifests: []Manifest{{"linux/amd64", digest("postgres"), 2_000_000}},
				},
				{
					Reference: "registry.example.com/team/web:sha256-" + digest("web").Hex() + ".sig",
					Digest:    digest("sig"),
					Kind:      KindEvidence,
					Size:      881,
					Manifests: []Manifest{{"", digest("sig"), 881}},
				},
				{
					Reference: "charts.example.com/acme:1.0.0",
					Digest:    digest("chart"),
					Kind:      KindChart,
					Size:      12_000,
					Manifests: []Manifest{{"", digest("chart"), 12_000}},
				},
			},
			Deployment: "compose",
			Components: []bundle.Component{
				{Name: "web", Images: []string{"registry.example.com/team/web:2"}, Plugins: []string{"com.example.acme"}},
				{Name: "database"},
			},
			Charts: []Chart{
				{
					bundle.Chart{
						Name:       "acme",
						Version:    "1.0.0",
						Repository: "https://charts.example.com",
						Reference:  "charts.example.com/acme:1.0.0",
						Digest:     digest("tgz"),
					},
					11_000,
					[]string{"digest of the repository's index"},
				},
			},
			Plugins: []Plugin{
				{
					bundle.Plugin{
						ID:        "com.example.acme",
						Version:   "3.1.0",
						Name:      "acme-3.1.0.tar.gz",
						Archive:   digest("plugin"),
						Signature: digest("plugin.sig"),
						Key:       digest("key"),
					},
					98_765,
					"https://example.com/acme-3.1.0.tar.gz",
					[]string{"OpenPGP signature by 1234ABCD"},
				},
			},
			Files: []File{
				{
					bundle.HostFile{Path: "etc/nginx.conf", Mode: "0644", As: bundle.AsTemplate, Digest: digest("nginx.conf"), Size: 432},
					"nginx.conf",
					[]string{"file of the author's"},
				},
			},
			Blobs:     17,
			Bytes:     5_123_456,
			FileBytes: 5_234_567,
			Shares:    Shares{Images: 4_000_000, Shared: 1_000_000, Charts: 12_000, Plugins: 99_000, Files: 456, Evidence: 4_000, Documents: 8_000},
			SBOMs: []SBOM{
				{Digest: digest("own"), Size: 4_321, Format: "CycloneDX JSON"},
				{Of: "registry.example.com/team/web:2", Digest: digest("spdx"), Size: 54_321, Format: "SPDX JSON"},
				{Of: "docker.io/library/postgres:17", Digest: digest("odd"), Size: 1, Format: "text/plain"},
			},
			Host: &bundle.Host{
				Values:  []bundle.Value{{Name: "domain"}},
				Secrets: []bundle.Secret{{Name: "database", Length: 32}},
				Directories: []bundle.Directory{
					{Path: "web/data", Owner: "101:101", Mode: "0750"},
					{Path: "web/log"},
				},
				Merges: []bundle.Merge{{File: "web/config.json", Patch: "patch.json"}},
				Links:  []bundle.Link{{Path: "/etc/systemd/system/web.service", File: "web.service", If: "systemd"}},
			},
			Changes: &Changes{
				Against: About{
					digest("old"),
					"demo",
					"1.2.2",
					"demo/linux/amd64",
					1767000000,
					"2025-12-29T09:20:00Z",
					[]string{"linux/amd64"},
				},
				NewBytes: 1_234_567,
				Same:     4,
				Images: []Change{
					{
						What:     Changed,
						Name:     "registry.example.com/team/web:2",
						Was:      "registry.example.com/team/web:1",
						Old:      digest("web 1"),
						New:      digest("web"),
						NewBytes: 1_200_000,
					},
					{What: Removed, Name: "registry.example.com/team/gone:1", Old: digest("gone")},
				},
				Plugins: []Change{
					{
						What:     Changed,
						Name:     "com.example.acme",
						Was:      "3.0.0",
						Now:      "3.1.0",
						Old:      digest("plugin 3.0"),
						New:      digest("plugin"),
						NewBytes: 34_567,
					},
				},
				Files: []Change{{What: Added, Name: "etc/nginx.conf", Now: "mode 0644", New: digest("nginx.conf"), NewBytes: 432}},
			},
		},
	}
}

func made() Page {
	p := full()
	p.Volumes, p.Changes, p.Signatures = nil, nil, p.Signatures[:1]
	p.Made = &Made{
		Program: "1.0.0",
		Key:     "oob.key",
		Public:  "oob.pub",
		Beside:  []Beside{{"oob-bundle_linux-amd64", "oob-bundle 1.0.0 for linux/amd64", 41_000_000, digest("program")}},
	}
	return p
}

func render(t *testing.T, p Page) string {
	t.Helper()
	data, err := p.HTML()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestGolden compares the pages with the golden files, and checks that output is repeatable.
func TestGolden(t *testing.T) {
	for name, p := range map[string]Page{"inspected.html": full(), "made.html": made()} {
		path := filepath.Join("testdata", name)
		got := render(t, p)
		if *update {
			if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || string(want) != got {
			t.Errorf("%s is not what is printed (go test ./bundle/record -update): %v", path, err)
		}
		if again := render(t, p); again != got {
			t.Errorf("%s comes out differently a second time", name)
		}
	}
}

func TestSaysWhoVouches(t *testing.T) {
	inspected, made := render(t, full()), render(t, made())
	for _, want := range []string{"UNVERIFIED", "claimed, not checked", "sed -n 2p", "cat demo.oob.tar.[0-9][0-9][0-9] | tar"} {
		if !strings.Contains(html.UnescapeString(inspected), want) {
			t.Errorf("what inspect prints does not say %q", want)
		}
	}
	for _, want := range []string{"WRITTEN WHERE THE BUNDLE WAS MADE", "oob.key", "cosign verify-blob --key oob.pub " +
		"--bundle s.json --insecure-ignore-tlog index.json", "tar -xOf demo.oob.tar index.json >index.json"} {
		if !strings.Contains(html.UnescapeString(made), want) {
			t.Errorf("what create prints does not say %q", want)
		}
	}
	if strings.Contains(made, "UNVERIFIED") || strings.Contains(made, "claim") {
		t.Error("the builder does not know its own key")
	}
}

var (
	tag       = regexp.MustCompile(`<[!/]?[A-Za-z][^>]*>`)
	attribute = regexp.MustCompile(`(?i)\b(src|srcset|href|xlink:href|data|action|formaction|poster|background|on[a-z]+)\s*=`)
	fetches   = regexp.MustCompile(`(?i)@import|url\(\s*[^#\s]`)
)

// TestSelfContained checks that a page has no scripts and no external resources, and has a
// policy that forbids them.
func TestSelfContained(t *testing.T) {
	for _, p := range []Page{full(), made()} {
		page := render(t, p)
		for _, x := range tag.FindAllString(page, -1) {
			if attribute.MatchString(x) && !strings.HasPrefix(x, "<meta") {
				t.Errorf("%s refers to something", x)
			}
			if name := strings.ToLower(
				strings.Trim(x, "</>"),
			); strings.HasPrefix(name, "script") || strings.HasPrefix(name, "link") || strings.HasPrefix(name, "iframe") ||
				strings.HasPrefix(name, "img") {
				t.Errorf("%s is not for paper", x)
			}
		}
		if found := fetches.FindString(page); found != "" {
			t.Errorf("the style fetches: %s", found)
		}
		if !strings.Contains(
			page,
			`<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">`,
		) {
			t.Error("the policy is missing")
		}
	}
}

// hostile is the text that TestHostile puts into every field of a page.
const hostile = "\"'><script>alert(1)</script><img src=x " +
	"onerror=alert(1)>\u202egnp.exe\u2066\x1b[31m\x00\r\n\u200b\u0301</style>`${{.}}--> \xff"

// TestHostile checks that a page with hostile texts shows them in full, and that they
// have no effect.
func TestHostile(t *testing.T) {
	plain := full()
	p := plant(reflect.ValueOf(plain), hostile).Interface().(Page)
	page := render(t, p)
	harmless := render(t, plant(reflect.ValueOf(plain), "harmless").Interface().(Page))
	if a, b := len(tag.FindAllString(page, -1)), len(tag.FindAllString(harmless, -1)); a != b {
		t.Errorf("%d tags, and %d with harmless texts", a, b)
	}
	for _, bad := range []string{"<script", "<img", "\u202e", "\u2066", "\x1b", "\x00", "\r", "\u200b", "\u0301", "\ufffd"} {
		if strings.Contains(page, bad) {
			t.Errorf("%q came through", bad)
		}
	}
	shown := html.UnescapeString(page)
	if n := strings.Count(shown, "alert(1)</script>"); n < 40 {
		t.Errorf("it is shown %d times only", n)
	}
	for _, want := range []string{"[U+202E]", "[U+001B]", "[U+0000]", "[U+200B]", "[U+000A]"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%s is not shown", want)
		}
	}
}

// plant returns a copy of v with text in every string but digests and fields named Kind.
func plant(v reflect.Value, text string) reflect.Value {
	switch v.Kind() {
	case reflect.String:
		if v.Type() == reflect.TypeFor[bundle.Digest]() {
			return v
		}
		return reflect.ValueOf(text).Convert(v.Type())
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		out := reflect.New(v.Type().Elem())
		out.Elem().Set(plant(v.Elem(), text))
		return out
	case reflect.Slice:
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(plant(v.Index(i), text))
		}
		return out
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "Kind" {
				out.Field(i).Set(plant(v.Field(i), text))
			}
		}
		return out
	}
	return v
}

// TestEmpty checks that an empty bundle has a page.
func TestEmpty(t *testing.T) {
	page := render(t, Page{File: "x", Summary: &Summary{Bundle: About{Digest: digest("")}}})
	if !strings.Contains(page, "nothing of its own") {
		t.Error(page)
	}
}

func TestReplaceable(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "page.html")
	if err := Replaceable(path); err != nil {
		t.Errorf("nothing is there: %v", err)
	}
	for text, want := range map[string]error{
		render(t, full()): nil, "": fs.ErrExist, "<!doctype html>\n<p>mine": fs.ErrExist, strings.Repeat("x", 1000): fs.ErrExist,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Replaceable(path); !errors.Is(err, want) {
			t.Errorf("over %.20q: %v", text, err)
		}
	}
	if err := Replaceable(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a directory: %v", err)
	}
}

func TestNumbers(t *testing.T) {
	for got, want := range map[string]string{
		megabytes(3_904_118_272): "3,904.1 MB", megabytes(49_999): "0.0 MB", megabytes(1_950_000): "2.0 MB",
		percent(1, 3): "33.3 %", percent(1, 1e6): "< 0.1 %", percent(0, 5): "0 %", percent(1, 0): "0 %", Commas(-1234): "-1,234",
	} {
		if got != want {
			t.Errorf("%s instead of %s", got, want)
		}
	}
}
