# Everything is set up in .venv, by uv, from uv.lock. A fresh machine needs Python 3.11 to 3.13, make and a package index.

SHELL := /bin/sh
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
UV := UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=.venv VIRTUAL_ENV=.venv $(BIN)/uv
QUICK := tests/core tests/steps tests/test_flow.py $(wildcard tests/test_job*.py)
EXIT ?=
README ?=
ONLY ?=
VENDORS ?=
LIMIT ?=

unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo cluster test test-cluster test-ui bench test-faults test-others check docs golden clean setup format

demo: setup ## Run two real nightly jobs in a real Airflow, on this machine alone; EXIT=1 stops by itself
	@exec env $(if $(VENDORS),VENDORS=$(VENDORS)) $(BIN)/python -m nightbatch.demo $(if $(EXIT),--exit) $(if $(LIMIT),--limit $(LIMIT))

cluster: setup ## The same on PostgreSQL, Redis, S3 and two Celery workers, as docker-compose.yaml has it; EXIT=1 as above
	@exec $(BIN)/python -m nightbatch.demo --workers 2 $(if $(EXIT),--exit) $(if $(LIMIT),--limit $(LIMIT))

# The quick tests run side by side; those that start whole stacks run alone, since some of them watch the clock.
test: setup ## Run every test
	$(BIN)/python -m pytest -m "not stack and not live and not faults and not cluster and not ui" -n 2 --dist worksteal
	$(BIN)/python -m pytest -m "stack and not faults"
	@$(MAKE) --no-print-directory test-others

test-cluster: setup ## Run a job on Redis and two Celery workers, and kill one; needs Redis (apt-get install redis-server)
	$(BIN)/python -m pytest -m cluster

test-ui: setup ## Drive Airflow's pages in a browser, pictures in .ui/; needs Chromium (apt-get install chromium)
	@$(UV) sync --locked --group ui
	README=$(README) $(BIN)/python -m pytest -m ui tests/ui

bench: setup ## Measure speed and memory against their targets; two and a half hours on a quiet machine, ONLY="prepare night" for some
	@$(BIN)/python benchmarks/table.py $(ONLY)

# Cells are independent of each other, but for those that share one running Airflow: tests/faults/conftest.py says how.
test-faults: setup ## Kill every process at every point, and let the vendor misbehave; ends with a table of all cells
	$(BIN)/python -m pytest tests/faults -n 3 --dist loadscope

# What does not touch Airflow or a server runs on the other Pythons of this machine too; dying at every call, which takes
# minutes and asks nothing of a Python, does not.
test-others: setup ## Run the rules and steps on every other installed Python
	@for minor in 11 12 13; do \
		python=$$(command -v python3.$$minor) || continue; \
		$$python -c 'import sys; sys.exit(sys.version_info[1] != '$$minor')' 2>/dev/null || continue; \
		$(BIN)/python -c 'import sys; sys.exit(sys.version_info[1] == '$$minor')' || continue; \
		echo "the rules and steps on Python 3.$$minor"; \
		UV_PROJECT_ENVIRONMENT=.venv-3.$$minor UV_PYTHON_DOWNLOADS=never \
			$(BIN)/uv sync --quiet --locked --python "$$python" || exit 1; \
		.venv-3.$$minor/bin/python -m pytest -q -n 2 -k "not killed" $(QUICK) || exit 1; \
	done

check: setup ## Lint, types, layers, formatting; no tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup ## Build the site of the pages into .site/html, which reads without a server; a broken link is an error
	$(BIN)/python docs/site.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: setup ## Write the golden files of wire formats and alerts anew (pictures where Chromium is); review the diff
	$(BIN)/python -m tests.golden.rewrite
	$(BIN)/python -m tests.golden.alerts

clean: ## Remove the environment, caches and the demo's data
	rm -rf .venv .venv-* .nightbatch .airflow .mypy_cache .ui .bench .ruff_cache .pytest_cache .hypothesis .import_linter_cache .site dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: .venv/.synced

# A stamp, so that a second `make` starts at once.
.venv/.synced: uv.lock pyproject.toml $(BIN)/uv
	@echo "setting up the environment (the first time takes a minute or two)"
	@$(UV) sync --locked
	@touch $@

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "nightbatch needs Python 3.11, 3.12 or 3.13, and none is on PATH"; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
