# `make demo` and `make test` set up what they need: a machine with Python >= 3.11, make and a package index is enough.
# Python packages go into .venv; a second run finds its stamps there and starts at once. Programs that only the tests
# need (podman, runc, an image registry) are Debian packages: `make system` installs those that are missing.

.DEFAULT_GOAL := help
.PHONY: help setup system demo test check pytest simulate bench pins clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# Twice quiet: errors are still shown.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input

PYTEST_ARGS ?=
# Most tests wait for other processes: more than one at a time is quicker even on two cores. Files keep their order:
# xdist would begin with those of the most tests, and end with one process at work on a few long ones.
PYTEST_JOBS ?= 2
BENCH_ARGS ?=
DEMO_ARGS ?=
SEEDS ?= 5000

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(STAMPS)/package $(STAMPS)/demo $(STAMPS)/test $(STAMPS)/check ## install starburst and all Python packages that tests need

system: ## install missing programs that tests in containers need (apt-get, as root or with sudo)
	@sh requirements/system.sh

demo: $(STAMPS)/package $(STAMPS)/demo ## run the demonstration on this machine (DEMO_ARGS=...)
	@$(BIN)/starburst demo $(DEMO_ARGS)

test: system check pytest ## check, then run all tests (PYTEST_ARGS=...)

check: $(STAMPS)/package $(STAMPS)/test $(STAMPS)/check ## lint, format, types, import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-cache

pytest: system $(STAMPS)/package $(STAMPS)/test | check
	$(BIN)/python -m pytest -n $(PYTEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

simulate: $(STAMPS)/package $(STAMPS)/test ## whole sessions in virtual time, under faults (SEEDS=5000)
	@$(BIN)/python tests/simulation --seeds $(SEEDS)

bench: $(STAMPS)/package $(STAMPS)/bench ## measure starburst beside its rivals (BENCH_ARGS="--only noop --repeat 3")
	@$(BIN)/python -m bench $(BENCH_ARGS)

pins: $(BIN)/python ## resolve pyproject.toml anew into requirements/*.txt
	@$(BIN)/python requirements/pins.py

clean: ## remove what was installed and cached
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis bench/results

$(BIN)/python: | requirements/venv.sh
	@sh requirements/venv.sh $(VENV)

# Editable: a change of the sources needs no new installation, a change of pyproject.toml does.
$(STAMPS)/package: pyproject.toml $(STAMPS)/runtime
	@echo "installing starburst into $(VENV)"
	@$(PIP) install --no-deps --editable .
	@touch $@

$(STAMPS)/%: requirements/%.txt pyproject.toml | $(BIN)/python
	@echo "installing $< into $(VENV)"
	@$(PIP) install --requirement $<
	@mkdir -p $(STAMPS) && touch $@
