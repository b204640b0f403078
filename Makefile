# Two commands for newcomers: `make demo` and `make test`.
.PHONY: all static test-static image demo test test-page page deb test-deb test-long test-memory test-memory-long soak sim bench bench-memory bench-dns lint fmt help
.DEFAULT_GOAL := help
CARGO ?= cargo
NEXTEST := $(CARGO) nextest run --workspace --locked
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Named, so that its flags are not those of build scripts.
STATIC := $(shell uname -m)-unknown-linux-gnu
# What each host may have where a target limits it.
MEMORY_MIB := 192
PAGE := npm --prefix dashboards/page --silent
GRAFANA := npm --prefix dashboards/grafana --silent

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

all: ## the executable, target/release/weave
	@echo '==> building weave (release)'
	$(CARGO) build --release --locked -p weave

demo: all ## two hosts and two containers on this machine, measured
	$(TARGET)/release/weave demo

test: ## installs what is missing, runs every test but the long ones
	@scripts/install-deps
	@echo '==> building and running the tests'
	scripts/in-memory $(NEXTEST)
	@$(PAGE) test
	@$(GRAFANA) run check

test-page: ## the status page alone, in a real browser
	@scripts/install-deps
	@$(PAGE) test

page: ## builds the status page anew, after a change of its sources
	@scripts/install-deps
	@$(PAGE) run build

test-long: ## the tests that take long: half a minute each, or many of one kind
	@scripts/install-deps
	scripts/in-memory $(NEXTEST) --profile long

# A release: test builds remember every key, to know a nonce that comes twice.
soak: all ## churn of links, containers, names and keys for ten minutes: nothing may grow
	@scripts/install-deps
	WEAVE_BIN=$(abspath $(TARGET))/release/weave WEAVE_SOAK_SECONDS=600 $(NEXTEST) --profile soak

test-memory: ## fault and hostile tests with 192 MiB for all daemons of a host together
	@scripts/install-deps
	WEAVE_LAB_MEMORY_MIB=$(MEMORY_MIB) $(NEXTEST) --profile memory

test-memory-long: ## those of them that take long
	@scripts/install-deps
	WEAVE_LAB_MEMORY_MIB=$(MEMORY_MIB) $(NEXTEST) --profile memory-long

static: ## the executable without libraries, it needs nothing of the host
	@echo '==> building weave (release, self-contained)'
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --release --locked -p weave --target $(STATIC)
	@echo '==> $(TARGET)/$(STATIC)/release/weave'

test-static: static ## the demonstration and a handful of tests with that
	@scripts/install-deps
	@echo '==> no library is asked for'
	@! readelf -ld "$(TARGET)/$(STATIC)/release/weave" | grep -E 'NEEDED|INTERP'
	WEAVE_BIN="$(abspath $(TARGET))/$(STATIC)/release/weave" $(NEXTEST) --profile static

image: static ## a container image of that, target/weave-image.tar
	cli/packaging/image "$(TARGET)/$(STATIC)/release/weave" "$(TARGET)/weave-image.tar"

deb: all ## a Debian package, target/debian/weave_*.deb
	@command -v cargo-deb >/dev/null || $(CARGO) install --locked cargo-deb
	@cli/packaging/prepare "$${CARGO_TARGET_DIR:-target}/release"
	$(CARGO) deb --package weave --no-build --no-strip

test-deb: deb ## installs that in a root of its own, boots and removes it; minutes
	@scripts/install-deps deb
	cli/packaging/check "$${CARGO_TARGET_DIR:-target}"/debian/weave_*.deb

sim: ## meshes of simulated hosts under faults, seed after seed, for half an hour
	$(CARGO) build --release --locked -p weave-sim
	$(TARGET)/release/weave-sim run --seeds 1000000 --minutes 30
	$(TARGET)/release/weave-sim cuts --cuts 10000

bench: ## this router and others side by side; a table
	@scripts/install-deps bench
	$(CARGO) build --release --locked -p weave -p weave-perf
	$(TARGET)/release/weave-perf ab

bench-memory: ## the same, names and a relay too, with 192 MiB for all daemons of a host together
	@scripts/install-deps bench
	$(CARGO) build --release --locked -p weave -p weave-perf
	WEAVE_LAB_MEMORY_MIB=$(MEMORY_MIB) $(TARGET)/release/weave-perf ab
	WEAVE_LAB_MEMORY_MIB=$(MEMORY_MIB) $(TARGET)/release/weave-perf relay
	WEAVE_LAB_MEMORY_MIB=$(MEMORY_MIB) $(TARGET)/release/weave-perf dns

bench-dns: ## answers a second beside dnsmasq with the same names
	@scripts/install-deps bench
	$(CARGO) build --release --locked -p weave -p weave-perf
	$(TARGET)/release/weave-perf dns

lint: ## formatting and lints, as CI runs them
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

fmt: ## formats the sources
	$(CARGO) fmt --all
