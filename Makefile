# make demo   the main job, from a registry to a registry that never saw it
# make test   all tests that need neither root nor Docker
# make ci     everything that must hold (.ci/run)

.PHONY: all build demo test race fuzz lint interop e2e catalogue-test bench torture release-check ci clean

all: build

build:
	CGO_ENABLED=0 go build -trimpath -o bin/oob-bundle ./cmd/oob-bundle

demo:
	@.ci/demo

test:
	go test ./...

race:
	go test -race -short ./...

# Each fuzz target for FUZZTIME.
FUZZTIME ?= 20s
fuzz:
	.ci/fuzz $(FUZZTIME)

lint:
	.ci/lint

# Real images and real clients; needs root and Docker, installs what it uses.
interop:
	.ci/interop

# The application architecture on a machine without a route out, with the real
# server; needs root and Docker. E2E_DIR keeps what is built for it.
E2E_DIR ?= bin/e2e
e2e:
	.ci/e2e $(E2E_DIR)

# Every name of every reference architecture, from a stand-in upstream to a site;
# every rule of the catalogue, broken once.
catalogue-test:
	go test ./manifests ./bundle/pull -count=1
	go test ./cmd/oob-bundle -run 'Catalogue|Rules|Plugin' -count=1 -v

# Side by side with the least that any program has to do, skopeo and crane, on
# real images; needs Debian, installs what it uses. Writes docs/benchmarks.md.
BENCH_DIR ?= bin/bench-data
bench: build
	.ci/bench $(BENCH_DIR)

# The long form of the fault tests.
KILLS ?= 200
torture:
	go test ./bundle/create -run Dropped -count=1 -timeout 1h -v -dropping 1000000000
	go test ./cmd/oob-bundle -run Kill -count=1 -timeout 3h -v -kills $(KILLS)

release-check:
	.ci/release-check

ci:
	.ci/run

clean:
	rm -rf bin dist
