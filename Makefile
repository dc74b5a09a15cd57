# Two commands: `make demo` and `make test`. Each does all its set-up in .venv, from the hash-locked requirements.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
RUN := $(VENV)/.run
DEV := $(VENV)/.dev
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: help demo test lint unit soak bench-sync schema lock clean

help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

$(PY):
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null || { echo "Counterfoil needs Python 3.11 or newer as '$(PYTHON)'. Name yours: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) …" >&2
	@$(PYTHON) -m venv $(VENV)

$(RUN): requirements/run.txt | $(PY)
	@echo "Installing what it runs on (hash-locked) …" >&2
	@$(PIP) -r requirements/run.txt
	@echo "$(CURDIR)" > $$($(PY) -c 'import site; print(site.getsitepackages()[0])')/counterfoil.pth
	@printf '#!/bin/sh\nexec "%s/$(PY)" -m counterfoil "$$@"\n' "$(CURDIR)" > $(VENV)/bin/counterfoil && chmod +x $(VENV)/bin/counterfoil
	@touch $@

$(DEV): requirements/dev.txt $(RUN)
	@echo "Installing what it is tested with (hash-locked) …" >&2
	@$(PIP) -r requirements/dev.txt
	@touch $@

demo: $(RUN) ## all four examples against their simulators, faults on; the sum proven at the end
	@$(VENV)/bin/counterfoil demo

test: lint unit ## lint, types, floors, and every test but the soak

lint: $(DEV) ## ruff, mypy, import-linter
	@$(VENV)/bin/ruff check && $(VENV)/bin/ruff format --check --quiet
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache 2>&1 | tail -n 12; exit $${PIPESTATUS[0]}

unit: $(DEV)
	@$(PY) -m pytest -m "not soak"

soak: $(DEV) ## the long ones: 50 kills at random instants, larger properties
	@$(PY) -m pytest -m soak

bench-sync: $(DEV) ## lines A, B, C and J beside dlt, a Singer pair and the seed's own design
	@$(PY) -m benchmarks.sync

schema: $(DEV) ## write ledger/schema.sql anew from the migrations
	@$(PY) -m counterfoil.ledger.schema

lock: ## write requirements/*.txt anew (needs uv)
	uv pip compile pyproject.toml --extra simulators --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 -o requirements/run.txt
	uv pip compile pyproject.toml --all-extras --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 -o requirements/dev.txt

clean:
	rm -rf $(VENV) .venv-* demo-project .mypy_cache .ruff_cache .hypothesis
