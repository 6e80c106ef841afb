# Everything runs in .venv, which the first target makes; all it takes is Python 3.11 or newer (PYTHON=... names one).

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# A .venv that was moved or copied here still points to where it was made: it is made anew.
ifneq ("$(shell cat $(READY) 2>/dev/null)","$(CURDIR)")
$(shell rm -f $(READY))
endif

.PHONY: help demo ui test quick faults short-faults chaos lint build bench clean
.DELETE_ON_ERROR:

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST)

demo: $(READY) ## a video, made by the example DAG on the built-in simulator (SEGMIND_API_KEY=...: by Segmind, for money)
	@$(BIN)/python scripts/demo.py

ui: $(READY) ## Airflow's UI with clips in it, finished, failed and in flight, by the examples on the simulator; until Ctrl-C
	@$(BIN)/python -m scripts.ui

WORKERS ?= 2
test: $(READY) ## the tests (ARGS=... for pytest, WORKERS=... processes)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

QUICK := tests/claims/test_drift.py tests/decorators tests/hooks tests/jobs tests/links tests/operators tests/segmind tests/sensors \
  tests/triggers tests/test_imports.py tests/test_media.py tests/test_outlets.py tests/test_storage.py
quick: $(READY) ## what a change needs every minute: the tests that start no Airflow and no store
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q $(QUICK) $(ARGS)

short-faults: $(READY) ## their short form: two preemptions for two attempts, ten trials of processes
	@LUMA_SCHEDULES=2 LUMA_TRIALS=10 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q tests/claims/test_processes.py \
	  tests/schedules/test_contenders.py -k 'for_one_path or two_attempts or two_hosts or siblings' $(ARGS)

faults: $(READY) ## the faults at length: 20,000 lives, every schedule with three preemptions, 50 trials of processes: an hour
	@LUMA_FAULT_EXAMPLES=20000 LUMA_SCHEDULES=3 LUMA_TRIALS=50 \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/faults tests/schedules tests/claims $(ARGS)

RUNS ?= 30
chaos: $(READY) ## a real Airflow whose processes are killed, 30 times and more (RUNS=0: a handful of times)
	@LUMA_CHAOS_RUNS=$(RUNS) $(BIN)/python -m pytest tests/e2e $(ARGS)

lint: $(READY) ## style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

build: $(READY) ## wheel and sdist in dist/, checked
	@rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python scripts/check_dist.py dist

bench: $(READY) ## what the provider costs, beside its peers (ARGS=... for the benchmarks)
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove all that make made, but never a video
	rm -rf .venv .airflow dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Without its stamp a .venv is half-made, so it is cleared; the stamp goes away before, and comes back after, a change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed and $(PYTHON) is not: name one, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	@echo "Installing into .venv: once, a few minutes ..."
	@test -e $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	@$(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt -e '.[simulator,dev]'
	@printf '%s' "$(CURDIR)" > $@
