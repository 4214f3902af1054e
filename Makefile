# banger: `make run` sets this machine up, builds and starts a VM; `make test` sets up, builds and runs all tests.
#   make build lint format coverage coverage-total coverage-html bench chaos reference clean
#   make test FILTER=law          only test files whose path holds "law" (FILTER=agent: only the agent's own tests)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := build

RUSTUP_BESIDE := $(shell scripts/rustup-home.sh)
ifneq ($(RUSTUP_BESIDE),)
  export RUSTUP_HOME := $(RUSTUP_BESIDE)
endif

NODE := build/lib/node
AGENT := build/bin/banger-vsock-agent

# Folders are listed with their files: a folder changes when a file in it goes.
SOURCES := $(shell find src catalog images ! -name '*.test.ts' ! -name '.*' 2>/dev/null)
AGENT_SOURCES := $(shell find agent -path agent/target -prune -o \( -name '*.rs' -o -name 'Cargo.*' -o -name '*.toml' -o -name '*.S' \) -print 2>/dev/null)
SHELL_SCRIPTS := .ci/run $(shell find scripts images test -name '*.sh' 2>/dev/null)

.PHONY: run build test test-kvm test-firecracker test-parity lint format coverage coverage-total coverage-html bench chaos reference clean setup setup-test

run: build
	build/bin/banger vm run

build: build/lib/.built build/bin/banger build/bin/bangerd $(AGENT)

setup:
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test

build/lib/.built build/bin/banger build/bin/bangerd &: scripts/build.ts scripts/launcher.sh scripts/setup.sh package.json package-lock.json $(SOURCES) $(AGENT_SOURCES) | setup
	$(NODE) scripts/build.ts
	@touch build/lib/.built

$(AGENT): $(AGENT_SOURCES) | setup
	cd agent && cargo build --quiet --release --locked
	@mkdir -p $(@D)
	@cp "$$(ls -t agent/target/release/$(@F) agent/target/*/release/$(@F) 2>/dev/null | head -n 1)" $@.new
	@mv $@.new $@

test: setup-test build
	@$(NODE) test/run.ts $(if $(FILTER),--filter '$(FILTER)')

PARITY := $(NODE) --test --test-reporter=spec

# The list of test/parity with one VMM: with real KVM, in a VM where the host has none; with the Firecracker that FIRECRACKER_BIN names, likewise; and
# with what needs no KVM.
test-kvm: setup-test build
	@$(PARITY) test/parity/kvm.test.ts

test-firecracker: setup-test build
	@$(PARITY) test/parity/firecracker.test.ts

test-parity: setup-test build
	@$(PARITY) --test-concurrency=1 test/parity/tcg.test.ts test/parity/stand-in.test.ts

coverage: setup-test build
	@$(NODE) test/run.ts --coverage $(if $(FILTER),--filter '$(FILTER)')

coverage-total coverage-html: coverage/summary.json
	@$(NODE) test/coverage.ts $@

coverage/summary.json:
	@$(MAKE) coverage

lint: setup-test
	$(NODE) node_modules/typescript/bin/tsc --project .
	$(NODE) node_modules/@biomejs/biome/bin/biome ci --error-on-warnings $(if $(MAKE_TERMOUT),,--colors=off)
	shellcheck $(SHELL_SCRIPTS)
	cd agent && cargo fmt --check
	cd agent && cargo clippy --quiet --release --locked --all-targets -- -D warnings

format: setup
	$(NODE) node_modules/@biomejs/biome/bin/biome check --write $(if $(MAKE_TERMOUT),,--colors=off)
	cd agent && cargo fmt

bench: build
	$(NODE) bench/main.ts $(BENCH)

chaos: build
	$(NODE) test/chaos/main.ts $(if $(SEED),--seed $(SEED))

reference: setup
	$(NODE) scripts/reference.ts

# build/manual holds root file systems and kernels that someone made by hand: not ours to delete.
clean:
	rm -rf build/bin build/lib build/fixture build/hosts build/.setup.lock coverage agent/target
