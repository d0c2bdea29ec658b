package create

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestSeeds checks the number of seeds of the fuzz target, and which of them are accepted.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzJournal")
	seeds.Count(t, "FuzzJournal", journalSeeds(), 7, 10, 0, fuzzJournal(t.TempDir()))
}

var journalBeginning = beginning{
	APIVersion: bundle.APIVersion, Kind: "CreateJournal", Manifest: bundle.DigestOf([]byte("manifest")), Program: "test", Channel: "demo",
	Platforms: []string{"linux/amd64"}, VolumeSize: 0, Choice: bundle.DigestOf(nil),
}

func journalSeeds() seeds.Of[[]byte] {
	var lines bytes.Buffer
	for _, v := range []any{
		journalBeginning, claim{bundle.DigestOf([]byte("a")), 70144, 5},
		claim{bundle.DigestOf([]byte("b")), 71168, 512}, claim{bundle.DigestOf([]byte("a")), 70144, 9},
	} {
		if err := appendLine(&lines, v); err != nil {
			panic(err)
		}
	}
	all := lines.Bytes()
	first := all[:bytes.IndexByte(all, '\n')+1]
	with := func(line string) []byte { return append(bytes.Clone(first), line...) }
	return seeds.Of[[]byte]{
		Taken: [][]byte{
			all, first, all[:len(all)-3], with("{}\n"), with(`{"blob":"x","offset":-1,"have":-1}` + "\n"), with("\x00\x00\x00\x00"),
			with(`{"blob":"x","offset":1,"have":9223372036854775808}` + "\n"),
		},
		Refused: [][]byte{
			nil, first[:len(first)-1],
			[]byte("\n"),
			[]byte("{}\n"),
			all[len(first):], bytes.Replace(first, []byte("oobbundle.dev/v1"), []byte("oobbundle.dev/v2"), 1),
			bytes.Replace(first, []byte(`oobbundle.dev/v1"`), []byte(`oobbundle.dev/v2","more":1`), 1),
			bytes.Replace(
				first,
				[]byte("CreateJournal"),
				[]byte("Journal"),
				1,
			),
			bytes.Replace(first, []byte("{"), []byte(`{"more":1,`), 1),
			bytes.Repeat([]byte("x"), 5000),
		},
	}
}

// FuzzJournal checks that the complete and valid lines at the start of a journal are read
// and the rest is cut off, and that a second read and a resumed run give the same result.
func FuzzJournal(f *testing.F) {
	for _, s := range journalSeeds().All() {
		f.Add(s)
	}
	check := fuzzJournal(f.TempDir())
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}

func fuzzJournal(dir string) func(t *testing.T, data []byte) bool {
	partial := filepath.Join(dir, "b.partial")
	path := partial + ".journal"
	return func(t *testing.T, data []byte) bool {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
		j, left, err := readJournal(t, partial)
		if err != nil {
			if !errors.Is(err, bundle.ErrNewer) {
				t.Fatalf("%q: %v", data, err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
				t.Fatalf("a newer journal was changed, %v", err)
			}
			return false
		}
		if !bytes.HasPrefix(data, left) || len(left) > 0 && left[len(left)-1] != '\n' || (j.begun == nil) != (len(left) == 0) {
			t.Fatalf("of %q is left %q", data, left)
		}
		want := claimed(t, left)
		if !reflect.DeepEqual(want, j.claims) {
			t.Fatalf("claimed is %v, and by encoding/json %v", j.claims, want)
		}
		begun := j.begun
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		again, left2, err := readJournal(t, partial)
		if err != nil || !bytes.Equal(left, left2) || !reflect.DeepEqual(begun, again.begun) || !reflect.DeepEqual(want, again.claims) {
			t.Fatalf("read again %q says otherwise: %v", left, err)
		}
		goOn(t, again)
		if err := again.close(); err != nil {
			t.Fatal(err)
		}
		return begun != nil
	}
}

// readJournal opens the journal of a partial bundle and returns the remaining file content.
func readJournal(t *testing.T, partial string) (*journal, []byte, error) {
	t.Helper()
	j, err := openJournal(partial)
	if err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(partial + ".journal")
	if err != nil {
		t.Fatal(err)
	}
	return j, data, nil
}

// claimed returns the claims in a journal as encoding/json parses them.
func claimed(t *testing.T, data []byte) map[bundle.Digest]claim {
	t.Helper()
	want := map[bundle.Digest]claim{}
	for i, line := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
		if i == 0 { // the first line is the beginning
			continue
		}
		var c claim
		if err := json.Unmarshal(line, &c); err != nil || c.Have < 0 {
			t.Fatalf("%q was taken: %v", line, err)
		}
		want[c.Blob] = c
	}
	return want
}

// goOn resumes the journal for a bundle without any of the claimed blobs: no claim may
// remain.
func goOn(t *testing.T, j *journal) {
	t.Helper()
	b := journalBeginning
	if j.begun != nil {
		b = *j.begun
	}
	if err := j.begin(b, &bundle.Geometry{}); err != nil {
		t.Fatal(err)
	}
	if len(j.claims) > 0 {
		t.Fatalf("claims of blobs that are not there: %v", j.claims)
	}
	data, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	var now beginning
	if err := bundle.DecodeStrict(line, &now); err != nil || !b.continues(now) || len(rest) > 0 {
		t.Fatalf("begun anew it is %q: %v", data, err)
	}
}

// TestNewerJournal checks that a newer program's journal is neither read nor truncated.
func TestNewerJournal(t *testing.T) {
	partial := filepath.Join(t.TempDir(), "b.partial")
	for _, text := range []string{
		`{"apiVersion":"oobbundle.dev/v2","kind":"CreateJournal"}` + "\n",
		`{"apiVersion":"oobbundle.dev/v2","kind":"CreateJournal","more":1}` + "\n",
	} {
		if err := os.WriteFile(partial+".journal", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := openJournal(partial); !errors.Is(err, bundle.ErrNewer) {
			t.Errorf("%s: %v", text, err)
		}
		if left, err := os.ReadFile(partial + ".journal"); err != nil || string(left) != text {
			t.Errorf("%s became %s, %v", text, left, err)
		}
	}
}
