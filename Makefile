# Two targets do all for a new user: `make run` and `make test`.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X main.version=$(VERSION)

# Pinned; run from the module cache, never part of go.mod.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: all build run phone test races mutations fuzz soak history bench bench-stack bench-nbd bench-ciphers bench-parallel bench-luks bench-luks-disk lint fmt clean tools help

all: build

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## bin/keyway, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/keyway ./cmd/keyway

run: build ## serve one encrypted disk; prints how to attach it; Ctrl-C ends it
	@exec bin/keyway serve

phone: build ## a phone's storage, told by commands that run: examples/phone
	@KEYWAY=$(CURDIR)/bin/keyway examples/phone/run

test: ## install the tools it needs (as root), run everything, print a verdict
	scripts/test

tools: ## only install the foreign tools and the kernel which `make test` uses
	scripts/install-tools --kernel

races: ## every interleaving of the named races, without the race detector; ARGS=-v tells how many
	$(GO) test -count=1 -tags invariants -run '^Test(DM)?Race' $(ARGS) ./...

mutations: ## break the product on purpose, one fault at a time, and tell which tests notice; ARGS="-only evict"
	$(GO) run ./test/mutations $(ARGS)

fuzz: ## each fuzz target for FUZZTIME (1m)
	scripts/fuzz $(or $(FUZZTIME),1m)

soak: ## the endurance tests with the race detector for SOAK (10m) each
	KEYWAY_SOAK=$(or $(SOAK),10m) KEYWAY_RACE=1 $(GO) test -count=1 -timeout 0 -v -run 'Reload|KillNine' ./test/foreign

history: ## random histories of whole stacks against a model for TIME (10m), from SEED; KIND=concurrent for one kind
	$(GO) test -count=1 -timeout 0 -v -run TestHistories ./test/history -history.time=$(or $(TIME),10m) \
		$(if $(SEED),-history.seed=$(SEED)) $(if $(KIND),-history.kind=$(KIND)) $(ARGS)

bench: bench-stack bench-nbd bench-ciphers ## the three reports below

bench-stack: ## cost of the layers: ns and allocations per request
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-nbd: build ## NBD export against nbdkit and qemu-nbd, ratios of one run; ARGS="-rounds 1 -time 0.5s"
	scripts/install-tools
	$(GO) run ./bench -keyway bin/keyway $(ARGS)

bench-ciphers: ## data-unit ciphers against OpenSSL, libgcrypt and Go packages; ARGS="-modes XTS -rounds 3"
	scripts/install-tools
	$(GO) run ./bench/ciphers $(ARGS)

bench-luks: ## time to unlock LUKS2 volumes beside cryptsetup; ARGS="-cases 64 -rounds 3"
	scripts/install-tools
	$(GO) run ./bench/luks $(ARGS)

bench-luks-disk: build ## a LUKS2 disk beside a plain crypt table, over NBD; ARGS="-rounds 5 -loads 4K"
	scripts/install-tools
	$(GO) run ./bench -luks -keyway bin/keyway $(ARGS)

bench-parallel: ## whether one request should be split over cores, and from what size
	$(GO) run ./bench/ciphers -parallel $(ARGS)

lint: ## vet and staticcheck
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

fmt: ## gofmt in place
	gofmt -w $$(git ls-files '*.go')

clean: ## remove what was built here
	rm -rf bin bench/out
