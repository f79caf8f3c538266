# `make` lists the targets. Everything made here lies in .venv, .cache and models, all git-ignored.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

HOST ?= 127.0.0.1
PORT ?= 8000
MODELS ?= models
SECONDS_OF_CHAOS ?= 600
CHAOS ?=

VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/done
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# pip warns of retries and of places without a package, which are no news; its errors come through.
WITHOUT_WARNINGS := 2> >(grep -v ^WARNING >&2)
LOCKS := requirements/supervisor.txt requirements/engines-cpu.txt requirements/dev.txt
IMAGE_TOOLS := .cache/image-tools/done
BENCH_INFINITY := .cache/bench/infinity/done
BENCH_LITELLM := .cache/bench/litellm/done
TORCH_INDEX := https://download.pytorch.org/whl/cpu

export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

# The first Python that fits and really runs: a version manager's shim may be on the path and still not work.
FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3; do \
	"$$each" -c '$(FITS)' 2>/dev/null && { echo "$$each"; break; }; done)

.PHONY: help demo setup models test test-unit test-zoo chaos bench bench-switch bench-proxy bench-embed \
	bench-supervisor bench-queue lint format lock clean image image-test image-check-gpu

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile
	echo "Variables: PYTHON (3.11 to 3.13), HOST=$(HOST) and PORT=$(PORT) of the demo, MODELS=$(MODELS)," \
		"SECONDS_OF_CHAOS=$(SECONDS_OF_CHAOS)."

demo: setup models ## Install, prepare three small models and serve them; Ctrl-C stops.
	@echo "== serving $(MODELS) on http://$(HOST):$(PORT); Ctrl-C stops"
	exec $(BIN)/local-llm serve --models "$(MODELS)" --host "$(HOST)" --port "$(PORT)"

setup: $(DONE)/project ## Make .venv with both engines and the tools, from pinned versions.
	@:

models: setup ## Prepare the demonstration models in models/.
	@$(BIN)/python -m demo.prepare_models --into "$(MODELS)"

test: lint models ## Lint, types, then every test, on real engines and models too.
	@echo "== tests without engines"
	$(BIN)/pytest -m "not engines" -n 2
	echo "== tests with real engines"
	$(BIN)/pytest -m engines

test-unit: setup ## The tests that need neither engines nor models.
	@$(BIN)/pytest -m "not engines" -n 2

test-zoo: setup ## Start every model of the test zoo that vLLM can start on this CPU (some minutes).
	@$(BIN)/python -m tests.zoo.start

chaos: setup ## Break everything at random for SECONDS_OF_CHAOS, and judge (CHAOS="--replay 7", "--engines real").
	@$(BIN)/python -m benchmarks.chaos --seconds $(SECONDS_OF_CHAOS) $(CHAOS)

bench: bench-switch bench-proxy bench-embed bench-supervisor ## The next four, into RESULTS.md (half an hour).
	@echo "== benchmarks/RESULTS.md is written"

bench-switch: models ## A switch between models, warm beside cold, with the real engines.
	@$(BIN)/python -m benchmarks.switch

bench-proxy: setup $(BENCH_LITELLM) ## The data path beside nginx and others (7 minutes; needs nginx and wrk).
	@$(BIN)/python -m benchmarks.proxy

bench-embed: models $(BENCH_INFINITY) ## Embeddings a second beside sentence-transformers and Infinity (10 minutes).
	@$(BIN)/python -m benchmarks.embed

bench-supervisor: setup ## The supervisor's start, memory and scan of 1,000 models (a minute).
	@$(BIN)/python -m benchmarks.supervisor_figures

bench-queue: setup ## Who waits how long: the queue's policy beside a greedy one, in simulated time.
	@$(BIN)/python benchmarks/queue_trace.py

image: ## Build the container image with Docker, for this machine's CPU (or GPU=1; .env is heeded).
	@docker compose -f compose.yaml $(if $(GPU),-f compose.gpu.yaml) build local-llm

image-test: models $(IMAGE_TOOLS) ## Build the image, run it, judge it; as root also without Docker installed.
	@$(BIN)/python -m tests.image

image-check-gpu: models $(IMAGE_TOOLS) ## The same with NVIDIA's image on this machine's GPU (needs Docker).
	@$(BIN)/python -m tests.image --gpu

lint: setup ## Format, lint rules and types, without changing a file.
	@echo "== lint and types"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy demo deploy tests/image tests/tiny_models.py tests/zoo benchmarks tests/test_chaos.py

format: setup ## Format, and fix what can be fixed.
	@$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Pin the requirements anew (UPGRADE=1 takes newer versions).
	@PYTHON="$(PYTHON)" requirements/lock $(if $(UPGRADE),--upgrade)

clean: ## Remove the environment, the models and every cache.
	@rm -rf $(VENV) .cache models .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Steps of the set-up. Each leaves a file in .venv/done when it is complete and runs again when what it
# was made from has changed. The locks name every package, so pip has nothing to resolve: --no-deps.

$(DONE)/venv:
	@python="$(PYTHON)"
	if [[ -z $$python ]]; then
		echo "No Python 3.11, 3.12 or 3.13 that runs and can make environments (python3 is:" \
			"$$(python3 --version 2>&1 || true))." >&2
		echo "Install one, e.g. 'apt install python3.11 python3.11-venv', or name it:" \
			"make PYTHON=/path/to/python3.11 ..." >&2
		exit 1
	fi
	if ! "$$python" -c '$(FITS)'; then
		echo "PYTHON=$$python is not a Python 3.11, 3.12 or 3.13 with venv and ensurepip." >&2
		exit 1
	fi
	echo "== environment in $(VENV), with $$("$$python" --version) (seconds)"
	"$$python" -m venv --clear $(VENV)
	mkdir -p $(DONE)
	touch $@

# PyTorch's own index has the CPU build; where it cannot be reached, pip may still find a local wheel.
$(DONE)/torch: requirements/torch-cpu.txt $(DONE)/venv
	@echo "== torch for the CPU (190 MB, about half a minute)"
	if ! $(PIP) install --quiet --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) -r $< \
		$(WITHOUT_WARNINGS); then
		echo "torch for the CPU was not found: is $(TORCH_INDEX) reachable, and does it have a" \
			"build for $$($(BIN)/python --version)?" >&2
		exit 1
	fi
	touch $@

$(DONE)/requirements: $(LOCKS) $(DONE)/torch
	@total=$$(sed -n 's/^\([^ ;=]*\)==.*/\1/p' $(LOCKS) | sort -u | wc -l)
	echo "== $$total pinned packages, vLLM and the tools among them (0.6 GB, two to four minutes)"
	$(PIP) install --no-deps --require-hashes --progress-bar off $(LOCKS:%=-r %) $(WITHOUT_WARNINGS) \
		| awk -v total=$$total '/^Collecting / && ++n % 40 == 0 { print "   " n " of " total; fflush() }
			/^Installing collected/ { print "   all fetched, installing"; fflush() }'
	touch $@

$(DONE)/project: pyproject.toml $(DONE)/requirements
	@echo "== this project, editable (seconds)"
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Linters of the container's files, in an environment of their own: they are no business of the project's.
$(IMAGE_TOOLS): requirements/image-tools.txt $(DONE)/venv
	@echo "== linters for the container's files (seconds)"
	$(BIN)/python -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $< \
		$(WITHOUT_WARNINGS)
	touch $@

# Infinity, to measure beside; it wants older libraries. Where it cannot be installed the rest is measured.
$(BENCH_INFINITY): requirements/bench-infinity.txt requirements/torch-cpu.txt $(DONE)/venv
	@echo "== Infinity, to measure beside (150 MB and torch, a minute or two)"
	$(BIN)/python -m venv --clear $(@D)
	pip="$(@D)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --no-deps --retries 1"
	if $$pip --extra-index-url $(TORCH_INDEX) -r requirements/torch-cpu.txt $(WITHOUT_WARNINGS) \
		&& $$pip --require-hashes -r $< $(WITHOUT_WARNINGS); then
		touch $@
	else
		echo "Infinity was not installed; measuring without it." >&2
		rm -rf $(@D)
	fi

# LiteLLM, the same way. It needs nothing that is not in its lock.
$(BENCH_LITELLM): requirements/bench-litellm.txt $(DONE)/venv
	@echo "== LiteLLM's proxy, to measure beside (half a minute)"
	$(BIN)/python -m venv --clear $(@D)
	if $(@D)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --no-deps --retries 1 \
		--require-hashes -r $< $(WITHOUT_WARNINGS); then
		touch $@
	else
		echo "LiteLLM was not installed; measuring without it." >&2
		rm -rf $(@D)
	fi
