# `make` lists what there is. Everything runs in .venv, which `make setup` makes once.

SHELL := /bin/sh
PY := .venv/bin/python
STAMP := .venv/.setup-done
SOURCES := schemas topics stream tests

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults test-r lint format latency report lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with the locked dependencies (once; needs the network only then)

demo: $(STAMP) ## See it run: DATA=FILE for your attempts, KEEP=1 to stay up, R=1 for the R services
	.venv/bin/thetastream demo $(if $(DATA),--data "$(DATA)") $(if $(KEEP),--keep) $(if $(R),--r)

test: lint ## Check format, lint, types and imports, then run the tests (ARGS=... for pytest)
	$(PY) -m pytest -m "not r and not faults" $(ARGS)

test-faults: $(STAMP) ## Run the tests that stop servers and wait for time-outs (five minutes)
	$(PY) -m pytest -m faults tests/faults $(ARGS)

test-r: $(STAMP) ## Run the tests of the R services and of the report (as root on Debian it installs R)
	sh r/install.sh
	sh r/test.sh
	$(PY) -m pytest -m r tests/r tests/report $(ARGS)

lint: $(STAMP) ## Check format, lint, types and the direction of imports
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

format: $(STAMP) ## Format the code and repair what the linter can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

latency: $(STAMP) ## Measure how soon an attempt is in the lookup and in PostgreSQL
	$(PY) -m bench.latency

report: $(STAMP) ## Write the weekly report: WEEK=2025-W13 OUT=report.html
	.venv/bin/thetastream report $(if $(WEEK),--week $(WEEK)) --out $(or $(OUT),report.html)

# Universal: one file for Linux (x86_64, arm64) and macOS, Python 3.11 and later. setuptools is
# what builds the project itself, so that nothing unlocked is fetched for it. The second file is
# what the container image has: the same versions, less what only development and the local stack
# need.
lock: ## Resolve the dependencies anew into the two lock files (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	echo 'setuptools>=77' | uv pip compile pyproject.toml - --universal --python-version 3.11 \
		--extra local --extra dev --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command 'make lock' --quiet -o requirements.lock
	echo 'setuptools>=77' | uv pip compile pyproject.toml - --universal --python-version 3.11 \
		--extra embedded -c requirements.lock --no-annotate \
		--generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command 'make lock' --quiet -o requirements-runtime.lock

clean: ## End the local stack, remove its state and all caches (.venv and the broker's jars stay)
	@if [ -e $(STAMP) ]; then .venv/bin/thetastream local down; fi
	@if [ -d .local ]; then find .local -mindepth 1 -maxdepth 1 ! -name cache -exec rm -rf {} +; fi
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

# The newest Python that works here and can make environments; uv, where there is one, needs none.
# A missing venv module shows only in the import of ensurepip (Debian leaves that part out).
$(STAMP): requirements.lock pyproject.toml
	@set -eu; \
	if command -v uv >/dev/null 2>&1; then \
		$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
			|| { rm -rf .venv; uv venv --quiet --python '>=3.11,<3.14' .venv; }; \
		echo "setup: installing the locked dependencies (uv)"; \
		uv pip install --quiet --python $(PY) --no-deps --require-hashes -r requirements.lock; \
		uv pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .; \
	else \
		if ! $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=; \
			for one in python3.13 python3.12 python3.11 python3; do \
				if $$one -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
					>/dev/null 2>&1; then python=$$one; break; fi; \
			done; \
			if [ -z "$$python" ]; then \
				echo "setup: no Python 3.11 or later with venv and pip was found."; \
				echo "  Debian, Ubuntu:  apt install python3-venv"; \
				echo "  Fedora:          dnf install python3"; \
				echo "  macOS:           brew install python@3.13"; \
				echo "  anywhere:        install uv; it brings a Python of its own"; \
				exit 1; \
			fi; \
			echo "setup: making .venv with $$($$python -V)"; \
			rm -rf .venv; \
			$$python -m venv .venv; \
		fi; \
		echo "setup: installing the locked dependencies (pip)"; \
		$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
			-r requirements.lock; \
		$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
			--no-build-isolation -e .; \
	fi; \
	echo "setup: compiling the engine (about a minute, once)"; \
	$(PY) -m stream.engine.warm_up; \
	touch $@

.PHONY: chaos
chaos: $(STAMP) ## Break things while attempts come in, then compare everything: ROUNDS=20 SEED=1
	$(PY) -m bench.chaos $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: outage
outage: $(STAMP) ## Take PostgreSQL away under load, then compare everything: MINUTES=5 RATE=5000
	$(PY) -m bench.outage $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE)) $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Measure beside other engines: QUICK=1 takes under 5 minutes, without Java
	QUICK=$(QUICK) $(PY) -m bench $(ARGS)

.PHONY: evaluate
evaluate: $(STAMP) ## Predict each answer before it is seen, beside Elo and others: DATA=FILE for yours
	.venv/bin/thetastream evaluate $(if $(DATA),"$(DATA)") $(ARGS)
