package create_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// packed returns a .tar.gz of empty files; a name with a trailing slash is a directory.
func packed(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, n := range names {
		kind := byte(tar.TypeReg)
		if strings.HasSuffix(n, "/") {
			kind = tar.TypeDir
		}
		if err := w.WriteHeader(&tar.Header{Name: n, Typeflag: kind, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHostFiles checks that create refuses files that a host could not install, also
// files from a URL with a pinned digest.
func TestHostFiles(t *testing.T) {
	archive := func(path, name string) string {
		return fmt.Sprintf(
			"      - {source: \"$WEB/%s\", path: %s, as: archive, sha256: \"$SHA(%s)\", size: $SIZE(%s)}\n",
			name, path, name, name,
		)
	}
	local := func(path string) string { return "      - {source: local.conf, path: " + path + "}\n" }
	const merge = "    host: [{merges: [{file: config.json, patch: p.json}]}]\n"
	patch := func(name string) string {
		return fmt.Sprintf("      - {source: \"$WEB/%s\", path: p.json, sha256: \"$SHA(%s)\", size: $SIZE(%s)}\n", name, name, name)
	}
	pages := map[string][]byte{
		"/good.tar.gz": packed(
			t,
			"top/",
			"top/a",
			"top/b/c",
		),
		"/both.tar.gz":  packed(t, "top/a", "top/a/b"),
		"/later.tar.gz": packed(t, "top/a/b", "top/a"),
		"/dir.tar.gz":   packed(t, "top/a", "top/a/"),
		"/case.tar.gz":  packed(t, "top/A/b", "top/a"),
		"/not.tar.gz":   []byte("not an archive"),
		"/good.json": []byte(
			`{"a": 1}`,
		),
		"/not.json":   []byte("a: 1"),
		"/two.json":   []byte(`{} {}`),
		"/cut.json":   []byte(`{"a": `),
		"/empty.json": {},
	}
	for name, x := range map[string]struct {
		files, host string
		works       bool
	}{
		"an archive":                        {archive("opt", "good.tar.gz"), "", true},
		"a file and a directory":            {archive("opt", "both.tar.gz"), "", false},
		"a directory and a file":            {archive("opt", "later.tar.gz"), "", false},
		"a directory as an entry":           {archive("opt", "dir.tar.gz"), "", false},
		"names that differ in case":         {archive("opt", "case.tar.gz"), "", false},
		"no archive":                        {archive("opt", "not.tar.gz"), "", false},
		"a file of the bundle in its place": {archive("opt", "good.tar.gz") + local("opt/top/a"), "", true},
		"a file where it has a directory":   {archive("opt", "good.tar.gz") + local("opt/top/b"), "", false},
		"a file below one of its files":     {archive("opt", "good.tar.gz") + local("opt/top/a/x"), "", false},
		"two archives in one place":         {archive("opt", "good.tar.gz") + archive("opt/top", "good.tar.gz"), "", true},
		"a patch":                           {patch("good.json"), merge, true},
		"a patch that is YAML":              {patch("not.json"), merge, false},
		"a patch of two documents":          {patch("two.json"), merge, false},
		"a patch that is cut":               {patch("cut.json"), merge, false},
		"an empty patch":                    {patch("empty.json"), merge, false},
		"a name of 300 bytes":               {local(strings.Repeat("n", 300)), "", false},
		"a file called runtime":             {local("runtime"), "", false},
		"a file that others may write":      {"      - {source: local.conf, path: x, mode: \"0666\"}\n", "", false},
		"a file that a group may write":     {"      - {source: local.conf, path: x, mode: \"0664\"}\n", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWeb(t, pages)
			text := "    files:\n" + x.files + x.host
			for page, data := range pages {
				n := page[1:]
				text = strings.ReplaceAll(text, "$SHA("+n+")", fmt.Sprintf("%x", sha256.Sum256(data)))
				text = strings.ReplaceAll(text, "$SIZE("+n+")", fmt.Sprint(len(data)))
			}
			_, err := create.Run(t.Context(), intake(t, s, text))
			if x.works && err != nil || !x.works && !errors.Is(err, manifests.ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, host := range map[string]string{
		"a merge over a directory":               "directories: [{path: config.json}], merges: [{file: config.json, patch: p.json}]",
		"a merge over a parent of a directory":   "directories: [{path: a/b}], merges: [{file: a, patch: p.json}]",
		"a merge below a merge":                  "merges: [{file: a, patch: p.json}, {file: a/b, patch: p.json}]",
		"a merge that others may write":          "merges: [{file: a, patch: p.json, mode: \"0666\"}]",
		"a password in the directory of plugins": "secrets: [{name: pw, length: 16}], plugins: \"pl-{{ .Secrets.pw }}\"",
		"a password in a health address":         "secrets: [{name: pw, length: 16}], health: [\"http://{{ .Secrets.pw }}\"]",
	} {
		text := "apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: demo, version: 1.0.0}\ncomponents:\n  - " +
			"name: all\n    files: [{source: p.json, path: p.json}]\n    host: [{" + host + "}]\n"
		m, err := manifests.Parse([]byte(text))
		if err == nil {
			_, err = create.Run(t.Context(), create.Options{Manifest: m})
		}
		if !errors.Is(err, manifests.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
