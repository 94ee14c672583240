# `make train` and `make test` do all the set-up they need, in .venv beside this file, and nothing outside it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: train test lint format bench docs gpu-check clean

# Train the book's network on MNIST.  make train ARGS="--device cuda --steps 20000"
train: $(VENV)/.train
	$(BIN)/xpnet train --plot $(ARGS)

# Run the tests.  make test ARGS="-k relu"
test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

# What CI checks besides the tests.
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Measure; the results are written to benchmarks/results.
bench: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks --benchmark-json=benchmarks/results/gradients_cpu.json $(ARGS)
	$(BIN)/python benchmarks/full_run.py --rounds 11 --out benchmarks/results/full_run_cpu.json

# API reference, as HTML in build/docs.
docs: $(VENV)/.dev
	$(BIN)/pdoc --docformat numpy --output-directory build/docs xpnet '!xpnet.__main__'

# The whole suite and the benchmarks on an NVIDIA GPU.
gpu-check:
	PYTHON=$(BIN)/python scripts/gpu_check.sh

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,plot]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,plot,test,bench,lint,docs]'
	touch $@ $(VENV)/.train
