# The example's own targets; the Makefile includes them.
LONGEST := $(addprefix tests/flights/,test_reruns.py test_command_line.py test_retraining.py test_graph.py test_automation.py \
  test_without.py) $(LONGEST) tests/faults/test_kills.py

.PHONY: land
land: $(READY) ## land more days: DAY=2013-04-01, or all up to THROUGH=2013-04-30
	@$(BIN)/python -m assets.flights.replay $(if $(DAY),--day $(DAY)) $(if $(THROUGH),--through $(THROUGH))

.PHONY: without-example
without-example: $(ENVIRONMENT) ## remove the example with all that names it; assets/example, a small domain, is in its place
	@$(BIN)/python -m assets.flights.without

.PHONY: test-gpu
test-gpu: $(VENV)-gpu/.installed $(MANIFEST) ## the neural candidate, in an environment with PyTorch (7 GB); on a GPU where there is one
	@$(VENV)-gpu/bin/pytest tests/flights/test_neural.py tests/flights/test_imports.py tests/resources/test_registry.py

$(VENV)-gpu/.installed: requirements/dev.lock requirements/gpu.lock pyproject.toml $(ENVIRONMENT)
	@test -x $(VENV)-gpu/bin/python || $(PYTHON) -m venv $(VENV)-gpu
	@echo "installing the locked packages and PyTorch into $(VENV)-gpu"
	@export PATH=$(CURDIR)/$(BIN):$$PATH; \
	  uv pip sync --quiet --python $(VENV)-gpu/bin/python --require-hashes requirements/dev.lock requirements/gpu.lock && \
	  uv pip install --quiet --python $(VENV)-gpu/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
