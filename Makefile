# Everything runs in .venv, which the first target that needs it makes. `make PYTHON=python3.13 setup` chooses a Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CI gives another, which runs a failed test once more.
PYTEST ?= $(BIN)/pytest
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# A stamp for each set of packages, so that it is installed once and again when its pins change.
DEMO := $(VENV)/.demo-installed
DEV := $(VENV)/.dev-installed
# Tools that share no packages with this repository.
TOOLS_FOLDER := .venvs/tools
TOOLS := $(TOOLS_FOLDER)/.installed
PINS := pyproject.toml constraints.txt
# Tests that run most of the code in their own process, where it is measured; in percent, a little below what they cover.
IN_PROCESS := $(addprefix tests/,core config store prediction cache client delivery guards programs experiments batch console testing streaming api_keys) \
  $(addprefix tests/serve/test_,ids.py problems.py chat_requests.py) \
  $(wildcard tests/lane/test_providers_*.py) tests/lane/test_journal.py \
  $(addprefix tests/sealing/test_,envelopes.py key_sources.py kept_files.py plain.py)
# The command line, workers, stacks and servers, two fifths of the code, are run by tests in processes of their own.
COVERAGE_FLOOR := 58

# Empty is unset: bytecode is kept, or each of pytest's processes compiles all tests anew, which takes it five seconds.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test journeys contract installed matrix coverage chaos bench experiments lint docs sbom lock clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV) ## Make .venv and install everything, pinned

demo: $(DEMO) ## Show it all on this machine: Redis, a model, a worker, two variants
	@$(BIN)/dspyq demo

test: $(DEV) ## Run the tests
	@$(PYTEST)

journeys: $(DEV) ## Run the tests that go through whole stacks, and the further cases of dear ones
	@$(PYTEST) --quiet -m "journey and not long"

contract: $(DEV) ## Ask each HTTP endpoint all that its description allows, and what it does not
	@$(PYTEST) --quiet -n 0 -m long tests/serve/test_contract.py

installed: $(DEV) ## Run the tests of the built wheel, of new projects and of users' types
	@$(PYTEST) -m installed

matrix: $(DEV) ## Run the fast tests at the lowest and newest versions, and on every Python here
	@$(BIN)/python .ci/matrix.py

coverage: $(DEV) ## Measure what the tests that need no worker cover, against a floor
	@$(PYTEST) --quiet --cov=dspyq --cov-report= $(IN_PROCESS)
	@$(PYTEST) --quiet --cov=dspyq --cov-append --cov-report= -m "not long" tests/spines
	@$(BIN)/coverage report --skip-covered --fail-under=$(COVERAGE_FLOOR)

chaos: $(DEV) ## Kill, freeze and starve real servers and workers, print what came of the jobs; BUDGET=15m bounds it
ifdef BUDGET
	@$(BIN)/python -m tests.chaos --budget $(BUDGET)
else
	@HYPOTHESIS_PROFILE=long $(BIN)/pytest -m 'long or property'
	@$(BIN)/python -m tests.chaos
endif

experiments: $(DEV) ## Simulate experiments, run the product's own, and hold their statistics against gbstats and others
	@$(PYTEST) -n 0 -m installed tests/experiments
	@PYTHONPATH=. "$$($(BIN)/python -m benchmarks.experiments.environment)" -m benchmarks.experiments; simulated=$$?; \
	$(BIN)/python -m benchmarks.experiments.product && exit $$simulated

bench: $(DEV) ## Run the benchmarks, print their table and draw docs/growth.svg
	@$(BIN)/python -m benchmarks --plot docs/growth.svg

lint: $(DEV) ## Check style, formatting, types and English
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(PYTEST) --quiet -n 0 tests/test_english.py

docs: $(DEV) ## Build the site into site/
	@NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet
	@SITE=site $(PYTEST) --quiet -n 0 -m 'long or not long' tests/docs/test_site.py
	@echo "Open site/index.html; its search needs a server: python3 -m http.server --directory site"

sbom: $(DEV) $(TOOLS) ## List all that is installed, with versions and licences, as CycloneDX in sbom/dspyq.cdx.json
	@mkdir -p sbom
	@$(TOOLS_FOLDER)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible \
	  --no-validate --output-format JSON --output-file sbom/dspyq.cdx.json

lock: $(TOOLS) ## Write requirements.lock and requirements/: the hashes of every package of constraints.txt, from PyPI
	@$(PYTHON) .ci/lock.py $(TOOLS_FOLDER)/bin/uv

clean: ## Remove .venv, caches and what `dspyq up` keeps
	rm -rf $(VENV) .venvs .coverage .dspyq build site dist sbom *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "dspyq needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.13" >&2; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(TOOLS): .ci/tools.txt
	@echo "Installing tools"
	@$(PYTHON) -m venv $(TOOLS_FOLDER)
	@$(TOOLS_FOLDER)/bin/python -m pip install --quiet --disable-pip-version-check --requirement .ci/tools.txt
	@touch $@

$(DEMO): $(PINS) | $(BIN)/pip
	@echo "Installing what the demo runs"
	@$(INSTALL) '.[demo]'
	@touch $@

$(DEV): $(PINS) | $(BIN)/pip
	@echo "Installing everything"
	@$(INSTALL) '.[dev]'
	@touch $(DEMO) $@
