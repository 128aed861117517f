# All the set-up there is: Python 3.10 or newer, make, a package index.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart check test test-machines browser fuzz kills lint bench notebooks docs clean

quickstart: $(INSTALLED)  ## the whole chain on the embedded sandbox, on the CPU
	$(BIN)/preflab quickstart

# One thread per test worker, unless the environment says otherwise: several OpenMP pools on the same cores slow each
# other down.
test: lint  ## everything that must hold; ends with pytest's own line
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -q -n $(WORKERS)

check: lint  ## what to run after every change: lint, types and the fast tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -q -n $(WORKERS) \
		-m "not slow and not browser and not gpu and not fuzz and not kills"

fuzz: $(INSTALLED)  ## thousands of broken inputs, some minutes
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -q -n $(WORKERS) -m fuzz

kills: $(INSTALLED)  ## every command killed at random moments and started again, some minutes
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -q -m kills

# What decides by which kernels, in how many threads and in which order numbers are computed; each is one run.
MACHINES ?= OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
	OMP_NUM_THREADS=2 PREFLAB_TEST_ORDER=1
NUMERICAL = $(foreach name,against_trl against_trl_others against_trl_reward generate guards kto \
	load logps loop loop_objectives merge objectives objectives_runs objectives_theory precision prefix processes reference \
	resume reward_reading score steps ties training,$(wildcard tests/*/test_$(name).py))

test-machines: $(INSTALLED)  ## the numerical tests as other processors run them; one of them: make test-machines MACHINES=…
	@set -e; for setting in $(MACHINES); do echo "== $$setting"; env OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
		$$setting $(BIN)/python -m pytest -q -n $(WORKERS) $(NUMERICAL); done

browser:  ## Debian's chromium for the tests of pages, where there is no browser and it can be installed
	@if for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do \
		command -v $$name && break; done > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium || \
		echo "chromium could not be installed: the tests of pages have no browser"; \
	else echo "there is no browser, and to install Debian's takes root and apt-get: the tests of pages have none"; fi

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## our steps against TRL's, on this machine; other models and data: make bench ARGS="--model … --pairs …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,bench]"
	$(BIN)/python benchmarks/bench.py $(ARGS)

notebooks: $(INSTALLED)  ## run the notebooks from top to bottom, and store them with what they showed
	OMP_NUM_THREADS=1 $(BIN)/python notebooks/execute.py

docs: $(INSTALLED)  ## the site of the documentation, in site/; a warning is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,docs]"
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache

# The stamp is older than these files only when they have changed, so nothing is installed twice.
# The constraints are in force for every install: they keep one set of versions, torch's among them.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "preflab needs Python 3.10 or newer, this is %d.%d: make PYTHON=/path/to/python3.x" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@
