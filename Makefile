# `make demo` and `make test` do all set-up on a fresh machine; nothing else needs to be installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LATEST := $(VENV)-latest
TOOLS := $(VENV)-tools
# Exact versions of all that is installed here, builds included: pip before 25.3 reads the first variable for those too.
LOCK := constraints/lock.txt
LOCKED := PIP_CONSTRAINT=$(LOCK) PIP_BUILD_CONSTRAINT=$(LOCK)
# Processes that run tests; each takes up to 3 GB. Whoever has nothing left takes tests over from the other.
JOBS ?= 2
SHARED := -n $(JOBS) --dist worksteal
# Whole trained models: the folder that they are kept in, outside the repository; which; and the script that fetches them.
LANGSLICE_MODELS ?= ../models
LANGSLICE_FETCH_MODELS ?= ../shared/models/fetch.py
MODELS ?= multilingual-e5-small multilingual-e5-small-enpt gemma-3-270m whisper-base
export LANGSLICE_MODELS

.PHONY: demo families test test-robustness test-models test-latest check bench bench-real docs site dist test-dist test-extras lock models setup \
	setup-dev setup-tools clean

demo: setup  ## the main job, offline, on the model that comes with the package
	$(BIN)/langslice demo

test: setup-dev  ## every test but those of the next two, on the real tokenizers and weights where they are at hand
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -m "not robustness and not models" $(SHARED)

test-robustness: setup-dev  ## the tests that kill processes, or start a Ray cluster
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -m robustness

test-models: setup-dev  ## the tests on whole trained models, where `make models` has put them
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -m models

models: setup-dev  ## fetch trained models into LANGSLICE_MODELS: 0.5 GB of packages, 1.5 GB on disk; MODELS="NAME ..." for some
	@test -f "$(LANGSLICE_FETCH_MODELS)" || { echo "models: no script at $(LANGSLICE_FETCH_MODELS); set LANGSLICE_FETCH_MODELS" >&2; exit 1; }
	@$(BIN)/python "$(LANGSLICE_FETCH_MODELS)" "$(LANGSLICE_MODELS)" $(MODELS) \
		|| { echo "models: $(MODELS) could not be fetched into $(LANGSLICE_MODELS); the line above says why" >&2; exit 1; }

test-latest:  ## a telling part of the tests, on the newest release of everything but torch
	test -x $(LATEST)/bin/python || $(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -c constraints/lock.in torch -e ".[dev]"
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(LATEST)/bin/python -m tests.project.latest $(SHARED)

check: setup-dev  ## style, annotations, docstrings, types, generated documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: setup-dev  ## write the generated pages
	$(BIN)/python docs/generate.py

site: setup-tools  ## the documentation as pages in site/, every link and anchor checked, nothing fetched by a reader
	NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build --strict

dist: setup-dev setup-tools  ## wheel and source archive in dist/, checked, and the wheel tried next to what is installed
	rm -rf dist
	$(LOCKED) $(TOOLS)/bin/python -m build --outdir dist .
	$(TOOLS)/bin/twine check --strict dist/*
	$(BIN)/python -m tests.project.distribution check dist/*
	$(BIN)/python -m tests.project.distribution quick dist/*.whl

test-dist: dist  ## both archives in empty environments, with the demo; minutes
	$(BIN)/python -m tests.project.distribution try dist/*

test-extras: dist  ## each extra in an environment of its own, with a command that needs it; many minutes
	$(BIN)/python -m tests.project.distribution extras dist/*.whl

families: setup-dev  ## every model type that transformers has, tried and recorded; many minutes
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m tests.families.sweep
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m tests.families.sweep --towers
	$(BIN)/python docs/generate.py

bench: setup-dev  ## every benchmark; takes long, see benchmarks/README.md
	$(BIN)/python benchmarks/run_all.py

bench-real: setup-dev  ## the benchmarks on trained models, which go on where they were stopped; hours (benchmarks/real/README.md)
	$(BIN)/python benchmarks/real/run_all.py

lock:  ## the newest versions that fit together on every Python, into constraints/lock.txt
	test -x $(VENV)-lock/bin/uv || { $(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/python -m pip install --quiet uv; }
	$(VENV)-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --extra dev --strip-extras \
		--no-annotate --custom-compile-command "make lock" --output-file $(LOCK) pyproject.toml constraints/lock.in constraints/tools.in

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev
setup-tools: $(TOOLS)/.installed

$(VENV)/.installed: pyproject.toml $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(LOCKED) $(BIN)/python -m pip install --quiet torch -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(LOCKED) $(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

$(TOOLS)/.installed: constraints/tools.in $(LOCK)
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(LOCKED) $(TOOLS)/bin/python -m pip install --quiet -r constraints/tools.in
	touch $@

clean:
	rm -rf $(VENV) $(LATEST) $(TOOLS) $(VENV)-lock dist build site
