package bundle_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// TestClusterSteps checks which steps of a cluster a deployment may have.
func TestClusterSteps(t *testing.T) {
	chart := bundle.Step{Stage: "operators", Chart: "db", Release: "db", Namespace: "data"}
	with := func(change func(s *bundle.Step)) bundle.Step {
		s := chart
		change(&s)
		return s
	}
	apply := func(stage, file string) bundle.Step { return bundle.Step{Stage: stage, Apply: file} }
	for name, test := range map[string]struct {
		steps []bundle.Step
		want  string // part of the error; "" means accepted
	}{
		"files and a chart":  {[]bundle.Step{apply("data", "f"), chart, apply("application", "f")}, ""},
		"nothing":            {[]bundle.Step{{Stage: "data"}}, "either a file or a chart"},
		"both":               {[]bundle.Step{with(func(s *bundle.Step) { s.Apply = "f" })}, "either a file or a chart"},
		"another stage":      {[]bundle.Step{apply("later", "f")}, "the stage"},
		"another file":       {[]bundle.Step{apply("data", "g")}, "does not have"},
		"an archive":         {[]bundle.Step{apply("data", "a")}, "does not have"},
		"a file with values": {[]bundle.Step{{Stage: "data", Apply: "f", Values: "f"}}, "only charts have"},
		"another chart":      {[]bundle.Step{with(func(s *bundle.Step) { s.Chart = "web" })}, "does not have that chart"},
		"no release":         {[]bundle.Step{with(func(s *bundle.Step) { s.Release = "" })}, "Helm release"},
		"a release in caps":  {[]bundle.Step{with(func(s *bundle.Step) { s.Release = "DB" })}, "Helm release"},
		"a long release":     {[]bundle.Step{with(func(s *bundle.Step) { s.Release = strings.Repeat("a", 54) })}, "Helm release"},
		"a release twice":    {[]bundle.Step{chart, chart}, "duplicate Helm release"},
		"no namespace":       {[]bundle.Step{with(func(s *bundle.Step) { s.Namespace = "" })}, "no namespace"},
		"other values":       {[]bundle.Step{with(func(s *bundle.Step) { s.Values = "g" })}, "not a file"},
		"a field that is one": {
			[]bundle.Step{{Stage: "data", Apply: "f", Wait: []bundle.Condition{{Object: "a/b", Field: "status.state", Value: "x"}}}},
			"",
		},
		"a field with an index": {
			[]bundle.Step{{Stage: "data", Apply: "f", Wait: []bundle.Condition{{Object: "a/b", Field: "status[0]", Value: "x"}}}},
			"waits for the field",
		},
	} {
		h := bundle.Host{Cluster: test.steps}
		err := h.Check([]bundle.HostFile{{Path: "f"}, {Path: "a", As: bundle.AsArchive}}, []bundle.Chart{{Name: "db"}})
		if (err == nil) != (test.want == "") || err != nil && (!errors.Is(err, bundle.ErrFormat) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for text, want := range map[string]string{"{{ .Values.x }}": "", "{{ .Secrets.x }}": "password", "{{ if }}": "step of the cluster"} {
		h := bundle.Host{Cluster: []bundle.Step{{Stage: "data", Apply: "f", If: text}}}
		if err := h.Installable(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	order := bundle.InOrder([]bundle.Step{apply("application", "1"), apply("namespaces", "2"), apply("data", "3"), apply("data", "4")})
	if got := []string{order[0].Apply, order[1].Apply, order[2].Apply, order[3].Apply}; !slices.Equal(got, []string{"2", "3", "4", "1"}) {
		t.Errorf("the order is %v", got)
	}
}

// TestClusterDatabase checks that a database is on a host or in a cluster, and not both.
func TestClusterDatabase(t *testing.T) {
	onHost := bundle.Database{Service: "db", Directory: "db", User: "u", Name: "n"}
	inCluster := bundle.Database{Service: "db", Selector: "app=db", Namespace: "data", User: "u", Name: "n"}
	for name, test := range map[string]struct {
		database bundle.Database
		ok       bool
	}{
		"on a host":    {onHost, true},
		"in a cluster": {inCluster, true},
		"nowhere":      {bundle.Database{Service: "db", User: "u", Name: "n"}, false},
		"both":         {bundle.Database{Service: "db", Directory: "db", Selector: "a=b", Namespace: "n", User: "u", Name: "n"}, false},
		"no namespace": {bundle.Database{Service: "db", Selector: "a=b", User: "u", Name: "n"}, false},
	} {
		h := bundle.Host{Database: &test.database}
		if err := h.Check(nil, nil); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
