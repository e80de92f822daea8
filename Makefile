# Each target calls cargo or leyden and nothing more.
.PHONY: setup quickstart test bench results smollm2

LEYDEN = cargo run --release --quiet -p leyden-cli --bin leyden --
# cargo-nextest where it is installed, cargo's own runner elsewhere.
TEST = $(shell cargo nextest --version >/dev/null 2>&1 && echo nextest run || echo test)

setup:
	cargo run --quiet -p leyden-setup

quickstart: setup
	$(LEYDEN) run benchmarks/experiments/quickstart.toml
	$(LEYDEN) report runs/quickstart

test: setup
	cargo $(TEST) --workspace

bench: setup
	cargo bench -p leyden-benchmarks
