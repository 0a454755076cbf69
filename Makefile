# Every target sets itself up; it needs make, Python 3.10 to 3.13 and a package index.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help train train-2workers test lint tensorboard demo benchmark fuzz torture lock clean remake

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

train: .venv/installed  ## train and score lenet.flags, the 99.5 % run
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

train-2workers: .venv/installed  ## the same in two processes; FLAGS=--run_dir=… adds flags
	@$(BIN)/python -m data mnist
	@$(BIN)/python -m training.launch --workers=2 -- --flagfile=lenet.flags $(FLAGS)

test: .venv/developed  ## run the tests; COVERAGE=95 requires 95 % coverage
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
		$(if $(COVERAGE),--cov --cov-fail-under=$(COVERAGE))

lint: .venv/developed  ## run flake8, isort and mypy
	$(BIN)/python -m flake8
	$(BIN)/python -m isort --check .
	$(BIN)/python -m mypy

RUNS ?= runs
tensorboard: .venv/installed  ## show all runs on localhost; RUNS=folder, PORT=6007
	$(BIN)/python -m evaluation.dashboard --runs=$(RUNS) $(if $(PORT),--on_port=$(PORT))

RUN ?= pretrained/robust
demo: .venv/demo/installed  ## a page to draw digits on; RUN=folder, PORT=7861
	.venv/demo/bin/python -m photos.demo --run_dir=$(RUN) $(if $(PORT),--on_port=$(PORT))

benchmark: .venv/installed-benchmark  ## compare with Keras, PyTorch and JAX; QUICK=1: the step only
ifeq ($(filter-out 0,$(QUICK)),)
	$(BIN)/python -m benchmarks
else
	$(BIN)/python -m benchmarks --quick
endif

SECONDS ?= 60
JOBS ?= 1
fuzz: .venv/developed  ## fuzz all readers, 60 s each; SECONDS=600, ONLY=idx,csv, JOBS=2
	$(BIN)/python -m tests.fuzz --seconds=$(SECONDS) --only=$(ONLY) --jobs=$(JOBS)

torture: .venv/installed  ## inject faults into training; takes half an hour
	$(BIN)/python -m tests.torture

# For all versions of Python and all platforms, with hashes.
UPGRADE ?= --upgrade
COMPILE = build/lock/bin/uv pip compile --quiet $(UPGRADE) --universal --python-version=3.10 \
	--generate-hashes --no-emit-index-url --no-header --no-annotate setup.cfg
lock:  ## pin the newest allowed versions; UPGRADE=: only where needed
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet 'uv>=0.13,<0.14'
	$(COMPILE) --output-file=requirements.lock
	$(COMPILE) --output-file=requirements-dev.lock --constraint=requirements.lock \
		--extra=test --extra=fuzz

clean:  ## remove the environment and build products, but no runs or data
	rm -rf .venv build native/build *.egg-info .coverage* .mypy_cache .pytest_cache

# pip.conf and PIP_* may choose the package index, but not the packages or their place.
export PIP_CONSTRAINT := /dev/null
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_REQUIRE_HASHES := 0
export PIP_USER := 0
unexport PIP_PREFIX PIP_REQUIREMENT PIP_ROOT PIP_TARGET PYTHONHOME
PIP := $(BIN)/python -I -m pip

# --no-deps, as a lock lists every package. Without it, pip up to 23.2 takes the newest
# version of a requirement with an extra, then refuses it as it has no hash.
INSTALL_LOCK := $(PIP) install --quiet --no-deps --only-binary=:all: --require-hashes --requirement

# An environment keeps a copy of its lock. We make it again if the lock has changed, its
# set-up was interrupted, its Python is gone, or another Python is requested.
INSTALLED := $(shell cmp -s requirements.lock .venv/requirements.lock \
	&& test ! -e .venv/unfinished && $(BIN)/python --version 2>/dev/null)
ASKED := $(if $(filter file,$(origin PYTHON)),$(INSTALLED),$(shell $(PYTHON) --version 2>/dev/null))
ifneq ($(INSTALLED),$(or $(ASKED),none))
REMAKE := remake
endif

.venv/requirements.lock: $(REMAKE)
	@command -v $(PYTHON) >/dev/null || { echo \
		'make: $(PYTHON) not found; name a Python 3.10 to 3.13 with make PYTHON=…' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or sys.exit(1)' || { echo \
		'make: $(PYTHON) is not Python 3.10 to 3.13; name one that is with make PYTHON=…' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo \
		'make: $(PYTHON) has no ensurepip, which .venv needs; on Debian: apt install python3-venv' >&2; exit 1; }
	@echo 'make: setting up .venv, once, in a minute or two' >&2
	$(PYTHON) -m venv --clear .venv
	@touch .venv/unfinished
	$(INSTALL_LOCK) requirements.lock
	@rm .venv/unfinished
	@cp requirements.lock $@

# Builds with the lock's setuptools, so that it downloads nothing.
.venv/installed: .venv/requirements.lock setup.cfg pyproject.toml
	@touch .venv/unfinished
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	@rm .venv/unfinished
	@touch $@

.venv/developed: .venv/installed requirements-dev.lock
	@touch .venv/unfinished
	$(INSTALL_LOCK) requirements-dev.lock
	$(PIP) check
	@rm .venv/unfinished
	@touch $@

# Not fatal, and tried again next time: a peer that is not installed is reported missing.
.venv/installed-benchmark: .venv/installed
	$(PIP) install --quiet --no-build-isolation --editable '.[benchmark]' \
		&& touch $@ \
		|| echo 'make: not every peer of the benchmark could be installed' >&2

# Gradio needs an older Pillow than the lock has. So the demo has an environment of its
# own, which takes from .venv all that it does not install itself.
SITE := import sysconfig; print(sysconfig.get_path("purelib"))
.venv/demo/installed: .venv/installed
	$(BIN)/python -m venv --clear .venv/demo
	@echo "import site; site.addsitedir(r'$$($(BIN)/python -c '$(SITE)')')" \
		> "$$(.venv/demo/bin/python -c '$(SITE)')/outer.pth"
	.venv/demo/bin/python -I -m pip install --quiet --no-build-isolation --editable '.[demo]'
	@touch $@
