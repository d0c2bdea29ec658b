package service

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
)

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
			"the cluster has no ingress class %s: nobody outside reaches the deployment until a controller with that class runs",
			strings.Join(slices.Sorted(maps.Keys(wanted)), ", "),
		)
	}
	return nil
}
