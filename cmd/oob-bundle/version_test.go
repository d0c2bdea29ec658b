package main

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestVersion: version reports the commit, whether the sources were changed, and the checksums
// of the modules. A test binary has no commit, so the test uses made-up build info;
// .ci/release-check tests a real release.
func TestVersion(t *testing.T) {
	const commit = "0b69b040c1f3d5a2e6b7c8d9e0f1a2b3c4d5e6f7"
	where := runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH + ")\n"
	vcs := func(modified string) *debug.BuildInfo {
		return &debug.BuildInfo{
			Settings: []debug.BuildSetting{
				{Key: "-trimpath", Value: "true"},
				{Key: "vcs.revision", Value: commit},
				{Key: "vcs.modified", Value: modified},
			},
			Deps: []*debug.Module{
				{Path: "a.example/a", Version: "v1.0.0", Sum: "h1:a="},
				{Path: "b.example/b", Version: "v1.0.0", Sum: "h1:b=", Replace: &debug.Module{Path: "c.example/c", Version: "v2.0.0", Sum: "h1:c="}},
			},
		}
	}
	for _, test := range []struct {
		name     string
		info     *debug.BuildInfo
		commit   string
		modified bool
		modules  []moduleJSON
		text     string
	}{
		{
			"clean", vcs("false"), commit, false,
			[]moduleJSON{{"a.example/a", "v1.0.0", "h1:a="}, {"c.example/c", "v2.0.0", "h1:c="}},
			"oob-bundle 1.2.3 (commit " + commit + ", ",
		},
		{
			"changed", vcs("true"), commit, true,
			[]moduleJSON{{"a.example/a", "v1.0.0", "h1:a="}, {"c.example/c", "v2.0.0", "h1:c="}},
			"oob-bundle 1.2.3 (commit " + commit + " with changes, ",
		},
		{"unknown", &debug.BuildInfo{}, "", false, []moduleJSON{}, "oob-bundle 1.2.3 (unknown commit, "},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := describeBuild("1.2.3", test.info)
			want := versionJSON{"1.2.3", test.commit, test.modified, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, test.modules}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			var text strings.Builder
			got.print(&text)
			if text.String() != test.text+where {
				t.Errorf("it prints %q, want %q", text.String(), test.text+where)
			}
		})
	}
}
