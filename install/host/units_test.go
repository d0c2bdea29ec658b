package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// TestHiddenUnits checks that a link never hides or changes a unit of the host, wherever the
// unit is and whatever defines it.
func TestHiddenUnits(t *testing.T) {
	unit := func(name string) bundle.Link { return bundle.Link{Path: "/etc/systemd/system/" + name, File: "x"} }
	quadlet := func(name string) bundle.Link { return bundle.Link{Path: "/etc/containers/systemd/" + name, File: "x"} }
	for name, x := range map[string]struct {
		link    bundle.Link
		content string
		host    map[string]string // files of the host; "-> X" is a link
		hides   bool
	}{
		"nothing":                     {unit("app.service"), "", map[string]string{"usr/lib/systemd/system/other.service": ""}, false},
		"a unit of the distribution":  {unit("ssh.service"), "", map[string]string{"usr/lib/systemd/system/ssh.service": ""}, true},
		"a unit in /lib":              {unit("ssh.service"), "", map[string]string{"lib/systemd/system/ssh.service": ""}, true},
		"a unit of the administrator": {unit("a.timer"), "", map[string]string{"usr/local/lib/systemd/system/a.timer": ""}, true},
		"a unit in /run":              {unit("a.socket"), "", map[string]string{"run/systemd/system/a.socket": ""}, true},
		"an attached unit":            {unit("a.service"), "", map[string]string{"etc/systemd/system.attached/a.service": ""}, true},
		"a transient unit":            {unit("a.service"), "", map[string]string{"run/systemd/transient/a.service": ""}, true},
		"a generated unit": {
			unit("data.mount"), "",
			map[string]string{"run/systemd/generator/data.mount": "[Unit]\nSourcePath=/etc/fstab\n"}, true,
		},
		"a late generated unit":        {unit("a.service"), "", map[string]string{"run/systemd/generator.late/a.service": ""}, true},
		"an early generated unit":      {unit("a.service"), "", map[string]string{"run/systemd/generator.early/a.service": ""}, true},
		"a control directory":          {unit("a.service"), "", map[string]string{"etc/systemd/system.control/a.service": ""}, true},
		"a template":                   {unit("getty@tty1.service"), "", map[string]string{"usr/lib/systemd/system/getty@.service": ""}, true},
		"a template in the same place": {unit("getty@tty1.service"), "", map[string]string{"etc/systemd/system/getty@.service": ""}, true},
		"an instance": {
			unit("getty@tty1.service"), "", map[string]string{"usr/lib/systemd/system/getty@tty1.service": ""}, true,
		},
		"a template that is the same": {unit("getty@.service"), "", map[string]string{"usr/lib/systemd/system/getty@.service": ""}, true},
		"another template":            {unit("getty2@tty1.service"), "", map[string]string{"usr/lib/systemd/system/getty@.service": ""}, false},
		"a template of another type":  {unit("a@b.socket"), "", map[string]string{"usr/lib/systemd/system/a@.service": ""}, false},
		"an alias of the host": {
			unit("sshd.service"), "",
			map[string]string{"usr/lib/systemd/system/ssh.service": "[Install]\nAlias = foo.service sshd.service\n"},
			true,
		},
		"an alias over two lines": {
			unit("sshd.service"), "",
			map[string]string{"usr/lib/systemd/system/ssh.service": "[Install]\nAlias=foo.service \\\n  sshd.service\n"},
			true,
		},
		"an alias that is a link": {
			unit("dbus.service"), "",
			map[string]string{"usr/lib/systemd/system/dbus.service": "-> dbus-broker.service"}, true,
		},
		"a word that is no alias": {
			unit("sshd.service"), "",
			map[string]string{"usr/lib/systemd/system/ssh.service": "[Unit]\nAlias=sshd.service\n"}, false,
		},
		"an alias of ours": {
			unit("app.service"), "[Install]\nAlias=ssh.service\n",
			map[string]string{"usr/lib/systemd/system/ssh.service": ""}, true,
		},
		"an alias of ours, instance": {
			unit("app.service"), "[Install]\nAlias=getty@tty1.service\n",
			map[string]string{"usr/lib/systemd/system/getty@.service": ""}, true,
		},
		"a script of System V": {unit("a.service"), "", map[string]string{"etc/init.d/a": "#!/bin/sh\n"}, true},
		"a mount of fstab": {
			unit("srv-my\\x2ddata.mount"), "",
			map[string]string{"etc/fstab": "# x\nUUID=1 /srv/my-data ext4 defaults 0 2\n"}, true,
		},
		"another mount": {
			unit("srv-data.mount"), "", map[string]string{"etc/fstab": "UUID=1 /srv/other ext4 defaults 0 2\n"}, false,
		},
		"Quadlet over a unit": {quadlet("ssh.container"), "", map[string]string{"usr/lib/systemd/system/ssh.service": ""}, true},
		"Quadlet over an alias": {
			quadlet("sshd.container"), "",
			map[string]string{"usr/lib/systemd/system/ssh.service": "[Install]\nAlias=sshd.service\n"}, true,
		},
		"Quadlet's volume":   {quadlet("a.volume"), "", map[string]string{"usr/lib/systemd/system/a-volume.service": ""}, true},
		"Quadlet's network":  {quadlet("a.network"), "", map[string]string{"usr/lib/systemd/system/a-network.service": ""}, true},
		"Quadlet's pod":      {quadlet("a.pod"), "", map[string]string{"usr/lib/systemd/system/a-pod.service": ""}, true},
		"Quadlet's kube":     {quadlet("a.kube"), "", map[string]string{"usr/lib/systemd/system/a.service": ""}, true},
		"Quadlet's build":    {quadlet("a.build"), "", map[string]string{"usr/lib/systemd/system/a-build.service": ""}, true},
		"Quadlet's template": {quadlet("getty@.container"), "", map[string]string{"usr/lib/systemd/system/getty@.service": ""}, true},
		"Quadlet with another name": {
			quadlet("a.container"), "[Container]\nServiceName=ssh\n",
			map[string]string{"usr/lib/systemd/system/ssh.service": ""}, true,
		},
		"Quadlet with a harmless name": {
			quadlet("ssh.container"), "[Container]\nServiceName=app\n",
			map[string]string{"usr/lib/systemd/system/ssh.service": ""}, false,
		},
		"Quadlet with an alias": {
			quadlet("a.container"), "[Install]\nAlias=ssh.service\n",
			map[string]string{"usr/lib/systemd/system/ssh.service": ""}, true,
		},
		"Quadlet over Quadlet's":  {quadlet("a.container"), "", map[string]string{"usr/share/containers/systemd/a.container": ""}, true},
		"Quadlet of another type": {quadlet("a.kube"), "", map[string]string{"etc/containers/systemd/a.container": ""}, true},
		"a unit over Quadlet's":   {unit("a.service"), "", map[string]string{"usr/share/containers/systemd/a.container": ""}, true},
		"our unit, generated": {
			quadlet("a.container"), "",
			map[string]string{
				"etc/containers/systemd/a.container": "-> BASE/current/x",
				"run/systemd/generator/a.service":    "[Unit]\nSourcePath=/etc/containers/systemd/a.container\n",
			},
			false,
		},
		"our unit, linked": {unit("a.service"), "", map[string]string{"etc/systemd/system/a.service": "-> BASE/current/x"}, false},
		"our alias, enabled": {
			unit("a.service"), "[Install]\nAlias=b.service\n",
			map[string]string{
				"etc/systemd/system/a.service": "-> BASE/current/x",
				"etc/systemd/system/b.service": "-> /etc/systemd/system/a.service",
			},
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			hostRoot, base := t.TempDir(), filepath.Join(t.TempDir(), "deployments/app")
			for file, text := range x.host {
				p := filepath.Join(hostRoot, file)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				err := os.WriteFile(p, []byte(text), 0o644)
				if to, ok := strings.CutPrefix(text, "-> "); ok {
					err = os.Remove(p)
					if err == nil {
						err = os.Symlink(strings.Replace(to, "BASE", base, 1), p)
					}
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			r := &Release{
				base:  base,
				site:  Site{HostRoot: hostRoot},
				host:  &bundle.Host{Links: []bundle.Link{x.link}},
				files: []file{{path: "x", data: []byte(x.content)}},
			}
			got, err := r.Foreign()
			if err != nil || (len(got) > 0) != x.hides {
				t.Errorf("it hides %v, %v", got, err)
			}
			if slices.Contains(got, filepath.Join(hostRoot, x.link.Path)) && !strings.HasPrefix(x.link.Path, "/etc") {
				t.Errorf("%v", got)
			}
		})
	}
}
