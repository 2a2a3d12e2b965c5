# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
# `make help` lists what there is. Each target first sets up .venv, which a second call skips.

PYTHON ?= python3
VENV ?= .venv
# Where Detectron2 comes from: pypi (always the same, nothing is compiled), git, or a folder with
# its sources.
DETECTRON2_SOURCE ?= pypi
PYTEST_WORKERS ?= auto
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo zoo bench test test-slow lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make .venv with PyTorch, Detectron2 and kdps
	@$(PYTHON) dev/install.py --venv $(VENV) --source "$(DETECTRON2_SOURCE)"

demo: setup  ## draw people, train, search, report: 15 to 25 minutes on two cores
	@$(BIN)/python dev/demo.py

zoo: setup  ## train all small models with two seeds, and write their table: hours, goes on
	@$(BIN)/python dev/zoo.py

bench: setup  ## measure steps, loading and inference, and write docs/benchmarks.md
	@$(BIN)/python benchmarks/bench.py

# One thread per process: small tensors gain nothing from more, and the workers share the cores.
test test-slow: export OMP_NUM_THREADS ?= 1

test: setup  ## the tests that a contributor runs
	$(BIN)/python -m pytest -m "not slow" -n $(PYTEST_WORKERS) --maxprocesses 8

test-slow: setup  ## the long tests: several processes, killed trainings, full parity
	$(BIN)/python -m pytest -m slow

lint: setup  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## mend what can be mended of style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches, build results and the demo's output; .venv stays
	rm -rf build dist *.egg-info output/demo .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
