# The newcomer's two commands are `make demo` and `make test`; each sets everything up first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready

.PHONY: setup demo base test test-core lint bench clean

setup: $(SETUP)

# torch first and through pip, so that a processor-only build is taken where one is configured.
$(SETUP): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Escultor needs Python 3.11 or newer; set PYTHON=…')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(SETUP)  ## one whole turn of the loop, then a second one
	$(BIN)/escultor demo $(if $(FROM_SCRATCH),--from-scratch) $(ARGS)

base: $(SETUP)  ## pre-train escultor-base again: hours on two cores
	$(BIN)/python experiments/base.py

test: $(SETUP)  ## every test
	$(BIN)/python -m pytest -n 2

test-core: $(SETUP)  ## the tests without models and processes
	$(BIN)/python -m pytest tests/store tests/evaluate tests/monitor tests/skills tests/test_*.py

lint: $(SETUP)  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest tests/test_layers.py

bench: $(SETUP)  ## figures of speed; each prints one JSON object last
	$(BIN)/python bench/train_step.py

clean:
	rm -rf $(VENV) escultor-store report.html
