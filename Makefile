# `make train` and `make test` do all the set-up they need, in .venv beside this file, and nothing outside it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
INSTALL ?= $(BIN)/python -m pip install --quiet --disable-pip-version-check
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
STAND_IN := build/cuda_stand_in

.PHONY: train test stand-in test-cuda lint format bench docs gpu-check release-check clean

# Train the book's network on MNIST.  make train ARGS="--device cuda --steps 20000"
train: $(VENV)/.train
	$(BIN)/xpnet train --plot $(ARGS)

# Run the tests on all cores, each process with a BLAS of one thread.  make test ARGS="-k relu"
test: $(VENV)/.dev
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

# CuPy without a GPU (xpnet/testing/cuda_stand_in). What it lacks, it finds in the environment of the other tests.
stand-in: $(VENV)/.dev
	$(BIN)/python -m xpnet.testing.cuda_stand_in build $(STAND_IN)
	echo "import site; site.addsitedir('$$($(BIN)/python $(SITE))')" >"$$($(STAND_IN)/bin/python $(SITE))/tests.pth"

# Run the tests of CUDA devices there. The first run compiles each kernel.  make test-cuda ARGS="tests/test_cuda_graph.py"
test-cuda: stand-in
	MPI4PY_LIBMPI=$(abspath $(VENV))/lib/libmpi.so.40 OPENBLAS_NUM_THREADS=1 \
		$(STAND_IN)/bin/python -m pytest --device cuda -k cuda -n auto --dist worksteal $(ARGS)

# What CI checks besides the tests.
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Measure against the peers (about 9 minutes); write the results and the README's tables and picture.
bench: $(VENV)/.bench
	$(BIN)/python -m pytest benchmarks --benchmark-json=benchmarks/results/cpu.json $(ARGS)
	$(BIN)/python scripts/benchmark_report.py benchmarks/results/cpu.json \
		--fill README.md --picture docs/images/benchmarks.svg

# The site, in build/docs: every program on it runs, and a warning is an error. Pages of names that are gone, go.
docs: $(VENV)/.docs
	rm -rf docs/reference
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going docs build/docs $(ARGS)

# What needs an NVIDIA GPU, in about 10 minutes.  make gpu-check ARGS=first: the first 4
gpu-check:
	PYTHON=$(BIN)/python scripts/gpu_check.sh $(ARGS)

# Build the sdist and the wheel, and install and try them in fresh environments (about 5 minutes).
# make release-check ARGS=--lowest: with the oldest dependencies.  PYENV_VERSION=3.12.1:3.13.0 adds pyenv's Pythons
release-check: $(VENV)/.release
	$(BIN)/python scripts/release_check.py $(ARGS)

$(VENV)/.release: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[release]'
	touch $@

# The libraries that xpnet is compared with. PyTorch's CPU build will do; installed beforehand, it is kept.
PEERS ?= torch jax scikit-learn

$(VENV)/.bench: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[cli,numba,bench]' $(PEERS)
	touch $@

# Apart from .dev, so that the tests don't wait for Sphinx.
$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[cli,plot,sklearn,docs]'
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[cli,plot]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[cli,plot,numba,images,data,mpi,test,browser,bench,lint]'
	touch $@ $(VENV)/.train
