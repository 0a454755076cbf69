# Every target sets itself up: a Python 3.10 to 3.13, make and a package index suffice.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train train-2workers test lint tensorboard benchmark fuzz torture lock clean

train: .venv/installed
	@$(BIN)/python -m data mnist; status=$$?; \
	if [ $$status -eq 0 ]; then \
		exec $(BIN)/python train.py --flagfile=lenet.flags; \
	elif [ $$status -eq 3 ]; then \
		printf '%s\n' '' \
		'########################################################################' \
		'##  NOT MNIST: no MNIST on this machine, and none could be downloaded. ##' \
		'##  Training on the 1,797 small digits inside scikit-learn instead.    ##' \
		'##  The score below says nothing about the 99.5 % run. For that, put   ##' \
		'##  the four files where BUILD.md says and run make train again.       ##' \
		'########################################################################' \
		'' >&2; \
		exec $(BIN)/python train.py --flagfile=flags/digits.flags; \
	else exit $$status; fi

# FLAGS='--run_dir=…': others for both workers.
train-2workers: .venv/installed
	@$(BIN)/python -m data mnist
	@$(BIN)/python -m training.launch --workers=2 -- --flagfile=lenet.flags $(FLAGS)

# COVERAGE=90: fails, too, if the tests reach fewer than so many lines in a hundred.
test: .venv/installed
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
		$(if $(COVERAGE),--cov --cov-fail-under=$(COVERAGE))

lint: .venv/installed
	$(BIN)/flake8
	$(BIN)/isort --check .
	$(BIN)/mypy

# RUNS=folder: of other runs. PORT=6007: another port than the first free one.
RUNS ?= runs
tensorboard: .venv/installed
	$(BIN)/python -m evaluation.dashboard --runs=$(RUNS) $(if $(PORT),--on_port=$(PORT))

# QUICK=1: the ratios of the training step alone, in three minutes.
benchmark: .venv/installed-benchmark
ifeq ($(filter-out 0,$(QUICK)),)
	$(BIN)/python -m benchmarks
else
	$(BIN)/python -m benchmarks --quick
endif

# SECONDS=600: how long for each reader. ONLY=idx,csv: these alone.
SECONDS ?= 60
fuzz: .venv/installed
	$(BIN)/python -m fuzz --seconds=$(SECONDS) --only=$(ONLY)

# Half an hour of injected faults; a few of them are among the tests.
torture: .venv/installed
	$(BIN)/python -m torture

# The newest versions that setup.cfg allows, for all Pythons and platforms, with hashes.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'
	build/lock/bin/uv pip compile --quiet --upgrade --universal --python-version=3.10 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate \
		--extra=test --extra=fuzz --output-file=requirements.lock setup.cfg

clean:
	rm -rf .venv build native/build *.egg-info .coverage* .mypy_cache .pytest_cache

# The lock has setuptools too, so that the build fetches nothing that is not in it.
.venv/installed: requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or sys.exit("make: Python 3.10 to 3.13 wanted, " + sys.version.split()[0] + " found: name another one by make PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Not fatal, and tried again next time: a peer that cannot be had is reported missing.
.venv/installed-benchmark: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[benchmark]' \
		&& touch $@ \
		|| echo 'make: not every peer of the benchmark could be installed' >&2
