//go:build kubernetes

package main

import (
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// clusterWorld is a real Kubernetes on one node without a route out, a site's registry with
// TLS and an account, and a maker of bundles.
type clusterWorld struct {
	side
	node     string // directory of the node
	registry string // address on the node's network
	upstream *world.Registry
	key      *world.Key
	root     string
	made     int    // bundles
	programs string // directory with what the images are made of
}

// nodeNet is the network between this machine and the node.
const nodeNet = "10.77.0"

func newClusterWorld(t *testing.T) *clusterWorld {
	programs := os.Getenv("OOB_KUBERNETES")
	if programs == "" {
		t.Fatal("make e2e-kubernetes builds what this test needs")
	}
	dir := t.TempDir()
	w := &clusterWorld{
		side: side{t, dir}, node: filepath.Join(dir, "node"), registry: nodeNet + ".1:5000",
		upstream: world.NewRegistry(t, nil), key: world.NewKey(t), root: filepath.Join(dir, "site"), programs: programs,
	}
	up := filepath.Join("..", "..", ".ci", "kubernetes.d")
	up, err := filepath.Abs(up)
	if err != nil {
		t.Fatal(err)
	}
	w.Cleanup(func() {
		if w.Failed() {
			out, _ := w.try("kubectl --kubeconfig node/etc/admin.kubeconfig get pods,events -A 2>&1 | tail -60; tail -n 20 node/log/kubelet.log")
			w.Log(out)
		}
		_, _ = w.try(up + "/down " + w.node)
	})
	w.sh(up + "/up " + w.node + " " + programs + "/kube")
	w.pause()
	return w
}

// program returns an image of one of the programs.
func (w *clusterWorld) program(name string, more ...world.File) v1.Image {
	w.Helper()
	data, err := os.ReadFile(filepath.Join(w.programs, name))
	if err != nil {
		w.Fatal(err)
	}
	img := world.Image("linux/amd64", world.Layer(append(more, world.File{Name: name, Mode: 0o755, Data: data})...))
	cfg, err := img.ConfigFile()
	if err != nil {
		w.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.Config.Entrypoint = []string{"/" + name}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		w.Fatal(err)
	}
	return img
}

// oob runs oob-bundle and fails the test if it fails.
func (w *clusterWorld) oob(args string) string {
	w.Helper()
	return w.sh("oob-bundle " + args + " 2>&1")
}

func (w *clusterWorld) kubectl(args string) string {
	w.Helper()
	return w.sh("kubectl --kubeconfig " + w.node + "/etc/admin.kubeconfig " + args)
}

// bundle makes a bundle of a manifest.
func (w *clusterWorld) bundle(name, manifest string) string {
	w.Helper()
	w.made++
	w.write(name+".yaml", manifest)
	w.oob(fmt.Sprintf(
		"create %s.yaml --key %s --plain-http %s --sequence %d -o %s.oob.tar", name, w.key.Private, w.upstream.Host, w.made, name,
	))
	return filepath.Join(w.dir, name+".oob.tar")
}

// pause gives the node the image of every pod's first process, out of a bundle: nothing else
// is there yet from which it could come.
func (w *clusterWorld) pause() {
	w.Helper()
	ref := w.upstream.Push(w.T, "node/pause:1", w.program("pause"))
	w.bundle("node", "apiVersion: oobbundle.dev/v1\nkind: Manifest\nmetadata: {name: node, version: \"1\"}\n"+
		"components: [{name: pause, images: ["+ref+"]}]\n")
	pid := w.sh("pgrep -P $(cat node/pid) | head -1")
	ctr := "nsenter -t " + pid + " -m -n -p -- ctr -n k8s.io images "
	w.sh(ctr + "import " + w.dir + "/node.oob.tar && " + ctr + "tag " + ref + " k8s.local/pause:1")
}

// serve starts the site's registry below the root, with TLS and an account, and lets the node
// trust its certificate. There is no mirror: a name of another registry leads nowhere.
func (w *clusterWorld) serve() {
	w.Helper()
	w.sh("mkdir -p site && OOB_BUNDLE_ACCOUNT_PASSWORD=node-password oob-bundle registry account --root site node")
	if _, err := w.try("exec 3<>/dev/tcp/" + strings.ReplaceAll(w.registry, ":", "/")); err == nil {
		w.Fatalf("something else listens on %s", w.registry)
	}
	host := strings.Split(w.registry, ":")[0]
	w.start(w.registry, "oob-bundle", "registry", "serve", "--root", "site", "--listen", w.registry, "--tls", "--name", host,
		"--accounts", "site/accounts")
	w.sh("mkdir -p node/certs.d/" + w.registry)
	w.write("node/certs.d/"+w.registry+"/hosts.toml", fmt.Sprintf(
		"server = \"https://%[1]s\"\n[host.\"https://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = %[2]q\n",
		w.registry, w.dir+"/site/tls/ca.crt",
	))
}

// login writes the site's values, with the login that nodes pull with.
func (w *clusterWorld) login() {
	w.Helper()
	login := base64.StdEncoding.EncodeToString([]byte("node:node-password"))
	w.write("login.json", fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, w.registry, login))
	w.write("values.yaml", "registry: "+w.registry+"\nregistryLogin: "+w.dir+"/login.json\n")
}

// chat is a deployment of a cluster: a server with its objects and a job, and a chart.
func (w *clusterWorld) chat(version, env string) string {
	w.Helper()
	ref := w.upstream.Push(w.T, "team/app:"+version, w.program("app", world.File{Name: "version", Mode: 0o644, Data: []byte(version)}))
	w.write("objects.yaml", fmt.Sprintf(chatObjects, version, env, w.upstream.Host+"/team/app"))
	w.write("namespace.yaml", chatNamespace)
	w.write("side.yaml", fmt.Sprintf("image: {{ yaml (image %q) }}\nversion: %q\n", w.upstream.Host+"/team/app", version))
	chart := w.chart("side", "0."+version+".0")
	return w.bundle("chat-"+version, fmt.Sprintf(chatManifest, version, ref, w.upstream.Host, chart))
}

// chart publishes a chart with a job before its installation and upgrades, and a deployment.
func (w *clusterWorld) chart(name, version string) string {
	w.Helper()
	dir := name + "-" + version
	w.sh("mkdir -p " + dir + "/templates")
	w.write(dir+"/Chart.yaml", "apiVersion: v2\nname: "+name+"\nversion: "+version+"\n")
	w.write(dir+"/values.yaml", "image: nobody.example/has:none\nversion: \"0\"\n")
	w.write(dir+"/templates/all.yaml", chartObjects)
	w.sh("helm package --destination packages " + dir + " && mkdir -p packages")
	data, err := os.ReadFile(filepath.Join(w.dir, "packages", dir+".tgz"))
	if err != nil {
		w.Fatal(err)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.cncf.helm.config.v1+json")
	img, err = mutate.AppendLayers(img, static.NewLayer(data, "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))
	if err != nil {
		w.Fatal(err)
	}
	w.upstream.Push(w.T, "charts/"+name+":"+version, img)
	return version
}

const chartObjects = `apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-before
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: job, image: {{ .Values.image | quote }}, args: [once]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: side, image: {{ .Values.image | quote }}, env: [{name: VERSION, value: {{ .Values.version | quote }}}]}]
`

const chatManifest = `apiVersion: oobbundle.dev/v1
kind: Manifest
metadata: {name: chat, version: %q}
deployments: [kubernetes]
components:
  - name: server
    images: [%q]
    charts: [{repository: "oci://%s/charts", name: side, version: %q, unusedImages: ["nobody.example/*"]}]
    files:
      - {source: namespace.yaml, path: namespace.yaml, as: template}
      - {source: objects.yaml, path: objects.yaml, as: template}
      - {source: side.yaml, path: side-values.yaml, as: template}
    host:
      - values:
          - {name: registryLogin, kind: file, about: Login of the registry as Docker keeps it}
          - {name: registry, kind: registry, about: Address of the registry}
        cluster:
          - {stage: application, apply: objects.yaml, health: ["chat/web:80/api/v4/system/ping"]}
          - {stage: namespaces, apply: namespace.yaml}
          - {stage: services, chart: side, release: side, namespace: chat, values: side-values.yaml}
`

const chatNamespace = `apiVersion: v1
kind: Namespace
metadata: {name: chat}
---
apiVersion: v1
kind: Secret
metadata: {name: pull, namespace: chat}
type: kubernetes.io/dockerconfigjson
stringData:
  .dockerconfigjson: {{ yaml (siteFile "registryLogin") }}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: chat}
`

const chatObjects = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: chat}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      imagePullSecrets: [{name: pull}]
      containers:
        - name: web
          image: {{ yaml (image "%[3]s") }}
          env: [{name: VERSION, value: "%[1]s"}%[2]s]
          readinessProbe: {httpGet: {path: /api/v4/system/ping, port: 8065}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: chat}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8065}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate-%[1]s, namespace: chat}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      imagePullSecrets: [{name: pull}]
      containers: [{name: migrate, image: {{ yaml (image "%[3]s") }}, args: [once]}]
`

// answer is what the server says to whoever asks it.
func (w *clusterWorld) answer() string {
	w.Helper()
	return w.kubectl("get --raw /api/v1/namespaces/chat/services/web:80/proxy/")
}

// names lists the objects of a kind in the deployment's namespace.
func (w *clusterWorld) names(kind string) string {
	w.Helper()
	return strings.Join(strings.Fields(w.kubectl("-n chat get "+kind+" -o name")), " ")
}

// exits runs oob-bundle and returns its exit status and what it prints.
func (w *clusterWorld) exits(args string) (int, string) {
	w.Helper()
	out, _ := w.try("oob-bundle " + args + " 2>&1 && echo exit 0 || echo exit $?")
	i := strings.LastIndex(out, "exit ")
	code, err := strconv.Atoi(strings.TrimSpace(out[i+5:]))
	if err != nil {
		w.Fatal(err)
	}
	return code, out[:i]
}

// flags says which cluster and root a command is about.
func (w *clusterWorld) flags() string {
	return " --root site --kubeconfig " + w.node + "/etc/admin.kubeconfig"
}

// install returns the command that installs and starts a bundle.
func (w *clusterWorld) install(file, timeout string) string {
	return "install " + file + " --key " + w.key.Public + w.flags() + " --values values.yaml --start --start-timeout " + timeout
}

// first installs a bundle without starting it, and serves its images.
func (w *clusterWorld) first(file string) {
	w.Helper()
	w.login()
	w.oob("install " + file + " --key " + w.key.Public + " --root site --values values.yaml")
	w.serve()
}

// is requires that a version of the chat runs, with its own job and no other's.
func (w *clusterWorld) is(version, after string) {
	w.Helper()
	jobs := strings.Fields(strings.ReplaceAll(w.names("jobs"), "job.batch/side-before", ""))
	if got := w.answer(); got != version || !slices.Equal(jobs, []string{"job.batch/migrate-" + version}) {
		w.Errorf("after %s it answers %q, and there is %s", after, got, jobs)
	}
	if code, out := w.exits("status --check" + w.flags()); code != 0 || strings.Contains(out, "waiting") {
		w.Errorf("after %s: status %d %s", after, code, out)
	}
}

// TestKubernetes takes a deployment through its life on a real cluster: first installation,
// upgrade, an upgrade that never becomes ready, drift and repair, another deployment that
// wants its objects, rollback, and removal.
func TestKubernetes(t *testing.T) {
	w := newClusterWorld(t)
	one, two, broken := w.chat("1", ""), w.chat("2", ""), w.chat("3", `, {name: FAIL, value: "no licence"}`)
	w.first(one)
	lap := laps(t)
	w.oob(w.install(one, "180s"))
	lap("first installation")
	w.is("1", "the first installation")
	t.Log(w.oob(w.install(two, "180s")))
	lap("upgrade")
	w.is("2", "the upgrade")
	w.refuses(broken)
	lap("an upgrade that does not become ready")
	w.is("2", "going back")
	w.drifts(two)
	lap("drift and repair")
	w.is("2", "repair")
	w.rivals()
	w.oob("rollback chat --start" + w.flags())
	lap("rollback")
	w.is("1", "rollback")
	w.removes()
	lap("removal")
}

// laps returns a function that logs how long each part of a test took.
func laps(t *testing.T) func(what string) {
	begun := time.Now()
	return func(what string) {
		t.Logf("%s: %s", what, time.Since(begun).Round(100*time.Millisecond))
		begun = time.Now()
	}
}

// refuses installs a release that does not start.
func (w *clusterWorld) refuses(broken string) {
	w.Helper()
	code, out := w.exits(w.install(broken, "60s"))
	if code == 0 || !strings.Contains(out, "going back to chat 2") || !strings.Contains(out, "CrashLoopBackOff") {
		w.Errorf("broken: %d %s", code, out)
	}
	if logs := w.sh("cat site/deployments/chat/logs/*.log"); !strings.Contains(logs, "this version does not start: no licence") {
		w.Errorf("the logs do not have the reason: %s", logs)
	}
}

// drifts changes the cluster, and puts it right.
func (w *clusterWorld) drifts(bundle string) {
	w.Helper()
	const change = `[{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "changed"}]`
	w.kubectl("-n chat patch deployment web --type json -p '" + change + "'")
	w.kubectl("-n chat delete service web")
	code, out := w.exits("status --check" + w.flags())
	if code != 1 || !strings.Contains(out, "deployment/web in chat was changed") || !strings.Contains(out, "service/web in chat is missing") {
		w.Errorf("drift: %d %s", code, out)
	}
	w.oob("repair " + bundle + " --key " + w.key.Public + w.flags())
}

// rivals installs another deployment that wants the same objects.
func (w *clusterWorld) rivals() {
	w.Helper()
	other := strings.ReplaceAll(chatManifest, "name: chat,", "name: other,")
	w.write("objects.yaml", fmt.Sprintf(chatObjects, "1", "", w.upstream.Host+"/team/app"))
	rival := w.bundle("other", fmt.Sprintf(other, "1", w.upstream.Host+"/team/app:1", w.upstream.Host, "0.1.0"))
	code, out := w.exits(w.install(rival, "180s"))
	if code != 5 || !strings.Contains(out, "deployment/web in chat already exists") ||
		!strings.Contains(out, "the Helm release side in chat already exists") {
		w.Errorf("another deployment's objects: %d %s", code, out)
	}
}

// removes uninstalls the chat.
func (w *clusterWorld) removes() {
	w.Helper()
	out := w.oob("uninstall chat" + w.flags())
	if got := w.names("deployments,services"); got != "" {
		w.Errorf("%s is left", got)
	}
	if list := w.sh("helm list -A -q --kubeconfig node/etc/admin.kubeconfig"); list != "" {
		w.Errorf("Helm still has %s", list)
	}
	if !strings.Contains(out, "namespace/chat") || w.kubectl("get namespace chat -o name") == "" {
		w.Errorf("the namespace: %s", out)
	}
}

// TestKubernetesCatalogue takes the application architecture to a real cluster with the real
// operator of Mattermost and Helm; the server is a stand-in that answers its health check.
func TestKubernetesCatalogue(t *testing.T) {
	w := newClusterWorld(t)
	one, two := w.application()
	w.login()
	w.write("class.yaml", localClass)
	w.kubectl("apply -f class.yaml")
	w.write("values.yaml", w.sh("cat values.yaml")+"\n"+
		"domain: chat.site.mil\npullSecret: site-registry\ndatabaseHost: "+nodeNet+".1\nstorageClass: local\nfileStorage: 1Gi\n")
	w.oob("install " + one + " --key " + w.key.Public + " --root site --values values.yaml")
	w.serve()
	version := func() string {
		return w.kubectl("-n mattermost get mattermost application -o jsonpath='{.status.state} {.spec.version} {.status.version}'")
	}
	lap := laps(t)
	t.Log(w.oob(w.install(one, "180s")))
	lap("first installation")
	first := version()
	if state := strings.Fields(first); len(state) != 3 || state[0] != "stable" || state[1] != state[2] {
		t.Errorf("the server is %q", first)
	}
	w.oob(w.install(two, "180s"))
	lap("upgrade")
	if second := version(); second == first || !strings.HasPrefix(second, "stable ") {
		t.Errorf("after the upgrade it is %q", second)
	}
	if code, out := w.exits("status --check --root site"); code != 0 {
		t.Errorf("status: %d %s", code, out)
	}
	w.oob("rollback application --start --root site")
	lap("rollback")
	if back := version(); back != first {
		t.Errorf("after rollback it is %q, and was %q", back, first)
	}
	out := w.oob("uninstall application --root site")
	if left := w.kubectl("-n mattermost get mattermost,deployments -o name"); left != "" || !strings.Contains(out, "mattermost-files") {
		t.Errorf("%s is left; %s", left, out)
	}
}

// application makes two bundles of the application architecture.
func (w *clusterWorld) application() (one, two string) {
	w.Helper()
	s := newSite(w.T)
	w.key = s.key
	s.up.Layers = w.layers
	manifest := operatorManifest(w.T)
	const source = "https://raw.githubusercontent.com/mattermost/mattermost-operator/v1.25.9/docs/mattermost-operator/mattermost-operator.yaml"
	create := func(version, sequence string) string {
		s.stock("application", manifests.Choice{Deployment: "kubernetes", Set: map[string]string{"versions.mattermost": version}})
		s.up.Page(source, manifest)
		file, args := s.create("application", "--deployment", "kubernetes", "--with", "operator-manifest", "--platform", "linux/amd64",
			"--set", "versions.mattermost="+version, "--sequence", sequence,
			"--set", "sha256.operator-manifest="+bundle.DigestOf(manifest).Hex())
		s.must(args...)
		w.sh("mv " + file + " " + version + ".oob.tar")
		return filepath.Join(w.dir, version+".oob.tar")
	}
	return create("11.7.9", "1"), create("11.8.5", "2")
}

// layers returns what the images of the catalogue consist of: programs that run, where the
// test needs them.
func (w *clusterWorld) layers(ref bundle.Reference, _ string) []v1.Layer {
	about := world.File{Name: "about", Mode: 0o644, Data: []byte(ref.String())}
	programs := map[string][2]string{ // program and its path in the image
		"mattermost/mattermost-enterprise-edition": {"app", "usr/local/bin/mattermost"},
		"mattermost/mattermost-operator":           {"mattermost-operator", "mattermost-operator"},
	}
	p, ok := programs[ref.Name]
	if !ok {
		return []v1.Layer{world.Layer(about)}
	}
	data, err := os.ReadFile(filepath.Join(w.programs, p[0]))
	if err != nil {
		w.Fatal(err)
	}
	return []v1.Layer{world.Layer(world.File{Name: p[1], Mode: 0o755, Data: data}, about)}
}

// operatorManifest returns what installs the operator: the file of its module, with the resource
// definition of its source, which the file is some releases behind.
func operatorManifest(t *testing.T) []byte {
	t.Helper()
	module := os.Getenv("OOB_OPERATOR") // directory
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	const name = "name: mattermosts.installation.mattermost.com"
	documents := strings.Split(read("docs/mattermost-operator/mattermost-operator.yaml"), "\n---\n")
	n := slices.IndexFunc(documents, func(d string) bool { return strings.Contains(d, name) })
	if n < 0 {
		t.Fatal("the file has no resource definition of the server")
	}
	documents[n] = read("config/crd/bases/installation.mattermost.com_mattermosts.yaml")
	return []byte(strings.Join(documents, "\n---\n"))
}

// localClass is a class of volumes below the node's directories, with one volume.
const localClass = `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: one}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: local
  hostPath: {path: /tmp/oob-kube-volume, type: DirectoryOrCreate}
`

// clusterKills is how many of the calls of kubectl and helm TestKubernetesKill ends at; 0 is all.
var clusterKills = flag.Int("cluster-kills", 6, "calls of kubectl and helm at which an upgrade is killed; 0 is every one")

// TestKubernetesKill kills an upgrade at its calls of kubectl and helm, before or after the
// call. The same command then finishes it, also where Helm was left in the middle.
func TestKubernetesKill(t *testing.T) {
	w := newClusterWorld(t)
	one, two := w.chat("1", ""), w.chat("2", "")
	w.first(one)
	install := func(bundle string) string { return w.install(bundle, "180s") + " --allow-downgrade" }
	w.oob(install(one))
	w.sh("mkdir calls")
	for _, program := range []string{"kubectl", "helm"} {
		real := w.sh("command -v " + program)
		w.write("calls/"+program, fmt.Sprintf(killingCall, w.dir, real))
		w.sh("chmod +x calls/" + program)
	}
	counted := func(at int, line string) int {
		w.sh("rm -f count")
		_, _ = w.try(fmt.Sprintf("KILL_AT=%d PATH=%s/calls:$PATH timeout -k 1 400 oob-bundle %s >run.log 2>&1", at, w.dir, line))
		n, err := strconv.Atoi(w.sh("wc -l <count"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	calls := counted(0, install(two))
	w.oob(install(one))
	step := 1
	if *clusterKills > 0 {
		step = max(1, calls / *clusterKills)
	}
	killed := 0
	for at := 1; at <= calls; at += step {
		if n := counted(at, install(two)); n < at {
			t.Fatalf("only %d calls", n)
		}
		killed++
		if out, err := w.try("oob-bundle " + install(two) + " 2>&1"); err != nil {
			t.Fatalf("killed at call %d of %d (%s): it does not go on: %s", at, calls, w.sh(fmt.Sprintf("sed -n %dp count", at)), out)
		}
		if got := w.answer(); got != "2" {
			t.Errorf("killed at call %d: it answers %q", at, got)
		}
		if code, out := w.exits("status --check --root site"); code != 0 {
			t.Errorf("killed at call %d: %d %s", at, code, out)
		}
		w.oob(install(one))
	}
	t.Logf("killed at %d of %d calls", killed, calls)
}

// killingCall counts calls and kills the caller at one of them: every other time after the
// program has begun its work.
const killingCall = `#!/bin/bash
echo "$(basename "$0") $*" >>%[1]s/count
n=$(wc -l <%[1]s/count)
if [ "$n" = "${KILL_AT:-0}" ]; then
	if [ $((n %% 2)) = 0 ]; then
		%[2]s "$@" &
		sleep 0.7
		kill -9 $! 2>/dev/null
	fi
	kill -9 $PPID
	exit 137
fi
exec %[2]s "$@"
`
