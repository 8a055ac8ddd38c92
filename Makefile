# The front door. `make help` lists the targets.

PYTHON ?= python3.11
RECIPE ?=
RUN ?=
OUTPUT ?=
IMAGES ?=
RANKS ?= 1
ARGS ?=
LOGDIR ?= runs
PORT ?= 6006
WORKERS ?= 2
LOAD ?=
STUDY ?= smoke smoke_learning
IMAGE ?= capsnet:dev
ACCELERATOR ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)

VENV := .venv
BIN := $(VENV)/bin
# What is installed depends on these; another accelerator makes another stamp.
INSTALLED := $(VENV)/.installed-$(ACCELERATOR)
TESTING := $(VENV)/.testing
HOROVOD := $(VENV)/.horovod-$(ACCELERATOR)
NEWEST = $(patsubst %/checkpoints,%,$(shell ls -1dt runs/*/checkpoints 2>/dev/null | head -n 1))
# Workers take whole files, whose tests share runs; more of them than cores would only be in each other's way.
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

export CAPSNET_FRONT := make
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help train evaluate predict compare export tensorboard probe doctor recipes test test-unit test-cluster lint format bench bench-routing bench-parts bench-xla horovod image lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  variables: RECIPE=%s RANKS=%s ACCELERATOR=%s RUN=runs/NAME\n             ARGS="--model.routing.iterations 2" IMAGES="shoe.png photos"\n' \
		"$(or $(RECIPE),quick)" "$(RANKS)" "$(ACCELERATOR)"

train: $(INSTALLED) $(if $(filter-out 1,$(RANKS)),$(HOROVOD)) ## train (RECIPE=, RANKS=, ARGS=), or go on with RUN=DIR
	@exec $(BIN)/capsnet launch --ranks $(RANKS) train $(RECIPE) $(if $(RUN),--run $(RUN)) $(ARGS)

evaluate: $(INSTALLED) $(if $(filter-out 1,$(RANKS)),$(HOROVOD)) ## score the best checkpoint of RUN=DIR (default: the newest)
	@exec $(BIN)/capsnet launch --ranks $(RANKS) evaluate $(or $(RUN),$(NEWEST)) $(ARGS)

predict: $(INSTALLED) ## what RUN=DIR (default: the newest) sees in IMAGES=, as CSV
	@exec $(BIN)/capsnet predict $(or $(RUN),$(NEWEST)) $(IMAGES) $(ARGS)

compare: $(INSTALLED) ## compare routings (RECIPE=, ARGS=), or go on: OUTPUT=DIR
	@exec $(BIN)/capsnet compare $(RECIPE) $(if $(OUTPUT),--output $(OUTPUT)) $(ARGS)

export: $(INSTALLED) ## write RUN=DIR as a Keras model and a SavedModel to TO=DIR
	@exec $(BIN)/capsnet export $(or $(RUN),$(NEWEST)) $(TO) $(ARGS)

tensorboard: $(INSTALLED) ## watch runs (LOGDIR=, PORT=)
	@exec $(BIN)/tensorboard --logdir $(LOGDIR) --port $(PORT)

probe: $(INSTALLED) ## where it stops scaling, 5 minutes (STUDY=, OUTPUT=, ARGS=)
	@for study in $(STUDY); do $(BIN)/capsnet probe run $$study --output $(or $(OUTPUT),probes)/$$study $(ARGS) || exit; done
	@$(BIN)/capsnet probe report $(addprefix $(or $(OUTPUT),probes)/,$(STUDY)) --to $(or $(OUTPUT),probes)

doctor: $(INSTALLED) ## check this installation, with the mend where one is needed
	@exec $(BIN)/capsnet doctor $(ARGS)

recipes: $(INSTALLED) ## what there is to train
	@$(BIN)/capsnet recipes

test: $(TESTING) $(HOROVOD) lint ## all tests that need no cluster, and lint (WORKERS=, ARGS=)
	@$(PYTEST) $(ARGS)

test-unit: $(TESTING) ## the tests of seconds (WORKERS=, ARGS=)
	@$(PYTEST) tests/unit $(ARGS)

test-cluster: $(TESTING) ## tests on a cluster, see tests/cluster/conftest.py (LOAD=)
	@LOAD="$(LOAD)" $(BIN)/python -m pytest tests/cluster $(ARGS)

lint: $(TESTING) ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/hadolint docker/Dockerfile

format: $(TESTING) ## mend what lint can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(TESTING) $(HOROVOD) ## table of speeds, as ratios within one run
	@$(BIN)/python -m trainer.bench $(ARGS)
	@$(BIN)/python -m tools.bench_data
	@$(BIN)/python -m tools.bench_stop

bench-routing: $(TESTING) ## time and memory of routing against what it could cost
	@$(BIN)/python -m tools.bench_routing $(ARGS)

bench-parts: $(TESTING) ## where a recipe's step spends time and memory, part by part
	@$(BIN)/python -m tools.bench_parts $(ARGS)

bench-xla: $(TESTING) ## what XLA makes of recipes' training steps
	@$(BIN)/python -m tools.bench_xla $(ARGS)

horovod: ## build Horovod again and install it (needed for RANKS > 1)
	@rm -f $(HOROVOD)
	@REBUILD=1 $(MAKE) --no-print-directory $(HOROVOD)

image: ## build the container image (IMAGE=, ACCELERATOR=cpu or gpu)
	docker build --file docker/Dockerfile --tag $(IMAGE) --build-arg ACCELERATOR=$(ACCELERATOR) \
		--build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null)" .

lock: $(TESTING) ## write docker/requirements-*.txt anew from setup.py
	@for accelerator in cpu gpu; do \
		$(BIN)/uv pip compile --quiet --native-tls --no-header --no-annotate --generate-hashes --python-version 3.11 \
			--python-platform x86_64-manylinux_2_36 --extra $$accelerator --extra ranks \
			--output-file docker/requirements-$$accelerator.txt setup.py || exit 1; \
	done

clean: ## remove the environment and caches; runs stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): setup.py pyproject.toml
	@echo "setting up $(VENV) for $(ACCELERATOR) (once)"
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; install Python 3.11 or set PYTHON=" >&2; exit 2; }
	@# the CPU and GPU builds of TensorFlow would lie on top of each other
	@if ls $(VENV)/.installed-* 2>/dev/null | grep -qv -- '-$(ACCELERATOR)$$'; then rm -rf $(VENV); fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[$(ACCELERATOR)]'
	@touch $@

$(TESTING): $(INSTALLED)
	@$(PIP) --editable '.[$(ACCELERATOR),test]'
	@touch $@

$(HOROVOD): $(INSTALLED) docker/build-horovod
	@$(PIP) --editable '.[$(ACCELERATOR),ranks]'
	@docker/build-horovod $(BIN)/python $(ACCELERATOR)
	@touch $@
