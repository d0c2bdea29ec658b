package bundle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// asked has values of all kinds.
var asked = &bundle.Host{
	Values: []bundle.Value{
		{
			Name: "text",
		},
		{Name: "other"},
		{Name: "mail", Kind: "email"},
		{Name: "port", Kind: "port"},
		{Name: "host", Kind: "host"},
		{Name: "flag", Kind: "flag"},
		{
			Name: "name",
			Kind: "name",
		},
		{Name: "number", Kind: "number"},
		{Name: "registry", Kind: "registry"},
		{Name: "file", Kind: "file"},
		{Name: "directory", Kind: "directory"},
	},
	Merges: []bundle.Merge{{File: "etc/config", Patch: "patch"}},
	Links: []bundle.Link{
		{Path: "/etc/systemd/system/x.service", File: "unit"}, {Path: "/etc/nginx/conf.d/site", File: "site"},
		{Path: "/etc/systemd/system/x@.service.d/10.conf", File: "drop"}, {Path: "/etc/default/app", File: "default"},
	},
}

func unquoted(t *testing.T, path, text string) []string {
	t.Helper()
	list, err := asked.Unquoted(path, text)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, u := range list {
		found = append(found, fmt.Sprintf("%d %s", u.Line, u.Value))
	}
	return found
}

// TestUnquoted: a value that is printed without a function that quotes is found, whatever its
// way through the template.
func TestUnquoted(t *testing.T) {
	for text, want := range map[string]string{
		`{{ .Values.text }}`:                                                               "1 .Values.text",
		`{{ json .Values.text }}`:                                                          "",
		`{{ .Values.text | json}}`:                                                         "",
		"\n\n{{- $.Values.text -}}\n{{ .Secrets.pw }}":                                     "3 .Values.text, 4 .Secrets.pw",
		`{{ index .Values "text" }}`:                                                       "1 .Values.text",
		`{{ index $.Secrets "pw" }}`:                                                       "1 .Secrets.pw",
		`{{ json (index .Values "text") }}`:                                                "",
		`{{ index .Values "port" }}`:                                                       "",
		`{{ index .Values .Name }}`:                                                        "1 .Values",
		`{{ "text" | index .Values }}`:                                                     "1 .Values",
		`{{ (.Values).text }}`:                                                             "1 .Values.text",
		`{{ (index .Values "text") | printf "%s" }}`:                                       "1 .Values.text",
		`{{ $v := .Values }}{{ $v.text }}`:                                                 "1 .Values.text",
		`{{ $v := .Values.text }}{{ $v }}`:                                                 "1 .Values.text",
		`{{ $v := json .Values.text }}{{ $v }}`:                                            "",
		`{{ $v := .Values.text }}{{ $v = json $v }}{{ $v }}`:                               "",
		`{{ $v := .Values.text }}{{ json $v }}`:                                            "",
		`{{ $v := "" }}{{ if .Values.flag }}{{ $v = .Values.text }}{{ end }}{{ $v }}`:      "1 .Values.text",
		`{{ $v := .Values.text }}{{ if .Values.flag }}{{ $v = json $v }}{{ end }}{{ $v }}`: "1 .Values.text",
		`{{ $v := .Values.text }}{{ if .Values.flag }}{{ $v := "" }}{{ $v }}{{ end }}{{ json $v }}`: "",
		`{{ $v := "" }}{{ range plugins }}{{ $v }}{{ $v = $.Values.text }}{{ end }}`:                "1 .Values.text",
		`{{ $a := "" }}{{ $b := "" }}{{ range plugins }}{{ range plugins }}{{ $a }}{{ $a = $b }}{{ $b = $.Values.text }}{{ ` +
			`end }}{{ end }}`: "1 .Values.text",
		`{{ if .Values.text }}a{{ else if eq .Values.text "x" }}{{ .Values.text }}{{ else }}{{ .Values.other }}{{ ` +
			`end }}`: "1 .Values.other, 1 .Values.text",
		`{{ with .Values.text }}{{ . }}{{ else }}{{ .Values.other }}{{ end }}`:                "1 .Values.other, 1 .Values.text",
		`{{ with $v := .Values.text }}{{ json $v }}{{ end }}`:                                 "",
		`{{ with .Values }}{{ .text }}{{ end }}`:                                              "1 .Values.text",
		`{{ range .Values }}{{ . }}{{ end }}`:                                                 "1 .Values",
		`{{ range $k, $v := .Values }}{{ $k }}={{ json $v }}{{ end }}`:                        "",
		`{{ range $k, $v := .Secrets }}{{ $v }}{{ end }}`:                                     "1 .Secrets",
		`{{ range plugins }}{{ .Name }}{{ else }}{{ .Values.text }}{{ end }}`:                 "1 .Values.text",
		"{{ define \"x\" }}\n{{ . }}{{ end }}{{ template \"x\" .Values.text }}":               "2 .Values.text",
		`{{ define "x" }}{{ json . }}{{ end }}{{ template "x" .Values.text }}`:                "",
		`{{ define "x" }}{{ .Values.text }}{{ end }}{{ template "x" . }}`:                     "1 .Values.text",
		`{{ define "x" }}{{ $.text }}{{ template "x" $ }}{{ end }}{{ template "x" .Values }}`: "1 .Values.text",
		`{{ define "x" }}{{ .Values.text }}{{ end }}`:                                         "",
		`{{ block "x" .Values.text }}{{ . }}{{ end }}`:                                        "1 .Values.text",
		`{{ printf "%s-%s" .Values.text .Values.other }}`:                                     "1 .Values.other, 1 .Values.text",
		`{{ json (printf "http://%s:%s/" .Values.text .Values.port) }}`:                       "",
		`{{ printf "%s" (json .Values.text) }}`:                                               "1 .Values.text",
		`{{ or .Values.text "none" }}`:                                                        "1 .Values.text",
		`{{ and .Values.flag (json .Values.text) }}`:                                          "",
		`{{ or (json .Values.text) .Values.other }}`:                                          "1 .Values.other",
		`{{ print . }}`: "1 .Secrets, 1 .Values",
		`{{ .Values }}`: "1 .Values",
		`{{ . }}`:       "1 .Secrets, 1 .Values",
		`{{ html .Values.text }}{{ urlquery .Values.text }}{{ js .Values.text }}`: "1 .Values.text",
		`{{ shell .Values.text }}`:                           "1 .Values.text",
		`{{ urlHost .Values.text }}{{ base .Values.other }}`: "1 .Values.other, 1 .Values.text",
		`{{ slice .Values.text 1 }}`:                         "1 .Values.text",
		`{{ eq .Values.text "a" }}{{ len .Values.text }}{{ not .Values.text }}{{ has "x" }}`:   "",
		`{{ .Name }}{{ .Settings.x }}{{ .Registry }}{{ image "nginx" }}{{ file "other" }}`:     "",
		`{{ environ "MM" (file "x.json") }}`:                                                   `1 environ "MM" (file "x.json")`,
		`{{ range $k, $v := environMap "MM" (file "x.json") }}{{ $k }}={{ $v }}{{ end }}`:      `1 environMap "MM" (file "x.json")`,
		`{{ range $k, $v := environMap "MM" (file "x.json") }}{{ $k }}={{ json $v }}{{ end }}`: "",
		`{{ .Values.nowhere }}`: "",
		`{{ .Values.mail }}`:    "1 .Values.mail",
		`{{ .Values.port }}{{ .Values.host }}{{ .Values.name }}{{ .Values.number }}{{ .Values.flag }}{{ .Values.registry ` +
			`}}{{ .Values.file }}{{ .Values.directory }}`: "",
		`{{ .Values | index }}`: "1 .Values",
		`plain`:                 "",
		``:                      "",
	} {
		if got := strings.Join(unquoted(t, "a.json", text), ", "); got != want {
			t.Errorf("%s: %q instead of %q", text, got, want)
		}
	}
}

// TestUnquotedLanguages: a file's name and use determine its language, and each language has
// its own functions.
func TestUnquotedLanguages(t *testing.T) {
	all := []string{"json", "yaml", "compose", "podEnv", "env", "systemd", "systemdExec", "systemdLine", "nginx", "shell", "sql", "print"}
	for use, paths := range map[string][]string{
		"json":                   {"a.json", "etc/A.JSON", "patch"},
		"yaml or json or podEnv": {"a.yaml", "kubernetes/a.yml", "values/nginx.yaml"},
		"compose": {
			"compose.yaml", "compose.yml", "a/compose.override.yaml", "docker-compose.yml", "docker-compose.prod.yaml", "Compose.yaml",
		},
		"env": {"a.env", "default", ".env", "compose/.env", ".env.local"},
		"systemd or systemdExec or systemdLine": {
			"a.service", "x.service.d/a.conf", "drop", "quadlet/x.container.d/a.conf", "a.timer",
			"a.socket", "quadlet/a.container", "a.network", "a.volume", "a.pod", "a.kube", "unit",
		},
		"nginx": {"nginx.conf", "nginx/site.conf", "etc/nginx-site.conf", "site"},
		"shell": {"a.sh"},
		"sql":   {"create.sql"},
		"":      {"README.txt", "a.conf", "nginx", "config", "json", "env"},
	} {
		for _, path := range paths {
			for _, f := range all {
				call := f
				if f == "env" {
					call = `env "compose"`
				}
				list, err := asked.Unquoted(path, "{{ "+call+" .Values.text }}")
				fits := use == "" || slices.Contains(strings.Split(use, " or "), f)
				if err != nil || fits != (len(list) == 0) || !fits && list[0].Use != use {
					t.Errorf("%s in %s: %v, %v", f, path, list, err)
				}
			}
		}
	}
	for call, n := range map[string]int{
		`env "composer" .Values.text`: 1, `env .Name .Values.text`: 0, `.Values.text | env "podman"`: 0, `.Values.text | env "x"`: 1,
	} {
		if got := unquoted(t, "a.env", "A={{ "+call+" }}"); len(got) != n {
			t.Errorf("%s: %v", call, got)
		}
	}
	// A path may contain a space, which ends a word.
	if got := unquoted(
		t,
		"a.service",
		"ExecStart=/bin/x {{ .Values.file }} {{ .Values.port }}",
	); !slices.Equal(
		got,
		[]string{"1 .Values.file"},
	) {
		t.Error(got)
	}
	if _, err := asked.Unquoted("a.json", "{{ nowhere }}"); err == nil {
		t.Error("a template that is none is accepted")
	}
	if list, err := (*bundle.Host)(nil).Unquoted("a.json", "{{ .Secrets.pw }}"); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
}
