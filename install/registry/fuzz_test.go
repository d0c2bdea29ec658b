package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestSeeds counts the seeds of the fuzz target and their results.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzStore")
	seeds.Count(t, "FuzzStore", storeSeeds(), 17, 17, 0, fuzzStore(t.TempDir()))
}

// storeDocument is a file that only this program's registry has.
type storeDocument struct {
	kind byte // modulo 3: incoming.jsonl, a referrer, accounts
	data []byte
}

// hashed is a password in the format of htpasswd -B, at the lowest cost.
const hashed = "$2y$04$S.cQhU9oUbaQb5P8CGxkUeS7g6wnlGsWlTuVnDo/iEJGPmx.UnHbG"

func storeSeeds() seeds.Of[storeDocument] {
	a, b := bundle.DigestOf([]byte("a")), bundle.DigestOf([]byte("b"))
	line := func(v any) string {
		data, err := bundle.Encode(v)
		if err != nil {
			panic(err)
		}
		return string(data) + "\n"
	}
	begin := line(incomingLine{APIVersion: bundle.APIVersion})
	expected := begin + line(incomingLine{Expected: a}) + line(incomingLine{Expected: b})
	referrer := strings.TrimSpace(
		line(
			bundle.Descriptor{
				MediaType: bundle.TypeOCIManifest, Digest: a, Size: 7, ArtifactType: "a/b",
				Annotations: map[string]string{"a": "b"},
			},
		),
	)
	var s seeds.Of[storeDocument]
	for kind, texts := range [][]string{
		{
			expected, expected + line(incomingLine{Stored: a}), expected + `{"stored":`, begin, "",
			expected + "\x00\x00\n", begin + "\n" + line(incomingLine{Expected: a}),
			expected + strings.Repeat("\x00", 70_000), begin + `{"expected":"x"}` + "\n",
			begin + `{"expected":"sha256:../../.."}` + "\n",
		},
		{referrer, referrer + "\n", strings.Replace(referrer, ":7", ":-7", 1)},
		{
			"puller:" + hashed + "\n", "# nobody\n\n a.b@c:" + hashed + "\r\n",
			" puller:" + hashed + "\n\tother:" + hashed, "puller:" + hashed + "\nother:" + hashed,
		},
	} {
		for _, text := range texts {
			s.Taken = append(s.Taken, storeDocument{byte(kind), []byte(text)})
		}
	}
	for kind, texts := range [][]string{
		{`{"apiVersion":"oobbundle.dev/v2"}` + "\n", `{"apiVersion":"oobbundle.dev/v2","more":1}` + "\n", "{}\n"},
		{"", referrer + "{}", strings.Replace(referrer, "{", `{"more":1,`, 1), strings.Replace(referrer, ":7", ":1e1", 1), "null"},
		{
			"", "puller\n", "puller:\n", "puller:secret\n", "puller:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=\n",
			"../x:" + hashed, ":" + hashed, "puller:" + hashed + "\npuller:" + hashed,
			"puller:" + hashed + "\n#" + strings.Repeat("x", 70_000),
		},
	} {
		for _, text := range texts {
			s.Refused = append(s.Refused, storeDocument{byte(kind), []byte(text)})
		}
	}
	return s
}

// FuzzStore: the registry's own records and an administrator's files are read exactly or
// refused.
func FuzzStore(f *testing.F) {
	for _, s := range storeSeeds().All() {
		f.Add(s.kind, s.data)
	}
	check := fuzzStore(f.TempDir())
	f.Fuzz(func(t *testing.T, kind byte, data []byte) { check(t, storeDocument{kind, data}) })
}

func fuzzStore(dir string) func(t *testing.T, in storeDocument) bool {
	return func(t *testing.T, in storeDocument) bool {
		switch in.kind % 3 {
		case 0:
			return checkIncoming(t, dir, in.data)
		case 1:
			return checkReferrer(t, dir, in.data)
		}
		return checkAccounts(t, dir, in.data)
	}
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkIncoming: only blobs that were expected and not stored are in doubt. Only a valid
// digest becomes a path of the store.
func checkIncoming(t *testing.T, dir string, data []byte) bool {
	t.Helper()
	i := newIncoming(dir, func() error { return nil })
	put(t, i.path, data)
	list, exists, err := i.doubtful()
	if err != nil {
		if !errors.Is(err, bundle.ErrNewer) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	if !exists {
		t.Fatal("a file that is there does not exist")
	}
	for _, d := range list {
		if !bytes.Contains(data, []byte(`"expected"`)) {
			t.Fatalf("%q is in doubt by %q", d, data)
		}
		if p := (&store{dir: "/store"}).file(blobPath(d)); !strings.HasPrefix(p, "/store/docker/registry/v2/blobs/sha256/") {
			t.Fatalf("%q in doubt would be %q", d, p)
		}
	}
	slices.Sort(list)
	if once := slices.Compact(slices.Clone(list)); len(once) != len(list) {
		t.Fatalf("twice in doubt: %q", list)
	}
	return true
}

// checkReferrer: the list contains a referrer exactly as its file does.
func checkReferrer(t *testing.T, dir string, data []byte) bool {
	t.Helper()
	s := &store{dir: dir}
	const place = "/referrers/a/b"
	put(t, s.file(place+"/c"), data)
	index, err := listReferrers(t.Context(), s, place, "")
	if err != nil {
		return false
	}
	var list bundle.Index
	if err := json.Unmarshal(index, &list); err != nil || len(list.Manifests) > 1 {
		t.Fatalf("%q is listed as %q: %v", data, index, err)
	}
	if len(list.Manifests) == 0 { // invalid, not listed
		return false
	}
	var d bundle.Descriptor
	if err := json.Unmarshal(data, &d); err != nil || !reflect.DeepEqual(d, list.Manifests[0]) {
		t.Fatalf("%q is listed as %+v: %v", data, list.Manifests[0], err)
	}
	return true
}

// checkAccounts: an account is one line with a bcrypt hash. Removing an account keeps all
// others.
func checkAccounts(t *testing.T, dir string, data []byte) bool {
	t.Helper()
	path := filepath.Join(dir, "accounts")
	put(t, path, data)
	a, err := ReadAccounts(path)
	if err != nil {
		if !errors.Is(err, ErrAccounts) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return false
	}
	for name, hash := range a.logins.hashes {
		if _, err := bcrypt.Cost(hash); err != nil || !accountName.MatchString(name) || !strings.Contains(string(data), name+":"+string(hash)) {
			t.Fatalf("%q has %q by %q", name, hash, data)
		}
	}
	names := slices.Sorted(maps.Keys(a.logins.hashes))
	if _, err := SetAccount(path, names[0], nil); err != nil {
		t.Fatal(err)
	}
	var left []string
	if again, err := ReadAccounts(path); err == nil {
		left = slices.Sorted(maps.Keys(again.logins.hashes))
	}
	if !slices.Equal(left, names[1:]) {
		t.Fatalf("without %q %q has the accounts %q", names[0], data, left)
	}
	return true
}
