//go:build unix

package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestReadData checks that only a regular file is read, in directories that are not links,
// that a pipe does not block, and that the size is limited.
func TestReadData(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "app", "conf"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "app", "conf", "good"), []byte("good"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "app", "conf", "large"), make([]byte, 65), 0o600))
	must(os.Symlink("good", filepath.Join(dir, "app", "conf", "link")))
	must(os.Symlink("app", filepath.Join(dir, "other")))
	must(syscall.Mkfifo(filepath.Join(dir, "app", "pipe"), 0o600))
	root, err := os.OpenRoot(dir)
	must(err)
	defer func() { must(root.Close()) }()
	for name, want := range map[string]error{
		"app/conf/good":   nil,
		"app/conf/none":   fs.ErrNotExist,
		"none/conf/good":  fs.ErrNotExist,
		"app/conf/large":  ErrData,
		"app/conf/link":   ErrData,
		"other/conf/good": ErrData,
		"app/pipe":        ErrData,
		"app/conf":        ErrData,
		"app/pipe/good":   ErrData,
	} {
		data, _, err := readData(root, name, 64)
		if !errors.Is(err, want) || want == nil && string(data) != "good" {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
}

// TestDataDirectory checks that the data directory cannot overlap this program's own
// directory, however its path is written.
func TestDataDirectory(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	base := Base(root, "app")
	if err := errors.Join(
		os.MkdirAll(base, 0o755), os.Symlink(root, filepath.Join(dir, "link")),
		os.Symlink(dir, filepath.Join(dir, "up")),
	); err != nil {
		t.Fatal(err)
	}
	for data, ok := range map[string]bool{
		filepath.Join(base, "data"):                              true,
		filepath.Join(dir, "srv"):                                true,
		filepath.Join(dir, "root-of-another"):                    true,
		filepath.Join(dir, "link", "deployments", "app", "data"): true,
		root:                                   false,
		dir:                                    false,
		"/":                                    false,
		filepath.Join(root, "trust"):           false,
		filepath.Join(Base(root, "b"), "data"): false,
		filepath.Join(dir, "link", "new"):      false,
		filepath.Join(dir, "up"):               false,
	} {
		if err := checkData(root, base, data); (err == nil) != ok || err != nil && !errors.Is(err, ErrValues) {
			t.Errorf("%s: %v", data, err)
		}
	}
}
