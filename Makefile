# Two commands matter: `make demo` and `make test`. Both make the virtual environment first if it is not there.
# Options are handed on: make test ARGS='-k drain', make -s demo ARGS=--json

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One worker runs the tests with real processes, one after the other (tests/conftest.py), the other one the rest.
WORKERS ?= 2

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
# All but `ray`, which is as large as all others together: it has a lock and an environment of its own.
EXTRAS := cluster report sim uvloop
RAY_VENV := .venv-ray
RAY_STAMP := $(RAY_VENV)/.installed

# What derives from a dispatcher or replaces its methods (fuzzer, mutants, defects of the demo), or counts lines of
# Python, stays with the pure form, and so does reading a snapshot (`mesh-sim replay`).
COMPILED_TESTS := --ignore tests/broker/dispatch/test_complexity.py --ignore tests/broker/dispatch/test_snapshot.py \
  tests/broker/dispatch tests/broker/journal tests/broker/test_engine.py \
  $(wildcard tests/agent_stub/test_session*.py) tests/simulator/test_parity.py tests/simulator/test_world.py \
  tests/simulator/test_network.py tests/simulator/test_faults.py tests/simulator/test_recorder.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick check compile test-compiled bench bench-quick soak test-ray chaos system requirements telemetry lock install clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The same as `mesh demo`, with the sabotages that show that it can fail (MESH_SABOTAGE=drop-row).
demo: $(STAMP) ## one broker, three agents, real faults: see that no job is lost (ARGS=--json)
	@$(BIN)/python -m tests.e2e.demo $(ARGS)

test: $(STAMP) ## all tests but the soaks (ARGS='-k drain', WORKERS=0 for one process)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-ray: $(RAY_STAMP) ## the tests of the simulator on Ray, in an environment of their own (80 MB to fetch)
	@$(RAY_VENV)/bin/python -m pytest -m ray $(ARGS)

test-quick: $(STAMP) ## the tests that need neither processes nor patience
	@$(BIN)/python -m pytest -n $(WORKERS) -m 'not (slow or e2e or soak or ray)' $(ARGS)

check: $(STAMP) ## format, lint, types, import layers, generated code, wire contract (ARGS=--json)
	@$(BIN)/python -m tests.meta.check $(ARGS)

bench: $(STAMP) ## measure everything into bench/results/latest.json
	@$(BIN)/python -m bench $(ARGS)

bench-quick: $(STAMP) ## the same from fewer rounds or jobs, without mesh-sim solve
	@$(BIN)/python -m bench --quick $(ARGS)

compile: $(STAMP) ## a copy whose hot modules are compiled, in build/compiled: twice to three times as fast
	@$(BIN)/python -m compiled $(ARGS)

test-compiled: compile ## the tests of dispatcher, session, journal and simulator on that copy (ARGS=tests/simulator)
	@build/compiled/python -m pytest -p compiled.plugin -o pythonpath= -n $(WORKERS) $(or $(ARGS),$(COMPILED_TESTS))

soak: $(STAMP) ## the tests that run for minutes to hours
	@$(BIN)/python -m pytest -m soak --timeout 0 $(ARGS) || { \
	  status=$$?; test $$status -ne 5 || echo 'soak: nothing matched, nothing ran' >&2; exit $$status; }

chaos: $(STAMP) ## faults against real processes, with controls that must be caught (ARGS='--row ID', ARGS=--list)
	@$(BIN)/python -m tests.chaos $(ARGS)

system: ## list and install the Debian packages that some tests need (asks unless CI=true)
	@sh requirements/system.sh

requirements: $(STAMP) ## which tests show which requirement (ARGS=--json)
	@$(BIN)/python -m tests.meta.requirements $(ARGS)

telemetry: $(STAMP) ## what the broker tells: a real Prometheus runs the query of every panel (ARGS=--json)
	@$(BIN)/python -m tests.meta.telemetry $(ARGS)

lock: $(STAMP) ## resolve requirements/*.txt again (ARGS=--upgrade)
	@$(COMPILE) $(addprefix --extra ,$(EXTRAS)) --group dev $(ARGS) pyproject.toml -o requirements/dev.txt
	@printf 'uv\n' | $(COMPILE) --no-annotate -c requirements/dev.txt - -o requirements/uv.txt
	@printf 'ray\n' | $(COMPILE) --no-annotate -c requirements/dev.txt - -o requirements/ray.txt

install: $(STAMP) ## make the virtual environment only

clean: ## remove the virtual environment and every cache
	@rm -rf $(VENV) $(RAY_VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Words go to stderr: standard output belongs to the command that was asked for.
$(STAMP): requirements/dev.txt requirements/uv.txt requirements/install.sh pyproject.toml
	@sh requirements/install.sh '$(PYTHON)' '$(VENV)' >&2
	@touch $@

$(RAY_STAMP): $(STAMP) requirements/ray.txt
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(RAY_VENV)
	@$(BIN)/uv pip sync --quiet --python $(RAY_VENV)/bin/python --require-hashes requirements/dev.txt requirements/ray.txt
	@$(BIN)/uv pip install --quiet --python $(RAY_VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
