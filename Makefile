# The few commands that a person or CI types; everything else is `cargo` or a script under scripts/.
# `make` itself ends with 2 when a step fails; the step's own code (see `vst --help`) is in the line it prints, and a
# Ctrl-C ends both with 130.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

say = @printf '\n== %s\n' $(1) >&2

# Laws are tried on cases that a seed draws. Everyday checks draw the same ones each time, so that a change is judged by
# what it changed; `make test-laws` looks for new ones.
LAWS := PROPTEST_RNG_SEED=20261122

.PHONY: help quickstart test test-laws test-seeds test-python test-scenarios test-copies test-election bench-load lint helm helm-run servers fleet-servers python bench bench-truth fuzz cargo clean-local test-analysis test-limit test-campaign test-rates test-connections test-regress test-shrink record-predict test-crowd

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: servers cargo ## Fetch the servers, build vst, run `vst run quick` against a cluster on this machine
	$(call say,'building vst (the first time takes some minutes)')
	@cargo build --quiet --locked -p vst
	$(call say,'vst run quick')
	@exec ./target/debug/vst run quick

test: lint servers fleet-servers python ## Everything that CI checks: lints, unit tests, suites against real servers
	$(call say,'building vst and all tests')
	@cargo build --locked --workspace
	@cargo test --locked --workspace --no-run --quiet
	$(call say,'unit tests')
	@$(LAWS) cargo test --locked --workspace --lib --bins --quiet
	$(call say,'suites (one test at a time: they start real servers)')
	@scripts/test-real.sh
	$(call say,'examples in the documentation')
	@cargo test --locked --workspace --doc --quiet
	@$(MAKE) helm
	$(call say,'the Python package in a fresh environment')
	@scripts/test-python.sh

test-laws: cargo ## Every law on new cases, ten times over (half an hour; ROUNDS=n for more)
	@cargo test --locked --workspace --lib --bins --no-run --quiet
	@for ((i = 1; i <= $${ROUNDS:-10}; i++)); do cargo test --locked --workspace --lib --bins --quiet; done

test-seeds: cargo ## More than 10,000 seeds of each simulated part of a fleet: run and leases, log and election, intake, a worker's session
	@cargo test --locked -p vst-coordinator -p vst-worker --lib --no-run --quiet
	@for ((i = 1; i <= 40; i++)); do \
	  cargo test --locked -p vst-coordinator --lib --quiet -- run:: run_log:: intake:: roster:: session::; \
	  cargo test --locked -p vst-worker --lib --quiet -- session:: uplink::; done

test-python: servers cargo ## The Python package and its example, in a fresh virtual environment (part of `make test`)
	@cargo build --locked --quiet -p vst
	@scripts/test-python.sh

lint: cargo ## Formatting and clippy, warnings are errors
	$(call say,'formatting')
	@cargo fmt --all --check
	$(call say,'clippy')
	@cargo clippy --locked --workspace --all-targets --features fleet-tests/long --quiet -- -D warnings

test-scenarios: servers cargo ## Every scenario of the library, scaled down, against a real cluster (about half an hour)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture library::

test-copies: servers cargo ## Recall of 5 and of 32 copies in a graph beside that of one (minutes)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture copies::

test-election: servers cargo ## kill -9 of the leader at random instants: 100 with a standby, 30 without (half an hour)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture election::
	@VST_KILLS=30 cargo test --locked --quiet -p fleet-tests --test real -- --test-threads=1 --nocapture durability::

test-analysis: cargo ## An hour of 100 workers (3.6 million rows) read within its bounds (builds the query engine optimised: half an hour)
	@cargo build --locked --quiet --profile measure -p vst
	@cargo test --locked --quiet --profile measure -p fleet-tests --features long --test long -- --test-threads=1 --nocapture analysis::

test-crowd: servers cargo ## What 10, 100 and 1,000 workers cost their coordinator: CPU, memory, time to acknowledgement (10 minutes)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture crowd::

test-regress: servers cargo ## Equal runs and a slower server told apart twenty times over (an hour; a machine of its own)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture regress::

test-shrink: servers fleet-servers cargo ## 200,000 vectors come, four fifths go, all come back: what memory came back (minutes)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture shrink::

record-predict: servers fleet-servers cargo ## Measure a million vectors and keep the record that `make test` predicts from (half an hour)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture predict::

test-limit: servers cargo ## The limit of 100,000 vectors three times; A against A twenty times (an hour; a machine of its own)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture limit::

test-campaign: servers cargo ## 20,000 to 100,000 vectors within a budget of memory: replanned, stopped and resumed (half an hour)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture campaign

test-rates: servers cargo ## What is offered against what was asked for: 20,000/s from one lane, four lanes together, twice the capacity (3 minutes; an idle machine)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture rates::

test-connections: servers cargo ## 10,000 connections from one worker: its memory (a minute; `ulimit -Hn` above 11,032)
	@cargo build --locked --quiet -p vst
	@cargo test --locked --quiet -p fleet-tests --features long --test long -- --test-threads=1 --nocapture connections::

bench-load: servers cargo ## Vectors that a worker reads and encodes per second and core; the time that a billion would take (builds optimised)
	@cargo build --locked --quiet --profile measure -p vst
	@cargo test --locked --quiet --profile measure -p fleet-tests --features long --test long -- --test-threads=1 --nocapture load::

helm: cargo ## Helm chart, images, compose file: lint, Kubernetes' schemas, the command line (part of `make test`)
	@scripts/fetch-helm.sh
	$(call say,'building vst')
	@cargo build --quiet --locked -p vst
	$(call say,'chart')
	@scripts/check-helm.py --vst target/debug/vst

helm-run: servers fleet-servers ## Do a run with the chart's manifests as processes on this machine (as root; minutes)
	@scripts/fetch-helm.sh
	@cargo build --quiet --locked -p vst
	@scripts/run-manifests.py --vst target/debug/vst

bench-truth: cargo ## Exact neighbours: time of vst and of faiss-cpu's IndexFlatL2 on the same cores
	@cargo build --quiet --locked -p vst
	@scripts/bench-ground-truth.sh

servers: ## Put a Valkey server and the search module under .local (once)
	@scripts/fetch-servers.sh

fleet-servers: ## Put what the suites need beside Valkey (etcd, Azurite, Prometheus, a pushgateway, Valkey with jemalloc) under .local (once)
	@scripts/fetch-debian.sh etcd-server prometheus prometheus-pushgateway
	@scripts/fetch-valkey-tools.sh
	@scripts/fetch-azurite.sh

python: ## Put the Python packages of the suites under .local (once)
	@scripts/fetch-python.sh

bench: cargo ## Client CPU per request: one load lane beside valkey-benchmark
	@scripts/bench.sh

fuzz: cargo ## Fuzz what comes from outside, ten minutes for each of three readers
	@scripts/fuzz.sh 600

cargo:
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust 1.95 or newer with rustup' >&2; exit 1; }

clean-local: ## Remove what was fetched into .local
	@rm -rf .local/servers .local/debian .local/python .local/azurite .local/helm .local/fetch.*
