# Two commands do everything on a machine that has Python 3.11 to 3.13, make and a package registry:
#   make demo                      a search page over sample photos; IMAGES=~/Pictures for your own, PORT=8001 for another port
#   make test                      all tests
# The others: install, install-dev, check, test-fast, torture, torture-all, bench, format, lock, clean.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
IMAGES ?=
TESTS ?=

# Compiled once, and not by each of the hundreds of processes that tests start.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.PHONY: demo install install-dev test test-fast torture torture-all bench bench-million check format lock clean

demo: $(READY)
	@$(BIN)/searchengine demo --dir .demo --port $(PORT) $(if $(IMAGES),"$(IMAGES)")

install: $(READY)

install-dev: $(READY_DEV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What the demo needs; and that with what the tests need. pip would compile on one core only, and all; what is left out
# here is hardly ever imported, and is compiled when it is.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps
define install_lock
$(PIP_INSTALL) --require-hashes -r $<
$(PIP_INSTALL) --no-build-isolation --editable .
@$(BIN)/python -W ignore -m compileall -qq -j 0 -x '/(tests|networkx|pandas|ray)/' $(VENV)/lib || true
endef

$(READY): requirements.lock pyproject.toml | $(VENV)/bin/python
	$(install_lock)
	@touch $@

# uv, itself in the lock, takes a third of pip's time. It does not read pip's configuration: what it cannot get, pip gets.
$(READY_DEV): requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@sed '/^uv==/,/^ *#/!d' $< > $(VENV)/uv.lock
	$(PIP_INSTALL) --require-hashes -r $(VENV)/uv.lock
	@$(BIN)/uv pip install --quiet --quiet --python $(BIN)/python --no-deps --require-hashes -r $< || \
		echo "uv cannot get all packages; pip gets them, which takes longer." >&2
	$(install_lock)
	@touch $(READY) $@

# Side by side on the cores there are, at most four: each worker may hold a model. The tests of a module stay together,
# because they share its fixtures, and keep the order of tests/conftest.py. JOBS=0 runs them in one process.
JOBS ?= auto
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist loadscope --no-loadscope-reorder

test: $(READY_DEV)
	$(PYTEST) $(TESTS)

test-fast: $(READY_DEV)
	$(PYTEST) -m "not slow and not browser and not torture and not longest" $(TESTS)

# What takes minutes: every backbone beside plain Keras (12 GB of memory); kills, full disks, many at once.
# TESTS=tests/torture leaves out the backbones.
torture: $(READY_DEV)
	$(PYTEST) -m "torture and not longest" $(TESTS)

# And the long forms: every backbone exported to OpenVINO, not only one a family; 100 kills; 100 000 images. An hour more.
torture-all: $(READY_DEV)
	$(PYTEST) -m "torture or longest" $(TESTS)

# Each benchmark against what people would use instead; BENCH="--full --into docs/BENCHMARKS.md" for all sizes.
bench: $(READY_DEV)
	$(BIN)/python benchmarks/every.py $(BENCH)

# Approximate search of a million made-up rows, 5 GB on the disk; MILLION="--index DIR" for rows like those of an index.
bench-million: $(READY_DEV)
	$(BIN)/python benchmarks/million.py $(MILLION)

check: $(READY_DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: $(READY_DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Pins everything that pyproject.toml asks for, for all platforms and the three Python versions, with hashes: what the
# demo needs, what tests need, and what serving needs where no model is prepared or trained.
COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
lock:
	$(COMPILE) --extra demo --extra learn --extra map --extra text --group pyproject.toml:encoder pyproject.toml --output-file requirements.lock
	$(COMPILE) --all-extras --group pyproject.toml:encoder --constraints requirements.lock pyproject.toml --output-file requirements-dev.lock
	$(COMPILE) --group pyproject.toml:serve --group pyproject.toml:encoder --constraints requirements.lock --output-file requirements-serve.lock

clean:
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache dist
