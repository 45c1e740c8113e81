# Everything a fresh machine needs is in these targets: `make quickstart` and `make test` install what they use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
QUICKSTART_DIR ?= quickstart
FUZZ_DIR ?= fuzz_findings

.PHONY: help install quickstart test test-quick test-browser coverage quality style docs docs-serve benchmark contract fuzz clean

help:  ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable ".[test,vision,vector,fetch,serve,peft,docs,openvino,onnx,notebooks]"
	touch $@

install: $(VENV)/.installed  ## Make .venv and install the package in the tested versions.

quickstart: install  ## Generate chips, fine-tune a small model, evaluate it, map a scene. CPU, minutes.
	$(BIN)/python examples/quickstart.py --output_dir $(QUICKSTART_DIR)

test: install  ## Check the style and run every test.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not gpu" tests

test-quick: install  ## The same without the slow tests, for the loop of every day.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests

test-browser: install  ## Install Chromium, as root by apt-get, and run the tests of the demo in it.
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
		{ apt-get update -q && apt-get install -y -q --no-install-recommends chromium; } || \
		{ echo "Expected Chromium on the path, found none, and apt-get cannot install it here (is this root, on Debian" \
		"or Ubuntu?). Install Chromium or Chrome in the way of this system, and run make test-browser again."; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/demo

coverage: install  ## Run every test and print which lines no test runs.
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term-missing:skip-covered \
		--cov-fail-under=92 -m "not gpu" tests

quality: install  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: install  ## Fix the style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## Build the documentation into site/; a broken link is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: install  ## Show the documentation at http://127.0.0.1:8000 and follow changes.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

benchmark: install  ## Print the benchmark table.
	$(BIN)/python -m benchmarks

contract: install  ## Run transformers' own model tests against this package.
	$(BIN)/python tests/transformers_contract.py

fuzz: install  ## Open 10,000 damaged GeoTIFFs in child processes; what goes wrong is written to FUZZ_DIR.
	$(BIN)/python -m tests.fuzz.campaign --mutants 10000 --processes $(WORKERS) --output_dir $(FUZZ_DIR)

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) $(QUICKSTART_DIR) $(FUZZ_DIR) build site *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
