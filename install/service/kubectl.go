package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/install/host"
)

// Access configures how a cluster is reached. Access without a Kubeconfig and Context uses
// those of the last start, or leaves the choice to kubectl.
type Access struct {
	Kubeconfig string // path
	Context    string
	TakeOver   bool // take over objects and Helm releases of others
}

// k3sConfig is the path of the kubeconfig that k3s writes.
const k3sConfig = "/etc/rancher/k3s/k3s.yaml"

// completed returns the access with its empty fields filled in. If neither field is set, it
// uses the access that was recorded at the last start. Without any kubeconfig it uses that of
// k3s.
func (a Access) completed(rec *host.Started) Access {
	if rec != nil && a.Kubeconfig == "" && a.Context == "" {
		a.Kubeconfig, a.Context = rec.Kubeconfig, rec.Context
	}
	if a.Kubeconfig == "" && os.Getenv("KUBECONFIG") == "" {
		home, err := os.UserHomeDir()
		_, ownErr := os.Stat(filepath.Join(home, ".kube", "config"))
		if _, statErr := os.Stat(k3sConfig); statErr == nil && (err != nil || ownErr != nil) {
			a.Kubeconfig = k3sConfig
		}
	}
	return a
}

// kubectl is the kubectl program with the arguments to reach the cluster.
type kubectl struct{ command []string }

func newKubectl(a Access) kubectl {
	k := kubectl{[]string{"kubectl"}}
	if a.Kubeconfig != "" {
		k.command = append(k.command, "--kubeconfig", a.Kubeconfig)
	}
	if a.Context != "" {
		k.command = append(k.command, "--context", a.Context)
	}
	return k
}

// do runs kubectl and returns its output.
func (k kubectl) do(ctx context.Context, in []byte, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := runAs(ctx, "kubectl "+args[0], "", bytes.NewReader(in), &out, append(slices.Clone(k.command), args...)...)
	return out.Bytes(), err
}

// reach returns the server's version. The error wraps ErrNoRuntime, and also ErrUnusable if
// kubectl is installed.
func (k kubectl) reach(ctx context.Context) (version string, err error) {
	out, err := k.do(ctx, nil, "version", "--output", "json")
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: there is no program kubectl on this host", ErrNoRuntime)
	}
	var doc struct {
		ServerVersion struct {
			GitVersion string `json:"gitVersion"`
		} `json:"serverVersion"`
	}
	if jsonErr := json.Unmarshal(out, &doc); err == nil && jsonErr != nil {
		err = jsonErr
	}
	if err != nil {
		return "", &unusable{
			fmt.Sprintf("%v: the cluster does not answer (select another with --kubeconfig and --context): %v", ErrUnusable, err),
			[]error{ErrNoRuntime, ErrUnusable, err},
		}
	}
	return doc.ServerVersion.GitVersion, nil
}

// load reads the objects of a file with kubectl and adds the deployment's label.
func (k kubectl) load(ctx context.Context, file, deployment string) ([]object, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(data, []byte("kind:")) && !bytes.Contains(data, []byte(`"kind"`)) {
		return nil, nil // no objects: a template whose condition is false
	}
	out, err := k.do(ctx, nil, "label", "--local", "--filename", file, "--output", "json", "--overwrite", labelDeployment+"="+deployment)
	if err != nil {
		return nil, err
	}
	return decodeObjects(out)
}

// unknownKind reports whether kubectl failed because the cluster does not know a kind yet.
func unknownKind(err error) bool {
	return containsAny(saidBy(err), "no matches for kind", "could not find the requested resource", "doesn't have a resource type")
}

// get returns those of the objects that exist in the cluster, in the cluster's version.
func (k kubectl) get(ctx context.Context, list []object) ([]object, error) {
	if len(list) == 0 {
		return nil, nil
	}
	data, err := encodeObjects(list)
	if err != nil {
		return nil, err
	}
	out, err := k.do(ctx, data, "get", "--filename", "-", "--ignore-not-found", "--output", "json")
	if err == nil {
		return decodeObjects(out)
	}
	if !unknownKind(err) {
		return nil, err
	}
	if len(list) == 1 {
		return nil, nil
	}
	var have []object
	for _, o := range list {
		one, err := k.get(ctx, []object{o})
		if err != nil {
			return nil, err
		}
		have = append(have, one...)
	}
	return have, nil
}

// apply applies objects with server-side apply. It takes over fields that others manage, because
// operators write into the objects that they watch.
func (k kubectl) apply(ctx context.Context, list []object, args ...string) ([]byte, error) {
	data, err := encodeObjects(list)
	if err != nil {
		return nil, err
	}
	always := []string{"apply", "--server-side", "--field-manager", fieldManager, "--force-conflicts", "--filename", "-"}
	return k.do(ctx, data, append(always, args...)...)
}

// remove deletes objects and waits until they are gone.
func (k kubectl) remove(ctx context.Context, list []object, timeout string) error {
	if len(list) == 0 {
		return nil
	}
	data, err := encodeObjects(list)
	if err != nil {
		return err
	}
	_, err = k.do(ctx, data, "delete", "--filename", "-", "--ignore-not-found", "--timeout", timeout)
	if unknownKind(err) {
		return nil
	}
	return err
}

// answers returns why a service does not answer with success, or "". The address is
// NAMESPACE/SERVICE:PORT/PATH. The request goes through the API server's proxy.
func (k kubectl) answers(ctx context.Context, address string) (string, error) {
	namespace, rest, _ := strings.Cut(address, "/")
	service, path, _ := strings.Cut(rest, "/")
	_, err := k.do(ctx, nil, "get", "--raw", "/api/v1/namespaces/"+namespace+"/services/"+service+"/proxy/"+path)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return service + " in " + namespace + " does not answer: " + strings.Join(saidBy(err), " "), nil
	}
	return "", nil
}
