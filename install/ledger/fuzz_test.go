package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestSeeds counts the seeds of the fuzz target and their results.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzState")
	seeds.Count(t, "FuzzState", stateSeeds(), 15, 35, 0, fuzzState(t.TempDir()))
}

// stateDocument is one of the documents below the root.
type stateDocument struct {
	kind byte // modulo 5: ledger, receipt, journal, release, state
	data []byte
}

func stateSeeds() seeds.Of[stateDocument] {
	digest := bundle.DigestOf([]byte("x"))
	moves := []TagMove{{Repository: "docker.io/library/nginx", Tag: "1", From: digest, To: digest}}
	images := []Image{
		{
			Reference:   "a/b:1",
			Upstream:    "docker.io/library/nginx:1",
			Digest:      digest,
			Index:       digest,
			IndexStored: true,
			Manifests:   []bundle.Digest{digest},
		},
	}
	release := Release{
		ID:        releaseID,
		Identity:  digest,
		Version:   "1",
		Channel:   "demo",
		Sequence:  7,
		Installed: "2026-01-02T03:04:05Z",
		Signers:   []string{},
		Address:   "127.0.0.1:5000",
		Images:    images,
	}
	earlier := release
	earlier.ID, earlier.InPlace = "fedcba9876543210", true
	channels := map[string]Channel{"demo": {Sequence: 1 << 62, Identity: digest, Highest: digest, Pending: digest}}
	place := Tag("embedded", "docker.io/library/nginx", "1")
	found := installed{
		Name:     "demo",
		Channel:  "demo",
		Identity: digest,
		Version:  "1",
		Registry: "embedded",
		Release:  releaseID,
		Receipt:  "r.json",
		Before:   []string{"r.json"},
	}
	documents := []any{
		Ledger{
			APIVersion:  bundle.APIVersion,
			Kind:        "Ledger",
			Channels:    channels,
			Names:       map[string]string{"demo": "demo"},
			Deployments: map[string]Deployment{"demo embedded": {Name: "demo", Registry: "embedded", Releases: []Release{release, earlier}}},
			Claims: map[Place][]Claim{
				place:          {{"demo embedded", releaseID, digest}},
				Path("/etc/a"): {{"demo embedded", releaseID, ""}},
			},
			Before: map[Place]bundle.Digest{place: ""},
		},
		Receipt{
			APIVersion: bundle.APIVersion,
			Kind:       "Receipt",
			Bundle:     Bundle{digest, "demo", "1", "demo", 7},
			Signers:    []string{bundle.Fingerprint{1}.String()},
			Registry:   "127.0.0.1:5000",
			Images:     images,
			Files:      []File{{"/var/lib/x", "0644", digest}},
			Release:    "0123456789abcdef",
			Tags:       moves,
			Installed:  "2026-01-02T03:04:05Z",
		},
		Journal{
			APIVersion: bundle.APIVersion,
			Kind:       "Journal",
			Action:     ActionRollback,
			Identity:   digest,
			Name:       "demo",
			Version:    "1",
			Channel:    "demo",
			Sequence:   7,
			Registry:   "embedded",
			Started: time.Date(
				2026,
				1,
				2,
				3,
				4,
				5,
				6,
				time.UTC,
			),
			Release:    "0123456789abcdef",
			From:       "fedcba9876543210",
			Tags:       moves,
			Deployment: &found,
		},
		host.About{
			APIVersion: bundle.APIVersion,
			Kind:       "Release",
			ID:         releaseID,
			Identity:   digest,
			Name:       "demo",
			Version:    "1",
			Form:       "compose",
			Registry:   "127.0.0.1:5000",
			Data:       "/data",
			Values: map[string]string{
				"domain": "a",
			},
			Images: []string{"a"},
			Health: []string{"http://127.0.0.1"},
			Links:  []bundle.Link{{Path: "/etc/nginx/conf.d/a", File: "a"}},
			Merges: []bundle.Merge{
				{File: "a", Patch: "b"},
			},
			Database: &bundle.Database{Service: "db"},
			Postgres: "17",
			Files:    []host.File{{Path: "a", Mode: "0644", SHA256: digest}},
		},
		state{
			APIVersion: bundle.APIVersion, Kind: "State", Channels: channels,
			Owners: map[string]owner{"deployment demo": {"demo", "demo"}}, Deployments: map[string]installed{"demo embedded": found},
		},
	}
	var s seeds.Of[stateDocument]
	add := func(kind int, text string) { s.Refused = append(s.Refused, stateDocument{byte(kind), []byte(text)}) }
	for kind, d := range documents {
		data, err := bundle.Encode(d)
		if err != nil {
			panic(err)
		}
		text := string(data)
		s.Taken = append(
			s.Taken,
			stateDocument{byte(kind), data},
			stateDocument{byte(kind), append(data[:len(data):len(data)], '\n')},
			stateDocument{byte(kind), []byte(" " + strings.Replace(text, ",", " ,\n", 1))},
		)
		add(kind, text[:len(text)-1])
		add(kind, text+"{}")
		add(kind, strings.Replace(text, "{", `{"more":1,`, 1))
		add(kind, strings.Replace(text, `"kind":`, `"Kind":"x","kind":`, 1))
		add(kind, strings.Replace(text, `"apiVersion":"oobbundle.dev/v1"`, `"apiVersion":null`, 1))
		add(kind, strings.Replace(text, `"apiVersion":"oobbundle.dev/v1"`, `"apiVersion":"oobbundle.dev/v2"`, 1))
		add(kind, strings.Replace(text, `"apiVersion":"oobbundle.dev/v1"`, `"apiVersion":"oobbundle.dev/v2","more":1`, 1))
	}
	return s
}

// stateKind is the kind of a State, the format before Ledger.
const stateKind = 4

const releaseID = "0123456789abcdef"

// FuzzState: a record that is read is written again to the same bytes, encoding/json reads the
// same values, and a newer program's record is distinguished from a damaged one.
func FuzzState(f *testing.F) {
	for _, s := range stateSeeds().All() {
		f.Add(s.kind, s.data)
	}
	check := fuzzState(f.TempDir())
	f.Fuzz(func(t *testing.T, kind byte, data []byte) { check(t, stateDocument{kind, data}) })
}

func fuzzState(root string) func(t *testing.T, in stateDocument) bool {
	const journalName, receipt, name = "j.json", "r.json", "demo"
	paths := []string{
		path(
			root,
		),
		ReceiptPath(root, receipt), filepath.Join(root, "journal", journalName),
		filepath.Join(host.Base(root, name), "releases", releaseID, "release.json"), path(root),
	}
	for _, p := range paths {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			panic(err)
		}
	}
	read := func(kind int) (any, error) {
		switch kind {
		case 0, stateKind:
			return read(root, path(root))
		case 1:
			return ReadReceipt(root, receipt)
		case 2:
			list, err := ReadJournals(root)
			if err != nil {
				return nil, err
			}
			return list[0], nil
		}
		return host.ReadRelease(root, name, releaseID)
	}
	return func(t *testing.T, in stateDocument) bool {
		kind := int(in.kind) % len(paths)
		p := paths[kind]
		if err := os.WriteFile(p, in.data, 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(p)
		got, err := read(kind)
		if err != nil {
			if errors.Is(err, bundle.ErrFormat) == errors.Is(err, bundle.ErrNewer) {
				t.Fatalf("refused without a reason: %v", err)
			}
			if v := apiVersion(in.data); v != bundle.APIVersion && strings.HasPrefix(v, "oobbundle.dev/") && !errors.Is(err, bundle.ErrNewer) {
				t.Fatalf("a newer one, and refused as damaged: %v", err)
			}
			return false
		}
		if _, was := bundle.KindOf(in.data); was != "State" { // a State is read as a Ledger
			same(t, kind, in.data, got)
		}
		written, err := bundle.Encode(got)
		if err != nil {
			t.Fatal(err)
		}
		if err := host.WriteRecord(p, got); err != nil {
			t.Fatal(err)
		}
		again, err := read(kind)
		if err != nil {
			t.Fatalf("%q is read as %+v and, written anew, refused: %v", in.data, got, err)
		}
		if twice, err := bundle.Encode(again); err != nil || !bytes.Equal(twice, written) {
			t.Fatalf("%q is written as %q and then as %q: %v", in.data, written, twice, err)
		}
		return true
	}
}

// apiVersion returns the API version of a valid document, or "".
func apiVersion(data []byte) string {
	var anything struct{}
	var head map[string]any
	if err := bundle.DecodeStrict(
		data, &anything,
	); json.Unmarshal(data, &head) != nil ||
		err != nil && !strings.Contains(err.Error(), "unknown object member") && !errors.Is(err, bundle.ErrNewer) {
		return ""
	}
	v, _ := head["apiVersion"].(string)
	return v
}

// same compares a value with that of encoding/json, which accepts much more.
func same(t *testing.T, kind int, data []byte, got any) {
	t.Helper()
	other := reflect.New(reflect.TypeOf(got).Elem()).Interface()
	if err := json.Unmarshal(data, other); err != nil {
		t.Fatalf("taken, and encoding/json says %v of %q", err, data)
	}
	if !reflect.DeepEqual(other, got) {
		t.Fatalf("%d: %q is read as\n%+v\nand by encoding/json as\n%+v", kind, data, got, other)
	}
}
