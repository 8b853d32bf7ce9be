# Everything a developer does here. `make help` lists it. Go, make and a C compiler (for the race detector) suffice.

SHELL      := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO         ?= go
BIN        := $(CURDIR)/bin
FUZZTIME   ?= 60s
SEED       ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
DURATION   ?= 10m
SAMPLES    ?= 10000000
BENCHARGS  ?=
STOREARGS  ?=
COPYARGS   ?=
DEMOARGS   ?=

# The tools are built from a module of their own, so that the product's go.mod stays clean. The stamp bears the hash of
# its sums and the version of Go: they are built again when one of these changed, and only then.
TOOLS_HASH := $(shell { cat tools/go.mod tools/go.sum; $(GO) env GOVERSION; } | sha256sum | cut -c1-16)
TOOLS      := $(BIN)/.tools-$(TOOLS_HASH)

# Thanos and Cortex, to read their buckets and to have ours read by them. They take long to build and are no part of the
# other tests. Both need labels as slices, as in their own builds. Each has a module of its own, for their replacements of
# dependencies are not ours.
PEERS_HASH := $(shell { cat tools/peers/*/go.mod tools/peers/*/go.sum; $(GO) env GOVERSION; } | sha256sum | cut -c1-16)
PEERS      := $(BIN)/.peers-$(PEERS_HASH)

.PHONY: help run demo build tools peers generate test unit thorough promql e2e migration lint fmt fuzz chaos tenmillion \
	manyblocks hostile bench benchcluster benchcompact

help: ## list the targets
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## /\1\t/' | expand -t 12

run: ## run one node with all roles on its defaults; data goes to ./data
	$(GO) run ./cmd/duramen

demo: ## run a node and a Prometheus that writes to it, until Ctrl-C (DEMOARGS=-h lists what can be set)
	@test -e $(TOOLS) || { echo "== building Prometheus into ./bin (minutes when nothing is cached)"; \
		cd tools && $(GO) build -ldflags '-s -w' -o $(BIN)/prometheus github.com/prometheus/prometheus/cmd/prometheus; }
	@$(GO) build -o $(BIN)/ ./cmd/duramen ./cmd/duramenctl ./deploy/demo
	@$(BIN)/demo $(DEMOARGS)

build: ## build the static binaries into ./bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/ ./cmd/duramen ./cmd/duramenctl

tools: $(TOOLS) ## build what tests and linting need (Prometheus, promtool, golangci-lint) into ./bin

$(TOOLS):
	@echo "== building tools into ./bin (once per tools/go.sum; minutes when nothing is cached)"
	@mkdir -p $(BIN)
	cd tools && $(GO) build -ldflags '-s -w' -o $(BIN)/ tool
	@rm -f $(BIN)/.tools-*
	@touch $@

peers: $(PEERS) ## build Thanos and Cortex into ./bin, for `make migration` (a quarter of an hour when nothing is cached)

$(PEERS):
	@echo "== building Thanos and Cortex into ./bin (once per tools/peers/*/go.sum)"
	@mkdir -p $(BIN)
	cd tools/peers/thanos && $(GO) build -tags slicelabels -ldflags '-s -w' -o $(BIN)/ tool
	cd tools/peers/cortex && $(GO) build -tags slicelabels -ldflags '-s -w' -o $(BIN)/ tool
	@rm -f $(BIN)/.peers-*
	@touch $@

generate: ## write generated files again
	$(GO) generate ./...

test: tools unit promql e2e ## all tests

unit: ## unit and component tests, with the race detector
	@echo "== unit tests"
	$(GO) build ./...
	$(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v -E '/duramen/e2e(/|$$)')
	$(GO) test ./chunkstore/oracle ./compactor/oracle # all their seeds, which would take minutes with the race detector
	$(GO) test -run TestSchedules ./distributor/replicate # likewise
	$(GO) test ./compactor/merge # likewise
	$(GO) test -run HeapHolds ./chunkstore/index # what the race detector would falsify

thorough: $(TOOLS) ## unit tests without the race detector, where those that repeat themselves do so in full
	@echo "== unit tests in their long forms"
	$(GO) test -count=1 -timeout 60m $$($(GO) list ./... | grep -v -E '/duramen/e2e(/|$$)')

promql: ## the upstream PromQL scripts through our own write and read path
	@echo "== PromQL scripts"
	$(GO) test -timeout 20m ./e2e/promql/...

e2e: $(TOOLS) ## real processes on loopback, short forms of the stories
	@echo "== end to end"
	$(GO) build -o $(BIN)/e2e/ ./cmd/duramen ./cmd/duramenctl # so that two packages find them built
	$(GO) test -count=1 -p 2 -timeout 20m $$($(GO) list ./e2e/... | grep -v /e2e/promql)

migration: $(TOOLS) $(PEERS) ## real Thanos and Cortex: their buckets opened by Duramen, ours by them
	@echo "== migration"
	$(GO) test -count=1 -v -timeout 30m ./e2e/migration -args -e2e.peers

chaos: $(TOOLS) ## the same stories with killing for DURATION each; SEED=n repeats a run
	@echo "== chaos: make chaos SEED=$(SEED) DURATION=$(DURATION)"
	$(GO) test -count=1 -v -timeout 0 -race -run OnS3 ./e2e/lifecycle -args -e2e.seed=$(SEED) -e2e.duration=$(DURATION)
	$(GO) test -count=1 -v -timeout 0 ./e2e -args -e2e.seed=$(SEED) -e2e.duration=$(DURATION) -e2e.race
	$(GO) test -count=1 -v -timeout 0 -run TestChaos ./e2e/cluster -args -e2e.seed=$(SEED) -e2e.duration=$(DURATION)
	$(GO) test -count=1 -v -timeout 0 -run TestChaos ./e2e/compaction -args -e2e.seed=$(SEED) -e2e.duration=$(DURATION)

tenmillion: $(TOOLS) ## duramenctl load and verify over SAMPLES samples, with SIGKILLs and flushes in between
	@echo "== make tenmillion SEED=$(SEED) SAMPLES=$(SAMPLES)"
	$(GO) test -count=1 -v -timeout 0 -run TestLoadAndVerify ./e2e -args -e2e.seed=$(SEED) -e2e.samples=$(SAMPLES) -e2e.kills=7

manyblocks: $(TOOLS) ## a store-gateway over 100,000 blocks of 1,000 tenants: ready after SIGKILL, queries, memory
	@echo "== make manyblocks SEED=$(SEED)"
	$(GO) test -count=1 -v -timeout 30m -run TestManyBlocks ./e2e -args -e2e.seed=$(SEED) -e2e.tenants=1000 -e2e.blocks=100

hostile: ## one tenant asks for everything of a year, 64 times at once, on 1 GiB; another asks for little
	$(GO) test -count=1 -v -timeout 0 ./e2e/hostile -args -hostile.days=365 -hostile.series=2000 \
		-hostile.parallel=64 -hostile.memory=1073741824 -hostile.duration=60s

lint: $(TOOLS) ## formatting, go vet and golangci-lint, offline
	@echo "== lint"
	$(GO) vet ./...
	$(BIN)/golangci-lint fmt --diff
	$(BIN)/golangci-lint run

fmt: $(TOOLS) ## format all code and its imports
	$(BIN)/golangci-lint fmt

fuzz: ## fuzz each decoder for FUZZTIME; then 10,000 seeds from SEED on: the store against Prometheus' block reader, compaction against what was put, quorums and plans against their rules, merged blocks against a merge in memory
	@tools/fuzz $(FUZZTIME)
	@echo "== oracle: make fuzz SEED=$(SEED)"
	$(GO) test -count=1 -timeout 0 ./chunkstore/oracle -args -oracle.from=$(SEED) -oracle.seeds=10000
	@echo "== compaction: make fuzz SEED=$(SEED)"
	$(GO) test -count=1 -timeout 0 ./compactor/oracle -args -compaction.from=$(SEED) -compaction.seeds=10000 -compaction.all-faults
	@echo "== quorums: make fuzz SEED=$(SEED)"
	$(GO) test -count=1 -timeout 0 -run TestSchedules ./distributor/replicate -args -replicate.from=$(SEED) -replicate.seeds=10000
	@echo "== plans: make fuzz SEED=$(SEED)"
	$(GO) test -count=1 -timeout 0 -run TestPlanningEnds ./compactor/plan -args -plan.from=$(SEED) -plan.seeds=10000
	@echo "== merges: make fuzz SEED=$(SEED)"
	$(GO) test -count=1 -timeout 0 -run "TestRandomBlocks|TestEachDamagedByte" ./compactor/merge -args -merge.from=$(SEED) -merge.seeds=10000

bench: $(TOOLS) ## benchmarks of the hot paths, of the whole process beside Prometheus, of long-term storage (BENCHARGS, STOREARGS: docs/benchmarks.md)
	$(GO) test -run '^$$' -bench . -benchmem $$($(GO) list ./... | grep -v -E '/duramen/e2e(/|$$)') | grep -E '^(Benchmark|pkg:|ok|FAIL)'
	$(GO) run ./bench/ingest $(BENCHARGS)
	$(GO) run ./bench/store $(STOREARGS)

benchcluster: $(TOOLS) ## CPU of all processes and bytes on the wire for three copies, beside one process and Prometheus (COPYARGS: docs/benchmarks.md)
	$(GO) run ./bench/cluster $(COPYARGS)

benchcompact: ## CPU, memory and disk of merging a day of three replicas, beside Prometheus' own compactor (COMPACTARGS: docs/benchmarks.md)
	$(GO) run ./bench/compact $(COMPACTARGS)
