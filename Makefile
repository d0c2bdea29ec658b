# make help lists the targets.

.PHONY: all help build demo transcripts quick test sweeps race fuzz lint interop e2e e2e-optional e2e-kubernetes catalogue-test bench torture release-check package-test reproducible ci release clean

all: build

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/oob-bundle
	CGO_ENABLED=0 go build -trimpath -o bin/oob-bundle ./cmd/oob-bundle

demo: ## the main job, from a registry to a registry that never saw it
	@.ci/demo

# What the handbook shows of three people's work, played and written anew.
transcripts: ## play the three transcripts of the handbook and write them
	.ci/transcripts

# Without what sweeps, waits or starts the program often.
quick: ## the short tests, under a minute with a warm build cache
	go test -short -timeout 5m ./bundle ./bundle/disk ./bundle/foreign ./install/ledger ./bundle/kit ./bundle/publickey ./bundle/record ./bundle/sign ./bundle/remote ./manifests ./verify/trust ./install/host ./install/service
	go test -short -timeout 5m -run 'Handbook|Links|House|Walls|Rooms|Unfinished|Scripts/(roundtrip|usage|sign|trust|merged|files)$$' ./cmd/oob-bundle

# What repeats a job for every byte, system call or moment.
SWEEPS = ^Test(Every.*|RichEvery.*|Faults|Hands|LinksInData|Kill.*|Clocks|Bombs|LargeBlob|MixAndMatch|InterruptedAnywhere|NothingThatATerminalObeys)$$

test: ## all tests that need neither root nor Docker, without the sweeps
	go test -timeout 20m -skip '$(SWEEPS)' $(TESTFLAGS) ./...

sweeps: ## the tests that repeat a job for every byte, system call or moment
	go test -timeout 30m -run '$(SWEEPS)' $(TESTFLAGS) ./...

# Left out: what asks one thing after the other for long, and of the program most of the
# scripts, in which it starts, says something and ends.
UNRACED = ^Test(Every|RichEvery|Unknown|Mix|Hostile|Damaged|Interrupted)
RACED = ^TestScripts$$/^(roundtrip|volumes|several|progress|interrupt|serve|resolve|lock)$$
race: ## the race detector on everything that runs at the same time
	CGO_ENABLED=1 go test -race -short -vet=off -timeout 20m -skip '$(UNRACED)' ./bundle/... ./verify/... ./install/... ./manifests/...
	CGO_ENABLED=1 go test -race -short -vet=off -timeout 20m -run '$(RACED)' ./cmd/oob-bundle

# Each fuzz target for FUZZTIME.
FUZZTIME ?= 20s
fuzz: ## each fuzz target for FUZZTIME
	.ci/fuzz $(FUZZTIME)

lint: ## formatting, vet, linters
	.ci/lint

# Real images and real clients; needs root and Docker, installs what it uses.
interop: ## real images and clients; needs root and Docker
	.ci/interop

# The application architecture on a machine without a route out, with the real
# server; needs root and Docker. E2E_DIR keeps what is built for it.
# Its name begins with a dot so that ./... does not look into what is being unpacked there.
E2E_DIR ?= bin/.e2e
e2e: ## a deployment from its first start to its removal; needs root and Docker
	.ci/e2e $(E2E_DIR)

# What may be added to an architecture, started for real as far as there are programs
# of it to build.
e2e-optional: ## optional components, started for real
	.ci/e2e $(E2E_DIR) optional

# Kubernetes from its Go module, in namespaces of its own; needs root and Debian.
KUBERNETES_DIR ?= bin/.kubernetes
e2e-kubernetes: ## a deployment on a real Kubernetes; needs root
	.ci/kubernetes $(KUBERNETES_DIR)

# Every name of every reference architecture, from a stand-in upstream to a site;
# every rule of the catalogue, broken once.
catalogue-test: ## every name and rule of the catalogue
	go test ./manifests ./bundle/pull -count=1
	go test ./cmd/oob-bundle -run 'Catalogue|Rules|Plugin' -count=1 -v

# Side by side with the least that any program has to do, skopeo and crane, on
# real images; needs Debian, installs what it uses. Writes docs/benchmarks.md.
BENCH_DIR ?= bin/bench-data
bench: build ## side by side with the floor, skopeo and crane
	.ci/bench $(BENCH_DIR)

# The long form of the fault tests: every call with every error, a power cut before
# every call that changes something, more kills. Hours; the power cuts need root.
KILLS ?= 200
FUZZED ?= 15m
torture: ## the long form of the fault tests; hours
	go test ./verify -run 'Every|Unknown|Mix' -count=1 -timeout 3h -v -exhaustive
	go test ./install -run EveryPayloadByte -count=1 -timeout 1h -v -byte-step 1
	go test ./bundle/create -run Dropped -count=1 -timeout 1h -v -dropping 1000000000
	go test ./cmd/oob-bundle -run Kill -count=1 -timeout 3h -v -kills $(KILLS)
	go test ./cmd/oob-bundle -run 'Faults|Hands|LinksInData' -count=1 -timeout 12h -v -fault-step 1 -every-fault
	go test -tags interop ./cmd/oob-bundle -run PowerCut -count=1 -timeout 6h -v -every-cut
	CLUSTER_KILLS=0 .ci/kubernetes $(KUBERNETES_DIR)
	.ci/fuzz $(FUZZED) whole

release-check: ## archives and packages of a release
	.ci/release-check

# The packages on a Debian without a network; needs root and Debian.
package-test: ## the packages on a Debian without a network
	.ci/package-test

# The release of this commit, made again elsewhere: the same bytes.
reproducible: ## the release made again: the same bytes
	.ci/reproducible

ci: ## everything that must hold of a change (.ci/run)
	.ci/run

# What must hold before a release, besides.
release: ## what must hold before a release, besides
	.ci/release

clean: ## remove bin and dist
	rm -rf bin dist
