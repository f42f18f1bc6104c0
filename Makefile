# make demo   set everything up and run the pipeline on data drawn here
# make test   set everything up and run the tests, a process per core
# make lint   formatting, lint, types and import rules
# make sanitize   the C++ core under GCC's address, undefined-behaviour and thread sanitizers
# make cuda   the CUDA kernels for one architecture, warnings are errors; prints registers and spills
# make bench  the benchmarks of the ops on this machine, and the table of docs/performance.md
# make wheel  a wheel of this machine's Python with the core for CPUs, in dist/
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := constraints.txt pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f 2>/dev/null)

.PHONY: demo test lint sanitize cuda bench wheel clean

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

NVCC ?= nvcc
ARCH ?= sm_90
KERNELS := $(shell find csrc -name '*.cu' 2>/dev/null)
cuda: $(KERNELS:csrc/%.cu=build/cuda/$(ARCH)/%.o)
build/cuda/$(ARCH)/%.o: csrc/%.cu $(shell find csrc -name '*.h' 2>/dev/null)
	@mkdir -p $(@D)
	$(NVCC) -std=c++17 -O3 -arch=$(ARCH) -DC2AM_WITH_CUDA -Icsrc -Werror all-warnings \
	  -Xcompiler -Wall,-Wextra,-Werror -Xptxas -v -c $< -o $@ 2>$@.log || { cat $@.log; exit 1; }
	@grep -E 'warning|[1-9][0-9]* bytes spill' $@.log || true
	@echo "$<: at most $$(grep -o 'Used [0-9]* registers' $@.log | sort -k2n | tail -n 1 | cut -d' ' -f2) registers"

# A photograph that comes with matplotlib; IMAGE= names another one.
IMAGE ?= $(wildcard $(VENV)/lib/python3*/site-packages/matplotlib/mpl-data/sample_data/grace_hopper.jpg)
bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks ops --peer --threads 1 2 --output benchmarks/results/ops.csv \
	  $(if $(IMAGE),--image $(IMAGE))
	$(BIN)/python -m benchmarks table

wheel: $(VENV)/.installed-test
	C2AM_CUDA=OFF $(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) build dist *.egg-info
