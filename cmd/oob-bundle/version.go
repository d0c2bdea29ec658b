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

// buildVersion returns the release, or what the module system knows.
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
		Use:   "version",
		Short: "Show which version this is and what it is made of",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return u.version() },
	}
	u.jsonFlag(c)
	return c
}

type versionJSON struct {
	Version  string       `json:"version"`
	Commit   string       `json:"commit"` // empty if the build does not know
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
	out := versionJSON{Version: buildVersion(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Modules: []moduleJSON{}}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				out.Commit = s.Value
			}
		}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			out.Modules = append(out.Modules, moduleJSON{m.Path, m.Version, m.Sum})
		}
	}
	return u.result(out, func(w io.Writer) {
		fmt.Fprintf(w, "oob-bundle %s (%s, %s)\n", out.Version, out.Go, out.Platform)
	})
}
