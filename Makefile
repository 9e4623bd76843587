# Everything anyone needs to do here is one target. Each of them builds .venv first when it is missing, or when the lock
# file or pyproject.toml has changed. Needs python3 >= 3.11, make and git; nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
# The name of the sentinel holds the checksum of what was installed, so that a change of branch reinstalls too.
INSTALLED := $(VENV)/.installed-$(shell cat $(LOCK) pyproject.toml | cksum | cut -d ' ' -f 1)

# Two workers: the tests start servers and processes of their own. Each keeps a run of one module's tests, so that a
# server shared by a module is started once.
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
PARALLEL := -n $(WORKERS) --dist worksteal
COVERAGE := --cov --cov-report=term --cov-report=json
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format bench faults sim mutations fuzz tamper exactness coverage lock install clean gpu-check

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

demo: $(INSTALLED) ## a network on this machine, one real job, its receipt, an audit (ARGS=--keep leaves it up)
	$(BIN)/assay demo $(ARGS)

# With ARGS only the tests that they choose: without the 500 seeds.
test: lint ## lint, 500 seeds of the simulation and the whole test suite; what continuous integration runs
	@mkdir -p build
	$(if $(ARGS),,$(BIN)/python -m tests.simulation.run)
	$(PYTEST) $(PARALLEL) $(COVERAGE) $(ARGS)
	@$(BIN)/python tests/style/branch_floor.py build/coverage.json

lint: $(INSTALLED) ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## put the sources into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## measure, and write build/bench.json
	@mkdir -p build
	$(BIN)/python tests/benchmarks/run.py $(ARGS)

faults: $(INSTALLED) ## five minutes of faults on three NATS servers with all actors (ARGS="--seconds 60 --seed 2")
	@mkdir -p build
	$(BIN)/python -m tests.faults.run $(ARGS)

sim: $(INSTALLED) ## the simulated network under 500 seeds of faults (ARGS="--seeds 0:10000" for more)
	$(BIN)/python -m tests.simulation.run $(ARGS)

mutations: $(INSTALLED) ## plant defects into the running code; the simulation finds each (ARGS="--seeds 0:1000")
	$(BIN)/python -m tests.simulation.mutations $(ARGS)

fuzz: $(INSTALLED) ## 100,000 nearly right inputs for every parser (ARGS="--executions 1000000 --parser npy")
	$(BIN)/python -m tests.fuzz.run $(ARGS)

tamper: $(INSTALLED) ## change stored logs, read models, wallets in 2,400 ways; all must be found (ARGS="--count 9600")
	$(BIN)/python -m tests.tampering.run $(ARGS)

exactness: $(INSTALLED) ## 10,000 honest products and as many with one bit changed; no error either way (ARGS="--count 100000")
	$(BIN)/python -m tests.actors.attestation.long $(ARGS)

gpu-check: $(INSTALLED) ## every kernel on this machine's GPU, against CPU and clock; builds PyCUDA; build/gpu-check.json
	$(BIN)/python -m tests.kernels.gpu.check $(ARGS)

coverage: $(INSTALLED) ## the tests of the deterministic packages, with the lines and branches they miss
	@mkdir -p build
	$(PYTEST) $(PARALLEL) $(COVERAGE) --cov-report=html $(ARGS) \
		$(wildcard tests/schemas tests/events tests/projections tests/golden tests/simulation)
	@$(BIN)/python tests/style/branch_floor.py build/coverage.json

lock: $(INSTALLED) ## resolve the newest versions that pyproject.toml allows into requirements.lock
	$(BIN)/uv lock --quiet --upgrade
	$(BIN)/uv export --quiet --frozen --format requirements.txt --no-emit-project --extra dev --no-header -o $(LOCK) >/dev/null
	rm -f uv.lock

install: $(INSTALLED) ## only build .venv

$(INSTALLED): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Assay needs Python 3.11 or newer; say where it is: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
