package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set when a release is built (-ldflags -X main.version=…).
var version = ""

// buildVersion returns the release, or the module version from the build info, or "devel".
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func userAgent() string { return "oob-bundle/" + buildVersion() }

func versionCommand(u *ui) *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this program and its modules",
		Example: "  oob-bundle version --json",
		Args:    none,
		RunE:    func(*cobra.Command, []string) error { return u.version() },
	}
	u.jsonFlag(c)
	return c
}

type versionJSON struct {
	Version  string       `json:"version"`
	Commit   string       `json:"commit"`   // empty if not recorded in the build
	Modified bool         `json:"modified"` // whether the sources had uncommitted changes
	Go       string       `json:"go"`
	Platform string       `json:"platform"`
	Modules  []moduleJSON `json:"modules"`
}

type moduleJSON struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum"` // as in go.sum
}

func (u *ui) version() error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	out := describeBuild(buildVersion(), info)
	return u.result(out, out.print)
}

// describeBuild converts the build info to versionJSON.
func describeBuild(version string, info *debug.BuildInfo) versionJSON {
	out := versionJSON{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Modules: []moduleJSON{}}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			out.Commit = s.Value
		case "vcs.modified":
			out.Modified = s.Value == "true"
		}
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		out.Modules = append(out.Modules, moduleJSON{m.Path, m.Version, m.Sum})
	}
	return out
}

func (v versionJSON) print(w io.Writer) {
	commit := "unknown commit"
	if v.Commit != "" {
		commit = "commit " + v.Commit
	}
	if v.Modified {
		commit += " with changes"
	}
	fmt.Fprintf(w, "oob-bundle %s (%s, %s, %s)\n", v.Version, commit, v.Go, v.Platform)
}
