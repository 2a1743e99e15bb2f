# What one does here, by name. `make` alone lists it. Only Python 3.11 or newer and make are needed:
# every target sets up the virtual environment it wants.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PACKAGES := pie_proto pie_files pie_anyio pie_trio_adapter pie.py
CODE   := $(PACKAGES) tests examples docs .ci

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-real test-all test-pythons test-lowest check format docs prove coverage ci clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.user: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[trio,server]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.user

demo: $(VENV)/.user ## run the main job against an embedded server, on asyncio and on trio
	$(BIN)/python examples/demo.py
	$(BIN)/python examples/demo.py --backend trio

test: $(VENV)/.dev ## run the tests (two minutes)
	$(BIN)/python -m pytest -n auto -m 'not slow and not real'

test-slow: $(VENV)/.dev ## run the slow tests alone: other people's software, large transfers
	$(BIN)/python -m pytest -n auto -m 'slow and not real'

# Without workers: each would have a server of its own, of up to 2 GB.
test-real: $(VENV)/.dev ## run the tests against a real server alone
	$(BIN)/python -m pytest -n 0 -m real

test-all: $(VENV)/.dev ## run the tests, the slow and the real ones too
	$(BIN)/python -m pytest -n auto -m 'not real'
	$(BIN)/python -m pytest -n 0 -m real

test-pythons: ## run the tests on every other supported Python that is found here
	MAKE='$(MAKE)' $(PYTHON) .ci/pythons.py

# An environment of its own: it has an older version of nearly everything.
LOWEST := .cache/lowest

$(LOWEST)/.test: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(LOWEST)/constraints.txt --editable '.[test]'
	@touch $@

test-lowest: $(LOWEST)/.test ## run the tests with the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pip freeze --disable-pip-version-check --exclude-editable
	$(LOWEST)/bin/python -m pytest -n auto -m 'not slow and not real'

check: $(VENV)/.dev ## check format, style and types, and that the drawn docs are up to date
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/python docs/draw.py --check

format: $(VENV)/.dev ## put code into its form
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

docs: $(VENV)/.dev ## draw the pages of docs that tell what stands in code and tables
	$(BIN)/python docs/draw.py

prove: $(VENV)/.dev ## put every bug of docs/guide.md into a copy, and see its test fail (4 minutes)
	$(BIN)/python tests/prove_guide.py

COVERAGE := .cache/coverage

coverage: $(VENV)/.dev ## measure branches: all of the core by its own tests, 95 % of the rest
	rm -rf $(COVERAGE) && mkdir -p $(COVERAGE)
	COVERAGE_FILE=$(COVERAGE)/core $(BIN)/coverage run -m pytest -q -n auto tests/proto
	COVERAGE_FILE=$(COVERAGE)/core $(BIN)/coverage combine --quiet
	COVERAGE_FILE=$(COVERAGE)/core $(BIN)/coverage report --include='pie_proto/*' --skip-covered --fail-under=100
	COVERAGE_FILE=$(COVERAGE)/all $(BIN)/coverage run -m pytest -q -n auto -m 'not slow and not real'
	COVERAGE_FILE=$(COVERAGE)/all $(BIN)/coverage combine --quiet
	COVERAGE_FILE=$(COVERAGE)/all $(BIN)/coverage report --omit='pie_proto/*' --skip-covered --fail-under=95

ci: ## what continuous integration runs: every stage, bounded and timed
	.ci/stage 10m check    $(MAKE) check
	.ci/stage 15m test     $(MAKE) test
	.ci/stage 15m coverage $(MAKE) coverage
	.ci/stage 12m pythons  $(MAKE) test-pythons
	.ci/stage 10m lowest   $(MAKE) test-lowest
	.ci/stage 12m prove    $(MAKE) prove
	.ci/stage 12m slow     $(MAKE) test-slow
	.ci/stage 12m real     $(MAKE) test-real
	.ci/stage 5m  demo     $(MAKE) demo

clean: ## remove what was made here
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* dist build
