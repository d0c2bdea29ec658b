package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// targets returns the implementations of install.Target. Each test below runs with all of
// them.
func targets(t *testing.T) map[string]install.Target {
	t.Helper()
	embedded, err := registry.OpenEmbedded(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	site := world.NewRegistry(t, nil)
	oci := world.NewRegistry(t, world.OCIOnly)
	client, err := remote.New(remote.Options{PlainHTTP: []string{site.Host, oci.Host}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]install.Target{
		"OCI types only": registry.OpenExternal(client, oci.Host, "central/repo"),
		"embedded":       embedded,
		"external":       registry.OpenExternal(client, site.Host, "central/repo"),
		"with a prefix":  registry.OpenExternal(client, site.Host+"/some/prefix/", "central/repo"),
	}
}

func descriptor(mediaType string, data []byte) bundle.Descriptor {
	return bundle.Descriptor{MediaType: mediaType, Digest: bundle.DigestOf(data), Size: int64(len(data))}
}

func reader(data []byte) func() io.Reader { return func() io.Reader { return bytes.NewReader(data) } }

// image stores a config and a layer, and returns a manifest.
func image(t *testing.T, target install.Target, repo, layer string) (*bundle.Manifest, []byte) {
	t.Helper()
	config := []byte(`{"os":"linux","architecture":"amd64"}`)
	manifest, err := bundle.Encode(map[string]any{
		"schemaVersion": 2, "mediaType": bundle.TypeOCIManifest, "config": descriptor(bundle.TypeOCIConfig, config),
		"layers": []bundle.Descriptor{descriptor("application/vnd.oci.image.layer.v1.tar", []byte(layer))},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{config, []byte(layer)} {
		if err := target.PutBlob(t.Context(), repo, descriptor("x", data), "", reader(data)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := bundle.ParseManifest(descriptor(bundle.TypeOCIManifest, manifest), manifest)
	if err != nil {
		t.Fatal(err)
	}
	return m, manifest
}

func TestConformance(t *testing.T) {
	for name, target := range targets(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("blobs", func(t *testing.T) { testBlobs(t, target) })
			t.Run("tags", func(t *testing.T) { testTags(t, target) })
			t.Run("interrupted", func(t *testing.T) { testInterrupted(t, target) })
		})
	}
}

func testBlobs(t *testing.T, target install.Target) {
	ctx := t.Context()
	for _, data := range [][]byte{[]byte("hello"), {}, bytes.Repeat([]byte("0123456789abcdef"), 1<<16)} {
		d := descriptor("x", data)
		if has, err := target.HasBlob(ctx, "central/repo", d); has || err != nil {
			t.Errorf("before: %v, %v", has, err)
		}
		if err := target.PutBlob(ctx, "central/repo", d, "", reader(data)); err != nil {
			t.Fatal(err)
		}
		for repo, want := range map[string]bool{"central/repo": true, "other/repo": false} {
			if has, err := target.HasBlob(ctx, repo, d); has != want || err != nil {
				t.Errorf("%s: %v, %v", repo, has, err)
			}
		}
		unread := func() io.Reader { t.Error("a blob that can be mounted was read again"); return bytes.NewReader(data) }
		if err := target.PutBlob(ctx, "other/repo", d, "central/repo", unread); err != nil {
			t.Fatal(err)
		}
		if has, err := target.HasBlob(ctx, "other/repo", d); !has || err != nil {
			t.Errorf("mounted: %v, %v", has, err)
		}
	}
	promised := descriptor("x", []byte("promised content"))
	for name, sent := range map[string]string{
		"other bytes": "promissed conten",
		"fewer bytes": "promised",
		"more bytes":  "promissed content",
	} {
		err := target.PutBlob(ctx, "central/repo", promised, "", reader([]byte(sent)))
		if !errors.Is(err, bundle.ErrDigest) && !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if has, err := target.HasBlob(ctx, "central/repo", promised); has || err != nil {
			t.Errorf("%s were kept: %v, %v", name, has, err)
		}
	}
}

func testTags(t *testing.T, target install.Target) {
	ctx := t.Context()
	one, oneData := image(t, target, "team/app", "one")
	two, twoData := image(t, target, "team/app", "two")
	for m, data := range map[*bundle.Manifest][]byte{one: oneData, two: twoData} {
		for range 2 { // the second time changes nothing
			if err := target.PutManifest(ctx, "team/app", m, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	resolve := func(want bundle.Digest) {
		t.Helper()
		if got, err := target.Resolve(ctx, "team/app", "latest"); got != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	resolve("")
	if err := target.Tag(ctx, "team/app", "latest", one.Descriptor.Digest); err != nil {
		t.Fatal(err)
	}
	resolve(one.Descriptor.Digest)
	if err := target.Tag(ctx, "team/app", "latest", two.Descriptor.Digest); err != nil {
		t.Fatal(err)
	}
	resolve(two.Descriptor.Digest)
	if err := target.Tag(ctx, "team/app", "latest", one.Descriptor.Digest); err != nil {
		t.Fatal(err)
	}
	resolve(one.Descriptor.Digest)
	data := []byte(
		`{"schemaVersion":2,"config":{"mediaType":"a","digest":"` + string(bundle.DigestOf([]byte("nowhere"))) + `","size":7},"layers":[]}`,
	)
	missing := &bundle.Manifest{Descriptor: descriptor(bundle.TypeOCIManifest, data)}
	if err := target.PutManifest(ctx, "team/app", missing, data); err == nil {
		t.Error("a manifest whose config is missing was taken")
	}
	if got, err := target.Resolve(ctx, "no/such", "tag"); got != "" || err != nil {
		t.Errorf("no repository: %q, %v", got, err)
	}
}

func testInterrupted(t *testing.T, target install.Target) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	data := []byte("never stored")
	d := descriptor("x", data)
	if err := target.PutBlob(ctx, "central/repo", d, "", reader(data)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if has, err := target.HasBlob(t.Context(), "central/repo", d); has || err != nil {
		t.Errorf("%v, %v", has, err)
	}
}

// TestHastyRegistry: a registry that reports success before it has read the blob causes an
// error.
func TestHastyRegistry(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			w.Header().Set("Location", r.URL.Path+"1")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut:
			w.WriteHeader(http.StatusCreated)
		}
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	client, err := remote.New(remote.Options{PlainHTTP: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 64<<20)
	err = registry.OpenExternal(client, host).PutBlob(t.Context(), "a/b", descriptor("x", large), "", reader(large))
	if !errors.Is(err, remote.ErrRegistry) {
		t.Errorf("got %v", err)
	}
}

// TestShortHost: a host without a dot or a port is never contacted, because other programs
// would read it as a name on Docker Hub.
func TestShortHost(t *testing.T) {
	client, err := remote.New(remote.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = registry.OpenExternal(client, "harbor/mirror").Resolve(t.Context(), "a/b", "1")
	if !errors.Is(err, remote.ErrRegistry) || !strings.Contains(err.Error(), "harbor:443") {
		t.Errorf("got %v", err)
	}
}

// TestUndo checks that Undo removes exactly what was added.
func TestUndo(t *testing.T) {
	root := t.TempDir()
	first, err := registry.OpenEmbedded(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	m, data := image(t, first, "team/app", "one")
	if err := first.PutManifest(t.Context(), "team/app", m, data); err != nil {
		t.Fatal(err)
	}
	before := tree(t, root)
	second, err := registry.OpenEmbedded(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, repo := range []string{"team/app", "team/other"} {
		m, data = image(t, second, repo, "two") // the config is already stored
		if err := second.PutManifest(t.Context(), repo, m, data); err != nil {
			t.Fatal(err)
		}
	}
	if len(tree(t, root)) <= len(before) {
		t.Fatal("nothing was added")
	}
	if err := second.Undo(); err != nil {
		t.Fatal(err)
	}
	after := tree(t, root)
	if strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// tree returns the files below dir with their contents.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		list = append(list, path+" "+string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestWrongSize: a file that a crash truncated is not accepted as the blob.
func TestWrongSize(t *testing.T) {
	root := t.TempDir()
	target, err := registry.OpenEmbedded(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("the whole content")
	d := descriptor("x", data)
	if err := target.PutBlob(t.Context(), "a/b", d, "", reader(data)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "registry/docker/registry/v2/blobs/sha256", d.Digest.Hex()[:2], d.Digest.Hex(), "data")
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
	if has, err := target.HasBlob(t.Context(), "a/b", d); has || err != nil {
		t.Fatalf("%v, %v", has, err)
	}
	if err := target.PutBlob(t.Context(), "a/b", d, "", reader(data)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestReadOnly: content is served and cannot be changed.
func TestReadOnly(t *testing.T) {
	root := t.TempDir()
	if _, err := registry.NewHandler(t.Context(), root); !errors.Is(err, registry.ErrNothingInstalled) {
		t.Errorf("nothing installed: %v", err)
	}
	target, err := registry.OpenEmbedded(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	m, data := image(t, target, "team/app", "one")
	subject := m.Descriptor
	if err := target.PutManifest(t.Context(), "team/app", m, data); err != nil {
		t.Fatal(err)
	}
	layer := descriptor("text/plain", []byte("about it"))
	d, blobs := bundle.NewArtifact("application/vnd.example", &subject, layer)
	blobs[layer.Digest] = []byte("about it")
	for digest, content := range blobs {
		if digest == d.Digest {
			continue
		}
		if err := target.PutBlob(t.Context(), "team/app", descriptor("x", content), "", reader(content)); err != nil {
			t.Fatal(err)
		}
	}
	about, err := bundle.ParseManifest(d, blobs[d.Digest])
	if err != nil {
		t.Fatal(err)
	}
	if err := target.PutManifest(t.Context(), "team/app", about, blobs[d.Digest]); err != nil {
		t.Fatal(err)
	}
	h, err := registry.NewHandler(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	defer s.Close()
	// A referrer file damaged by a power failure is not listed, and hides no other file.
	beside, err := filepath.Glob(filepath.Join(root, "registry", "*", "team", "app", subject.Digest.Hex(), "*"))
	if err != nil || len(beside) != 1 {
		t.Fatalf("referrers: %v, %v", beside, err)
	}
	world.Write(t, filepath.Join(filepath.Dir(beside[0]), strings.Repeat("0", 64)), nil, 0o644)
	before := tree(t, root)
	for _, test := range []struct {
		method, path string
		status       int
		text         string
	}{
		{"GET", "/v2/", 200, ""},
		{"GET", "/v2/_catalog", 200, "team/app"},
		{"GET", "/v2/team/app/manifests/" + string(subject.Digest), 200, "schemaVersion"},
		{"GET", "/v2/team/app/referrers/" + string(subject.Digest), 200, string(d.Digest)},
		{"GET", "/v2/team/app/referrers/" + string(subject.Digest) + "?artifactType=application/vnd.example", 200, string(d.Digest)},
		{"GET", "/v2/team/app/referrers/" + string(subject.Digest) + "?artifactType=other", 200, `"manifests":[]`},
		{"GET", "/v2/team/app/referrers/" + string(d.Digest), 200, `"manifests":[]`},
		{"GET", "/v2/team/../../x/referrers/" + string(d.Digest), 400, "NAME_INVALID"},
		{"GET", "/v2/team/app/referrers/sha256:xyz", 400, "DIGEST_INVALID"},
		{"POST", "/v2/team/app/blobs/uploads/", 405, ""},
		{"PUT", "/v2/team/app/manifests/new", 405, ""},
		{"DELETE", "/v2/team/app/manifests/" + string(subject.Digest), 405, ""},
		{"DELETE", "/v2/team/app/blobs/" + string(layer.Digest), 405, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, s.URL+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", bundle.TypeOCIManifest)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.Body.Close() != nil || res.StatusCode != test.status || !strings.Contains(string(body), test.text) {
			t.Errorf("%s %s: %d %s, %v; want %d with %q", test.method, test.path, res.StatusCode, body, err, test.status, test.text)
		}
	}
	if strings.Join(tree(t, root), "\n") != strings.Join(before, "\n") {
		t.Error("serving changed the store")
	}
}

// TestReferrersOfExternal: a registry without the referrers API gets a complete list, even if
// several referrers are pushed at once.
func TestReferrersOfExternal(t *testing.T) {
	up := world.NewRegistry(t, nil) // distribution has no referrers API
	client, err := remote.New(remote.Options{PlainHTTP: []string{up.Host}})
	if err != nil {
		t.Fatal(err)
	}
	target := registry.OpenExternal(client, up.Host)
	m, data := image(t, target, "team/app", "one")
	if err := target.PutManifest(t.Context(), "team/app", m, data); err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	want := map[bundle.Digest]string{}
	for n := range 8 {
		content := fmt.Appendf(nil, "note %d", n)
		layer := descriptor("text/plain", content)
		kind := fmt.Sprintf("application/vnd.example.n%d", n)
		d, blobs := bundle.NewArtifact(kind, &m.Descriptor, layer)
		blobs[layer.Digest] = content
		want[d.Digest] = kind
		about, err := bundle.ParseManifest(d, blobs[d.Digest])
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() error {
			for digest, data := range blobs {
				if digest == d.Digest {
					continue
				}
				if err := target.PutBlob(t.Context(), "team/app", descriptor("x", data), "", reader(data)); err != nil {
					return err
				}
			}
			for range 2 { // the second time changes nothing
				if err := target.PutManifest(t.Context(), "team/app", about, blobs[d.Digest]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	repo, err := client.Repository(t.Context(), up.Host, "team/app", remote.Pull)
	if err != nil {
		t.Fatal(err)
	}
	list, err := repo.Referrers(t.Context(), m.Descriptor.Digest)
	if err != nil {
		t.Fatal(err)
	}
	got := map[bundle.Digest]string{}
	for _, d := range list {
		got[d.Digest] = d.ArtifactType
	}
	if diff := cmp.Diff(want, got); diff != "" || len(list) != len(want) {
		t.Errorf("%d listed: %s", len(list), diff)
	}
}
