package install_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// wholeOnly is a target that rejects an index with missing manifests.
type wholeOnly struct{ install.Target }

func (w wholeOnly) PutManifest(ctx context.Context, repo string, m *bundle.Manifest, data []byte) error {
	for _, child := range m.Children() {
		if !bundle.IsManifest(child.MediaType) {
			continue
		}
		// A manifest exists if a tag can point to it.
		if err := w.Tag(ctx, repo, "probe", child.Digest); errors.Is(err, install.ErrMissing) {
			return install.ErrNotTaken
		} else if err != nil {
			return err
		}
		if err := w.Tag(ctx, repo, "probe", ""); err != nil {
			return err
		}
	}
	return w.Target.PutManifest(ctx, repo, m, data)
}

// TestPlatformTags: a tag of one image is not given to a platform of another image.
func TestPlatformTags(t *testing.T) {
	w := newFixture(t)
	c := world.NewContent("tags")
	amd, arm, own := c.Image("linux/amd64", "a"), c.Image("linux/arm64", "b"), c.Image("linux/arm64", "own")
	c.Add("docker.io/library/z:1-linux-arm64", own)
	c.Partial("docker.io/library/z:1", c.Index(amd, c.Image("linux/s390x", "c"), arm), amd, arm)
	file := c.File(t, w.key)
	whole := wrapped(func(e install.Target) install.Target { return wholeOnly{e} })
	w.must(w.install(file, whole))
	if !w.must(w.install(file, whole)).Nothing {
		t.Error("a second time it did something")
	}
	for tag, want := range map[string]bundle.Digest{"1": amd.Digest, "1-linux-amd64": amd.Digest, "1-linux-arm64": own.Digest} {
		if got := w.tags()["docker.io/library/z:"+tag]; got != string(want) {
			t.Errorf("%s: %s instead of %s", tag, got, want)
		}
	}
	w.undo("tags", uninstall)
}

// TestImagesOfClusters: files for machines of several platforms name an index that all of them
// can pull; files for this host name its own manifest.
func TestImagesOfClusters(t *testing.T) {
	const object = "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: %s}]}\n"
	for _, form := range []string{"", "kubernetes"} {
		for _, accepts := range []bool{true, false} {
			w := newFixture(t)
			c := world.NewContent("cluster")
			c.Doc.Form = form
			c.Info.Platforms = []bundle.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
			amd, arm := c.Image("linux/amd64", "a"), c.Image("linux/arm64", "b")
			whole := c.Index(c.Image("linux/amd64", "c"), c.Image("linux/arm64", "d"))
			only := c.Image("linux/amd64", "only")
			c.Add("docker.io/library/whole:1", whole)
			c.Partial("docker.io/library/part:1", c.Index(amd, c.Image("linux/s390x", "e"), arm), amd, arm)
			c.Add("docker.io/library/only:1", only)
			add := func(path, as, format string) {
				for _, name := range []string{"whole", "part", "only"} {
					image := "docker.io/library/" + name + ":1"
					if as == bundle.AsTemplate {
						image = fmt.Sprintf(`{{ image "docker.io/library/%s" }}`, name)
					}
					c.HostFile(name+"-"+path, fmt.Sprintf(format, image))
					c.Doc.Files[len(c.Doc.Files)-1].As = as
				}
			}
			add("operator.yaml", bundle.AsImages, "x: %s\n")
			add("object.yaml", bundle.AsTemplate, object)
			add("plain.yaml", bundle.AsTemplate, "image: %s\n")
			target := wrapped(func(e install.Target) install.Target { return e })
			if !accepts {
				target = wrapped(func(e install.Target) install.Target { return wholeOnly{e} })
			}
			r := w.must(w.install(c.File(t, w.key), target))
			carried, _ := bundle.NewReferrersIndex([]bundle.Descriptor{amd, arm})
			for _, path := range []string{"operator.yaml", "object.yaml", "plain.yaml"} {
				want := map[string]bundle.Digest{"whole": whole.Digest, "part": carried.Digest, "only": only.Digest}
				if path == "plain.yaml" && form == "" {
					want = map[string]bundle.Digest{"part": amd.Digest, "only": only.Digest}
				}
				for name, d := range want {
					data, err := os.ReadFile(filepath.Join(w.root, "deployments/cluster/releases", r.Release.ID, name+"-"+path))
					if err != nil || !strings.Contains(string(data), "@"+string(d)) {
						t.Errorf("form %q: %s %s: %s, %v; want %s", form, name, path, data, err, d)
					}
					revision := filepath.Join(
						w.root,
						"registry/docker/registry/v2/repositories/docker.io/library",
						name,
						"_manifests/revisions/sha256",
						d.Hex(),
						"link",
					)
					if _, err := os.Stat(revision); err != nil {
						t.Errorf("form %q: %s: %v", form, name, err)
					}
				}
			}
			w.collect()
			w.undo("cluster", uninstall)
			w.collect()
			if tags := w.tags(); len(tags) > 0 {
				t.Errorf("%v is left", tags)
			}
		}
	}
}
