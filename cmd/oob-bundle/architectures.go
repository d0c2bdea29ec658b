package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/manifests"
)

type architecturesFlags struct{ deployment, lock string }

func architecturesCommand(u *ui) *cobra.Command {
	var f architecturesFlags
	c := &cobra.Command{
		Use:   "architectures [NAME]",
		Short: "Show the reference architectures and their components",
		Example: `  oob-bundle architectures
  oob-bundle architectures ddil --deployment kubernetes`,
		Args: atMostOne("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return u.architectures()
			}
			return u.architecture(args[0], f)
		},
	}
	c.Flags().StringVar(&f.deployment, "deployment", "", "show only this `FORM`: compose, linux or kubernetes")
	c.Flags().StringVar(&f.lock, "lock", "", "show sizes from this lock `FILE` of the architecture")
	u.jsonFlag(c)
	return c
}

type architectureJSON struct {
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	Title       string   `json:"title"`
	Description string   `json:"description"`
	Source      string   `json:"source"`
	Deployments []string `json:"deployments"` // the first is the default
	Platforms   []string `json:"platforms"`   // the first is the default

	Content []deploymentContentJSON `json:"content,omitempty"`
}

type deploymentContentJSON struct {
	Deployment string               `json:"deployment"`
	Components []componentJSON      `json:"components"`
	External   []manifests.External `json:"external"` // the site provides these
}

type componentJSON struct {
	Name     string     `json:"name"`
	Title    string     `json:"title,omitempty"`
	Source   string     `json:"source,omitempty"`
	Optional bool       `json:"optional"`
	Items    []itemJSON `json:"items"`
}

type itemJSON struct {
	Kind string `json:"kind"` // image, plugin, chart or file
	Name string `json:"name"`
	Size int64  `json:"size,omitempty"` // bytes; 0 without a lock
}

func describeArchitecture(m *manifests.Manifest) (architectureJSON, error) {
	s, err := m.Describe(manifests.Choice{})
	if err != nil {
		return architectureJSON{}, err
	}
	return architectureJSON{
		Name: s.Name, Version: s.Version, Title: m.Metadata.Title, Description: m.Metadata.Description, Source: m.Metadata.Source,
		Deployments: m.Deployments, Platforms: m.Platforms,
	}, nil
}

func (u *ui) architectures() error {
	var out []architectureJSON
	for _, name := range manifests.Architectures() {
		m, err := manifests.Open(name)
		if err != nil {
			return err
		}
		a, err := describeArchitecture(m)
		if err != nil {
			return err
		}
		out = append(out, a)
	}
	return u.result(out, func(w io.Writer) {
		for _, a := range out {
			fmt.Fprintf(w, "%s\n  %s, version %s, for %s\n  %s\n", a.Name, a.Title, a.Version, strings.Join(a.Deployments, ", "), a.Description)
		}
		fmt.Fprintf(w, "More: oob-bundle architectures NAME\n")
	})
}

func (u *ui) architecture(name string, f architecturesFlags) error {
	m, err := manifests.Open(name)
	if err != nil {
		return err
	}
	out, err := describeArchitecture(m)
	if err != nil {
		return err
	}
	sizes, err := lockedSizes(f.lock)
	if err != nil {
		return err
	}
	deployments := m.Deployments
	if f.deployment != "" || len(deployments) == 0 {
		deployments = []string{f.deployment}
	}
	for _, d := range deployments {
		content, err := describeDeployment(m, d, sizes)
		if err != nil {
			return err
		}
		out.Content = append(out.Content, content)
	}
	return u.result(out, func(w io.Writer) { out.print(w) })
}

// describeDeployment lists the content of one deployment, including optional components.
func describeDeployment(m *manifests.Manifest, deployment string, sizes map[string]int64) (deploymentContentJSON, error) {
	out := deploymentContentJSON{Deployment: deployment, Components: []componentJSON{}}
	s, err := m.Describe(manifests.Choice{Deployment: deployment})
	if err != nil {
		return out, err
	}
	out.External = s.External
	for _, c := range s.Components {
		j := componentJSON{Name: c.Name, Title: c.Title, Source: c.Source, Optional: c.Optional, Items: []itemJSON{}}
		add := func(kind, name string) {
			i := itemJSON{kind, name, sizes[name]}
			if !slices.Contains(j.Items, i) {
				j.Items = append(j.Items, i)
			}
		}
		for _, i := range c.Images {
			add("image", s.Images[i].Reference.String())
		}
		for _, i := range c.Plugins {
			add("plugin", s.Plugins[i].URL)
		}
		for _, i := range c.Charts {
			add("chart", strings.TrimSuffix(s.Charts[i].Repository, "/")+"/"+s.Charts[i].Name+":"+s.Charts[i].Version)
		}
		for _, i := range c.Files {
			add("file", s.Files[i].Source)
		}
		out.Components = append(out.Components, j)
	}
	return out, nil
}

// lockedSizes returns the sizes recorded in a lock file, keyed by itemJSON.Name. The map is
// empty if path is "".
func lockedSizes(path string) (map[string]int64, error) {
	sizes := map[string]int64{}
	if path == "" {
		return sizes, nil
	}
	l, err := manifests.ReadLock(path)
	if err != nil {
		return nil, err
	}
	for _, p := range l.Plugins {
		sizes[p.Source] = p.Size
	}
	for _, c := range l.Charts {
		sizes[strings.TrimSuffix(c.Repository, "/")+"/"+c.Name+":"+c.Version] = c.Size
	}
	for _, f := range l.Files {
		sizes[f.Source] = f.Size
	}
	for _, i := range l.Images {
		sizes[i.Reference] = i.Total
	}
	return sizes, nil
}

func (a architectureJSON) print(w io.Writer) {
	fmt.Fprintf(w, "%s %s   %s\n", a.Name, a.Version, a.Title)
	for _, line := range [][2]string{{"about    ", a.Description}, {"platforms", strings.Join(a.Platforms, ", ")}, {"source   ", a.Source}} {
		if line[1] != "" {
			fmt.Fprintf(w, "  %s %s\n", line[0], line[1])
		}
	}
	for n, d := range a.Content {
		note := ""
		if n == 0 && len(a.Content) > 1 {
			note = " (default)"
		}
		if d.Deployment != "" {
			fmt.Fprintf(w, "\n--deployment %s%s\n", d.Deployment, note)
		}
		for _, c := range d.Components {
			if c.Optional {
				fmt.Fprintf(w, "  --with %s", c.Name)
			} else {
				fmt.Fprintf(w, "  %s", c.Name)
			}
			if c.Title != "" {
				fmt.Fprintf(w, ": %s", c.Title)
			}
			fmt.Fprintln(w)
			for _, i := range c.Items {
				size := ""
				if i.Size > 0 {
					size = "  " + human(i.Size)
				}
				fmt.Fprintf(w, "      %-7s %s%s\n", i.Kind, i.Name, size)
			}
			if c.Source != "" {
				fmt.Fprintf(w, "      source  %s\n", c.Source)
			}
		}
		if len(d.External) > 0 {
			fmt.Fprintf(w, "  The site provides:\n")
		}
		for _, e := range d.External {
			fmt.Fprintf(w, "      %s: %s\n", e.Name, e.Why)
			if e.Source != "" {
				fmt.Fprintf(w, "        source  %s\n", e.Source)
			}
		}
	}
}
