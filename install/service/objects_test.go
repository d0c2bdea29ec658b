package service

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/install/host"
)

// TestWaiting checks when an object of each kind counts as ready.
func TestWaiting(t *testing.T) {
	for name, test := range map[string]struct {
		kind string // apiVersion and kind
		rest string // spec, status and more of the object, as JSON
		want string // part of the reason; "" means ready
	}{
		"a deployment": {
			"apps/v1 Deployment",
			`"spec":{"replicas":2},"status":{"observedGeneration":1,"replicas":2,"updatedReplicas":2,"availableReplicas":2}`,
			"",
		},
		"a new deployment": {"apps/v1 Deployment", `"spec":{"replicas":0}`, "0 of 0"},
		"a deployment being rolled": {
			"apps/v1 Deployment",
			`"spec":{"replicas":1},"status":{"observedGeneration":1,"replicas":2,"updatedReplicas":1,"availableReplicas":1}`,
			"1 old pods",
		},
		"an unavailable one": {
			"apps/v1 Deployment",
			`"status":{"observedGeneration":1,"replicas":1,"updatedReplicas":1}`,
			"0 of 1",
		},
		"a change not seen": {
			"apps/v1 Deployment",
			`"metadata":{"generation":3},"status":{"observedGeneration":2,"replicas":1,"updatedReplicas":1,"availableReplicas":1}`,
			"not seen",
		},
		"a stateful set": {
			"apps/v1 StatefulSet",
			`"spec":{"replicas":1},"status":{"observedGeneration":1,"updatedReplicas":1,"readyReplicas":1}`,
			"",
		},
		"half a stateful set": {
			"apps/v1 StatefulSet",
			`"spec":{"replicas":2},"status":{"observedGeneration":1,"updatedReplicas":2,"readyReplicas":1}`,
			"1 of 2",
		},
		"a daemon set": {
			"apps/v1 DaemonSet",
			`"status":{"observedGeneration":1,"desiredNumberScheduled":1,"updatedNumberScheduled":1,"numberReady":1}`,
			"",
		},
		"half a daemon set": {
			"apps/v1 DaemonSet",
			`"status":{"observedGeneration":1,"desiredNumberScheduled":2,"updatedNumberScheduled":2,"numberReady":1}`,
			"1 of 2",
		},
		"a job":         {"batch/v1 Job", `"status":{"conditions":[{"type":"Complete","status":"True"}]}`, ""},
		"a running job": {"batch/v1 Job", `"status":{"active":1}`, "not complete"},
		"a database":    {"postgresql.cnpg.io/v1 Cluster", `"status":{"conditions":[{"type":"Ready","status":"True"}]}`, ""},
		"a database being made": {
			"postgresql.cnpg.io/v1 Cluster",
			`"status":{"phase":"Setting up primary"}`,
			"Setting up primary",
		},
		"a server": {
			"installation.mattermost.com/v1beta1 Mattermost",
			`"spec":{"image":"r/m","version":"sha256:2"},"status":{"state":"stable","image":"r/m","version":"sha256:2"}`,
			"",
		},
		"a server's old version": {
			"installation.mattermost.com/v1beta1 Mattermost",
			`"spec":{"image":"r/m","version":"sha256:2"},"status":{"state":"stable","image":"r/m","version":"sha256:1"}`,
			"new version",
		},
		"a server with an error": {
			"installation.mattermost.com/v1beta1 Mattermost",
			`"status":{"state":"reconciling","error":"no Secret x"}`,
			"no Secret x",
		},
		"another operator's kind": {"example.com/v1 Mattermost", `"status":{"state":"reconciling"}`, ""},
		"a resource definition":   {"apiextensions.k8s.io/v1 CustomResourceDefinition", `"status":{}`, "established"},
		"a config map":            {"v1 ConfigMap", `"data":{"status":"x"}`, ""},
	} {
		version, kind, _ := strings.Cut(test.kind, " ")
		list, err := decodeObjects(fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q,%s}`, version, kind, test.rest))
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %v", name, err)
		}
		why, err := list[0].waiting()
		if err != nil || (why == "") != (test.want == "") || !strings.Contains(why, test.want) {
			t.Errorf("%s waits for %q, %v", name, why, err)
		}
	}
	failed, err := decodeObjects([]byte(`{"items":[{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"m"},` +
		`"status":{"conditions":[{"type":"Failed","status":"True","message":"too often"}]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := failed[0].waiting(); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "too often") {
		t.Errorf("a failed job: %v", err)
	}
}

// TestHelmOwner checks which Helm releases a deployment may change.
func TestHelmOwner(t *testing.T) {
	s := host.Step{Release: "db", Namespace: "data"}
	for name, test := range map[string]struct {
		list []revision
		want string // part of the error; "" means that the change is allowed
	}{
		"none":                     {nil, ""},
		"its own":                  {[]revision{{1, "deployed", "chat"}}, ""},
		"its own, by hand":         {[]revision{{1, "deployed", "chat"}, {2, "pending-upgrade", "chat"}}, "helm rollback db"},
		"its own, interrupted":     {[]revision{{1, "deployed", "chat"}, {2, "pending-upgrade", "chat"}}, ""},
		"another's":                {[]revision{{1, "deployed", ""}}, "--take-over"},
		"another deployment's":     {[]revision{{1, "deployed", "other"}}, "--take-over"},
		"another's, in the middle": {[]revision{{1, "deployed", ""}, {2, "pending-upgrade", ""}}, "helm rollback db"},
		"taken from it":            {[]revision{{1, "superseded", ""}, {2, "deployed", "chat"}}, ""},
		"another's, interrupted":   {[]revision{{1, "pending-install", "other"}}, "helm rollback db"},
	} {
		c := &cluster{interrupted: strings.HasSuffix(name, "interrupted")}
		err := c.own(test.list, s, "chat")
		if (err == nil) != (test.want == "") || err != nil && (!errors.Is(err, errForeign) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPodTrouble checks the reason that is reported for a pod that does not run.
func TestPodTrouble(t *testing.T) {
	waiting := func(field, reason, message string) string {
		return fmt.Sprintf(`%q:[{"state":{"waiting":{"reason":%q,"message":%q}}}]`, field, reason, message)
	}
	for status, want := range map[string]string{
		`"containerStatuses":[{"state":{"running":{}}}]`:                          "",
		waiting("containerStatuses", "ContainerCreating", ""):                     "",
		waiting("containerStatuses", "ErrImagePull", "no such\nimage"):            `pod a: ErrImagePull: no such\nimage`,
		waiting("initContainerStatuses", "CrashLoopBackOff", "back-off 10s"):      "pod a: CrashLoopBackOff: back-off 10s",
		`"conditions":[{"type":"PodScheduled","status":"False","reason":"Full"}]`: "pod a: Full",
	} {
		list, err := decodeObjects(fmt.Appendf(nil, `{"metadata":{"name":"a"},"status":{%s}}`, status))
		if err != nil {
			t.Fatal(err)
		}
		if got := list[0].podTrouble(); got != want {
			t.Errorf("%s: %q", status, got)
		}
	}
}
