# `make demo` and `make test` do all set-up on a fresh machine; nothing else needs to be installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test files at once; a process takes up to 3 GB.
JOBS ?= 2

.PHONY: demo test check bench docs setup setup-dev clean

demo: setup  ## the main job, offline, on the model that comes with the package
	$(BIN)/langslice demo

test: setup-dev  ## every test, on the real tokenizers and weights where they are at hand
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: setup-dev  ## style, annotations, docstrings, types, generated documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: setup-dev  ## write the generated pages
	$(BIN)/python docs/generate.py

bench: setup-dev  ## every benchmark; takes long, see benchmarks/README.md
	$(BIN)/python benchmarks/run_all.py

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) dist build
