#!/bin/bash
# The isolated side of the interop test: runs in a network namespace that has
# nothing but loopback. Arguments: directory with the bundle and the key, the
# repository prefix of the images on the site.
set -euo pipefail
dir=$1 images=$2
ip link set lo up
[ -z "$(ip route)" ] || { echo "there is a route out of here" >&2; exit 1; }
if getent hosts registry-1.docker.io >/dev/null; then echo "names resolve in here" >&2; exit 1; fi
cd "$dir"
here=127.0.0.1:5000
children=()
finish() {
	status=$?
	docker rm -f pg >/dev/null 2>&1 || :
	for pid in "${children[@]}"; do kill "$pid" 2>/dev/null || :; done
	wait || :
	exit "$status"
}
trap finish EXIT

echo "== verify and install"
oob-bundle verify real.oob.tar --key oob.pub --root site
oob-bundle install real.oob.tar --key oob.pub --root site
oob-bundle install real.oob.tar --key oob.pub --root site | grep 'nothing to do'
oob-bundle registry serve --root site &
children+=($!)

echo "== a Docker engine of its own, in here"
driver=$(docker info -f '{{.Driver}}') # the one that works on this machine
export DOCKER_HOST=unix://$dir/docker.sock
echo '{}' >dockerd.json
dockerd --config-file "$dir/dockerd.json" --storage-driver "$driver" --host "$DOCKER_HOST" --data-root "$dir/docker" --exec-root "$dir/exec" --pidfile "$dir/docker.pid" \
	--iptables=false --ip6tables=false --ip-masq=false --bridge=none >"$dir/dockerd.log" 2>&1 &
children+=($!)
for _ in $(seq 150); do docker info >/dev/null 2>&1 && break; sleep 0.2; done
docker info >/dev/null || { tail -n 20 "$dir/dockerd.log" >&2; exit 1; }

echo "== docker pull and docker run"
docker pull -q "$here/$images/debian:bookworm"
docker run --rm --network host "$here/$images/debian:bookworm" cat /etc/debian_version
docker pull -q "$here/$images/nginx:1.22"
docker run --rm --network host "$here/$images/nginx:1.22" nginx -v
docker pull -q "$here/$images/tool:1"
docker run --rm --network host "$here/$images/tool:1" version
docker pull -q "$here/$images/postgres:15"
docker run -d --name pg --network host "$here/$images/postgres:15" >/dev/null
for _ in $(seq 100); do docker exec pg pg_isready -h 127.0.0.1 >/dev/null 2>&1 && break; sleep 0.2; done
answer=$(docker exec pg psql -h 127.0.0.1 -Atc "select 'forty-' || 'two'")
[ "$answer" = forty-two ] || { echo "PostgreSQL answered $answer" >&2; exit 1; }
echo "PostgreSQL answers"

echo "== podman pull and podman run"
podman --root "$dir/podman" --runroot "$dir/podman-run" pull -q --tls-verify=false "$here/$images/debian:zstd"
podman --root "$dir/podman" --runroot "$dir/podman-run" --cgroup-manager cgroupfs run --rm --network host \
	--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$here/$images/debian:zstd" cat /etc/debian_version

echo "== skopeo, crane, regctl, oras"
skopeo inspect --tls-verify=false "docker://$here/$images/debian:bookworm" >/dev/null
crane validate --insecure --remote "$here/$images/nginx:1.22"
crane pull --insecure --platform linux/amd64 "$here/$images/both:1" both.tar
regctl registry set --tls disabled "$here" >/dev/null
regctl manifest get "$here/$images/both:1" >/dev/null
oras pull --plain-http -o "$dir/artifact" "$here/$images/artifact:1" >/dev/null
cmp artifact.txt "$dir/artifact/artifact.txt"
oras discover --plain-http "$here/oob-bundle/real:oob-$(cut -c1-16 identity)" | grep signatures
echo "isolated: all is well"
