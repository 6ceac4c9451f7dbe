# On a machine with Python 3.11 to 3.13, make and access to a package index, two commands are enough:
#   make demo                      serve a search page with sample photos; IMAGES=~/Pictures uses your own, PORT=8001 another port
#   make test                      run all tests
# Other targets: install, install-dev, check, test-fast, torture, torture-all, bench, bench-million, format, lock, clean.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
IMAGES ?=
TESTS ?=

# Write bytecode, so that the hundreds of processes that tests start do not each compile the modules again.
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

# Install a lock and this package. pip would compile everything on one core; compileall uses all cores and skips packages
# that are rarely imported, which are compiled on import.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps
define install_lock
$(PIP_INSTALL) --require-hashes -r $<
$(PIP_INSTALL) --no-build-isolation --editable .
@$(BIN)/python -W ignore -m compileall -qq -j 0 -x '/(tests|networkx|pandas|ray)/' $(VENV)/lib || true
endef

$(READY): requirements.lock pyproject.toml | $(VENV)/bin/python
	$(install_lock)
	@touch $@

# uv, which is in the lock too, takes a third of pip's time. It ignores pip's configuration, so pip installs whatever uv
# cannot get.
$(READY_DEV): requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@sed '/^uv==/,/^ *#/!d' $< > $(VENV)/uv.lock
	$(PIP_INSTALL) --require-hashes -r $(VENV)/uv.lock
	@$(BIN)/uv pip install --quiet --quiet --python $(BIN)/python --no-deps --require-hashes -r $< || \
		echo "uv cannot get all packages. Using pip instead, which takes longer." >&2
	$(install_lock)
	@touch $(READY) $@

# Run tests in several workers; tests/conftest.py decides how many, and who gets which tests. JOBS=0 runs all in one process.
JOBS ?= auto
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS)

test: $(READY_DEV)
	$(PYTEST) $(TESTS)

test-fast: $(READY_DEV)
	$(PYTEST) -m "not slow and not browser and not torture and not longest" $(TESTS)

# Tests that take minutes: every backbone compared with plain Keras (12 GB of memory), presets of KerasHub, kills, full
# disks, many clients.
# TESTS=tests/torture leaves out the backbones.
torture: $(READY_DEV)
	$(PYTEST) -m "torture and not longest" $(TESTS)

# The same with their long forms, which take another hour: every backbone exported to OpenVINO, not only one per family;
# 100 kills; 100 000 images.
torture-all: $(READY_DEV)
	$(PYTEST) -m "torture or longest" $(TESTS)

# Compare with what people would use instead. BENCH="--full --into docs/BENCHMARKS.md" measures all sizes.
bench: $(READY_DEV)
	$(BIN)/python benchmarks/every.py $(BENCH)

# Approximate search of a million synthetic rows (5 GB on disk). MILLION="--index DIR" imitates the rows of an index.
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

# Pin all dependencies in pyproject.toml with hashes, for all platforms and the three Python versions: for the demo, for
# tests, and for serving where no model is prepared or trained.
COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
lock:
	$(COMPILE) --extra demo --extra learn --extra map --extra text --group pyproject.toml:encoder pyproject.toml --output-file requirements.lock
	$(COMPILE) --all-extras --group pyproject.toml:encoder --constraints requirements.lock pyproject.toml --output-file requirements-dev.lock
	$(COMPILE) --group pyproject.toml:serve --group pyproject.toml:encoder --constraints requirements.lock --output-file requirements-serve.lock

clean:
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache dist
