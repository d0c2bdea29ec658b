package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// unitDirs are the directories of system units, in order of precedence (systemd.unit(5), table
// 1).
var unitDirs = []string{
	"etc/systemd/system.control", "run/systemd/system.control", "run/systemd/transient", "run/systemd/generator.early",
	"etc/systemd/system", "etc/systemd/system.attached", "run/systemd/system", "run/systemd/system.attached", "run/systemd/generator",
	"usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system", "run/systemd/generator.late",
}

// quadletDirs are the directories that podman's generator reads (podman-systemd.unit(5)).
var quadletDirs = []string{"etc/containers/systemd", "run/containers/systemd", "usr/share/containers/systemd"}

// quadletNames maps each file type of Quadlet to the suffix that Quadlet adds to the name.
var quadletNames = map[string]string{
	".container": "", ".kube": "", ".pod": "-pod", ".volume": "-volume", ".network": "-network", ".image": "-image", ".build": "-build",
}

// maxUnit limits a unit file that is read, in bytes.
const maxUnit = 1 << 20

// units finds units of the host that a release's units would hide or change.
type units struct {
	base, hostRoot string
	names          map[string]string // unit to the file that defines it; without the deployment's own
}

// readUnits reads the names of all units of a host, including those from aliases and
// generators. It skips directories that are missing or must not be read.
func readUnits(base, hostRoot string) *units {
	u := &units{base: base, hostRoot: hostRoot, names: map[string]string{}}
	for _, dir := range unitDirs {
		u.read(dir, func(file string, content []byte) []string {
			return append([]string{path.Base(file)}, aliases(content)...)
		})
	}
	for _, dir := range quadletDirs {
		u.read(dir, quadletUnits)
	}
	u.read("etc/init.d", func(file string, _ []byte) []string { return []string{path.Base(file) + ".service"} })
	u.readMounts()
	return u
}

// read adds the units that the files of a directory define.
func (u *units) read(dir string, made func(file string, content []byte) []string) {
	entries, err := os.ReadDir(filepath.Join(u.hostRoot, dir))
	if err != nil {
		return
	}
	for _, e := range entries {
		file := filepath.Join(u.hostRoot, dir, e.Name())
		if e.IsDir() || u.ours(file) {
			continue
		}
		content := readUnit(file)
		if source, ok := entry(content, "Unit", "SourcePath"); ok && u.ours(filepath.Join(u.hostRoot, source)) {
			continue // Quadlet has generated the unit from a file of the deployment
		}
		for _, name := range made(file, content) {
			if _, known := u.names[name]; !known {
				u.names[name] = file
			}
		}
	}
}

// readUnit returns the content of a unit file, or nil if the file is not regular or cannot be
// read.
func readUnit(file string) []byte {
	fi, err := os.Stat(file)
	if err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	content, err := disk.ReadFile(file, maxUnit)
	if err != nil {
		return nil
	}
	return content
}

// readMounts adds the units that systemd-fstab-generator generates.
func (u *units) readMounts() {
	table := filepath.Join(u.hostRoot, "etc/fstab")
	for line := range bytes.Lines(readUnit(table)) {
		if fields := strings.Fields(string(line)); len(fields) > 2 && !strings.HasPrefix(fields[0], "#") {
			suffix := ".mount"
			if fields[2] == "swap" {
				suffix, fields[1] = ".swap", fields[0]
			}
			u.names[escapePath(fields[1])+suffix] = table
		}
	}
}

// escapePath escapes a path as systemd does (systemd.unit(5), "String Escaping").
func escapePath(p string) string {
	p = strings.Trim(path.Clean("/"+p), "/")
	if p == "" {
		return "-"
	}
	var b strings.Builder
	for i := range len(p) {
		switch c := p[i]; {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i > 0, c == ':', c == '_', c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// ours reports whether a file is a link into the deployment, directly or through other links,
// such as those of systemctl enable.
func (u *units) ours(file string) bool {
	for range 8 {
		to, err := os.Readlink(file)
		if err != nil {
			return false
		}
		if within(filepath.Join(u.base, "current"), to) {
			return true
		}
		if filepath.IsAbs(to) {
			file = filepath.Join(u.hostRoot, to)
		} else {
			file = filepath.Join(filepath.Dir(file), to)
		}
	}
	return false
}

// hidden returns the host's files whose units the link would hide or change.
func (u *units) hidden(l bundle.Link, content []byte) (list []string) {
	var names []string
	switch {
	case path.Dir(l.Path) == "/etc/systemd/system":
		names = append(aliases(content), path.Base(l.Path))
	case path.Dir(l.Path) == "/etc/containers/systemd":
		names = quadletUnits(l.Path, content)
	}
	for _, name := range names {
		for _, n := range []string{name, templateOf(name)} {
			if file, ok := u.names[n]; ok && !slices.Contains(list, file) {
				list = append(list, file)
			}
		}
	}
	return list
}

// templateOf returns the template of an instance, such as getty@.service for
// getty@tty1.service, or the name itself if it is no instance.
func templateOf(name string) string {
	prefix, rest, ok := strings.Cut(name, "@")
	if !ok {
		return name
	}
	return prefix + "@" + path.Ext(rest)
}

// quadletUnits returns the units that Quadlet generates from a file.
func quadletUnits(file string, content []byte) []string {
	kind := path.Ext(file)
	more, ok := quadletNames[kind]
	if !ok {
		return nil
	}
	name := strings.TrimSuffix(path.Base(file), kind)
	if prefix, template := strings.CutSuffix(name, "@"); template {
		name = prefix + more + "@"
	} else {
		name += more
	}
	section := strings.ToUpper(kind[1:2]) + kind[2:]
	if own, ok := entry(content, section, "ServiceName"); ok {
		name = own
	}
	return append([]string{name + ".service"}, aliases(content)...)
}

// aliases returns the other names that systemctl enable or Quadlet gives a unit.
func aliases(content []byte) (names []string) {
	entries(content, "Install", "Alias", func(value string) { names = append(names, strings.Fields(value)...) })
	return names
}

// entry returns the last value of a key.
func entry(content []byte, section, key string) (value string, ok bool) {
	entries(content, section, key, func(v string) { value, ok = v, true })
	return value, ok
}

// entries calls found for each value of a key in a unit file (systemd.syntax(7)).
func entries(content []byte, section, key string, found func(value string)) {
	text := strings.NewReplacer("\\\r\n", " ", "\\\n", " ").Replace(string(content))
	in := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			in = strings.Trim(line, "[]")
			continue
		}
		if name, value, ok := strings.Cut(line, "="); ok && in == section && strings.TrimSpace(name) == key {
			found(strings.TrimSpace(value))
		}
	}
}

// Foreign returns the host's files that the release's links would replace, and the files of
// units that the links would hide or change. Errors wrap bundle.ErrPolicy, or come from the
// file system.
func (r *Release) Foreign() ([]string, error) {
	if r.site.HostRoot == "" || len(r.host.Links) == 0 {
		return nil, nil
	}
	var list []string
	known := readUnits(r.base, r.site.HostRoot)
	for _, l := range r.host.Links {
		content, err := r.linkContent(l)
		if err != nil {
			return nil, err
		}
		hidden := known.hidden(l, content)
		list = append(list, hidden...)
		p := filepath.Join(r.site.HostRoot, l.Path)
		if known.ours(p) || slices.Contains(hidden, p) {
			continue
		}
		fi, err := os.Lstat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		case !fi.Mode().IsRegular() && fi.Mode()&fs.ModeSymlink == 0:
			return nil, fmt.Errorf("%w: %s is neither a file nor a link, and a link of this bundle belongs there; move it away", bundle.ErrPolicy, p)
		}
		list = append(list, p)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// linkContent returns the content of a link's file, or nil if it has more than maxUnit bytes.
func (r *Release) linkContent(l bundle.Link) ([]byte, error) {
	for _, f := range r.files {
		switch {
		case f.path != l.File:
		case f.data != nil:
			return f.data, nil
		case f.blob.Size <= maxUnit:
			return r.bundle.ReadBlob(f.blob, maxUnit)
		}
	}
	return nil, nil
}
