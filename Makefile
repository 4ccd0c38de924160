# What a newcomer calls: make run, make test. `make help` lists the rest.

GO      ?= go
TOOL     = $(GO) tool -modfile=internal/tools/go.mod
FUZZTIME ?= 20s
SOAKTIME ?= 5m
TARGETS  = linux/amd64 linux/arm64 linux/loong64 linux/riscv64 darwin/arm64 windows/amd64

.PHONY: help build run test check vuln fuzz tlscheck soak bench cross dist setup clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

build: ## the binary, ./singlegate
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o singlegate .

run: ## the demo
	$(GO) run . demo

setup: ## what the tests need: Consul, Chromium, Node modules, IM servers
	GO="$(GO)" sh internal/e2e/setup.sh

test: setup ## every test, with the race detector
	$(GO) test -race -shuffle=on -timeout 40m ./...
	cd bench && $(GO) test -race -shuffle=on -timeout 10m ./...

check: vuln ## gofmt, vet, staticcheck, known vulnerabilities
	@test -z "$$(gofmt -l .)" || { echo "gofmt these files:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	cd bench && $(GO) vet ./... && $(GO) tool -modfile=../internal/tools/go.mod staticcheck ./...

vuln: ## known vulnerabilities, where their database can be reached
	@if curl -fsI --max-time 10 https://vuln.go.dev/index/modules.json.gz >/dev/null 2>&1; \
	then $(TOOL) govulncheck ./...; \
	else echo "govulncheck skipped: its database cannot be reached"; fi

fuzz: ## every fuzz target for FUZZTIME
	@$(GO) list ./... | while read -r pkg; do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg || exit 1; \
	  done; \
	done

tlscheck: ## every check of testssl.sh
	$(GO) test ./internal/e2e -count=1 -timeout 15m -v -run '^TestTestssl$$' -testssl

soak: ## live tunnels, churn, slow readers and faults for SOAKTIME; nothing may grow
	$(GO) test ./gateway -run '^TestSoak$$' -timeout 2h -v -soak $(SOAKTIME)

bench: ## the gateway beside nginx, HAProxy, Caddy and fabio: bench/RESULTS.md
	sh bench/setup.sh
	cd bench && $(GO) run . -out RESULTS.md -json results.json $(BENCHFLAGS)

cross: ## builds for the other systems
	@for t in $(TARGETS); do \
	  echo "$$t"; \
	  CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build -o /dev/null . || exit 1; \
	done

dist: ## reproducible binaries and packages for Linux, in dist/
	GO="$(GO)" sh packaging/dist.sh

clean:
	rm -rf singlegate dist
