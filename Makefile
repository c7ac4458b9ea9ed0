# Everything that a developer runs. `make` alone says what there is.
#
# Each target brings what it needs onto the machine by itself (deploy/setup.sh); see README.md for other systems than
# Debian. Arguments go through ARGS: make bench ARGS="--messages 200000".

.DEFAULT_GOAL := help
.PHONY: help demo cluster cluster-add cluster-remove cluster-kill cluster-start cluster-status test test-clients test-long test-oldest build lint doc bench

CARGO := cargo
ARGS :=

help:
	@echo 'make demo    a nats-server, Weir, a stream of metrics and queries over it; stays up for psql'
	@echo 'make cluster nats-server, etcd, meta, two compute nodes and a frontend as processes; while it runs, from elsewhere:'
	@echo '             make cluster-status, cluster-add, cluster-remove NODE=…, cluster-kill NODE=…, cluster-start NODE=…'
	@echo 'make test    lint, documentation, and every test; the end-to-end ones on real servers'
	@echo 'make test-clients   clients of PostgreSQL from PyPI, npm and Debian, each doing its ordinary work; see docs/clients.md'
	@echo 'make test-oldest   the integration and end-to-end tests once more, on nats-server 2.10, the oldest that Weir reads from'
	@echo 'make test-long   the simulations of protocols with many more schedules'
	@echo 'make build   the release binary target/release/weir'
	@echo 'make lint    formatting, clippy and rustdoc, where a warning is an error'
	@echo 'make doc     the documentation of the code'
	@echo 'make bench   throughput, processor time, freshness and recovery time, measured on this machine'

# The demo and the cluster share the dev profile's build with the tests, without what takes long to compile and only pays under load
# (jemalloc).
TRIAL := build --locked -p weir -p weir-e2e --no-default-features --bin weir

demo:
	@deploy/setup.sh build
	@deploy/setup.sh servers
	@$(CARGO) $(TRIAL) --bin demo
	@target/debug/demo $(ARGS)

cluster:
	@deploy/setup.sh build
	@deploy/setup.sh servers
	@$(CARGO) $(TRIAL) --bin cluster
	@target/debug/cluster $(ARGS)

# These change the cluster that runs, and so do not build: the program is there.
cluster-add cluster-status:
	@target/debug/cluster $(@:cluster-%=%) $(ARGS)

cluster-remove cluster-kill cluster-start:
	@$(if $(NODE),,echo 'say which one: make $@ NODE=compute-1' >&2; exit 1;) target/debug/cluster $(@:cluster-%=%) $(NODE) $(ARGS)

# Building all targets at once resolves the features of dependencies as the tests do, so that nothing is built twice; the
# end-to-end tests run the binary weir, which cargo would not build for them.
test: lint
	@deploy/setup.sh test
	@$(CARGO) build --locked --workspace --all-targets
	@$(CARGO) test --locked --workspace $(ARGS)

# Their programs are no part of the tests above, since what they use takes 1.5 GB of disk. The build is the same.
test-clients:
	@deploy/setup.sh clients
	@$(CARGO) build --locked --workspace --all-targets
	@$(CARGO) test --locked --workspace --test clients $(ARGS)

# Ten times the schedules that `make test` tries.
test-long:
	@deploy/setup.sh build
	@WEIR_SIM_SCHEDULES=20000 $(CARGO) test --locked --workspace --test it simulation $(ARGS)

test-oldest:
	@deploy/setup.sh test
	@deploy/setup.sh oldest
	@$(CARGO) build --locked --workspace --all-targets
	@WEIR_NATS_SERVER=$(CURDIR)/.cache/servers/oldest/nats-server \
		$(CARGO) test --locked --workspace --test it $(ARGS)

build:
	@deploy/setup.sh build
	@$(CARGO) build --locked --release -p weir

lint:
	@deploy/setup.sh build
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

doc:
	@deploy/setup.sh build
	@$(CARGO) doc --locked --workspace --no-deps

bench:
	@deploy/setup.sh build
	@deploy/setup.sh servers
	@$(CARGO) build --locked --release -p weir -p weir-e2e --bins
	@target/release/bench $(ARGS)
