# Every target does its own set-up and says what is missing if it cannot. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# rustup's own place: a shell that was open before rustup was installed does not know it yet.
CARGO_BIN := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin
export PATH := $(CARGO_BIN):$(PATH)

WASM := wasm32-unknown-unknown
# Guests are a workspace of their own (another target, another profile), and so is the generator of the SDK's bindings.
GUESTS := --manifest-path plugins/Cargo.toml
BINDGEN := --manifest-path sdk/bindgen/Cargo.toml
# The example plugins; the demo uploads those of its routes.
PLUGINS := plugins/tenant-key plugins/device-key plugins/rest-tags plugins/webhook-purge
BRIM := cargo run --quiet --release --package brim-node --bin brim --

.PHONY: help run test lint bench soak fmt plugins deny audit clean setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: plugins ## build everything, start a node with TLS before a sample origin, print a tour
	@$(BRIM) demo

test: setup ## build and pass all tests: unit, documentation, integration, plugins
	@passed=true
	@cargo test --workspace --no-fail-fast || passed=false
	@cargo test $(GUESTS) --no-fail-fast || passed=false
	@$$passed || { echo 'make test: some tests failed, see above' >&2; exit 1; }

# The pages are built with private items, for readers of the code, so links to them are right.
lint: setup deny ## format, clippy and documentation without a warning; licences, bans and sources of dependencies
	@cargo fmt --all --check
	@cargo fmt $(GUESTS) --all --check
	@cargo fmt $(BINDGEN) --all --check
	@cargo clippy --workspace --all-targets -- --deny warnings
	@cargo clippy $(GUESTS) --all-targets -- --deny warnings
	@RUSTDOCFLAGS='--deny warnings --allow rustdoc::private_intra_doc_links' cargo doc --workspace --no-deps --document-private-items --quiet

bench: setup ## measure; figures and what they mean are in benches/README.md
	@cargo bench --package brim-benches

# MINUTES, KILLS (seconds between kills of the node) and further ARGS: `make soak MINUTES=120 KILLS=60 ARGS='--disk-mib 1024'`.
MINUTES := 3
soak: setup ## load a node for MINUTES, killing it every KILLS seconds, and judge it; see benches/README.md
	@cargo build --release --package brim-node --package brim-benches --bin brim --bin soak
	@target/release/soak --minutes '$(MINUTES)' $(if $(KILLS),--kill-every '$(KILLS)') $(ARGS)

fmt: setup ## format all code
	@cargo fmt --all
	@cargo fmt $(GUESTS) --all
	@cargo fmt $(BINDGEN) --all

plugins: setup ## build the node, and with it the example plugins into components
	@cargo build --release --package brim-node --bin brim
	@for plugin in $(PLUGINS); do $(BRIM) plugin build "$$plugin"; done

deny: setup ## check licences, bans and sources of all dependencies; needs no network once they are fetched
	@if ! command -v cargo-deny >/dev/null; then
	  echo 'make: cargo-deny is missing; installing it, which takes some minutes once' >&2
	  cargo install --locked cargo-deny || { echo 'make: cargo-deny cannot be installed (no network?); `make test` does not need it' >&2; exit 1; }
	fi
	@cargo fetch --locked --quiet
	@cargo fetch --locked --quiet $(GUESTS)
	@cargo deny --offline check bans licenses sources
	@cargo deny $(GUESTS) --config deny.toml --offline check bans licenses sources

audit: setup deny ## ask for known vulnerabilities of dependencies; needs a network
	@cargo deny check advisories
	@cargo deny $(GUESTS) --config deny.toml check advisories

clean: setup ## remove what was built; data directories stay
	@cargo clean
	@cargo clean $(GUESTS)
	@cargo clean $(BINDGEN)

setup:
	@missing() { echo "make: $$1" >&2; exit 1; }
	command -v rustup >/dev/null || missing 'rustup is missing: https://rustup.rs says how to install it, then run make again'
	command -v cargo >/dev/null || missing 'cargo is missing: run `rustup toolchain install stable`'
	command -v cc >/dev/null || missing 'a C compiler is missing (cc): on Debian and Ubuntu `apt-get install build-essential`'
	rustc --version >/dev/null || missing 'the toolchain of rust-toolchain.toml is not usable: run `rustup toolchain install`'
	if [[ ! -d $$(rustc --print target-libdir --target $(WASM)) ]]; then
	  echo 'make: adding the target $(WASM) for plugins' >&2
	  rustup target add $(WASM) || missing 'the target $(WASM) cannot be added (no network?)'
	fi

# A recipe is one script, not a shell a line.
.ONESHELL:
