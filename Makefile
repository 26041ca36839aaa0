# What a developer does with this repository. `make help` lists it.
# Everything runs in .venv; `make setup` makes it from nothing but python3 (3.10 or newer) and a C++ compiler.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
SOURCES := $(shell find csrc -type f 2>/dev/null)
# A process for each core. A test run by hand (`$(PYTHON) -m pytest tests/...`) stays in one.
PYTEST := $(PYTHON) -m pytest -n auto --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint format types gallery docs bench bench-peers clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMPS)/package  ## make .venv: pinned requirements, compiled extension, bdtorch installed editable
	@echo "ready: $(PYTHON)"

demo: setup  ## simulate, train and analyse once; pictures go to out/
	$(PYTHON) -m notebooks.demo

test: setup  ## all tests but the slow ones
	$(PYTEST)

slow: setup  ## the slow tests
	$(PYTEST) -m slow

lint: setup  ## ruff: rules and formatting
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: setup  ## let ruff rewrite what it can
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types: setup  ## mypy
	$(PYTHON) -m mypy

gallery: setup  ## run every script of notebooks/ in its quick setting; pictures and what is printed go to out/
	$(PYTHON) docs/site/gallery.py

docs: gallery  ## the documentation with its gallery, for reading without a server: out/site/index.html
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet
	@echo "open out/site/index.html"

bench: setup bench-peers  ## the benchmarks; results go to out/benchmarks/
	@mkdir -p out/benchmarks
	$(PYTHON) benchmarks/ops/event_csr.py --json out/benchmarks/event_csr.json
	$(PYTHON) benchmarks/ops/random_numbers.py --json out/benchmarks/random_numbers.json
	$(PYTHON) benchmarks/networks.py --all --json out/benchmarks/networks.json
	$(PYTHON) benchmarks/scaling.py --json out/benchmarks/scaling.json --picture out/benchmarks/scaling.png
	$(PYTHON) -m benchmarks.analysis --json out/benchmarks/analysis.json
	$(PYTHON) -m benchmarks.decision --json out/benchmarks/decision.json
	$(PYTHON) -m benchmarks.force --precision 32,64 --json out/benchmarks/force.json

bench-peers:  ## environments of Brian2 and BrainPy, which the benchmarks compare with
	for peer in brian2 brainpy; do \
	    test -x .venv-$$peer/bin/python || python3 -m venv .venv-$$peer || exit 1; \
	    .venv-$$peer/bin/python -m pip install --quiet --disable-pip-version-check \
	        -r benchmarks/requirements-$$peer.txt || exit 1; \
	done

clean:  ## remove all that was made, .venv included
	rm -rf $(VENV) .venv-brian2 .venv-brainpy build dist out *.egg-info bdtorch/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@echo "setup: making $(VENV)"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"python3 is {sys.version}; 3.10 or newer is needed")'
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/requirements: requirements-dev.txt $(STAMPS)/venv
	@echo "setup: installing $<"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# No dependency is resolved again, so the pinned torch stays. The editable install only puts this folder on the path:
# new modules appear without installing anew. Only changed sources of csrc/ are compiled again.
$(STAMPS)/package: $(STAMPS)/requirements setup.py pyproject.toml $(SOURCES)
	@echo "setup: compiling the extension and installing bdtorch in place"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    --config-settings editable_mode=compat --editable .
	@touch $@
