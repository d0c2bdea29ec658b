package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// object is a Kubernetes object, decoded from kubectl's JSON.
type object map[string]any

// at returns the value at a path of field names separated by dots, or nil.
func (o object) at(field string) any {
	var v any = map[string]any(o)
	for _, name := range strings.Split(field, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func (o object) text(field string) string {
	s, _ := o.at(field).(string)
	return s
}

// number returns the number in a field, or missing if there is none.
func (o object) number(field string, missing int64) int64 {
	if f, ok := o.at(field).(float64); ok {
		return int64(f)
	}
	return missing
}

func (o object) kind() string      { return o.text("kind") }
func (o object) name() string      { return o.text("metadata.name") }
func (o object) namespace() string { return o.text("metadata.namespace") }

// group returns the API group; "" is the core group.
func (o object) group() string {
	group, _, ok := strings.Cut(o.text("apiVersion"), "/")
	if !ok {
		return ""
	}
	return group
}

// key identifies an object in its cluster, regardless of the API version.
func (o object) key() string {
	return strings.Join([]string{o.group(), o.kind(), o.namespace(), o.name()}, "/")
}

// String returns the name for messages, such as "deployment/web in chat".
func (o object) String() string {
	s := strings.ToLower(o.kind()) + "/" + o.name()
	if ns := o.namespace(); ns != "" {
		s += " in " + ns
	}
	return s
}

// conditionOf returns a condition's status, and its reason and message.
func (o object) conditionOf(kind string) (status, message string) {
	list, _ := o.at("status.conditions").([]any)
	for _, c := range list {
		m, _ := c.(map[string]any)
		if c := object(m); c.text("type") == kind {
			return c.text("status"), strings.TrimSpace(c.text("reason") + " " + c.text("message"))
		}
	}
	return "", ""
}

// fieldManager is the field manager of server-side apply.
const fieldManager = "oob-bundle"

// labelDeployment is the label on every applied object. Its value is the deployment's name.
const labelDeployment = "oobbundle.dev/deployment"

// ours reports whether an object of the cluster was applied for a deployment.
func (o object) ours(deployment string) bool {
	labels, _ := o.at("metadata.labels").(map[string]any)
	return labels[labelDeployment] == deployment
}

// errFailed marks an object that will never become ready.
var errFailed = errors.New("it failed")

// readiness contains the readiness check of each kind that start waits for. A check returns
// what the object is waiting for, or "". Objects of other kinds are ready when they exist.
var readiness = map[string]func(o object) (string, error){
	"apps/Deployment":  object.deployment,
	"apps/StatefulSet": object.statefulSet,
	"apps/DaemonSet":   object.daemonSet,
	"batch/Job":        object.job,
	"apiextensions.k8s.io/CustomResourceDefinition": object.definition,
	"postgresql.cnpg.io/Cluster":                    object.database,
	"installation.mattermost.com/Mattermost":        object.mattermost,
}

// waiting returns what an object is waiting for, or "" if it is ready. The error wraps
// errFailed if the object will never be ready.
func (o object) waiting() (string, error) {
	if seen := o.number("status.observedGeneration", -1); seen >= 0 && seen < o.number("metadata.generation", 0) {
		return "the change is not seen yet", nil
	}
	if ready := readiness[o.group()+"/"+o.kind()]; ready != nil {
		return ready(o)
	}
	return "", nil
}

// pods returns a message if fewer pods than wanted are ready, or if the controller has not
// counted them yet.
func (o object) pods(have, want int64) string {
	if o.at("status.observedGeneration") == nil || have < want {
		return fmt.Sprintf("%d of %d pods are ready", have, want)
	}
	return ""
}

func (o object) deployment() (string, error) {
	updated := o.number("status.updatedReplicas", 0)
	if why := o.pods(min(updated, o.number("status.availableReplicas", 0)), o.number("spec.replicas", 1)); why != "" {
		return why, nil
	}
	if old := o.number("status.replicas", 0) - updated; old > 0 {
		return fmt.Sprintf("%d old pods are still there", old), nil
	}
	return "", nil
}

func (o object) statefulSet() (string, error) {
	return o.pods(min(o.number("status.updatedReplicas", 0), o.number("status.readyReplicas", 0)), o.number("spec.replicas", 1)), nil
}

func (o object) daemonSet() (string, error) {
	want := o.number("status.desiredNumberScheduled", 0)
	return o.pods(min(o.number("status.updatedNumberScheduled", 0), o.number("status.numberReady", 0)), want), nil
}

func (o object) job() (string, error) {
	if failed, why := o.conditionOf("Failed"); failed == "True" {
		return "", fmt.Errorf("%w: %s: %s", errFailed, o, why)
	}
	if done, _ := o.conditionOf("Complete"); done != "True" {
		return "it is not complete", nil
	}
	return "", nil
}

func (o object) definition() (string, error) {
	if ok, _ := o.conditionOf("Established"); ok != "True" {
		return "it is not established", nil
	}
	return "", nil
}

func (o object) database() (string, error) {
	if ok, why := o.conditionOf("Ready"); ok != "True" {
		return strings.TrimSpace("it is not ready: " + o.text("status.phase") + " " + why), nil
	}
	return "", nil
}

// mattermost checks the operator's resource (mattermost-operator, apis/mattermost/v1beta1,
// MattermostStatus). The state stays "stable" until the operator has seen a change, so the
// version and the image must also be the wanted ones.
func (o object) mattermost() (string, error) {
	state := o.text("status.state")
	switch {
	case o.text("status.error") != "":
		return "its operator reports: " + o.text("status.error"), nil
	case state != "stable":
		return fmt.Sprintf("its state is %q", state), nil
	case o.text("status.version") != o.text("spec.version"), o.text("status.image") != o.text("spec.image"):
		return "its operator has not come to the new version yet", nil
	}
	return "", nil
}

// images returns the values of all fields named image.
func (o object) images() []string {
	var list []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if s, ok := v["image"].(string); ok && s != "" {
				list = append(list, s)
			}
			for _, child := range v {
				walk(child)
			}
		case []any:
			for _, child := range v {
				walk(child)
			}
		}
	}
	walk(map[string]any(o))
	slices.Sort(list)
	return slices.Compact(list)
}

// decodeObjects decodes the output of kubectl -o json: a sequence of objects and lists.
func decodeObjects(data []byte) ([]object, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	var list []object
	for {
		var o object
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("what kubectl printed: %w", err)
		}
		items, isList := o["items"].([]any)
		if !isList {
			list = append(list, o)
			continue
		}
		for _, i := range items {
			if m, ok := i.(map[string]any); ok {
				list = append(list, m)
			}
		}
	}
}

// encodeObjects encodes objects as one list for kubectl.
func encodeObjects(list []object) ([]byte, error) {
	return json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": list})
}
