# Everything a person or a machine does here. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
ifneq ($(words $(CURDIR)),1)
$(error make cannot work in a folder whose path has a space: $(CURDIR))
endif
PORT ?= 3000
# Whose demo `make demo` shows: assets/<domain>/demo.py, or a package of that name.
DOMAIN := flights
# The dbt projects of all domains.
DBT := $(patsubst %/dbt_project.yml,%,$(wildcard assets/*/dbt/dbt_project.yml))
LOCKS := runtime dev gpu

# All local state: warehouse, lake, landing zone, models and Dagster's own storage.
export TILTH_HOME ?= $(CURDIR)/.tilth
export DAGSTER_HOME ?= $(TILTH_HOME)/dagster
# Dagster's command line and dbt's are found in the environment without activating it.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Bytecode is kept: under PYTHONDONTWRITEBYTECODE, usual in containers, every process would compile what it imports.
export PYTHONDONTWRITEBYTECODE :=

ENVIRONMENT := $(VENV)/.installed
MANIFEST := $(DBT:%=%/target/duckdb/prepared.json)
INSTANCE := $(DAGSTER_HOME)/dagster.yaml
# What most processes import, in two halves that share little. What is not named here is compiled at its first use.
OF_DAGSTER := dagster_webserver.cli, dagster._daemon.cli, dagster._cli.api, dagster_dbt, dagster_aws.s3, dagster_postgres
OF_DATA := dbt.cli.main, dbt.adapters.duckdb, sklearn.ensemble, skops.io, pandera.pandas, matplotlib.figure, \
  matplotlib.backends.backend_agg, pyarrow.dataset, deltalake, adbc_driver_duckdb.dbapi, adbc_driver_postgresql.dbapi
# The longest files begin first, so that no core waits for one at the end; all are named, because of a folder and a file
# in it pytest takes the folder's order. A domain's go before these, in its targets.mk.
LONGEST := $(addprefix tests/,tilth/observability/test_freshness.py tilth/observability/test_alerts.py test_types.py)
test_files = $(filter $(1),$(LONGEST)) $(filter-out $(LONGEST),$(filter $(1),$(sort $(shell find tests -name "test_*.py"))))
WITH_SERVICES := $(addprefix tests/,live/% postgres/% faults/% kubernetes/% helm/%)
READY := $(ENVIRONMENT) $(MANIFEST) $(INSTANCE)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

.PHONY: demo
demo: $(READY) ## the domain's assets, made, then what exists
	@$(BIN)/python -m assets.$(DOMAIN).demo

.PHONY: dev
dev: $(READY) ## the UI, the daemon and the code location on 127.0.0.1:3000 (PORT= to change)
	@$(BIN)/python -m tilth.execution.supervisor $(BIN)/dg dev --workspace workspace.yaml --host 127.0.0.1 --port $(PORT)

# What only a domain has.
-include assets/*/targets.mk

.PHONY: test
test: $(ENVIRONMENT) $(MANIFEST) ## all tests that need no service (COVERAGE=yes: the stores' too, and what they all reach)
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@$(BIN)/pytest $(filter-out $(WITH_SERVICES) $(if $(COVERAGE),,tests/resources/%),$(call test_files,%)) \
	  --numprocesses 2 --dist loadfile --no-loadscope-reorder $(if $(COVERAGE),--cov --cov-report=term)

.PHONY: test-stores
test-stores: $(ENVIRONMENT) $(MANIFEST) ## lake, warehouse, landing zone and models, with an S3 endpoint that the tests start
	@$(BIN)/pytest tests/resources --numprocesses 2 --dist loadfile

.PHONY: test-live
test-live: $(ENVIRONMENT) $(MANIFEST) ## what runs by itself, under a running daemon, and what it outlasts
	@$(BIN)/pytest tests/live

.PHONY: test-postgres
test-postgres: $(ENVIRONMENT) $(MANIFEST) ## the same graph on a PostgreSQL that the tests start (needs its server programs)
	@$(BIN)/pytest tests/postgres --numprocesses 2 --dist loadfile

.PHONY: test-faults
test-faults: $(ENVIRONMENT) $(MANIFEST) ## processes killed (KILLS=100: so often), 1,000 feeds, frames of every kind (FRAMES=1000), writers at once, full disks (needs PostgreSQL's programs)
	@$(BIN)/pytest $(call test_files,tests/faults/%) --numprocesses 2 --dist loadgroup --no-loadscope-reorder

.PHONY: image
image: ## the image tilth:<commit>, by docker, podman or buildah (TARGET=gpu: with PyTorch; BASE=, TAG=)
	@build=$$(command -v docker || command -v podman || command -v buildah) || \
	  { echo "docker, podman or buildah is needed to build an image, and none is on the PATH."; exit 1; }; \
	  $$build build --target $(or $(TARGET),cpu) $(if $(BASE),--build-arg BASE=$(BASE)) \
	  --build-arg REVISION=$$(git rev-parse HEAD) \
	  --build-arg LOCK_SHA256=$$(sha256sum requirements/$(if $(filter gpu,$(TARGET)),gpu,runtime).lock | cut -d ' ' -f 1) \
	  --tag $(or $(TAG),tilth:$$(git rev-parse --short HEAD)) .

.PHONY: test-kubernetes
test-kubernetes: $(ENVIRONMENT) $(MANIFEST) ## the chart and its failures on the cluster of KUBECONFIG (images: TILTH_IMAGE, TILTH_POSTGRES_IMAGE)
	@$(BIN)/pytest tests/helm --numprocesses 2
	@$(BIN)/pytest tests/kubernetes

.PHONY: bench
bench: $(READY) ## every speed and memory bar, measured (minutes; on a quiet machine)
	@missed=; for file in $(filter-out report,$(basename $(notdir $(wildcard benchmarks/*.py)))); do \
	  $(BIN)/python -m benchmarks.$$file || missed="$$missed $$file"; done; \
	test -z "$$missed" || { echo "bars missed or not measured:$$missed"; exit 1; }

.PHONY: setup
setup: $(READY) ## only what the other targets need: environment, dbt manifest, Dagster's settings

.PHONY: lock
lock: $(ENVIRONMENT) ## renew requirements/*.lock from pyproject.toml
	@UV=$$(command -v uv); for lock in $(LOCKS); do \
	  extra=$$([ $$lock = runtime ] || echo "--extra $$lock"); \
	  $$UV pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
	    --no-emit-find-links --upgrade pyproject.toml $$extra -o requirements/$$lock.lock || exit; done

.PHONY: clean
clean: ## remove the state in TILTH_HOME (the environment stays, and stores elsewhere)
	@rm -rf "$(TILTH_HOME)"/{landing,warehouse.duckdb,warehouse.duckdb.wal,lake,models,dagster,demo.log} \
	  $(DBT:%=%/target) $(DBT:%=%/logs)

# uv where it is installed; otherwise from PyPI, into the environment itself.
$(ENVIRONMENT): requirements/dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check uv
	@echo "installing the locked packages into $(VENV)"
	@uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.lock
	@uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@# Compiled by being imported: a quarter of all files, and each half on a core of its own.
	@$(BIN)/python -c "import $(OF_DAGSTER)" & compiling=$$!; $(BIN)/python -c "import $(OF_DATA)" && wait $$compiling
	@touch $@

# Whoever loads the definitions first would do it; here it has a line of its own.
.SECONDEXPANSION:
$(MANIFEST): %/target/duckdb/prepared.json: $(ENVIRONMENT) $$(shell find $$* -path $$*/target -prune -o '(' -name '*.sql' -o -name '*.yml' ')' -print)
	@$(BIN)/python -m resources.dbt_manifest $* duckdb
	@touch $@

$(INSTANCE): platform/dagster.yaml
	@mkdir -p $(dir $@) && cp $< $@
