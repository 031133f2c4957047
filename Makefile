# Every target makes what it needs: a fresh clone and Python 3.11 or newer are enough.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

VENV ?= .venv
OUT ?= demo-out
SLIDE ?=
PYTEST_FLAGS ?=
FUZZ_FILES ?= 100000
RD_FLAGS ?=
# one more than there are cores: tests of killed workers, leases and servers wait more than they compute
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.logicalcpu 2>/dev/null || echo 1)
PYTEST_PROCESSES ?= -n $(shell echo $$(( $(CORES) < 4 ? $(CORES) + 1 : 4 )))
PIP_FLAGS ?=
# numerical libraries of tests keep to a thread a process: threads that wait for each other on cores where other tests
# run make a training of two seconds one of twenty; rivals in rates get all cores back (tests/bench/conftest.py)
test test-new: export OMP_NUM_THREADS ?= 1
# the default python first, so that a chosen environment is respected
PYTHONS := python3 python python3.13 python3.12 python3.11 python3.14
find_python = for p in $(PYTHONS); do "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && { command -v "$$p"; break; }; done
PYTHON ?= $(shell $(find_python))
BIN := $(VENV)/bin
# the newest Python there is, for what older ones cannot install: Zarr, tifffile and imagecodecs of today
NEW_VENV ?= .venv-new
NEW_PYTHONS := python3.14 python3.13 python3.12 \
	$(wildcard $(HOME)/.pyenv/versions/3.14.*/bin/python $(HOME)/.pyenv/versions/3.13.*/bin/python)
find_new_python = for p in $(NEW_PYTHONS); do "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' \
	2>/dev/null && { command -v "$$p"; break; }; done
NEW_PYTHON ?= $(shell $(find_new_python))
NEW_TESTS := tests/stacks tests/sources tests/pyramid tests/sinks tests/codecs tests/xr tests/pipelines/test_validate.py \
	tests/pipelines/test_ingest.py
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) -c constraints.txt
# compiled before the tests, which start hundreds of processes: where PYTHONDONTWRITEBYTECODE is set, as in many containers,
# each would compile what it imports
CODE := tilestream kernels pipelines cluster tests

.PHONY: help demo test test-new check lint format types imports docstrings layout lint-tree bench bench-scale bench-rd fuzz gpu clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: $(VENV)/base.stamp ## run the main job on SLIDE=path, or on a sample slide; results in OUT=demo-out
	$(BIN)/tilestream demo $(if $(SLIDE),"$(SLIDE)") --out "$(OUT)"

test: $(VENV)/dev.stamp ## all tests in several processes (PYTEST_FLAGS=... to choose, PYTEST_PROCESSES= for one)
	$(BIN)/python -m compileall -q $(CODE)
	$(BIN)/python -m pytest -q $(PYTEST_PROCESSES) $(PYTEST_FLAGS)

test-new: $(VENV)/dev.stamp ## what reads and writes files, on a newer Python with the newest Zarr and tifffile
ifeq ($(NEW_PYTHON),)
	@echo "test-new: no Python of at least 3.12 was found (looked for: $(NEW_PYTHONS)), so the newer libraries are not tried." \
		"Name one: make test-new NEW_PYTHON=/path/to/python"
else
	test -x $(NEW_VENV)/bin/python || "$(NEW_PYTHON)" -m venv $(NEW_VENV)
	$(NEW_VENV)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) --upgrade -e '.[test,geo,h5]'
	$(NEW_VENV)/bin/python -m compileall -q $(CODE)
	TILESTREAM_OTHER_PYTHON=$(abspath $(BIN)/python) $(NEW_VENV)/bin/python -m pytest -q -m "not slow" \
		--hypothesis-profile brief $(PYTEST_PROCESSES) $(NEW_TESTS)
endif

check: lint types imports docstrings layout ## everything static, in a minute or two
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/codespell

lint: $(VENV)/dev.stamp ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/dev.stamp ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: lint-tree $(VENV)/dev.stamp ## mypy --strict
	cd .lint && $(abspath $(BIN))/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p tilestream

imports: lint-tree $(VENV)/dev.stamp ## who may import whom
	cd .lint && $(abspath $(BIN))/lint-imports --config ../pyproject.toml --cache-dir ../.import_linter_cache

docstrings: $(VENV)/dev.stamp ## numpydoc validation
	$(BIN)/python -m numpydoc lint --config . $$(git ls-files -co --exclude-standard 'tilestream/*.py' 'kernels/*.py' 'pipelines/*.py' 'cluster/*.py')

layout: $(VENV)/dev.stamp ## sizes of files, packages, cost of importing, public names
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_layout.py

# kernels, pipelines and cluster are installed under tilestream.; tools that read folders see that through links.
# Nothing is removed first: two of these may run at once.
lint-tree: ## the tree of links that mypy and import-linter look at
	@mkdir -p .lint/tilestream
	@find .lint/tilestream -xtype l -delete
	@ln -sfn $(addprefix ../../,$(filter-out tilestream/__pycache__,$(wildcard tilestream/*)) kernels pipelines cluster) .lint/tilestream/

fuzz: $(VENV)/dev.stamp ## 100,000 tiles by chance, cut, flipped and lying (FUZZ_FILES=... for another number)
	$(BIN)/python -m tests.codecs.fuzz $(FUZZ_FILES)

bench: $(VENV)/dev.stamp ## the benchmarks as a table, written to tests/bench/results
	$(BIN)/python -m tests.bench.run

bench-rd: $(VENV)/dev.stamp ## rate and distortion of codecs and fields on real images: table and plot; goes on where it stopped
	$(BIN)/python -m tests.bench.rd $(RD_FLAGS)

bench-scale: $(VENV)/dev.stamp ## memory from 1 to 25 gigapixels, and 100,000 super-tiles: an hour or so, 10 GB of disk
	$(BIN)/python -m tests.bench.scale

gpu: $(VENV)/dev.stamp ## tests and benchmarks on a CUDA device; the table goes to tests/bench/results
	$(BIN)/python -m tests.gpu.run

clean: ## remove what was built, not what was computed
	rm -rf .lint .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python of at least 3.11 with the venv module was found (looked for: $(PYTHONS))." \
		"Install one (on Debian and Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "PYTHON=$(PYTHON) is $$("$(PYTHON)" --version 2>&1), expected at least 3.11. Name another: make PYTHON=..."; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/base.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev,encoders,torch,cuda,geo,h5]'
	@touch $@ $(VENV)/base.stamp
