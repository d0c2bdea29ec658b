//go:build interop && linux && amd64 && !race

package main

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/trace"
)

var everyCut = flag.Bool("every-cut", false, "cut the power before every call that changes something, not only before some of them")

// TestPowerCut simulates power cuts before calls that change the disk. It kills the program
// there and continues with a copy of the ext4 image, without data that was not synced. It needs
// root.
func TestPowerCut(t *testing.T) {
	for _, name := range []string{"create", "sign", "trust", "install", "upgrade", "rollback", "uninstall", "repair", "gc"} {
		t.Run(name, func(t *testing.T) {
			d := &testDisk{side: side{t, t.TempDir()}}
			d.make()
			w := newFaultWorldAt(t, d.mounted())
			commands := faultCommands(w)
			c := commands[slices.IndexFunc(commands, func(c faultCommand) bool { return c.name == name })]
			w.prepare(c)
			w.restore()
			d.save()
			var moments []int
			r := w.trace(c.args, func(call trace.Call) trace.Verdict {
				if cutHere(call) {
					moments = append(moments, call.N)
				}
				return trace.Verdict{}
			})
			d.unmount()
			cuts := 0
			if !*everyCut {
				all := len(moments)
				moments = someOf(moments, 16)
				t.Logf("%d moments, of which there are %d: %d", len(moments), all, moments)
			}
			for _, k := range moments {
				if w.cut(d, c, k) {
					cuts++
				}
				if w.problems > 5 {
					t.Fatal("enough")
				}
			}
			t.Logf("%d calls, %d power cuts", r.Calls, cuts)
			// The number of calls varies: a run may lack the last calls of another run.
			if cuts == 0 || cuts < len(moments)*9/10 {
				t.Errorf("the power was cut %d times at %d moments", cuts, len(moments))
			}
		})
	}
}

// someOf returns about n evenly spaced items of a list, with a random offset.
func someOf(list []int, n int) []int {
	stride := max(1, len(list)/n)
	var some []int
	for i := rand.IntN(stride); i < len(list); i += stride {
		some = append(some, list[i])
	}
	return some
}

// cut runs a command on the saved disk, cuts the power before call k, and judges the content of
// the disk. It returns false if the run has fewer calls.
func (w *faultWorld) cut(d *testDisk, c faultCommand, k int) bool {
	w.t.Helper()
	d.restore()
	var hit *trace.Call
	r := w.trace(c.args, func(call trace.Call) trace.Verdict {
		if call.N != k {
			return trace.Verdict{}
		}
		hit = &call
		return trace.Verdict{Kill: true}
	})
	if hit == nil {
		d.unmount()
		return false
	}
	d.powerCut()
	w.judge(c, *hit, r)
	d.unmount()
	return true
}

// cutHere reports whether to cut the power before a call: at renames, links, removals and syncs
// outside the registry's storage, and at a sample of the other changes. Without -every-cut,
// TestPowerCut uses about 16 of these calls.
func cutHere(c trace.Call) bool {
	if !c.Changes() {
		return false
	}
	if *everyCut {
		return true
	}
	switch c.Name {
	case "renameat", "renameat2", "symlinkat", "unlinkat", "fsync", "fdatasync", "syncfs":
		path := cmp.Or(c.To, c.Path)
		inside := strings.Contains(path, "/registry/docker/") && !strings.Contains(path, "/current/")
		return c.Name == "syncfs" || !inside && (c.Name != "unlinkat" || c.N%4 == 0) || c.N%43 == 0
	}
	return c.N%97 == 0
}

// testDisk is an ext4 file system in a file. Each mount uses a new file, because the kernel may
// cache data of an old one.
type testDisk struct {
	side
	n int
}

func (d *testDisk) mounted() string { return filepath.Join(d.dir, "mnt") }

func (d *testDisk) make() {
	d.Helper()
	if os.Geteuid() != 0 {
		d.Fatal("a file system can only be mounted by root")
	}
	d.sh("truncate -s 48M saved && mkfs.ext4 -q -m 0 saved && mkdir mnt")
	d.restore()
	d.Cleanup(func() { _, _ = d.try("mountpoint -q mnt && umount -l mnt || true") })
}

// image returns the name of the mounted file.
func (d *testDisk) image() string { return fmt.Sprintf("image%d", d.n) }

// mount mounts the image. Its options keep ext4 from hiding a missing sync (noauto_da_alloc) and
// from writing by itself (commit=900, in seconds).
func (d *testDisk) mount() {
	d.Helper()
	d.sh("mount -o loop,noauto_da_alloc,commit=900 " + d.image() + " mnt")
}

func (d *testDisk) unmount() { d.Helper(); d.sh("umount mnt && rm " + d.image()) }

// save saves the current state of the disk. It syncs first: a container that was started in the
// meantime may have the mount too, and umount then does not write the data.
func (d *testDisk) save() {
	d.Helper()
	d.sh("sync -f mnt && umount mnt && mv " + d.image() + " saved")
	d.restore()
}

func (d *testDisk) restore() {
	d.Helper()
	d.n++
	d.sh("cp --sparse=always saved " + d.image())
	d.mount()
}

// powerCut continues with the data that reached the disk. The kernel may still be writing synced
// data, so powerCut copies the image until the copy is consistent.
func (d *testDisk) powerCut() {
	d.Helper()
	old := d.image()
	d.n++
	d.sh(
		fmt.Sprintf(
			"until cp --sparse=always %[1]s %[2]s && cmp -s %[1]s %[2]s; do :; done; umount mnt; rm %[1]s; e2fsck -p %[2]s >/dev/null || [ $? = 1 ]",
			old, d.image(),
		),
	)
	d.mount()
}
