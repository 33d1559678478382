# SPDX-License-Identifier: Apache-2.0
# Two commands to know: `make test` and `make demo`. Both set up what they need in .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TRAIN_READY := $(VENV)/.ready-train
LOWEST := $(VENV)-lowest
JOBS ?= 2
PYTEST_ARGS ?=

.PHONY: help setup test test-lowest lint format demo digits clean

help:
	@echo "make test         set up .venv and run all tests"
	@echo "make demo         set up .venv and build the digits example: accuracy, size, latency before and after"
	@echo "make lint         ruff and pyright, as CI runs them"
	@echo "make format       let ruff rewrite what it can"
	@echo "make test-lowest  run the tests with the oldest dependencies we accept"
	@echo "make digits       train the digits example again (installs torch)"
	@echo "make clean        remove the environments and everything that is generated"

setup: $(READY)

# Set up once; again only when the declared dependencies change.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(TRAIN_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable ".[train]"
	touch $@

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(READY)
	PYTHONPATH=examples/digits $(BIN)/tersor build examples/digits/digits.onnx -o out/digits \
	  --data examples/digits/calib.npz --metric metric:metric

digits: $(TRAIN_READY)
	$(BIN)/python examples/digits/train.py

# A second environment in which every dependency is at the lower bound of pyproject.toml.
test-lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints/lowest.txt --editable ".[dev]"
	$(LOWEST)/bin/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) $(LOWEST) build dist out .pytest_cache .ruff_cache .hypothesis
	rm -rf src/tersor.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
