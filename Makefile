# Needs git, make and python3 >= 3.11. Everything else is set up by the first target that needs it.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test bench platform lab lint types words lock docs picture clean help
.DEFAULT_GOAL := help

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

run: $(READY) ## Run the demo and say where the report is
	@$(BIN)/aggregation run params/demo.yaml

test: $(READY) ## Run all tests (real data: see AGGREGATION_DATA in CONTRIBUTING.md)
	@$(BIN)/pytest

bench: $(READY) ## Measure everything, three hours; some of it: make bench ONLY="scale refits"
	@$(BIN)/python benchmarks/bench.py $(ONLY)
	@[ -n "$(ONLY)" ] || $(BIN)/python benchmarks/export.py
	@[ -n "$(ONLY)" ] || $(BIN)/python benchmarks/batch.py

platform: $(READY) ## Serve a platform on this machine, with a simulated deliberation, to try things on
	@$(BIN)/python tests/loopback.py

lab: $(READY) ## Open the notebooks in JupyterLab
	@$(BIN)/jupyter lab $$([ "$$(id -u)" = 0 ] && echo --allow-root) --config=notebooks/jupyter_lab_config.py

lint: $(READY) ## Check style, formatting, notebooks, imports
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: $(READY) ## Check types
	@$(BIN)/basedpyright

docs: $(READY) ## Write docs/parameters.md anew, and the documentation as a site: site/index.html
	@$(BIN)/python -c "from aggregation.params.reference import reference; print(reference(), end='')" > docs/parameters.md
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs site && echo "Documentation: site/index.html"

picture: $(READY) ## Take the README's picture of a report anew (needs Chromium)
	@$(BIN)/aggregation run params/demo.yaml && $(BIN)/python docs/picture.py

words: $(READY) ## Bring the report's translations up to date with the texts of the code
	@$(BIN)/pybabel -q extract -F pyproject.toml --no-location -o $(VENV)/words.pot src/aggregation
	@for file in src/aggregation/report/locale/*.po; do $(BIN)/pybabel -q update --no-fuzzy-matching \
	  --omit-header --ignore-obsolete -w 100 -i $(VENV)/words.pot -o $$file \
	  -l $$(basename $$file .po); done

lock: $(READY) ## Resolve the dependencies of pyproject.toml anew
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --fork-strategy fewest --upgrade \
	  --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	  --custom-compile-command "make lock" --quiet -o requirements.lock

clean: ## Remove what was set up and all outputs
	rm -rf $(VENV) outputs

# A virtual environment; uv from its hashed entry of the lock; with it, or else with pip, the rest.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, this is $$($(PYTHON) --version): make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv is missing. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (a minute or two, once) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@awk '/^uv==/ {on=1} on {print} on && !/\\$$/ {exit}' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(VENV)/uv.lock && \
	 $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock || { \
	  echo "uv did not work here, pip goes on (slower) ..." >&2; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
