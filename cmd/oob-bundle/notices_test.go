package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notices returns the copyright file of a package. It lists the modules that are linked into the
// program on any platform, with the texts of their licences.
func notices(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`oob-bundle is licensed under the Apache License, Version 2.0; the text is in
LICENSE, on Debian also in /usr/share/common-licenses/Apache-2.0.

The program is one static file, into which these modules are linked, under
licences of their own:

`)
	texts := map[string][]string{} // text → modules with this text
	for _, m := range linked(t) {
		fmt.Fprintf(&b, "  %s\n", m.name)
		for _, path := range m.licences {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.TrimSpace(strings.ReplaceAll(string(data), "\r\n", "\n"))
			if !slices.Contains(texts[text], m.name) {
				texts[text] = append(texts[text], m.name)
			}
		}
	}
	byNames := func(a, b string) int {
		return strings.Compare(strings.Join(texts[a], "\n")+a, strings.Join(texts[b], "\n")+b)
	}
	for _, text := range slices.SortedFunc(maps.Keys(texts), byNames) {
		fmt.Fprintf(&b, "\n%s\n%s:\n\n%s\n", strings.Repeat("=", 78), strings.Join(texts[text], "\n"), text)
	}
	return b.String()
}

// linkedModule is a module with packages that are linked into the program.
type linkedModule struct {
	name     string // path and version
	licences []string
}

// linked lists the modules of the program and the Go standard library.
func linked(t *testing.T) []linkedModule {
	t.Helper()
	goroot := strings.TrimSpace(goTool(t, "env", "GOROOT"))
	modules := map[string]map[string]bool{"go (the standard library)": licencesBetween(t, goroot, goroot)}
	t.Setenv("CGO_ENABLED", "0")
	for _, system := range []string{"linux", "darwin", "windows"} {
		t.Setenv("GOOS", system)
		const format = "{{with .Module}}{{.Path}}\t{{.Version}}\t{{.Dir}}\t{{$.Dir}}{{end}}"
		for _, line := range strings.Split(list(t, "-deps", "-f", format, "./cmd/oob-bundle"), "\n") {
			f := strings.Split(line, "\t")
			if len(f) != 4 || f[1] == "" { // the standard library, or this module
				continue
			}
			name := f[0] + " " + f[1]
			if modules[name] == nil {
				modules[name] = map[string]bool{}
			}
			maps.Copy(modules[name], licencesBetween(t, f[2], f[3]))
		}
	}
	var all []linkedModule
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		if len(modules[name]) == 0 {
			t.Errorf("%s has no licence that can be found", name)
		}
		all = append(all, linkedModule{name, slices.Sorted(maps.Keys(modules[name]))})
	}
	return all
}

var licenceFile = regexp.MustCompile(`(?i)^((un)?licen[cs]e|copying|notice|patents)([-.].*)?$`)

// licencesBetween returns the licence files in all directories from a module's root down to dir,
// the directory of one of its packages.
func licencesBetween(t *testing.T, module, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Type().IsRegular() && licenceFile.MatchString(e.Name()) && filepath.Ext(e.Name()) != ".go" {
				found[filepath.Join(dir, e.Name())] = true
			}
		}
		if dir == module || len(dir) <= len(module) {
			return found
		}
		dir = filepath.Dir(dir)
	}
}
