# The everyday commands. `make run` and `make test` need nothing but Python 3.10 or newer and its venv module.

PYTHON ?= python3
VENV ?= .venv
PURE_VENV ?= .venv-pure
WORKERS ?= 4

BENCH_VENV ?= .venv-bench
REPLAY_VENV ?= .venv-replay

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run install test test-pure test-pythons chaos lint docs site picture bench replay clean

# Each stamp says what has been installed since pyproject.toml last changed.
INSTALLED = $(VENV)/.installed
INSTALLED_TEST = $(VENV)/.installed-test
INSTALLED_LINT = $(VENV)/.installed-lint
INSTALLED_DOCS = $(VENV)/.installed-docs

run: $(INSTALLED)
	$(BIN)/ostler page:app --app-dir examples --workers $(WORKERS) $(if $(PORT),--port $(PORT))

# Most tests wait: two processes take turns, and each has a file to itself.
PYTEST = -m pytest -n 2 --dist loadfile

test: $(INSTALLED_TEST)
	$(BIN)/python $(PYTEST)

# Random faults for so long, and what they cost; the same SEED is the same plan (tests/chaos.py).
MINUTES ?= 10
SEED ?=

chaos: $(INSTALLED_TEST)
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# Without C parts: what serves, on asyncio and h11, in an environment that has neither uvloop nor httptools. Left
# out is what waits out time-outs (two minutes and a half of it) to test the arbiter, which has neither anyway.
PURE_TESTS = tests/worker tests/live tests/settings/test_libraries.py tests/embed \
  $(addprefix --ignore=tests/live/test_,chaos.py death.py drain_delay.py draining.py queues.py recycling.py \
    reload_terminal.py service_manager.py signals.py storm.py stuck.py upgrade.py)

test-pure: $(PURE_VENV)/.installed
	OSTLER_TESTS_PURE=1 $(PURE_VENV)/bin/python $(PYTEST) $(PURE_TESTS)

# Every Python of Debian's unstable, in a chroot below build/: as root, on Linux. PYTHONS="3.14 pypy3.11" chooses.
test-pythons:
	tools/test_pythons.sh

install: $(INSTALLED_LINT)

lint: $(INSTALLED_LINT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict ostler tests tools examples benchmarks
	$(BIN)/python -m tools.generate_docs --check

# The generated pages and blocks of docs/.
docs: $(INSTALLED)
	$(BIN)/python -m tools.generate_docs

# The docs as pages for a browser, in site/; a link to nothing is an error, which --quiet would hide. The variable
# silences an advertisement.
site: $(INSTALLED_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The README's picture, from a real run of ostler under load.
picture: $(INSTALLED)
	$(BIN)/python -m tools.draw_bad_deploy

# Peers and ostler in an environment of their own; QUICK=1 for three workloads and one row of the latencies. It takes
# wrk and openssl (Debian: apt install wrk openssl).
bench: $(BENCH_VENV)/.installed
	$(BENCH_VENV)/bin/python -m benchmarks $(if $(QUICK),--quick)
	$(BENCH_VENV)/bin/python -m benchmarks.latency $(if $(QUICK),--quick --row burst)

$(BENCH_VENV)/.installed: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --upgrade --editable . -r benchmarks/requirements.txt
	@touch $@

# What users see of uvicorn, recorded anew from uvicorn in an environment of its own, and replayed on ostler.
replay: $(REPLAY_VENV)/.installed $(INSTALLED_TEST)
	$(REPLAY_VENV)/bin/python -m tests.replay --server uvicorn --record
	$(BIN)/python -m tests.replay --server ostler

$(REPLAY_VENV)/.installed: pyproject.toml tests/replay/requirements.txt
	$(PYTHON) -m venv $(REPLAY_VENV)
	$(REPLAY_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --upgrade --editable '.[test]' -r tests/replay/requirements.txt
	@touch $@

# The mounts of `make test-pythons` are in a namespace of its own. Others below build/ are looked for, as rm would
# delete what they show.
clean:
	@! grep -s ' $(CURDIR)/build' /proc/self/mounts || { echo "make: mounted below build/: umount it first" >&2; exit 1; }
	rm -rf $(VENV) $(PURE_VENV) $(BENCH_VENV) $(REPLAY_VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "make: $(PYTHON) is missing or older than 3.10: name another with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "make: $(PYTHON) cannot make environments: install its venv package (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml | $(BIN)/python
	$(PIP) install --editable .
	@touch $@

$(INSTALLED_TEST): pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[test]'
	@touch $@ $(INSTALLED)

# The dependencies come from ostler's own metadata, all but the two: pip itself cannot leave any out.
$(PURE_VENV)/.installed: pyproject.toml tests/pure_requirements.py | $(BIN)/python
	$(BIN)/python -m venv --clear $(PURE_VENV)
	$(PURE_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --editable .
	$(PURE_VENV)/bin/python -m tests.pure_requirements > $(PURE_VENV)/requirements.txt
	$(PURE_VENV)/bin/python -m pip --disable-pip-version-check --quiet install -r $(PURE_VENV)/requirements.txt
	$(PURE_VENV)/bin/python -m tests.pure_requirements --check
	@touch $@

# Types are checked against what the tests import.
$(INSTALLED_LINT): pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[test,lint]'
	@touch $@ $(INSTALLED) $(INSTALLED_TEST)

$(INSTALLED_DOCS): pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[docs]'
	@touch $@ $(INSTALLED)
