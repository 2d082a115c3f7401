# `make` lists the targets. Each sets up what it needs: Python 3.11 or newer and
# make are enough. PYTHON=/path/to/python chooses the interpreter of a new .venv;
# ARGS="..." goes to pytest or to the benchmark.

VENV ?= .venv
PY := $(VENV)/bin/python
BENCH_VENV ?= .venv-bench
ARGS ?=
# A .venv of another version is not replaced by PYTHON=; `make clean-venv` removes it.
export PYTHON

# With --quiet, --strict would see no warnings.
BUILD_DOCS = said=$$(NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict 2>&1) || \
	{ echo "$$said"; exit 1; }

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:
.PHONY: help demo test test-all check format docs docs-serve services services-stop bench \
	test-setup clean clean-venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.ready-run ## start a worker, give it real work, show what it did
	@$(PY) -m chervil demo

test: test-setup ## run all tests
	@$(PY) -m pytest $(ARGS)

test-all: ## run all tests on every CPython >= 3.11 of this machine
	@tools/test-all $(ARGS)

check: $(VENV)/.ready-check $(VENV)/.ready-test $(VENV)/.ready-docs ## lint, format, types, layers, docs
	@echo "ruff check"; $(PY) -m ruff check --quiet .
	@echo "ruff format"; $(PY) -m ruff format --quiet --check . || \
		{ $(PY) -m ruff format --check .; echo "'make format' repairs this."; exit 1; }
	@echo "mypy --strict"; $(PY) -m mypy --no-error-summary
	@echo "layers"; $(PY) -m pytest --quiet --no-header --no-summary tests/unit/test_layers.py \
		-p no:cacheprovider
	@echo "docs"; $(BUILD_DOCS)
	@echo "All checks passed."

format: $(VENV)/.ready-check ## sort imports and format the code
	@$(PY) -m ruff check --quiet --fix .
	@$(PY) -m ruff format .

docs: $(VENV)/.ready-docs ## build the documentation into site/
	@$(BUILD_DOCS) && echo "site/index.html"

docs-serve: $(VENV)/.ready-docs ## show the documentation, rebuilt on every change
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

services: ## start the servers that tests use, on loopback
	@services/start

services-stop: ## stop them
	@services/stop

bench: $(BENCH_VENV)/.ready-bench ## measure against the bare loop and the peers
	@$(BENCH_VENV)/bin/python -m bench $(ARGS)

clean: ## remove what was built and cached, not the environments
	@rm -rf site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/.run
	@find src tests bench docs examples tools -name __pycache__ -type d -prune -exec rm -rf {} +

clean-venv: ## remove the environments too
	@rm -rf .venv .venv-3.* .venv-bench

test-setup: $(VENV)/.ready-test

# One stamp for each set of dependencies; made anew when pyproject.toml changes.
$(VENV)/.ready-run: pyproject.toml tools/mkvenv
	@tools/mkvenv $(VENV)
	@touch $@

$(VENV)/.ready-%: pyproject.toml tools/mkvenv
	@tools/mkvenv $(VENV) $*
	@touch $@

$(BENCH_VENV)/.ready-bench: pyproject.toml tools/mkvenv
	@tools/mkvenv $(BENCH_VENV) bench
	@touch $@
