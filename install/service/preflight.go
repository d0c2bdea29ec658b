package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// check reports everything that stands in the way of applying a release: Helm, objects and
// Helm releases of others, and what the server refuses. Nothing is changed.
func (c *cluster) check(ctx context.Context, a *host.About) error {
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
		problems = append(problems, c.own(list, s, a.Name))
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
			"%s names images that are not in the registry %s: %s; nodes need the files in runtime/ to find them",
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
			problems = append(problems, fmt.Errorf("%w: %s already exists in the cluster; use --take-over, or remove it", errForeign, o))
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
		return fmt.Errorf("the account has no permission in the cluster to: %s", strings.Join(missing, "; "))
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

// checkNodes compares the processors of the nodes with the platforms of the bundle. An account
// that may not list nodes is not an error. The error wraps bundle.ErrPolicy if no node runs the
// images.
func (c *cluster) checkNodes(ctx context.Context, a *host.About) error {
	out, err := c.kubectl.do(ctx, nil, "get", "nodes", "--output", "json")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil || len(a.Platforms) == 0 {
		return nil //nolint:nilerr // the account may not list them, and the nodes report what they cannot run
	}
	nodes, err := decodeObjects(out)
	if err != nil {
		return err
	}
	var without []string
	for _, n := range nodes {
		p := bundle.Platform{OS: n.text("status.nodeInfo.operatingSystem"), Architecture: n.text("status.nodeInfo.architecture")}
		if !slices.Contains(a.Platforms, p.String()) {
			without = append(without, fmt.Sprintf("%s (%s)", n.name(), p))
		}
	}
	carried := strings.Join(a.Platforms, ", ")
	switch {
	case len(nodes) > 0 && len(without) == len(nodes):
		return fmt.Errorf("%w: the bundle carries %s, and no node runs that: %s", bundle.ErrPolicy, carried, strings.Join(without, ", "))
	case len(without) > 0:
		c.note("the bundle carries %s; these nodes cannot run it: %s", carried, strings.Join(without, ", "))
	}
	return nil
}

// checkIngress tells of ingress classes that the objects name and the cluster does not have.
// A chart of the deployment may bring them.
func (c *cluster) checkIngress(ctx context.Context, a *host.About, objects []object) error {
	wanted := map[string]bool{}
	for _, o := range objects {
		for _, field := range []string{"spec.ingressClassName", "spec.ingress.ingressClass"} {
			if class := o.text(field); class != "" {
				wanted[class] = true
			}
		}
	}
	brings := slices.ContainsFunc(a.Cluster, func(s host.Step) bool { return s.Stage == "operators" && strings.Contains(s.Chart, "ingress") })
	if len(wanted) == 0 || brings {
		return nil
	}
	out, err := c.kubectl.do(ctx, nil, "get", "ingressclasses", "--output", "jsonpath={.items[*].metadata.name}")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return nil //nolint:nilerr // the account may not list them
	}
	for _, class := range strings.Fields(string(out)) {
		delete(wanted, class)
	}
	if len(wanted) > 0 {
		c.note(
			"the cluster has no ingress class %s; the deployment is not reachable from outside until a controller with that class runs",
			strings.Join(slices.Sorted(maps.Keys(wanted)), ", "),
		)
	}
	return nil
}
