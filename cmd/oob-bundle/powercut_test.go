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

// TestPowerCut cuts the power at the calls that change the disk: the program is
// killed there, and what goes on is a copy of what the disk of an ext4 file system
// had got by then, which has not seen what was not synced. It needs root.
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
			// The last calls of one run may not be there in another.
			if cuts == 0 || cuts < len(moments)*9/10 {
				t.Errorf("the power was cut %d times at %d moments", cuts, len(moments))
			}
		})
	}
}

// someOf returns about n of a list, evenly, and others each time.
func someOf(list []int, n int) []int {
	stride := max(1, len(list)/n)
	var some []int
	for i := rand.IntN(stride); i < len(list); i += stride {
		some = append(some, list[i])
	}
	return some
}

// cut runs a command on the saved disk until call k, if that is one to cut at, and
// judges what the disk has.
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

// cutHere chooses the calls: those by which something of the host gets its place or
// is promised, and some of the many others. Of these 16 are taken each time.
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

// testDisk is an ext4 file system in a file. Each mount is of a new file: the kernel
// may keep what it knows of an old one.
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

// image is the file that is mounted.
func (d *testDisk) image() string { return fmt.Sprintf("image%d", d.n) }

// mount mounts a copy of a file, without what ext4 does to hide a missing sync and
// without writing anything on its own.
func (d *testDisk) mount() {
	d.Helper()
	d.sh("mount -o loop,noauto_da_alloc,commit=900 " + d.image() + " mnt")
}

func (d *testDisk) unmount() { d.Helper(); d.sh("umount mnt && rm " + d.image()) }

// save keeps the disk as it is now. A container that was started meanwhile may have the
// mount too: then leaving it does not write down what it has.
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

// powerCut goes on with what the disk has got. The kernel may be writing down what
// it has promised; the copy is of a moment at which it was not.
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
