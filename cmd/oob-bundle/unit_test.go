package main

import (
	"bytes"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestUnitRefuses: no flag adds a line to the unit that registry unit prints.
func TestUnitRefuses(t *testing.T) {
	const more = "x\nExecStartPre=/bin/evil"
	tls := []string{"--listen", "0.0.0.0:5000", "--tls", "--accounts", "/etc/accounts"}
	for _, args := range [][]string{
		append([]string{"--name", "a.site" + more}, tls...),
		append([]string{"--name", "a.site\r"}, tls...),
		append([]string{"--name", "a site"}, tls...),
		append([]string{"--name", ""}, tls...),
		append([]string{"--name", "a.site", "--name", "-x"}, tls...),
		{"--root", more},
		{"--root", "a\x01b"},
		{"--listen", "127.0.0.1:5000\n"},
		{"--listen", "localhost:" + more},
		{"--listen", "127.0.0.1:5000", "--accounts", more},
		{"--listen", "127.0.0.1:5000", "--tls-cert", more, "--tls-key", "k"},
		{"--listen", "127.0.0.1:5000", "--tls-cert", "c", "--tls-key", "k\u0085"},
	} {
		var out, errs bytes.Buffer
		if status := run(append([]string{"registry", "unit"}, args...), &out, &errs); status != 2 || out.Len() > 0 {
			t.Errorf("%q: exit status %d: %s", args, status, out.String())
		}
	}
}

// TestUnitQuotes: a path reaches the program unchanged.
func TestUnitQuotes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no systemd there, and paths have backslashes")
	}
	dir := t.TempDir()
	for name, want := range map[string][2]string{
		"plain":     {"plain", "plain"},
		"a b":       {"a b", "a b"},
		"50%":       {"50%%", "50%%"},
		"$HOME":     {"$$HOME", "$HOME"},
		`a"b\c`:     {`a\"b\\c`, `a\"b\\c`},
		"it's; {x}": {"it's; {x}", "it's; {x}"},
		"ü":         {"ü", "ü"},
	} {
		var out, errs bytes.Buffer
		if status := run([]string{"registry", "unit", "--root", filepath.Join(dir, name)}, &out, &errs); status != 0 {
			t.Fatalf("%q: exit status %d: %s", name, status, errs.String())
		}
		quote := `"`
		if name == "plain" {
			quote = ""
		}
		for _, line := range []string{" --root " + quote + dir + "/" + want[0] + quote, "ReadWritePaths=" + quote + dir + "/" + want[1] + quote} {
			if !strings.Contains(out.String(), line+"\n") {
				t.Errorf("%q lacks %s:\n%s", name, line, out.String())
			}
		}
	}
	for _, name := range []string{"registry.site", "192.0.2.1", "2001:db8::1", "*.site"} {
		var out, errs bytes.Buffer
		if status := run(
			[]string{"registry", "unit", "--root", dir, "--tls", "--name", name},
			&out, &errs,
		); status != 0 ||
			!strings.Contains(out.String(), "--name") {
			t.Errorf("%s: exit status %d: %s", name, status, errs.String())
		}
	}
}
