//go:build unix

package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// testCluster returns a cluster by fake programs with these answers, and its notes.
func testCluster(t *testing.T, answers string) (*cluster, *[]string) {
	t.Helper()
	fake(t, "kubectl helm", answers)
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	k := newKubectl(Access{})
	return &cluster{kubectl: k, helm: newHelm(Access{}, k), root: t.TempDir(), timeout: time.Second, note: note}, &notes
}

// TestNodes checks that a bundle for other processors is refused, and that nodes which cannot
// run it are named.
func TestNodes(t *testing.T) {
	node := func(name, arch string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q},"status":{"nodeInfo":{"operatingSystem":"linux","architecture":%q}}}`, name, arch)
	}
	for name, test := range map[string]struct {
		answer, refused, note string
	}{
		"the same":     {`echo '{"items":[` + node("a", "amd64") + `]}'`, "", ""},
		"one of two":   {`echo '{"items":[` + node("a", "amd64") + `,` + node("b", "arm64") + `]}'`, "", "b (linux/arm64)"},
		"none":         {`echo '{"items":[` + node("b", "arm64") + `]}'`, "no node runs that: b (linux/arm64)", ""},
		"may not look": {`exit 1`, "", ""},
	} {
		c, notes := testCluster(t, `"kubectl get nodes"*) `+test.answer+";;")
		err := c.checkNodes(t.Context(), &host.About{Platforms: []string{"linux/amd64"}})
		good := err == nil
		if !good {
			good = !errors.Is(err, bundle.ErrPolicy) || !strings.Contains(err.Error(), test.refused)
		}
		if good != (test.refused == "") {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(*notes, ";"); (got == "") != (test.note == "") || !strings.Contains(got, test.note) {
			t.Errorf("%s: notes %q", name, got)
		}
	}
}

// TestIngressClass checks that a class which nothing provides is named.
func TestIngressClass(t *testing.T) {
	server := object{"kind": "Mattermost", "spec": map[string]any{"ingress": map[string]any{"ingressClass": "nginx"}}}
	chart := host.Step{Stage: "operators", Chart: "charts/ingress-nginx-4.tgz"}
	for name, test := range map[string]struct {
		classes string
		steps   []host.Step
		want    string
	}{
		"there":              {"traefik nginx", nil, ""},
		"another":            {"traefik", nil, "no ingress class nginx"},
		"a chart brings one": {"", []host.Step{chart}, ""},
	} {
		c, notes := testCluster(t, `"kubectl get ingressclasses"*) echo `+test.classes+";;")
		if err := c.checkIngress(t.Context(), &host.About{Cluster: test.steps}, []object{server}); err != nil {
			t.Error(err)
		}
		if got := strings.Join(*notes, ";"); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: notes %q", name, got)
		}
	}
}

// TestHelmVersion checks which Helm is new enough.
func TestHelmVersion(t *testing.T) {
	for version, ok := range map[string]bool{"v3.13.9": false, "v3.14.0": true, "v4.0.1": true, "v2.17.0": false, "three": false} {
		c, _ := testCluster(t, `"helm version"*) echo `+version+";;")
		if err := c.helm.check(t.Context()); (err == nil) != ok {
			t.Errorf("%s: %v", version, err)
		}
	}
	fake(t, "kubectl", "")
	if err := newHelm(Access{}, kubectl{}).check(t.Context()); !errors.Is(err, ErrNoRuntime) {
		t.Errorf("without helm: %v", err)
	}
}

// TestHelmInterrupted checks how an operation of Helm that was interrupted is ended: by going
// back to the last good revision, or where there is none by removing the release.
func TestHelmInterrupted(t *testing.T) {
	s := host.Step{Release: "db", Namespace: "data"}
	history := func(states ...string) (list []revision) {
		for n, state := range states {
			list = append(list, revision{n + 1, state, "chat"})
		}
		return list
	}
	for name, test := range map[string]struct {
		list []revision
		want string // call of helm
	}{
		"nothing there":            {nil, ""},
		"deployed":                 {[]revision{{1, "deployed", "chat"}}, ""},
		"failed":                   {[]revision{{1, "failed", "chat"}}, ""},
		"the first installation":   {[]revision{{1, "pending-install", "chat"}}, "helm uninstall db"},
		"an upgrade":               {history("superseded", "deployed", "pending-upgrade"), "helm rollback db 2 "},
		"an upgrade of an upgrade": {history("superseded", "failed", "pending-rollback"), "helm rollback db 1 "},
		"a removal":                {[]revision{{1, "uninstalling", "chat"}}, "helm uninstall db"},
	} {
		p := fake(t, "helm", "")
		if err := newHelm(Access{}, kubectl{}).clear(t.Context(), test.list, s); err != nil {
			t.Error(err)
		}
		calls := strings.Join(p.calls(), ";")
		if (calls == "") != (test.want == "") || !strings.Contains(calls+" ", test.want) {
			t.Errorf("%s: %s", name, calls)
		}
	}
}

// TestWhatStays checks that removing a release deletes neither volumes nor the service account
// that Kubernetes made, and leaves what another program has labelled otherwise.
func TestWhatStays(t *testing.T) {
	object := func(kind, name, deployment string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":%q,"metadata":{"name":%q,"namespace":"chat","labels":{%q:%q}}}`,
			kind, name, labelDeployment, deployment)
	}
	list := `{"items":[` + strings.Join([]string{
		object("ServiceAccount", "default", "app"), object("PersistentVolumeClaim", "data", "app"), object("ConfigMap", "ours", "app"),
	}, ",") + `]}`
	inCluster := `{"items":[` + object("ConfigMap", "ours", "app") + "," + object("ConfigMap", "theirs", "other") + `]}`
	c, notes := testCluster(t, `"kubectl label"*) echo '`+list+`';; "kubectl get"*) echo '`+inCluster+`';;`)
	a := &host.About{Name: "app", ID: "1", Cluster: []host.Step{{Stage: "data", Apply: "f.yaml"}}}
	if err := os.MkdirAll(releaseDir(c.root, a), 0o755); err != nil {
		t.Fatal(err)
	}
	world.Write(t, filepath.Join(releaseDir(c.root, a), "f.yaml"), []byte("kind: List"), 0o644)
	if err := c.stop(t.Context(), a, ""); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Removing configmap/ours in chat",
		"These stay in the cluster, because they may hold data: persistentvolumeclaim/data in chat",
	}
	if !slices.Equal(*notes, want) {
		t.Errorf("notes %q", *notes)
	}
}

// TestDefaultAccount checks that the logins which a site gave to a default service account are
// not replaced without --take-over, and that the account is never deleted.
func TestDefaultAccount(t *testing.T) {
	account := object{"kind": "ServiceAccount", "metadata": map[string]any{"name": "default"}}
	if !account.shared() {
		t.Error("an account without logins is refused")
	}
	if !account.kept() {
		t.Error("the account would be deleted")
	}
	if account["imagePullSecrets"] = []any{map[string]any{"name": "site"}}; account.shared() {
		t.Error("the site's logins would be replaced")
	}
}

// TestNoSteps checks that a release of an earlier program, which lists no steps, is not applied:
// that would remove everything that the release before it has.
func TestNoSteps(t *testing.T) {
	c, notes := testCluster(t, "")
	before := &host.About{Name: "app", ID: "2", Cluster: []host.Step{{Stage: "data", Apply: "f.yaml"}}}
	if err := c.start(t.Context(), &host.About{Name: "app", ID: "1"}, before); !errors.Is(err, ErrNoRuntime) || len(*notes) > 0 {
		t.Errorf("%v, %q", err, *notes)
	}
}
