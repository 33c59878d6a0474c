# Tools that are not part of the program are pinned in .ci/tools.mod, to keep them out of go.mod.
TOOL := go tool -modfile=.ci/tools.mod

# SQLite is C code, so lockd needs cgo and a C compiler.
export CGO_ENABLED := 1

# The output of some tests is piped below. pipefail keeps their exit status.
SHELL := bash
.SHELLFLAGS := -o pipefail -c

.DEFAULT_GOAL := help
.PHONY: help run build install cross test robust bench lint generate verify fuzz ci debian

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# With exec the server replaces the shell, so that it gets the signals that make passes on.
run: build ## start the server on http://localhost:8000
	exec bin/lockd

build: ## build bin/lockd and bin/lockctl
	go build -trimpath -o bin/lockd ./cmd/lockd
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/lockctl ./cmd/lockctl

# Installing does not build: root often has no Go in the PATH.
PREFIX := /usr/local
install: ## install what make build has built below PREFIX=/usr/local
	@test -x bin/lockd -a -x bin/lockctl || { echo "Nothing is built yet: run make build first." >&2; exit 1; }
	install -d $(foreach dir,bin share/man/man1 share/bash-completion/completions share/zsh/site-functions \
		share/fish/vendor_completions.d,"$(DESTDIR)$(PREFIX)/$(dir)")
	install bin/lockd bin/lockctl "$(DESTDIR)$(PREFIX)/bin"
	bin/lockctl man "$(DESTDIR)$(PREFIX)/share/man/man1"
	bin/lockctl completion bash >"$(DESTDIR)$(PREFIX)/share/bash-completion/completions/lockctl"
	bin/lockctl completion zsh >"$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_lockctl"
	bin/lockctl completion fish >"$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lockctl.fish"

cross: ## compile lockctl for every supported system
	for system in linux darwin windows; do for machine in amd64 arm64; do \
		CGO_ENABLED=0 GOOS=$$system GOARCH=$$machine go build -trimpath -o /dev/null ./cmd/lockctl || exit 1; \
	done; done

test: debian build ## run every test, on SQLite and on a throwaway Postgres, with the race detector
	go test -race -timeout 20m $$(go list ./... | grep -v -e /internal/robust$$ -e /cmd/lockbench$$ -e /cmd/lockd$$)
	go test -race -timeout 20m ./cmd/lockd
	go test -race ./cmd/lockbench
	go test -race -v -parallel 4 ./internal/robust | grep --line-buffered -v '^ *=== '

LENGTH := 20s
SEED := 0
robust: debian ## run every fault scenario for LENGTH=20s, with a random seed or with SEED=…
	go test -count=1 -timeout 24h -v -run TestRobust ./internal/robust \
		-robust.long -robust.length=$(LENGTH) -robust.seed=$(SEED) | grep --line-buffered -v '^ *=== '

ROUNDS := 5
bench: LENGTH := 5s
bench: debian ## run all benchmarks in ROUNDS=5 rounds of LENGTH=5s, and write docs/benchmarks.md
	go test -count=1 -timeout 24h -v -run TestReport ./cmd/lockbench \
		-lockbench.long -lockbench.length=$(LENGTH) -lockbench.rounds=$(ROUNDS) | grep --line-buffered -v '^ *=== '

lint: ## check the style and the words, and look for common mistakes
	$(TOOL) golangci-lint run
	go test -count=1 -run TestWords ./internal/archtest

generate: ## write the OpenAPI documents in docs/ from the annotations
	$(TOOL) swag init --quiet --generalInfo main.go --dir cmd/lockd,internal/api,internal/wire --output docs --outputTypes json,yaml
	go run ./internal/openapigen

verify: generate ## fail when generated files or go.mod are stale
	go mod tidy -diff
	git diff --exit-code -- docs

fuzz: ## fuzz each decoder for a minute
	go test -run '^$$' -fuzz FuzzParseDatabaseURL -fuzztime 1m ./internal/config
	go test -run '^$$' -fuzz FuzzAcquireBody -fuzztime 1m -fuzzminimizetime 10x ./internal/api
	go test -run '^$$' -fuzz FuzzRenewAllBody -fuzztime 1m -fuzzminimizetime 10x ./internal/api
	go test -run '^$$' -fuzz FuzzQuery -fuzztime 1m -fuzzminimizetime 10x ./internal/api

ci: verify lint cross test ## all that CI runs

# The tests start their own Postgres, nginx, PgBouncer and browser.
debian:
	@.ci/debian
