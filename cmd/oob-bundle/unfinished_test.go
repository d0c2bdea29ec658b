package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// failing is a registry that fails to set the tag "1" of an image.
type failing struct{ install.Target }

func (f failing) Tag(ctx context.Context, repo, tag string, to bundle.Digest) error {
	if tag == "1" && to != "" {
		return errors.New("the registry fails")
	}
	return f.Target.Tag(ctx, repo, tag, to)
}

// putFile installs a bundle. With fail, the registry fails when the image is tagged.
func putFile(t *testing.T, key *world.Key, root string, file []byte, fail bool) error {
	t.Helper()
	policy := verify.Policy{Keys: []verify.Key{key.Trusted}}
	v, err := verify.Open(t.Context(), bytes.NewReader(file), int64(len(file)), policy)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := install.Acquire(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
	}()
	e, err := registry.OpenEmbedded(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	target := e.Registry()
	if fail {
		target.Target = failing{e}
	}
	plan, err := install.NewPlan(t.Context(), v, target, install.Options{Root: root, Policy: policy, Warn: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	_, err = plan.Apply(t.Context(), bundle.Watch{})
	return err
}

// TestUnfinishedInstallation: rollback and uninstall undo an installation that cannot be finished.
func TestUnfinishedInstallation(t *testing.T) {
	key := world.NewKey(t)
	version := func(n int64) []byte {
		c := world.NewContent("app")
		c.Info.Sequence = n
		c.Info.Version, c.Doc.Version = fmt.Sprint(n), fmt.Sprint(n)
		c.Add("docker.io/library/app:1", c.Image("linux/amd64", fmt.Sprint("content ", n)))
		return c.File(t, key)
	}
	put := func(root string, file []byte, fail bool) error { return putFile(t, key, root, file, fail) }
	oob := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := run(args, &out, &out)
		return code, out.String()
	}
	for _, command := range []string{"rollback", "uninstall"} {
		for _, installed := range []bool{true, false} {
			root := filepath.Join(t.TempDir(), "site")
			if installed {
				if err := put(root, version(1), false); err != nil {
					t.Fatal(err)
				}
			}
			err := put(root, version(2), true)
			if !errors.Is(err, install.ErrIncomplete) || !strings.Contains(err.Error(), "oob-bundle rollback") {
				t.Fatalf("got %v", err)
			}
			if code, out := oob("status", "--root", root); code != 0 || !strings.Contains(out, "did not finish") {
				t.Errorf("status: %d %s", code, out)
			}
			code, out := oob(command, "--root", root)
			if code != 0 || !strings.Contains(out, "taken back") {
				t.Errorf("%s: %d %s", command, code, out)
			}
			want := "Nothing is installed"
			if command == "rollback" && installed {
				want = "app 1\n"
			}
			if code, out := oob(
				"status",
				"--check",
				"--root",
				root,
			); code != 0 || !strings.Contains(out, want) ||
				strings.Contains(out, "did not finish") {
				t.Errorf("after %s: %d %s", command, code, out)
			}
			if err := put(root, version(2), false); err != nil {
				t.Errorf("after %s: %v", command, err)
			}
		}
	}
}
