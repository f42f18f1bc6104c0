# make demo   set everything up and run the pipeline on data drawn here
# make test   set everything up and run the tests, a process per core
# make lint   formatting, lint, types and import rules
# make sanitize   the C++ core under GCC's address, undefined-behaviour and thread sanitizers
# make bench  the benchmarks of the ops on this machine
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := constraints.txt pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f 2>/dev/null)

.PHONY: demo test lint sanitize bench clean

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

# One stamp for each set of extras; the compiled core is rebuilt when its sources change.
$(VENV)/.installed-%: $(VENV)/.pip $(SOURCES)
	$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable ".[$*]"
	@touch $@

demo: $(VENV)/.installed-lite
	$(BIN)/python -m c2am.train --recipe demo

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc tests/native -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

sanitize:
	$(MAKE) -f tests/native/Makefile -j $(shell nproc)

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks ops

clean:
	rm -rf $(VENV) build dist *.egg-info
