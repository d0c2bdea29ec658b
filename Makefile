# make demo   the main job, from a registry to a registry that never saw it
# make test   all tests that need neither root nor Docker
# make ci     everything that must hold (.ci/run)

.PHONY: all build demo test race fuzz lint interop release-check ci clean

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

release-check:
	.ci/release-check

ci:
	.ci/run

clean:
	rm -rf bin dist
