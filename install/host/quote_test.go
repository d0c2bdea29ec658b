package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// awkward contains values with characters that have a meaning in some language.
var awkward = []string{
	"",
	"plain",
	"with space",
	" padded ",
	`Pa$$w0rd$HOME`,
	"$HOME",
	"${HOME}",
	"$$",
	"50%",
	"%n%%",
	"a#b",
	"a #b",
	`DOMAIN\host`,
	`end\`,
	`\\server\share`,
	`say "x"`,
	"it's",
	`it's "both" \ $HOME`,
	`x", "EnableDeveloper": true, "y":"`,
	"`id`",
	"$(id)",
	"a;b",
	";",
	"{{ x }}",
	"[a]",
	"a: b",
	"- a",
	"*a",
	"&a",
	"!a",
	"@a",
	"|",
	"null",
	"true",
	"no",
	"1e3",
	"0x10",
	"2026-01-01",
	"=",
	"a=b",
	"ü€😀",
	"~",
	`\n`,
	`\$HOME`,
	`a\"b`,
	`'`,
	`"`,
	`''`,
	`\'`,
}

// filled renders a template with .Values.v set to value.
func filled(t *testing.T, text, value string) (string, error) {
	t.Helper()
	out, err := (&renderer{view: view{Values: map[string]string{"v": value}}, limits: newLimits()}).render("x", text)
	return string(out), err
}

// TestQuoting checks that a reader of each language gets the quoted value back.
func TestQuoting(t *testing.T) {
	for name, c := range map[string]struct {
		template string
		read     func(t *testing.T, text string) string
		refused  func(value string) bool
	}{
		"json": {`{"a": {{ json .Values.v }}}`, readJSON, nil},
		"yaml": {"a: {{ yaml .Values.v }} # comment\nb: 1\n", readYAML, nil},
		"yaml in yaml": {"a: {{ yaml (yaml .Values.v) }}\n", func(t *testing.T, s string) string {
			t.Helper()
			return readYAML(t, "a: "+readYAML(t, s))
		}, nil},
		"pod": {"a: {{ podEnv .Values.v }}\n", func(t *testing.T, s string) string {
			t.Helper()
			return interpolated(t, readYAML(t, s))
		}, nil},
		"compose": {"a: {{ compose .Values.v }}\n", func(t *testing.T, s string) string {
			t.Helper()
			return interpolated(t, readYAML(t, s))
		}, nil},
		"Compose's env": {"A={{ env \"compose\" .Values.v }}\n", readComposeEnv, nil},
		"systemd's env": {"A={{ env \"systemd\" .Values.v }}\n", readSystemdEnv, nil},
		"podman's env":  {"A={{ env \"podman\" .Values.v }}\n", readVerbatim, nil},
		"Docker's env":  {"A={{ env \"docker\" .Values.v }}\n", readVerbatim, nil},
		"unit": {`{{ systemd .Values.v }} x`, func(t *testing.T, s string) string {
			t.Helper()
			return unspecified(t, firstWord(t, s))
		}, nil},
		"assignment": {`{{ systemd (printf "A=%s" .Values.v) }} x`, func(t *testing.T, s string) string {
			t.Helper()
			return unspecified(t, strings.TrimPrefix(firstWord(t, s), "A="))
		}, nil},
		"command": {`{{ systemdExec .Values.v }} x`, func(t *testing.T, s string) string {
			t.Helper()
			return interpolated(t, unspecified(t, firstWord(t, s)))
		}, nil},
		"line": {`{{ systemdLine .Values.v }}`, unspecified, func(v string) bool {
			return strings.TrimSpace(v) != v || strings.HasSuffix(v, `\`)
		}},
		"nginx": {`{{ nginx .Values.v }};`, readNginx, func(v string) bool { return strings.Contains(v, "$") }},
		"shell": {`printf %s {{ shell .Values.v }}`, readShell, nil},
		"sql":   {`{{ sql .Values.v }}`, func(_ *testing.T, s string) string { return strings.ReplaceAll(s[1:len(s)-1], "''", "'") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, value := range awkward {
				text, err := filled(t, c.template, value)
				if c.refused != nil && c.refused(value) {
					if !errors.Is(err, ErrValues) {
						t.Errorf("%q: %q, %v", value, text, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%q: %v", value, err)
				} else if got := c.read(t, text); got != value {
					t.Errorf("%q was written as %s and read as %q", value, text, got)
				}
			}
		})
	}
}

// TestQuotingRefuses checks that line breaks and other control characters are refused, and
// that the error does not contain the value.
func TestQuotingRefuses(t *testing.T) {
	for _, call := range []string{
		`env "compose"`, `env "podman"`, `env "systemd"`, "systemd", "systemdExec", "systemdLine", "nginx", "shell",
		"sql",
	} {
		for _, value := range []string{"pw1\npw2", "pw1\r", "pw1\x00", "pw1\tpw2", "pw1\u0085"} {
			text, err := filled(t, "{{ "+call+" .Values.v }}", value)
			if !errors.Is(err, ErrValues) || strings.Contains(err.Error(), "pw1") {
				t.Errorf("%s of %q: %q, %v", call, value, text, err)
			}
		}
	}
	if _, err := filled(
		t,
		`{{ env "composer" .Values.v }}`,
		"x",
	); err == nil ||
		!strings.Contains(err.Error(), `unknown program "composer"; use one of compose, systemd, podman, docker`) {
		t.Error(err)
	}
}

// TestURLPassword checks that a password is read back from a URL's user part and query.
func TestURLPassword(t *testing.T) {
	for _, value := range awkward {
		text, err := filled(t, "postgres://u:{{ urlquery .Values.v }}@db:5432/x?password={{ urlquery .Values.v }}", value)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		password, _ := u.User.Password()
		if query := u.Query().Get("password"); password != value || query != value {
			t.Errorf("%q was written as %s and read as %q and %q", value, text, password, query)
		}
	}
}

func TestURLHost(t *testing.T) {
	for host, want := range map[string]string{
		"db.site":     "db.site",
		"192.0.2.1":   "192.0.2.1",
		"2001:db8::1": "[2001:db8::1]",
		"::1":         "[::1]",
		"":            "",
	} {
		if got := urlHost(host); got != want {
			t.Errorf("%q became %q", host, got)
		}
	}
}

func readJSON(t *testing.T, text string) string {
	t.Helper()
	var doc map[string]string
	if err := json.Unmarshal([]byte(text), &doc); err != nil || len(doc) != 1 {
		t.Errorf("%s: %v", text, err)
	}
	return doc["a"]
}

func readYAML(t *testing.T, text string) string {
	t.Helper()
	var doc map[string]any
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Errorf("%s: %v", text, err)
	}
	value, ok := doc["a"].(string)
	if !ok {
		t.Errorf("%s is no text", text)
	}
	return value
}

// doubled reads a text in which a doubled sign means one sign. A single sign fails the test.
func doubled(t *testing.T, text, sign string) string {
	t.Helper()
	parts := strings.Split(text, sign+sign)
	if slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(p, sign) }) {
		t.Errorf("%s has a single %s", text, sign)
	}
	return strings.Join(parts, sign)
}

func interpolated(t *testing.T, text string) string { t.Helper(); return doubled(t, text, "$") }
func unspecified(t *testing.T, text string) string  { t.Helper(); return doubled(t, text, "%") }

func readVerbatim(_ *testing.T, text string) string {
	return strings.TrimPrefix(strings.TrimSuffix(text, "\n"), "A=")
}

// readComposeEnv reads a value as compose-go does (dotenv/parser.go).
func readComposeEnv(t *testing.T, text string) string {
	t.Helper()
	text = readVerbatim(t, text)
	if text == "" || text[0] != '"' && text[0] != '\'' {
		text, _, _ = strings.Cut(text, "#")
		return interpolated(t, strings.TrimSpace(text))
	}
	quote, rest := text[0], text[1:]
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == quote:
			if i != len(rest)-1 {
				t.Errorf("%s ends early", text)
			}
			if quote == '\'' {
				return b.String()
			}
			return interpolated(t, strings.ReplaceAll(b.String(), `\\`, `\`))
		case rest[i] == '\\' && i+1 < len(rest):
			i++
			if rest[i] != quote {
				b.WriteByte('\\')
			}
			b.WriteByte(rest[i])
		default:
			b.WriteByte(rest[i])
		}
	}
	t.Errorf("%s does not end", text)
	return ""
}

// readSystemdEnv reads a value as systemd does (src/basic/env-file.c).
func readSystemdEnv(t *testing.T, text string) string {
	t.Helper()
	text = readVerbatim(t, text)
	if text == "" || text[0] != '"' {
		if strings.ContainsAny(text, `'"\`) || strings.TrimSpace(text) != text {
			t.Errorf("%s is not quoted", text)
		}
		return text
	}
	var b strings.Builder
	for i := 1; i < len(text)-1; i++ {
		if text[i] == '"' {
			t.Errorf("%s ends early", text)
		}
		if text[i] == '\\' {
			if i++; !strings.ContainsRune("\"\\`$", rune(text[i])) || i == len(text)-1 {
				t.Errorf("%s has an escape too many", text)
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// firstWord reads a word as systemd does (src/basic/extract-word.c).
func firstWord(t *testing.T, text string) string {
	t.Helper()
	word, quoted, i := strings.Builder{}, false, 0
	for ; i < len(text); i++ {
		switch {
		case text[i] == '"':
			quoted = !quoted
		case text[i] == ' ' && !quoted:
			if text[i:] != " x" || i == 0 {
				t.Errorf("%s has another number of words", text)
			}
			return word.String()
		case text[i] == '\\':
			if i++; text[i] != '"' && text[i] != '\\' {
				t.Errorf("%s has an unknown escape", text)
			}
			word.WriteByte(text[i])
		case text[i] == '\'' && !quoted:
			t.Errorf("%s has a quote that is none", text)
		default:
			word.WriteByte(text[i])
		}
	}
	t.Errorf("%s does not end", text)
	return ""
}

// readNginx reads a parameter as nginx does (ngx_conf_read_token).
func readNginx(t *testing.T, text string) string {
	t.Helper()
	inner, ok := strings.CutPrefix(text, `"`)
	inner, end := strings.CutSuffix(inner, `";`)
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		ok = ok && inner[i] != '"' && inner[i] != '$'
		if inner[i] == '\\' {
			i++
			ok = ok && i < len(inner) && (inner[i] == '"' || inner[i] == '\\')
		}
		b.WriteByte(inner[i])
	}
	if !ok || !end {
		t.Errorf("%s", text)
	}
	return b.String()
}

func readShell(t *testing.T, text string) string {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh here")
	}
	out, err := exec.CommandContext(t.Context(), sh, "-c", text).Output()
	if err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return string(out)
}

// TestQuotingCompose checks that the installed Docker Compose reads values back from a Compose
// file and an env file.
func TestQuotingCompose(t *testing.T) {
	command, first := composeHere(t)
	file := "version: \"3\"\nservices:\n  a:\n    image: a\n    env_file: [a.env]\n    environment:\n"
	env, want := "", map[string]string{}
	for i, value := range awkward {
		line, err := filled(t, fmt.Sprintf("      F%d: {{ compose .Values.v }}\n", i), value)
		if err != nil {
			t.Fatal(err)
		}
		file += line
		want[fmt.Sprint("F", i)] = value
		if first && (strings.HasPrefix(composeEnv(value), `"`) || strings.Contains(value, "${")) {
			continue // Compose 1 cannot express these in an env file
		}
		if line, err = filled(t, fmt.Sprintf("E%d={{ env \"compose\" .Values.v }}\n", i), value); err != nil {
			t.Fatal(err)
		}
		env += line
		want[fmt.Sprint("E", i)] = value
	}
	dir := t.TempDir()
	composeFile := filepath.Join(dir, "compose.yaml")
	if err := errors.Join(
		os.WriteFile(composeFile, []byte(file), 0o600), os.WriteFile(filepath.Join(dir, "a.env"), []byte(env), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	args := append(slices.Clone(command[1:]), "--project-directory", dir, "--file", composeFile, "config")
	out, err := exec.CommandContext(t.Context(), command[0], args...).Output() //nolint:gosec // fixed arguments
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Services map[string]struct{ Environment map[string]string }
	}
	if err := yaml.Unmarshal(out, &config); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := config.Services["a"].Environment
	for name, value := range got {
		got[name] = interpolated(t, value) // the output of config is quoted again
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// composeHere returns the command of the installed Docker Compose, and whether it is version
// 1.
func composeHere(t *testing.T) (command []string, old bool) {
	t.Helper()
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		out, err := exec.CommandContext(
			context.WithoutCancel(t.Context()), command[0],
			append(command[1:], "version", "--short")...).Output() //nolint:gosec // fixed arguments
		if err == nil {
			return command, strings.HasPrefix(strings.TrimPrefix(string(out), "v"), "1.")
		}
	}
	t.Skip("no Docker Compose here")
	return nil, false
}
