package service

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/install/host"
)

const clusterKind = "Kubernetes"

// cluster is a Kubernetes cluster, operated through kubectl and helm. A release is applied
// step by step. Applying another release of the same deployment changes the cluster to that
// release.
type cluster struct {
	kubectl kubectl
	helm    helm
	access  Access
	// interrupted says that a start of the deployment in this cluster did not end.
	interrupted bool
	root        string
	timeout     time.Duration
	note        func(format string, args ...any)
}

func (m *Manager) cluster(ctx context.Context, rec *host.Started) (*cluster, error) {
	access := m.access.completed(rec)
	k := newKubectl(access)
	if _, err := k.reach(ctx); err != nil {
		return nil, err
	}
	return &cluster{
		kubectl: k, helm: newHelm(access, k), access: access, interrupted: rec != nil && rec.Starting,
		root: m.root, timeout: m.timeout, note: m.note,
	}, nil
}

func (c *cluster) kind() string { return clusterKind }

// namesImages returns false: the nodes pull images, not this host.
func (c *cluster) namesImages(string) bool { return false }

func (c *cluster) pull(context.Context, []string) error { return nil }

// startOnly does nothing: stop does not touch the database.
func (c *cluster) startOnly(context.Context, *host.About, string) error { return nil }

// forget does nothing: stop has removed the objects.
func (c *cluster) forget(context.Context, *host.About) error { return nil }

// load reads the objects of a step.
func (c *cluster) load(ctx context.Context, a *host.About, s host.Step) ([]object, error) {
	if s.Apply == "" {
		return nil, nil
	}
	return c.kubectl.load(ctx, filepath.Join(releaseDir(c.root, a), filepath.FromSlash(s.Apply)), a.Name)
}

// loadAll reads the objects of all steps, indexed by step. The error wraps ErrNoRuntime if the
// release has no steps: an earlier program made it, and applying nothing would remove everything.
func (c *cluster) loadAll(ctx context.Context, a *host.About) ([][]object, error) {
	if len(a.Cluster) == 0 {
		return nil, fmt.Errorf(
			"%w: %s %s lists no cluster steps; apply the files of its release with kubectl and helm, as its READ-ME-FIRST.txt describes",
			ErrNoRuntime, a.Name, a.Version,
		)
	}
	all := make([][]object, len(a.Cluster))
	for n, s := range a.Cluster {
		var err error
		if all[n], err = c.load(ctx, a, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
	}
	addLogins(all)
	return all, nil
}

// addLogins gives the service accounts of a namespace the login of a registry that the release
// puts there: what upstream publishes names none.
func addLogins(all [][]object) {
	logins := map[string]string{} // name of the Secret by namespace
	for _, o := range slices.Concat(all...) {
		if o.kind() == "Secret" && o.text("type") == "kubernetes.io/dockerconfigjson" {
			logins[o.namespace()] = o.name()
		}
	}
	for _, o := range slices.Concat(all...) {
		login := logins[o.namespace()]
		if o.kind() == "ServiceAccount" && login != "" && o.at("imagePullSecrets") == nil {
			o["imagePullSecrets"] = []any{map[string]any{"name": login}}
		}
	}
}

// start applies a release. before is the release that was applied before, or nil; start
// removes the objects that only before has.
func (c *cluster) start(ctx context.Context, a, before *host.About) error {
	all, err := c.loadAll(ctx, a)
	if err != nil {
		return err
	}
	for n, s := range a.Cluster {
		c.note("Step %d of %d: %s", n+1, len(a.Cluster), s)
		if err := c.step(ctx, a, s, all[n]); err != nil {
			return fmt.Errorf("step %d, %s: %w", n+1, s, err)
		}
	}
	if before == nil || before.ID == a.ID {
		return nil
	}
	return c.prune(ctx, a, before, all)
}

// step applies one step, with its objects, and waits until it is ready.
func (c *cluster) step(ctx context.Context, a *host.About, s host.Step, objects []object) error {
	if s.Chart != "" {
		if err := c.applyChart(ctx, a, s); err != nil {
			return err
		}
		return c.waitFor(ctx, s, nil)
	}
	if len(objects) == 0 {
		return nil
	}
	if _, err := c.kubectl.apply(ctx, objects); err != nil {
		return err
	}
	return c.waitFor(ctx, s, objects)
}

// applyChart installs or upgrades the Helm release of a step.
func (c *cluster) applyChart(ctx context.Context, a *host.About, s host.Step) error {
	list, err := c.helm.history(ctx, s.Release, s.Namespace)
	if err == nil {
		err = c.own(list, s, a.Name)
	}
	if err == nil {
		err = c.helm.clear(ctx, list, s)
	}
	if err != nil {
		return err
	}
	return c.helm.upgrade(ctx, s, releaseDir(c.root, a), a.Name, c.timeout)
}

// defaultAccount reports whether an object is the service account that Kubernetes makes in each
// namespace.
func (o object) defaultAccount() bool { return o.kind() == "ServiceAccount" && o.name() == "default" }

// shared reports whether an object that exists may be applied although another program made it:
// a namespace, or a default service account without logins that would be replaced.
func (o object) shared() bool {
	return o.kind() == "Namespace" || o.defaultAccount() && o.at("imagePullSecrets") == nil
}

// kept reports whether an object is never deleted: it holds data or other objects.
func (o object) kept() bool {
	kinds := []string{"Namespace", "PersistentVolumeClaim", "PersistentVolume", "CustomResourceDefinition"}
	return o.defaultAccount() || slices.Contains(kinds, o.kind())
}

// prune removes what an earlier release has and this one, with all its objects, has not.
func (c *cluster) prune(ctx context.Context, a, before *host.About, all [][]object) error {
	old, err := c.loadAll(ctx, before)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, o := range slices.Concat(all...) {
		wanted[o.key()] = true
	}
	for n, s := range slices.Backward(before.Cluster) {
		if s.Keep {
			continue
		}
		if s.Chart != "" {
			if !slices.ContainsFunc(a.Cluster, func(x host.Step) bool { return x.Release == s.Release && x.Namespace == s.Namespace }) {
				c.note("Removing the Helm release %s in %s, which is not part of %s", s.Release, s.Namespace, a.Version)
				if err := c.helm.uninstall(ctx, s); err != nil {
					return err
				}
			}
			continue
		}
		gone := slices.DeleteFunc(slices.Clone(old[n]), func(o object) bool { return wanted[o.key()] || o.kept() })
		if err := c.removeOurs(ctx, a.Name, gone); err != nil {
			return err
		}
	}
	return nil
}

// removeOurs deletes the objects that have the deployment's label.
func (c *cluster) removeOurs(ctx context.Context, deployment string, list []object) error {
	have, err := c.kubectl.get(ctx, list)
	if err != nil {
		return err
	}
	have = slices.DeleteFunc(have, func(o object) bool { return !o.ours(deployment) })
	for _, o := range have {
		c.note("Removing %s", o)
	}
	return c.kubectl.remove(ctx, have, c.timeout.String())
}

// stop removes a release from the cluster, except volumes, namespaces, resource definitions
// and the steps that keep data. If except is set, it names the database, and stop only scales
// the application to zero replicas.
func (c *cluster) stop(ctx context.Context, a *host.About, except string) error {
	all, err := c.loadAll(ctx, a)
	if err != nil {
		return err
	}
	if except != "" {
		return c.scaleDown(ctx, a, all)
	}
	var left []string
	for n, s := range slices.Backward(a.Cluster) {
		if s.Keep {
			for _, o := range all[n] {
				left = append(left, o.String())
			}
			if s.Chart != "" {
				left = append(left, s.String())
			}
			continue
		}
		if s.Chart != "" {
			list, err := c.helm.history(ctx, s.Release, s.Namespace)
			if err != nil {
				return err
			}
			if len(list) == 0 || list[len(list)-1].deployment != a.Name {
				continue
			}
			if err := c.helm.uninstall(ctx, s); err != nil {
				return err
			}
			continue
		}
		gone := slices.DeleteFunc(slices.Clone(all[n]), object.kept)
		for _, o := range all[n] {
			if o.kept() && !o.defaultAccount() {
				left = append(left, o.String())
			}
		}
		if err := c.removeOurs(ctx, a.Name, gone); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		c.note("These stay in the cluster, because they may hold data: %s", strings.Join(left, ", "))
	}
	return nil
}

// exec runs a program in the pod that the database's selector selects.
func (c *cluster) exec(ctx context.Context, a *host.About, service string, in io.Reader, out io.Writer, args ...string) error {
	d := a.Database
	pod, err := c.kubectl.do(
		ctx, nil, "get", "pods", "--namespace", d.Namespace, "--selector", d.Selector, "--field-selector", "status.phase=Running",
		"--output", "jsonpath={.items[0].metadata.name}",
	)
	if err != nil {
		return err
	}
	if len(pod) == 0 {
		return fmt.Errorf("no pod with %s runs in %s", d.Selector, d.Namespace)
	}
	all := append(slices.Clone(c.kubectl.command), "exec", "--namespace", d.Namespace, "--container", service)
	if in != nil {
		all = append(all, "--stdin")
	}
	return runAs(ctx, "kubectl exec "+args[0], "", in, out, append(append(all, string(pod), "--"), args...)...)
}
