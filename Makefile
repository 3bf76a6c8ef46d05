# Everything a person or a machine does here. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PORT ?= 3000
# One place for all local state: warehouse, lake, landing zone, models and Dagster's own storage.
export TILTH_HOME ?= $(CURDIR)/.tilth
export DAGSTER_HOME ?= $(TILTH_HOME)/dagster
export DAGSTER_DISABLE_TELEMETRY ?= yes

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# uv is used where it is installed; otherwise it is bootstrapped from PyPI with pip into the environment itself.
$(VENV)/.locked: requirements/dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check uv
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	  echo "installing the locked packages into $(VENV)" && \
	  $$UV pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.lock && \
	  $$UV pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
