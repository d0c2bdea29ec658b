package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/install/host"
)

// waitFor waits until a step's objects, conditions and services are ready.
func (c *cluster) waitFor(ctx context.Context, s host.Step, objects []object) error {
	shown := ""
	return poll(ctx, c.timeout, func() (string, error) {
		why, err := c.pending(ctx, s, objects)
		switch {
		case errors.Is(err, errFailed) || ctx.Err() != nil:
			return "", err
		case err != nil:
			why = err.Error() // the server may answer again before the deadline
		case why == "":
			return "", nil
		}
		if why += c.trouble(ctx, objects); why != shown {
			c.note("  waiting: %s", why)
			shown = why
		}
		return why, nil
	})
}

// poll calls ask every second until it returns "" or an error. After the timeout it returns the
// last reason as an error.
func poll(ctx context.Context, timeout time.Duration, ask func() (why string, err error)) error {
	for deadline := time.Now().Add(timeout); ; {
		why, err := ask()
		if err != nil || why == "" {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s: %s", timeout, why)
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
	within := append(namespacesOf(objects), s.Namespace)
	for _, w := range s.Wait {
		out, err := c.kubectl.do(ctx, nil, "get", "--all-namespaces", "--ignore-not-found", "--output", "json", strings.Split(w.Object, "/")[0])
		if err != nil {
			return "", err
		}
		list, err := decodeObjects(out)
		if err != nil {
			return "", err
		}
		list = slices.DeleteFunc(list, func(o object) bool { return o.namespace() != "" && !slices.Contains(within, o.namespace()) })
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
			return fmt.Sprintf("%s: %s is %q instead of %q", o, field, now, value)
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
	return poll(ctx, c.timeout, func() (string, error) {
		now, err := c.kubectl.get(ctx, scaled)
		if err != nil {
			return "", err
		}
		for _, o := range now {
			if n := o.number("status.replicas", 0); n > 0 {
				return fmt.Sprintf("%s still has %d pods", o, n), nil
			}
		}
		return "", nil
	})
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
