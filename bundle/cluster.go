package bundle

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Stages are the values of Step.Stage, in the order in which a cluster gets them.
var Stages = []string{"namespaces", "operators", "data", "services", "application"}

// Step is one thing that an installation applies to a Kubernetes cluster: a file of the
// release with objects, or a chart of the bundle. Steps are applied by stage, and within a
// stage in the order of the document.
type Step struct {
	Stage string `json:"stage"` // one of Stages
	// If is a template; the step is left out where the result is empty or false. "" is always.
	If string `json:"if,omitempty"`

	Apply string `json:"apply,omitempty"` // path of a file of the release

	Chart     string `json:"chart,omitempty"`     // name, as in Deployment.Charts
	Release   string `json:"release,omitempty"`   // of Helm; a name
	Namespace string `json:"namespace,omitempty"` // of the Helm release; a template
	Values    string `json:"values,omitempty"`    // path of a file of the release

	Wait []Condition `json:"wait,omitempty"` // besides the workloads among the objects
	// Health are services that have to answer with status 200, as SERVICE:PORT/PATH; templates.
	Health []string `json:"health,omitempty"`
	// Keep says that the objects hold data, or that data needs them: uninstalling leaves them.
	Keep bool `json:"keep,omitempty"`
}

// Condition is a field of an object that has a value when the object is ready.
type Condition struct {
	Object string `json:"object"` // KIND.GROUP/NAME, such as clusters.postgresql.cnpg.io/db; a template
	Field  string `json:"field"`  // names with dots between them, such as status.state
	Value  string `json:"value"`
}

var (
	helmRelease = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$`) // Helm: at most 53 characters
	objectField = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9]*){0,7}$`)
)

// checkCluster checks the steps. Content has the files of the release.
func (h *Host) checkCluster(content map[string]bool, charts []Chart) error {
	releases := map[string]bool{}
	for _, s := range h.Cluster {
		what := s.Apply + s.Chart
		switch {
		case (s.Apply == "") == (s.Chart == ""):
			return invalidHost("a step of the cluster has to name either a file or a chart, not %q", what)
		case !slices.Contains(Stages, s.Stage):
			return invalidHost("the step %q has the stage %q; there are %s", what, s.Stage, strings.Join(Stages, ", "))
		case s.Apply != "" && !content[s.Apply]:
			return invalidHost("the step %q applies a file that the bundle does not have", what)
		case s.Apply != "" && s.Release+s.Namespace+s.Values != "":
			return invalidHost("the step %q applies a file, and names what only charts have", what)
		}
		if s.Chart != "" {
			if err := s.checkChart(content, charts); err != nil {
				return err
			}
			if releases[s.Release] {
				return invalidHost("duplicate Helm release %q", s.Release)
			}
			releases[s.Release] = true
		}
		for _, c := range s.Wait {
			if c.Object == "" || c.Value == "" || !objectField.MatchString(c.Field) {
				return invalidHost("the step %q waits for the field %q of %q to be %q", what, c.Field, c.Object, c.Value)
			}
		}
	}
	return nil
}

func (s Step) checkChart(content map[string]bool, charts []Chart) error {
	named := func(c Chart) bool { return c.Name == s.Chart }
	switch {
	case charts != nil && !slices.ContainsFunc(charts, named):
		return invalidHost("the step for the chart %q: the bundle does not have that chart", s.Chart)
	case !helmRelease.MatchString(s.Release):
		return invalidHost("the chart %q has the Helm release %q; it must have at most 53 lower-case letters, digits and -", s.Chart, s.Release)
	case s.Namespace == "":
		return invalidHost("the chart %q has no namespace", s.Chart)
	case s.Values != "" && !content[s.Values]:
		return invalidHost("the chart %q has the values %q, which are not a file of the bundle", s.Chart, s.Values)
	}
	return nil
}

// clusterTemplates returns the templates of the steps.
func (h *Host) clusterTemplates() []string {
	var list []string
	for _, s := range h.Cluster {
		list = append(append(list, s.If, s.Namespace), s.Health...)
		for _, c := range s.Wait {
			list = append(list, c.Object)
		}
	}
	return list
}

// InOrder returns the steps in the order in which a cluster gets them.
func InOrder(steps []Step) []Step {
	list := slices.Clone(steps)
	slices.SortStableFunc(list, func(a, b Step) int { return slices.Index(Stages, a.Stage) - slices.Index(Stages, b.Stage) })
	return list
}

// checkClusterTemplates reports a template of a step that is none, or that shows a password.
func (h *Host) checkClusterTemplates() error {
	for _, t := range h.clusterTemplates() {
		if strings.Contains(t, ".Secrets") {
			return fmt.Errorf("%q contains a password, and everybody may see the steps of a cluster; use a value instead", t)
		}
		if err := CheckTemplate("cluster", t); err != nil {
			return fmt.Errorf("a step of the cluster: %w", err)
		}
	}
	return nil
}
