package host

import (
	"fmt"
	"path"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Step is a cluster step of a release, with its templates filled in.
type Step struct {
	Stage     string             `json:"stage"`
	Apply     string             `json:"apply,omitempty"` // path of a file of the release
	Chart     string             `json:"chart,omitempty"` // path of the chart's archive in the release
	Version   string             `json:"version,omitempty"`
	Release   string             `json:"release,omitempty"`
	Namespace string             `json:"namespace,omitempty"`
	Values    string             `json:"values,omitempty"` // path of a file of the release
	Wait      []bundle.Condition `json:"wait,omitempty"`
	Health    []string           `json:"health,omitempty"`
	Keep      bool               `json:"keep,omitempty"`
}

// String returns the step as a short command.
func (s Step) String() string {
	if s.Apply != "" {
		return "apply " + s.Apply
	}
	return fmt.Sprintf("chart %s as %s in %s", path.Base(s.Chart), s.Release, s.Namespace)
}

// holds reports whether a condition is empty, or renders to something other than "" or
// "false".
func (r *renderer) holds(condition string) (bool, error) {
	if condition == "" {
		return true, nil
	}
	text, err := r.render("if", condition)
	result := strings.TrimSpace(string(text))
	return result != "" && result != "false", err
}

// text renders a one-line template.
func (r *renderer) text(name, template string) (string, error) {
	out, err := r.render(name, template)
	return strings.TrimSpace(string(out)), err
}

// collectCluster renders the steps and adds the archives of their charts to the files.
func (r *Release) collectCluster(render *renderer) error {
	for _, s := range bundle.InOrder(r.host.Cluster) {
		wanted, err := render.holds(s.If)
		if err != nil {
			return err
		}
		if !wanted {
			continue
		}
		step := Step{Stage: s.Stage, Apply: s.Apply, Release: s.Release, Values: s.Values, Keep: s.Keep}
		if step.Namespace, err = render.text("namespace", s.Namespace); err != nil {
			return err
		}
		for _, c := range s.Wait {
			if c.Object, err = render.text("object", c.Object); err != nil {
				return err
			}
			step.Wait = append(step.Wait, c)
		}
		for _, h := range s.Health {
			if h, err = render.text("health", h); err != nil {
				return err
			}
			step.Health = append(step.Health, h)
		}
		if s.Chart != "" {
			if err := r.addChart(s.Chart, &step); err != nil {
				return err
			}
		}
		r.cluster = append(r.cluster, step)
	}
	return r.clusterDatabase(render)
}

// addChart adds the archive of a chart to the files, so that Helm needs no registry.
func (r *Release) addChart(name string, step *Step) error {
	for _, c := range r.bundle.Deployment.Charts {
		if c.Name != name {
			continue
		}
		m, ok := r.bundle.Place(c.Digest)
		if !ok {
			return fmt.Errorf("%w: blob %s is not in the bundle", bundle.ErrFormat, c.Digest)
		}
		step.Chart, step.Version = "charts/"+c.Name+"-"+c.Version+".tgz", c.Version
		r.files = append(r.files, file{path: step.Chart, mode: 0o644, blob: bundle.Descriptor{Digest: c.Digest, Size: m.Size}})
		return nil
	}
	return fmt.Errorf("%w: the chart %s is not in the bundle", bundle.ErrFormat, name)
}

// clusterDatabase renders the location of the database in the cluster. It removes the database
// if its condition is false.
func (r *Release) clusterDatabase(render *renderer) error {
	if r.host.Database == nil || r.host.Database.Selector == "" {
		return nil
	}
	d := *r.host.Database
	wanted, err := render.holds(d.If)
	if err != nil {
		return err
	}
	if !wanted {
		r.host.Database = nil
		return nil
	}
	d.If = ""
	if d.Selector, err = render.text("selector", d.Selector); err != nil {
		return err
	}
	d.Namespace, err = render.text("namespace", d.Namespace)
	r.host.Database = &d
	return err
}

// clusterPlatforms returns the platforms that the bundle carries, for a cluster to compare.
func (r *Release) clusterPlatforms() []string {
	if len(r.cluster) == 0 {
		return nil
	}
	return r.bundle.Info.PlatformNames()
}

// ClusterSteps returns descriptions of the cluster's steps, in order.
func (r *Release) ClusterSteps() []string {
	list := []string{}
	for _, s := range r.cluster {
		list = append(list, s.String())
	}
	return list
}
