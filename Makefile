# Everything runs in .venv, which the first target that needs it makes. `make PYTHON=python3.13 setup` chooses a Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# A stamp for each set of packages, so that it is installed once and again when its pins change.
DEMO := $(VENV)/.demo-installed
DEV := $(VENV)/.dev-installed
PINS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos bench lint clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV) ## Make .venv and install everything, pinned

demo: $(DEMO) ## Show it all on this machine: Redis, a model, a worker, two variants
	@$(BIN)/dspyq demo

test: $(DEV) ## Run the tests
	@$(BIN)/pytest

chaos: $(DEV) ## Kill, freeze and starve real servers and workers, and print what came of the jobs
	@$(BIN)/pytest -m long
	@$(BIN)/python -m tests.chaos

bench: $(DEV) ## Run the benchmarks and print their table
	@$(BIN)/python -m benchmarks

lint: $(DEV) ## Check style, formatting and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

clean: ## Remove .venv, caches and what `dspyq up` keeps
	rm -rf $(VENV) .dspyq build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "dspyq needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.13" >&2; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(DEMO): $(PINS) | $(BIN)/pip
	@echo "Installing what the demo runs"
	@$(INSTALL) '.[demo]'
	@touch $@

$(DEV): $(PINS) | $(BIN)/pip
	@echo "Installing everything"
	@$(INSTALL) '.[dev]'
	@touch $(DEMO) $@
