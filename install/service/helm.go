package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// helm is the helm program with the arguments to reach the cluster.
type helm struct {
	command []string
	kubectl kubectl
}

// oldestHelm is the oldest supported minor version of Helm 3, because of --labels.
const oldestHelm = 14

// labelHelm is the label of a deployment's Helm releases. Helm stores the label with each
// revision.
const labelHelm = "oob-bundle"

func newHelm(a Access, k kubectl) helm {
	h := helm{command: []string{"helm"}, kubectl: k}
	if a.Kubeconfig != "" {
		h.command = append(h.command, "--kubeconfig", a.Kubeconfig)
	}
	if a.Context != "" {
		h.command = append(h.command, "--kube-context", a.Context)
	}
	return h
}

func (h helm) do(ctx context.Context, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := runAs(ctx, "helm "+args[0], "", nil, &out, append(slices.Clone(h.command), args...)...)
	return out.Bytes(), err
}

// check reports a Helm that is missing or too old. The error then wraps ErrNoRuntime.
func (h helm) check(ctx context.Context) error {
	out, err := h.do(ctx, "version", "--template", "{{.Version}}")
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: the bundle has charts, and there is no program helm on this host", ErrNoRuntime)
	}
	if err != nil {
		return err
	}
	var major, minor int
	version := strings.TrimSpace(string(out))
	if _, err := fmt.Sscanf(version, "v%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("helm version %q: %w", version, err)
	}
	if major < 3 || major == 3 && minor < oldestHelm {
		return fmt.Errorf("%w: helm is %s here; 3.%d or newer is needed", ErrNoRuntime, version, oldestHelm)
	}
	return nil
}

// revision is one revision of a Helm release.
type revision struct {
	number     int
	status     string
	deployment string // label of the deployment that made the revision; "" if another program made it
}

// history returns the revisions of a Helm release, oldest first. Helm stores each revision in
// a Secret (helm.sh, storage backend Secrets).
func (h helm) history(ctx context.Context, name, namespace string) ([]revision, error) {
	out, err := h.kubectl.do(
		ctx, nil, "get", "secrets", "--namespace", namespace, "--selector", "owner=helm,name="+name,
		"--output", `jsonpath={range .items[*]}{.metadata.labels}{"\n"}{end}`,
	)
	if err != nil {
		return nil, err
	}
	var list []revision
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if line == "" {
			continue
		}
		var labels map[string]string
		if err := json.Unmarshal([]byte(line), &labels); err != nil {
			return nil, fmt.Errorf("labels of the Helm release %s: %w", name, err)
		}
		n, err := strconv.Atoi(labels["version"])
		if err != nil {
			return nil, fmt.Errorf("the Helm release %s has a revision %q", name, labels["version"])
		}
		list = append(list, revision{n, labels["status"], labels[labelHelm]})
	}
	slices.SortFunc(list, func(a, b revision) int { return a.number - b.number })
	return list, nil
}

// errForeign marks an object in the cluster that the deployment did not create.
var errForeign = fmt.Errorf("%w: not created by this deployment", bundle.ErrPolicy)

// unfinished reports whether a revision belongs to an operation that has not ended.
func (r revision) unfinished() bool {
	return strings.HasPrefix(r.status, "pending-") || r.status == "uninstalling"
}

// own returns why the deployment may not change a Helm release with these revisions, or nil. A
// release of another program may be taken over, but not while that program changes it. A manual
// upgrade keeps the deployment's label, so an unfinished operation is the deployment's own only
// if a start of it was interrupted.
func (c *cluster) own(list []revision, s host.Step, deployment string) error {
	if len(list) == 0 {
		return nil
	}
	last := list[len(list)-1]
	ours := last.deployment == deployment
	switch {
	case last.unfinished() && (!ours || !c.interrupted):
		return fmt.Errorf(
			"%w: another program left the Helm release %s in %s in the state %s (revision %d); wait until that program ends. "+
				"If it was killed, run helm rollback %[2]s --namespace %[3]s",
			errForeign, s.Release, s.Namespace, last.status, last.number,
		)
	case !ours && !c.access.TakeOver:
		return fmt.Errorf(
			"%w: the Helm release %s in %s already exists; use --take-over, or run helm uninstall %[2]s --namespace %[3]s",
			errForeign, s.Release, s.Namespace,
		)
	}
	return nil
}

// clear ends an interrupted operation of this deployment, so that Helm accepts the next one.
func (h helm) clear(ctx context.Context, list []revision, s host.Step) error {
	if len(list) == 0 {
		return nil
	}
	if !list[len(list)-1].unfinished() {
		return nil
	}
	for _, r := range slices.Backward(list) {
		if r.status == "deployed" || r.status == "superseded" {
			_, err := h.do(ctx, "rollback", s.Release, strconv.Itoa(r.number), "--namespace", s.Namespace)
			return err
		}
	}
	return h.uninstall(ctx, s)
}

func (h helm) uninstall(ctx context.Context, s host.Step) error {
	_, err := h.do(ctx, "uninstall", s.Release, "--namespace", s.Namespace, "--ignore-not-found", "--wait")
	return err
}

// upgrade installs or upgrades a chart's release and waits until its objects are ready.
func (h helm) upgrade(ctx context.Context, s host.Step, dir, deployment string, timeout time.Duration) error {
	args := []string{
		"upgrade", s.Release, filepath.Join(dir, filepath.FromSlash(s.Chart)), "--install", "--namespace", s.Namespace,
		"--create-namespace", "--labels", labelHelm + "=" + deployment, "--wait", "--wait-for-jobs", "--timeout", timeout.String(),
	}
	if s.Values != "" {
		args = append(args, "--values", filepath.Join(dir, filepath.FromSlash(s.Values)))
	}
	_, err := h.do(ctx, args...)
	return err
}

// objects returns the objects that a chart renders.
func (h helm) objects(ctx context.Context, s host.Step, dir string) ([]object, error) {
	args := []string{"template", s.Release, filepath.Join(dir, filepath.FromSlash(s.Chart)), "--namespace", s.Namespace}
	if s.Values != "" {
		args = append(args, "--values", filepath.Join(dir, filepath.FromSlash(s.Values)))
	}
	text, err := h.do(ctx, args...)
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return nil, err
	}
	out, err := h.kubectl.do(ctx, text, "label", "--local", "--filename", "-", "--output", "json", labelHelm+"=x")
	if err != nil {
		return nil, err
	}
	return decodeObjects(out)
}
