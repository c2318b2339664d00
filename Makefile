# make demo: install and run the main job. make sweep: compare 12 settings. make test: everything that must hold. See README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo sweep test test-slow bench bench-quick bench-profile bench-convert bench-job bench-strategies docs dist lint clean

demo: $(VENV)/installed
	$(BIN)/cogbatch run jobs/demo/job.yaml
	$(BIN)/cogbatch report runs/demo

sweep: $(VENV)/installed build/scenes-300.parquet
	$(BIN)/cogbatch sweep jobs/demo/sweep.yaml

build/scenes-300.parquet: $(VENV)/installed
	mkdir -p build
	$(BIN)/python -m jobs.demo.scenes $@ --num-scenes 300 --seed 10000

test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: $(VENV)/installed-sat
	$(BIN)/python -m pytest -m "slow or sat"

# The tables of docs/benchmarks.md; under 15 minutes on 2 cores.
bench: $(VENV)/installed-dev
	$(BIN)/python -m tests.bench.engine --write docs/benchmarks.md

bench-quick: $(VENV)/installed-dev
	$(BIN)/python -m tests.bench.engine --quick

bench-profile: $(VENV)/installed-dev
	$(BIN)/python -m tests.bench.engine --profile

bench-strategies: $(VENV)/installed-dev
	$(BIN)/python -m tests.bench.strategies

# What of docs/ the code writes: the reference, the pictures of the tutorials, by running them, and that
# of the report, which needs Chromium and its driver.
docs: $(VENV)/installed-dev
	$(BIN)/python -m docs.make.reference
	$(BIN)/python -m docs.make.pictures
	$(BIN)/python -m docs.make.report

bench-job: $(VENV)/installed-dev
	$(BIN)/python -m tests.bench.job

# Writes and removes 10 GB in the system's temporary folder.
bench-convert: $(VENV)/installed-dev
	$(BIN)/python -m tests.bench.convert

# Markers, so that a second call installs nothing; the lock pins every version.
$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cogbatch needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); torch alone may take minutes"
	$(INSTALL) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) -e ".[dev,embedding,quantization]"
	touch $@

# SwissArmyTransformer, to run the checkpoints that conversions are compared with. Builds deepspeed.
$(VENV)/installed-sat: $(VENV)/installed-dev
	$(INSTALL) -e ".[dev,embedding,quantization,sat]"
	touch $@

# What nodes of a cluster install: this checkout as a wheel, and the versions that were tested together. The same
# commit gives the same bytes, so that "ray up" sees no change where there is none.
dist: $(VENV)/installed
	rm -rf dist build/lib
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct || date +%s) $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .
	cp requirements.lock dist

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
