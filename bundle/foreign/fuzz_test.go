package foreign

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestSeeds checks the number of seeds of the fuzz target, and whether each seed is accepted.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzWalk")
	seeds.Count(t, "FuzzWalk", walkSeeds(t), 5, 21, 0, fuzzWalk)
}

// plain returns an uncompressed tar.
func plain(tb testing.TB, headers ...tar.Header) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func walkSeeds(tb testing.TB) seeds.Of[[]byte] {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 3} }
	dir := tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}
	good := plain(tb, dir, file("d/a"), file("d/b"))
	link := func(kind byte) []byte {
		return plain(tb, dir, tar.Header{Typeflag: kind, Name: "d/l", Linkname: "d/a"})
	}
	setuid := file("a")
	setuid.Mode = 0o4755
	pax := file("d/" + strings.Repeat("n", 200))
	pax.PAXRecords = map[string]string{"X.y": "z"}
	retyped := func(kind byte) []byte { // archive/tar does not write such types
		out := plain(tb, file("a"))
		old := int(out[156])
		out[156] = kind
		var sum int
		if _, err := fmt.Sscanf(string(out[148:154]), "%o", &sum); err != nil {
			tb.Fatal(err)
		}
		copy(out[148:154], fmt.Sprintf("%06o", sum-old+int(kind)))
		return out
	}
	return seeds.Of[[]byte]{
		Taken: [][]byte{
			good, plain(tb), plain(tb, file("./a")), plain(tb, pax), good[:len(good)-1024],
		}, // the last one has no tar end; the gzip checksum covers it
		Refused: [][]byte{
			link(tar.TypeSymlink), link(tar.TypeLink), link(tar.TypeFifo), link(tar.TypeChar),
			plain(
				tb, file("../a"),
			),
			plain(tb, file("/a")), plain(tb, file("a//b")), plain(tb, file("a/../../b")),
			plain(tb, file(`a\b`)),
			plain(tb, file("C:a")), plain(tb, file("a\nb")), plain(tb, file(strings.Repeat("n", 256))),
			plain(tb, setuid), plain(tb, file("a"), file("A")), good[:700], good[:1025], append(bytes.Clone(good), 'x'),
			append(bytes.Clone(good[:len(good)-1024]), bytes.Repeat([]byte{1}, 512)...),
			retyped('S'), retyped('Z'),
			[]byte("<html>"),
		},
	}
}

// FuzzWalk: the visited entries are those that archive/tar reads, can be written below a
// directory and nowhere else, and are within the limits. The input is an uncompressed tar. It
// is compressed here, because no mutation survives a checksum.
func FuzzWalk(f *testing.F) {
	for _, s := range walkSeeds(f).All() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) { fuzzWalk(t, data) })
}

func fuzzWalk(t *testing.T, data []byte) bool {
	packed := seeds.Gzip(data)
	var entries []Entry
	var contents [][]byte
	total := int64(0)
	err := Walk(t.Context(), bytes.NewReader(packed), int64(len(packed)), func(e Entry) error {
		content := []byte(nil)
		if !e.Dir {
			r, err := e.Open()
			if err != nil {
				return err
			}
			if content, err = io.ReadAll(r); err != nil {
				return err
			}
			if int64(len(content)) != e.Size {
				t.Fatalf("%q has %d bytes, and %d were announced", e.Name, len(content), e.Size)
			}
			if err := r.Close(); err != nil {
				return err
			}
		}
		total += e.Size
		entries, contents = append(entries, e), append(contents, content)
		return nil
	})
	names := map[string]bool{}
	for _, e := range entries { // also of an archive that is refused later
		low := strings.ToLower(e.Name)
		if !fs.ValidPath(e.Name) || !filepath.IsLocal(e.Name) || len(e.Name) > maxEntryName || e.Mode&^0o777 != 0 || e.Size < 0 ||
			!e.Dir && names[low] {
			t.Fatalf("shown: %+v", e)
		}
		names[low] = names[low] || !e.Dir
	}
	if total > maxUnpacked || len(entries) > maxEntries {
		t.Fatalf("%d entries with %d bytes", len(entries), total)
	}
	if err != nil {
		if errors.Is(err, bundle.ErrFormat) == errors.Is(err, bundle.ErrLimit) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	sameTar(t, data, entries, contents)
	return true
}

// sameTar compares the visited entries with those that archive/tar reads.
func sameTar(t *testing.T, data []byte, entries []Entry, contents [][]byte) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(data))
	for i := 0; ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if i != len(entries) {
				t.Fatalf("archive/tar reads %d entries of %d", i, len(entries))
			}
			return
		}
		if err != nil {
			t.Fatalf("taken, and archive/tar says %v", err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		if h.Typeflag == tar.TypeDir && (name == "" || name == ".") || h.Typeflag == tar.TypeXGlobalHeader { // Walk ignores global headers
			continue
		}
		if i == len(entries) {
			t.Fatalf("%q was not shown", h.Name)
		}
		content, err := io.ReadAll(r)
		if err != nil || name != entries[i].Name || !bytes.Equal(content, contents[i]) {
			t.Fatalf("archive/tar reads %q with %q, and shown was %q with %q: %v", name, content, entries[i].Name, contents[i], err)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir || h.Mode&0o7000 != 0 ||
			!h.FileInfo().Mode().IsRegular() && !h.FileInfo().IsDir() {
			t.Fatalf("%+v was shown", h)
		}
		i++
	}
}
