package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
	root    string
	timeout time.Duration
	note    func(format string, args ...any)
}

func (m *Manager) cluster(ctx context.Context, rec *host.Started) (*cluster, error) {
	access := m.access.completed(rec)
	k := newKubectl(access)
	if _, err := k.reach(ctx); err != nil {
		return nil, err
	}
	return &cluster{k, newHelm(access, k), access, m.root, m.timeout, m.note}, nil
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

// loadAll reads the objects of all steps, indexed by step.
func (c *cluster) loadAll(ctx context.Context, a *host.About) ([][]object, error) {
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

// check reports everything that stands in the way of applying a release: Helm, objects and
// Helm releases of others, and what the server refuses. Nothing is changed.
func (c *cluster) check(ctx context.Context, a *host.About) error {
	if len(a.Cluster) == 0 {
		return fmt.Errorf(
			"%w: the bundle does not say what a cluster gets; apply what is in the release with kubectl and helm, as its READ-ME-FIRST.txt says",
			ErrNoRuntime,
		)
	}
	all, err := c.loadAll(ctx, a)
	if err != nil {
		return err
	}
	var problems []error
	if slices.ContainsFunc(a.Cluster, func(s host.Step) bool { return s.Chart != "" }) {
		if err := c.helm.check(ctx); err != nil {
			problems = append(problems, err)
		} else {
			problems = append(problems, c.checkCharts(ctx, a))
		}
	}
	objects := slices.Concat(all...)
	problems = append(problems, c.checkNodes(ctx, a), c.checkIngress(ctx, a, objects), c.checkObjects(ctx, a, objects))
	return errors.Join(problems...)
}

// checkCharts reports Helm releases of others, and notes images from outside the site's
// registry.
func (c *cluster) checkCharts(ctx context.Context, a *host.About) error {
	var problems []error
	for _, s := range a.Cluster {
		if s.Chart == "" {
			continue
		}
		list, err := c.helm.history(ctx, s.Release, s.Namespace)
		if err != nil {
			return err
		}
		if !c.access.TakeOver {
			problems = append(problems, own(list, s, a.Name))
		}
		objects, err := c.helm.objects(ctx, s, releaseDir(c.root, a))
		if err != nil {
			problems = append(problems, err)
			continue
		}
		c.tellForeign(a, s.String(), objects)
	}
	return errors.Join(problems...)
}

// tellForeign notes the images that nodes would pull from outside the site's registry.
func (c *cluster) tellForeign(a *host.About, what string, objects []object) {
	foreign := map[string]bool{}
	for _, o := range objects {
		for _, i := range o.images() {
			if !strings.HasPrefix(i, a.Registry+"/") {
				foreign[i] = true
			}
		}
	}
	if len(foreign) > 0 {
		c.note(
			"%s names images that are not at %s: %s; nodes find them with the files in runtime/, or not at all",
			what, a.Registry, strings.Join(slices.Sorted(maps.Keys(foreign)), ", "),
		)
	}
}

// checkObjects reports objects of others, missing rights and missing storage. If there are
// none, it asks the server to validate the objects, except those in namespaces that do not
// exist yet.
func (c *cluster) checkObjects(ctx context.Context, a *host.About, objects []object) error {
	have, err := c.kubectl.get(ctx, objects)
	if err != nil {
		return err
	}
	exists := map[string]bool{}
	var problems []error
	for _, o := range have {
		exists[o.key()] = true
		if !o.shared() && !o.ours(a.Name) && !c.access.TakeOver {
			problems = append(problems, fmt.Errorf("%w: %s is in the cluster already; --take-over takes it, or remove it", errForeign, o))
		}
	}
	namespaces := map[string]bool{}
	for _, o := range objects {
		if o.kind() == "Namespace" && !exists[o.key()] {
			namespaces[o.name()] = true // the server cannot validate objects in a namespace that does not exist
		}
	}
	problems = append(problems, c.checkRights(ctx, objects), c.checkStorage(ctx, objects))
	var judged []object
	for _, o := range objects {
		if !namespaces[o.namespace()] {
			judged = append(judged, o)
		}
	}
	if errors.Join(problems...) == nil && len(judged) > 0 {
		_, err := c.kubectl.apply(ctx, judged, "--dry-run=server")
		if !unknownKind(err) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// checkRights asks the server whether the account may patch, create and delete each kind of
// object.
func (c *cluster) checkRights(ctx context.Context, objects []object) error {
	asked := map[string]bool{}
	var missing []string
	for _, o := range objects {
		resource := strings.ToLower(o.kind())
		if o.group() != "" {
			resource += "." + o.group()
		}
		for _, verb := range []string{"patch", "create", "delete"} {
			question := verb + " " + resource + " " + o.namespace()
			if asked[question] {
				continue
			}
			asked[question] = true
			args := []string{"auth", "can-i", verb, resource}
			if o.namespace() != "" {
				args = append(args, "--namespace", o.namespace())
			}
			out, err := c.kubectl.do(ctx, nil, args...)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil && strings.HasPrefix(strings.TrimSpace(string(out)), "no") {
				missing = append(missing, question)
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the cluster's account may not %s", strings.Join(missing, ", may not "))
	}
	return nil
}

// checkStorage requires a default StorageClass if a volume claim names neither a class nor a
// volume.
func (c *cluster) checkStorage(ctx context.Context, objects []object) error {
	needs := slices.ContainsFunc(objects, func(o object) bool {
		return o.kind() == "PersistentVolumeClaim" && o.at("spec.storageClassName") == nil && o.at("spec.volumeName") == nil
	})
	if !needs {
		return nil
	}
	out, err := c.kubectl.do(ctx, nil, "get", "storageclasses", "--output", "json")
	if err != nil {
		return err
	}
	classes, err := decodeObjects(out)
	if err != nil {
		return err
	}
	for _, o := range classes {
		annotations, _ := o.at("metadata.annotations").(map[string]any)
		if annotations["storageclass.kubernetes.io/is-default-class"] == "true" {
			return nil
		}
	}
	return errors.New("the cluster has no default StorageClass, and volumes of the deployment name none; " +
		"mark one as the default, or name one in the site's values")
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
		if err := c.helm.upgrade(ctx, s, releaseDir(c.root, a), a.Name, c.timeout); err != nil {
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

// waitFor waits until a step's objects, conditions and services are ready.
func (c *cluster) waitFor(ctx context.Context, s host.Step, objects []object) error {
	deadline := time.Now().Add(c.timeout)
	said := ""
	for {
		why, err := c.pending(ctx, s, objects)
		if err != nil || why == "" {
			return err
		}
		if why += c.trouble(ctx, objects); why != said {
			c.note("  waiting: %s", why)
			said = why
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s: %s", c.timeout, why)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// pending returns what a step is waiting for, or "".
func (c *cluster) pending(ctx context.Context, s host.Step, objects []object) (string, error) {
	have, err := c.kubectl.get(ctx, objects)
	if err != nil {
		return "", err
	}
	exists := map[string]object{}
	for _, o := range have {
		exists[o.key()] = o
	}
	for _, o := range objects {
		now, ok := exists[o.key()]
		if !ok {
			return o.String() + " does not exist", nil
		}
		why, err := now.waiting()
		if err != nil {
			return "", err
		}
		if why != "" {
			return o.String() + ": " + why, nil
		}
	}
	for _, w := range s.Wait {
		out, err := c.kubectl.do(ctx, nil, "get", "--all-namespaces", "--ignore-not-found", "--output", "json", strings.Split(w.Object, "/")[0])
		if err != nil {
			return "", err
		}
		list, err := decodeObjects(out)
		if err != nil {
			return "", err
		}
		if why := waitsFor(list, w.Object, w.Field, w.Value); why != "" {
			return why, nil
		}
	}
	for _, h := range s.Health {
		if why, err := c.kubectl.answers(ctx, h); why != "" || err != nil {
			return why, err
		}
	}
	return "", nil
}

// waitsFor returns why the named object does not have the value in the field, or "".
func waitsFor(list []object, name, field, value string) string {
	_, name, _ = strings.Cut(name, "/")
	for _, o := range list {
		if o.name() != name {
			continue
		}
		if now := fmt.Sprint(o.at(field)); now != value {
			return fmt.Sprintf("%s: %s is %s, and will be %s", o, field, now, value)
		}
		return ""
	}
	return name + " does not exist"
}

// trouble returns why a pod in the namespaces of the objects does not start, or "".
func (c *cluster) trouble(ctx context.Context, objects []object) string {
	for _, ns := range namespacesOf(objects) {
		out, err := c.kubectl.do(ctx, nil, "get", "pods", "--namespace", ns, "--output", "json")
		if err != nil {
			continue // best effort: the caller reports the state of the step anyway
		}
		pods, err := decodeObjects(out)
		if err != nil {
			continue
		}
		for _, p := range pods {
			if why := p.podTrouble(); why != "" {
				return "; " + why
			}
		}
	}
	return ""
}

// podTrouble returns why a pod does not run, or "".
func (o object) podTrouble() string {
	for _, field := range []string{"status.initContainerStatuses", "status.containerStatuses"} {
		list, _ := o.at(field).([]any)
		for _, s := range list {
			m, _ := s.(map[string]any)
			container := object(m)
			reason, message := container.text("state.waiting.reason"), container.text("state.waiting.message")
			if reason != "" && reason != "ContainerCreating" && reason != "PodInitializing" {
				return strings.TrimSuffix(fmt.Sprintf("pod %s: %s: %s", o.name(), reason, visible(message)), ": ")
			}
		}
	}
	if ok, why := o.conditionOf("PodScheduled"); ok == "False" {
		return fmt.Sprintf("pod %s: %s", o.name(), visible(why))
	}
	return ""
}

func namespacesOf(objects []object) []string {
	set := map[string]bool{}
	for _, o := range objects {
		if ns := o.namespace(); ns != "" {
			set[ns] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// shared are objects that a cluster has by itself, or that several may want: applying them
// takes nothing from anybody.
func (o object) shared() bool {
	return o.kind() == "Namespace" || o.kind() == "ServiceAccount" && o.name() == "default"
}

// kept are the kinds that are never deleted: they hold data, or other things.
func (o object) kept() bool {
	return slices.Contains([]string{"Namespace", "PersistentVolumeClaim", "PersistentVolume", "CustomResourceDefinition"}, o.kind())
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
				c.note("Removing the Helm release %s in %s, which %s has not got", s.Release, s.Namespace, a.Version)
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
			if len(list) == 0 || own(list, s, a.Name) != nil {
				continue
			}
			if err := c.helm.uninstall(ctx, s); err != nil {
				return err
			}
			continue
		}
		gone := slices.DeleteFunc(slices.Clone(all[n]), object.kept)
		for _, o := range all[n] {
			if o.kept() {
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

// scaleDown applies the application's objects with zero replicas and waits until their pods
// are gone.
func (c *cluster) scaleDown(ctx context.Context, a *host.About, all [][]object) error {
	var scaled []object
	for n, s := range a.Cluster {
		if s.Stage != "application" {
			continue
		}
		for _, o := range all[n] {
			spec, ok := o["spec"].(map[string]any)
			if _, has := spec["replicas"]; !ok || !has {
				continue
			}
			spec["replicas"] = 0
			scaled = append(scaled, o)
		}
	}
	have, err := c.kubectl.get(ctx, scaled)
	if err != nil || len(have) == 0 {
		return err
	}
	if _, err := c.kubectl.apply(ctx, scaled); err != nil {
		return err
	}
	deadline := time.Now().Add(c.timeout)
	for {
		now, err := c.kubectl.get(ctx, scaled)
		if err != nil {
			return err
		}
		running := slices.DeleteFunc(now, func(o object) bool { return o.number("status.replicas", 0) == 0 })
		if len(running) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s %s still has %d pods", c.timeout, running[0], running[0].number("status.replicas", 0))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
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

// unwell returns why steps are not ready, one reason per step.
func (c *cluster) unwell(ctx context.Context, a *host.About) ([]string, error) {
	all, err := c.loadAll(ctx, a)
	if err != nil {
		return nil, err
	}
	var list []string
	for n, s := range a.Cluster {
		why, err := c.pending(ctx, s, all[n])
		if errors.Is(err, errFailed) {
			why, err = err.Error(), nil
		}
		if err != nil {
			return nil, err
		}
		if why != "" {
			list = append(list, why+c.trouble(ctx, all[n]))
		}
	}
	return list, nil
}

// drift returns the objects that are missing or differ from the release. The server compares:
// it applies each object in a dry run.
func (c *cluster) drift(ctx context.Context, a *host.About) ([]string, error) {
	all, err := c.loadAll(ctx, a)
	if err != nil {
		return nil, err
	}
	objects := slices.Concat(all...)
	have, err := c.kubectl.get(ctx, objects)
	if err != nil {
		return nil, err
	}
	now := map[string]object{}
	for _, o := range have {
		now[o.key()] = o
	}
	var list []string
	for _, o := range objects {
		is, ok := now[o.key()]
		if !ok {
			list = append(list, o.String()+" is missing")
			continue
		}
		out, err := c.kubectl.apply(ctx, []object{o}, "--dry-run=server", "--output", "json")
		if err != nil {
			return nil, err
		}
		would, err := decodeObjects(out)
		if err != nil {
			return nil, err
		}
		if len(would) == 1 && !sameSpec(is, would[0]) {
			list = append(list, o.String()+" was changed")
		}
	}
	return list, nil
}

// sameSpec reports whether two objects are equal apart from the status and the metadata that
// the server maintains.
func sameSpec(a, b object) bool {
	text := func(o object) string {
		plain := maps.Clone(map[string]any(o))
		delete(plain, "status")
		meta, _ := plain["metadata"].(map[string]any)
		plain["metadata"] = map[string]any{"labels": meta["labels"], "annotations": meta["annotations"]}
		data, err := json.Marshal(plain)
		if err != nil {
			return err.Error() // cannot happen: the value came from JSON
		}
		return string(data)
	}
	return text(a) == text(b)
}

// logs writes the pods, events and container logs of a release's namespaces.
func (c *cluster) logs(ctx context.Context, a *host.About, w io.Writer) {
	all, err := c.loadAll(ctx, a)
	if err != nil {
		fmt.Fprintln(w, err)
		return
	}
	set := map[string]bool{}
	for _, ns := range namespacesOf(slices.Concat(all...)) {
		set[ns] = true
	}
	for _, s := range a.Cluster {
		if s.Namespace != "" {
			set[s.Namespace] = true
		}
	}
	for _, ns := range slices.Sorted(maps.Keys(set)) {
		show := func(args ...string) {
			out, err := c.kubectl.do(ctx, nil, append(args, "--namespace", ns)...)
			fmt.Fprintf(w, "# kubectl %s --namespace %s\n%s", strings.Join(args, " "), ns, out)
			if err != nil {
				fmt.Fprintln(w, err)
			}
		}
		show("get", "pods", "--output", "wide")
		show("get", "events", "--sort-by", ".lastTimestamp")
		pods, err := c.kubectl.do(ctx, nil, "get", "pods", "--namespace", ns, "--output", "name")
		if err != nil {
			continue
		}
		for _, pod := range strings.Fields(string(pods)) {
			show("logs", pod, "--all-containers", "--tail", "50", "--prefix")
		}
	}
}
