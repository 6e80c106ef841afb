# Everything runs in .venv, which is created on first use. It needs only Python 3.11 or newer (PYTHON=... selects one).

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DOCS := .venv/.docs
INSTALL = $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt

# A .venv that was moved or copied still points to its old place, so it is created again.
ifneq ("$(shell cat $(READY) 2>/dev/null)","$(CURDIR)")
$(shell rm -f $(READY))
endif

.PHONY: help demo contract ui ui-test test quick fleet faults short-faults chaos matrix oldest lint coverage mutants docs stills build smoke tag bench clean
.DELETE_ON_ERROR:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST)

demo: $(READY) ## make a video with the example DAG on the built-in simulator (SEGMIND_API_KEY=...: on Segmind, for money)
	@$(BIN)/python scripts/demo.py

contract: $(READY) ## ask the built-in simulator all that the provider relies on, and buy a clip there
	@$(BIN)/python -m scripts.contract $(ARGS)

ui: $(READY) ## start Airflow's UI with finished, failed and running clips of the examples on the simulator; Ctrl-C ends it
	@$(BIN)/python -m scripts.ui

ui-test: $(READY) ## the pages in a real browser; leaves its screenshots in .screenshots/
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	@$(BIN)/python -m pip --disable-pip-version-check install -qq 'playwright>=1.50'
	@$(BIN)/python -m pytest tests/browser $(ARGS)

WORKERS ?= 2
test: $(READY) ## run all tests (ARGS=... for pytest, WORKERS=... processes)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

QUICK := tests/claims/test_drift.py tests/decorators tests/hooks tests/jobs tests/links tests/operators tests/segmind tests/sensors \
  tests/triggers tests/test_media.py tests/test_outlets.py tests/test_storage.py --ignore=tests/triggers/test_history_faults.py
quick: $(READY) ## run the quick tests, for use while editing: without Airflow, stores or simulated hours
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q $(QUICK) $(ARGS)

coverage: $(READY) ## line and branch coverage of the quick tests and those of MP4 files; fails below the floor in pyproject.toml
	@$(INSTALL) pytest-cov
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q --cov=airflow_provider_luma $(QUICK) tests/test_mp4.py $(ARGS)

MODULES ?= airflow_provider_luma.segmind.* airflow_provider_luma.jobs.*
mutants: $(READY) ## change jobs/ and segmind/ here and there, and list the changes that no test notices (MODULES=...); hours
	@$(INSTALL) mutmut
	@$(BIN)/mutmut run $(foreach module,$(MODULES),'$(module)') && { $(BIN)/mutmut results | grep -v ': not checked' || true; }

short-faults: $(READY) ## the short form of the fault tests: two preemptions for two attempts, ten trials with processes
	@LUMA_SCHEDULES=2 LUMA_TRIALS=10 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q tests/claims/test_processes.py \
	  tests/schedules/test_contenders.py -k 'for_one_path or two_attempts or two_hosts or siblings' $(ARGS)

faults: $(READY) ## the long fault tests: 20,000 simulated jobs, all schedules with three preemptions, 50 trials with processes; an hour
	@LUMA_FAULT_EXAMPLES=20000 LUMA_SCHEDULES=3 LUMA_TRIALS=50 \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/faults tests/schedules tests/claims $(ARGS)

RUNS ?= 30
chaos: $(READY) ## kill processes of a real Airflow, at least 30 times (RUNS=0: a few times)
	@LUMA_CHAOS_RUNS=$(RUNS) $(BIN)/python -m pytest tests/e2e $(ARGS)

FLEET := apache-airflow-providers-celery 'celery[redis]' psycopg2-binary asyncpg
fleet: $(READY) ## a Celery fleet with PostgreSQL and Redis, its processes killed and suspended; an hour (SHORT=1: minutes; FLEET_CLIPS, SEED)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && command -v redis-server >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql redis-server; }
	@$(INSTALL) $(FLEET)
	@LUMA_FLEET_SHORT=$(SHORT) LUMA_FLEET_CLIPS=$(FLEET_CLIPS) LUMA_FLEET_SEED=$(SEED) $(BIN)/python -m pytest tests/fleet $(ARGS)

VERSIONS ?= $(filter-out extras,$(basename $(notdir $(wildcard constraints/*.txt))))
matrix: ## run the tests on other versions of Airflow (VERSIONS=... of constraints/, ARGS=... for pytest)
	@for version in $(VERSIONS); do \
	  printf '\n%s\n' "$$version"; \
	  test -e .matrix/$$version/.ready || { \
	    $(PYTHON) -m venv --clear .matrix/$$version && \
	    .matrix/$$version/bin/python -m pip --disable-pip-version-check install -qq -c constraints/$$version.txt -e '.[simulator,dev]' && \
	    touch .matrix/$$version/.ready; } || exit 1; \
	  .matrix/$$version/bin/python -m pytest -q -n $(WORKERS) --dist worksteal -o filterwarnings=default $(ARGS) || exit 1; \
	done

OLDEST := tests/test_batch.py tests/test_nights.py tests/storage tests/operators tests/triggers tests/sensors tests/hooks tests/jobs
oldest: ## run the tests of jobs, stores and batches on the oldest supported Airflow
	@$(MAKE) --no-print-directory matrix VERSIONS=airflow-3.2.2 ARGS='$(OLDEST) $(ARGS)'

lint: $(READY) ## check style, types and workflows
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
ifneq ($(wildcard .github),)
	@$(INSTALL) zizmor
	$(BIN)/zizmor --offline --quiet --persona=pedantic .github
endif

docs: $(DOCS) ## build the documentation site in docs/_build/html; a warning or a link that leads nowhere is an error
	@$(BIN)/python -m sphinx --builder html --nitpicky --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build/html
	@$(BIN)/python scripts/check_links.py docs/_build/html

stills: $(READY) ## take the pictures of docs/ anew, of the pages of `make ui` and of a clip; seven minutes
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	@$(BIN)/python -m pip --disable-pip-version-check install -qq 'playwright>=1.50'
	@$(BIN)/python -m scripts.stills

# Out of 10. What is missing is named in pyproject.toml: an author's e-mail address, and URLs.
PYROMA := 7
build: $(READY) ## build wheel and sdist in dist/, reproducibly, and check them
	@$(INSTALL) check-wheel-contents hatchling pyroma twine
	$(BIN)/python scripts/build_dist.py dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m check_wheel_contents dist
	$(BIN)/pyroma --min $(PYROMA) --quiet .
	$(BIN)/python scripts/check_dist.py dist

EXTRAS ?= simulator s3 azure gcs
smoke: build ## install the wheel alone, run the first DAG, then install each extra (EXTRAS=...); downloads a gigabyte
	@$(BIN)/python -m scripts.smoke dist $(EXTRAS)

tag: $(READY) ## check that TAG (or the tag that a workflow runs for) is this version's, and that the changelog has it
	@$(BIN)/python scripts/check_tag.py $(TAG)

bench: $(READY) ## benchmark the provider against its peers (ARGS=... for the benchmarks)
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove what make created, but never a video
	rm -rf .venv .matrix .airflow dist mutants docs/_build .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv without its stamp is incomplete, so it is cleared. The stamp is removed before a change and written after it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "$(PYTHON) is not Python 3.11 or newer: select one, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	@echo "Installing into .venv; this happens once and takes a few minutes ..."
	@test -e $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	@$(INSTALL) -e '.[simulator,dev]'
	@printf '%s' "$(CURDIR)" > $@

$(DOCS): $(READY)
	@$(INSTALL) -e '.[docs]'
	@touch $@
