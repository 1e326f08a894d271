# One way to do each thing; `.ci/run` calls the same targets as people do.
SHELL := /bin/bash
.ONESHELL:
.SILENT:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# ONNX Runtime sends events and an identifier of the machine to its maker unless it is told not to.
export ORT_DISABLE_TELEMETRY := 1

PYTHON ?= python3
VENV := .venv
GPU_VENV := .venv-gpu
TORCH_VENV := .venv-torch
LOAD_VENV := .venv-loadtest
CLIENTS_VENV := .venv-clients
SUPPLY_VENV := .venv-supply
PEERS_VENV := .venv-peers
BIN := $(VENV)/bin
CHECKPOINT := checkpoints/minilm-sst2
RERANKER := checkpoints/minilm-rerank
REPOSITORY := model_repository
ENSEMBLE := $(REPOSITORY)/cf-huggingface-distilbert-sst-2-int8
# Of an ensemble's folder: the layout that was published, the one to publish, and what makes a model again if the two
# differ. LAYOUT=steps or LAYOUT=joined changes it (docs/export.md#layout), a first export is joined.
published = $(if $(wildcard $(1)_joined_*/[1-9]*/model.onnx),joined,$(if $(wildcard $(1)_encoder_*/[1-9]*/model.onnx),$(if $(call for_gpu,$(1)),,steps)))
# Says so if the model was published for a GPU, which only the layout steps can be.
for_gpu = $(if $(wildcard $(1)_encoder_*/[1-9]*/model.onnx),$(shell grep -qs 'string_value: "cuda"' $(1)/config.pbtxt && echo changed-target))
layout = $(or $(LAYOUT),$(call published,$(1)),joined)
changed = $(if $(filter-out $(call published,$(1)),$(LAYOUT)),changed-layout)
# The weights that are served: those of the highest version.
SERVED := $(shell ls -v $(ENSEMBLE)_{encoder,joined}_*/[1-9]*/model.onnx 2>/dev/null | tail -n 1)
MODEL := $(or $(SERVED),$(ENSEMBLE)_joined_int8/1/model.onnx)
# MODELS=all adds the reranker to `make serve` and `make export`.
ALL := $(filter all,$(MODELS))
RERANKER_ENSEMBLE := $(REPOSITORY)/cf-baai-bge-reranker-base
RERANKER_MODEL := $(RERANKER_ENSEMBLE)/config.pbtxt
PIP := -m pip install --quiet --disable-pip-version-check
CLIENTS := tests/clients/js
# Today's Workers tools, which cannot be installed beside the older ones, with a node that is new enough for them.
LATEST := tests/clients/js-latest
# Two, because a third of the tests' time is waiting; with three, those that measure times disturbed each other on two
# cores (15 minutes, two failures). ARGS="-n 0" takes it back.
WORKERS := -n 2
CODE := bulk gateway export embedded examples loadtest tools training tritonflare docker tests

.PHONY: help
help: ## list the targets
	grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# --- environments: a stamp per lock file, so that nothing is installed twice -----------------

define new_venv
$(PYTHON) -c 'import sys; v = sys.version_info; (3, 10) <= v[:2] <= (3, 12) or sys.exit(f"Python {v[0]}.{v[1]} will not do: Triton needs 3.10, 3.11 or 3.12. Say make PYTHON=python3.11 ...")'
# pip, not python: where ensurepip is missing, Debian leaves half an environment behind.
[ -x $(1)/bin/pip ] || $(PYTHON) -m venv --clear $(1) || { rm -rf $(1); exit 1; }
endef

$(VENV)/.serve: requirements/serve.txt pyproject.toml
	$(call new_venv,$(VENV))
	echo "installing what is needed to serve into $(VENV) (once, about a minute)"
	$(BIN)/python $(PIP) --require-hashes -r requirements/serve.txt
	$(BIN)/python $(PIP) --no-deps --editable .
	touch $@

# Never beside what `make serve` installs: onnxruntime-gpu has the files of onnxruntime.
$(GPU_VENV)/.serve-gpu: requirements/serve-gpu.txt pyproject.toml
	$(call new_venv,$(GPU_VENV))
	echo "installing what is needed to serve on an NVIDIA GPU into $(GPU_VENV) (once): 2.1 GB to download, 3.9 GB on disk, most of it CUDA and cuDNN"
	$(GPU_VENV)/bin/python $(PIP) --require-hashes -r requirements/serve-gpu.txt
	$(GPU_VENV)/bin/python $(PIP) --no-deps --editable .
	touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.serve
	echo "installing the tools for checks and tests into $(VENV)"
	$(BIN)/python $(PIP) --require-hashes -r requirements/dev.txt
	touch $@

# An environment of its own: locust pins packages that the gateway wants newer.
$(LOAD_VENV)/.loadtest: requirements/loadtest.txt
	$(call new_venv,$(LOAD_VENV))
	echo "installing the load generator into $(LOAD_VENV) (once)"
	$(LOAD_VENV)/bin/python $(PIP) --require-hashes -r requirements/loadtest.txt
	touch $@

# An environment of its own: kserve pins packages that the tests want newer. perf_analyzer comes in the wheel of an
# older tritonclient, of which nothing is imported. Compiling all modules would take longer than unpacking them, and
# most are never imported.
$(CLIENTS_VENV)/.clients: requirements/clients.txt requirements/perf-analyzer.txt
	$(call new_venv,$(CLIENTS_VENV))
	echo "installing clients of the Open Inference Protocol and of rerankers into $(CLIENTS_VENV)"
	$(CLIENTS_VENV)/bin/python $(PIP) --no-compile --require-hashes -r requirements/clients.txt
	$(CLIENTS_VENV)/bin/python $(PIP) --require-hashes --no-deps --upgrade --target $(CLIENTS_VENV)/perf-analyzer \
		-r requirements/perf-analyzer.txt
	touch $@

# An environment each: their packages are those of other servers.
$(PEERS_VENV)/%/.installed: requirements/peers-%.txt
	$(call new_venv,$(@D))
	echo "installing $* into $(@D) (once)"
	$(@D)/bin/python $(PIP) --require-hashes -r $<
	touch $@

# An environment of its own: nothing of it is served.
$(SUPPLY_VENV)/.supply: requirements/supply.txt
	$(call new_venv,$(SUPPLY_VENV))
	$(SUPPLY_VENV)/bin/python $(PIP) --require-hashes -r requirements/supply.txt
	touch $@

# Without npm, or without its registry, the tests of these clients skip with a reason (in CI they fail).
# No install scripts: the binaries come as packages.
%/node_modules/.installed: %/package.json %/package-lock.json
	if npm --version >/dev/null 2>&1 && (cd $* && npm ci --ignore-scripts --loglevel=error); then
		touch $@
	else
		echo "the JavaScript clients of $* could not be installed; their tests will say so"
	fi

$(TORCH_VENV)/.torch: requirements/torch.txt
	$(call new_venv,$(TORCH_VENV))
	$(TORCH_VENV)/bin/python $(PIP) -r requirements/torch.txt
	touch $@

# --- what people do ----------------------------------------------------------------------------

.PHONY: changed-layout changed-target
changed-layout changed-target:

# What you published yourself under the bundled model's name, or in another precision, stays.
$(MODEL): $(VENV)/.serve $(wildcard $(CHECKPOINT)/*) $(shell find export -name '*.py') $(call changed,$(ENSEMBLE)) $(call for_gpu,$(ENSEMBLE))
	config=$(ENSEMBLE)/config.pbtxt
	if [ -e $@ ] && { { [[ $@ != *_int8/* ]] && [ -z "$(call for_gpu,$(ENSEMBLE))" ]; } || { [ -e $$config ] && ! grep -q '"minilm-sst2"' $$config; }; }; then
		echo "keeping the model in $(REPOSITORY); \`make export\` puts the bundled one back"
	else
		$(BIN)/tritonflare export --quick --layout $(call layout,$(ENSEMBLE))
		touch "$$(ls -v $(ENSEMBLE)_{encoder,joined}_*/[1-9]*/model.onnx 2>/dev/null | tail -n 1)"
	fi

$(RERANKER_MODEL): $(VENV)/.serve $(wildcard $(RERANKER)/*) $(shell find export -name '*.py') $(call changed,$(RERANKER_ENSEMBLE)) $(call for_gpu,$(RERANKER_ENSEMBLE))
	if [ -e $@ ] && ! grep -q '"minilm-rerank"' $@; then
		echo "keeping the reranker in $(REPOSITORY); \`make export MODELS=all\` puts the bundled one back"
	else
		$(BIN)/tritonflare export $(RERANKER) --quick --layout $(call layout,$(RERANKER_ENSEMBLE))
		touch $@
	fi

.PHONY: serve
# gRPC as well (docs/clients.md); an empty GATEWAY_GRPC_PORT turns it off.
serve serve-gpu doctor: export GATEWAY_GRPC_PORT ?= 8001
serve: $(MODEL) $(if $(ALL)$(call for_gpu,$(RERANKER_ENSEMBLE)),$(RERANKER_MODEL)) ## run Triton and the gateway on this machine, with the bundled model; MODELS=all: the reranker too
	exec $(BIN)/tritonflare serve

# What you published yourself under a bundled model's name, or in another precision, stays here too.
# $(1): the ensemble, $(2): the name of the bundled checkpoint, $(3): its folder if it is not the default.
define export_for_gpu
config=$(1)/config.pbtxt
if [ -e $$config ] && { ! grep -q '"$(2)"' $$config || { grep -q 'string_value: "cuda"' $$config && ! grep -q 'string_value: "fp16"' $$config; }; }; then
	echo "keeping $(notdir $(1)) in $(REPOSITORY)"
else
	$(GPU_VENV)/bin/tritonflare export $(3) --quick --target cuda --if-changed
fi
endef

# Told before gigabytes are downloaded.
.PHONY: gpu-driver
gpu-driver:
	$(PYTHON) -m embedded.gpu

.PHONY: gpu-models
gpu-models: $(GPU_VENV)/.serve-gpu
	$(call export_for_gpu,$(ENSEMBLE),minilm-sst2)
	$(if $(ALL),$(call export_for_gpu,$(RERANKER_ENSEMBLE),minilm-rerank,$(RERANKER)))

.PHONY: serve-gpu
serve-gpu: gpu-driver gpu-models ## the same on an NVIDIA GPU: downloads 2.1 GB once and publishes the bundled model for the GPU (make serve: for the CPU again)
	exec $(GPU_VENV)/bin/tritonflare serve --device cuda

# On a GPU in the environment of `make serve-gpu`, which is taken where it exists.
DEVICE ?= $(if $(wildcard $(GPU_VENV)/.serve-gpu),cuda,cpu)
.PHONY: gpu-check
gpu-check: $(if $(filter cuda,$(DEVICE)),gpu-driver $(GPU_VENV)/.serve-gpu,$(VENV)/.serve) ## prove on this machine what the documents say of GPUs, within 8 minutes: make gpu-check DEVICE=cpu ARGS=--short
	$(if $(filter cuda,$(DEVICE)),$(GPU_VENV),$(VENV))/bin/python -m tools.gpu_check --device $(DEVICE) $(ARGS)

BUNDLE ?= .cache/gpu-bundle
.PHONY: gpu-bundle
gpu-bundle: $(VENV)/.serve ## make pieces of 60 MB of all that gpu-check needs on a machine without a network: make gpu-bundle BUNDLE=FOLDER
	$(BIN)/python -m tools.gpu_check.bundle --output $(BUNDLE) $(ARGS)

.PHONY: export
export: $(VENV)/.serve ## export the bundled checkpoint into model_repository/; MODELS=all: the reranker too
	$(BIN)/tritonflare export --verbose --layout $(call layout,$(ENSEMBLE))
	$(if $(ALL),$(BIN)/tritonflare export $(RERANKER) --verbose --layout $(call layout,$(RERANKER_ENSEMBLE)))

.PHONY: test
test: $(VENV)/.dev clients-env ## run all tests, the end-to-end ones on the real tritonserver
	echo "all tests take about 18 minutes on two cores; ARGS=\"-m 'not needs_triton'\" leaves the real tritonserver out"
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

.PHONY: clients
clients: $(VENV)/.dev clients-env ## run the real clients before the real Triton: SDKs, Workers, tritonclient, kserve, RAG frameworks
	$(BIN)/python -m pytest tests/clients $(ARGS)

.PHONY: clients-env
clients-env: $(CLIENTS)/node_modules/.installed $(LATEST)/node_modules/.installed $(CLIENTS_VENV)/.clients # for the tests of the clients

.PHONY: check
check: $(VENV)/.dev ## format, lint, types, layers
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(VENV)/.dev ## format the code and sort imports
	$(BIN)/ruff check --fix $(CODE) || true
	$(BIN)/ruff format $(CODE)

.PHONY: bench
bench: $(MODEL) ## measure the model in-process, through Triton and through the gateway: make bench ARGS=--quick
	$(BIN)/tritonflare bench $(ARGS)

# Five rounds of the four servers in about five minutes.
PEERS ?= fastapi,mosec
COMMA := ,
.PHONY: bench-peers
bench-peers: $(MODEL) peers-env ## measure the gateway beside other servers of the same model: make bench-peers PEERS=mosec
	$(BIN)/tritonflare bench --sections peers --peers $(PEERS) --rounds 5 --seconds 2 $(ARGS)

.PHONY: peers-env
peers-env: $(patsubst %,$(PEERS_VENV)/%/.installed,$(subst $(COMMA), ,$(PEERS))) # for the tests of the peers, too

# What was not given keeps its default; TOKEN, ACCOUNT and MODEL travel in the environment.
OUTPUT ?= .cache/loadtest
LOAD_OPTIONS = $(foreach name,PROTOCOL GRPC_HOST TRAFFIC LOOP SHAPE RATE LOAD DURATION USERS REFERENCE,$(if $($(name)),--$(shell echo $(name) | tr A-Z_ a-z-) $($(name))))
# The server that `make serve` starts with the same variables.
SERVED_HOST = $(or $(filter-out 0.0.0.0 ::,$(GATEWAY_HOST)),127.0.0.1)
SERVED_NAME = $(if $(findstring :,$(SERVED_HOST)),[$(SERVED_HOST)],$(SERVED_HOST))
SERVED_URL = http$(if $(GATEWAY_TLS_CERTIFICATE),s)://$(SERVED_NAME):$(or $(GATEWAY_PORT),8787)
GRPC_HOST ?= $(if $(HOST),,$(if $(GATEWAY_GRPC_PORT),$(SERVED_NAME):$(GATEWAY_GRPC_PORT)))
.PHONY: loadtest
loadtest: $(LOAD_VENV)/.loadtest ## load on a running server, every answer checked: make loadtest HOST=… TOKEN=… (loadtest-help: more)
	$(LOAD_VENV)/bin/locust --config loadtest/locust.conf --host $(or $(HOST),$(SERVED_URL)) \
		--html $(OUTPUT)/report.html --csv $(OUTPUT)/locust --csv-full-history --output $(OUTPUT) $(LOAD_OPTIONS) $(ARGS)

.PHONY: loadtest-help
loadtest-help: ## what make loadtest understands
	sed -n '/^```console/,/^```$$/p' docs/loadtest.md | grep -v '^```'
	echo; echo "All options, for ARGS=\"--max-p99-ms 200 ...\": $(LOAD_VENV)/bin/locust --config loadtest/locust.conf --help"

.PHONY: loadtest-compare
loadtest-compare: $(LOAD_VENV)/.loadtest ## two reports side by side: make loadtest-compare A=FOLDER B=FOLDER
	$(LOAD_VENV)/bin/python -m loadtest.compare $(A) $(B) --output $(OUTPUT)/compare

.PHONY: loadtest-env
loadtest-env: $(LOAD_VENV)/.loadtest # for the tests that run locust; they skip without it, and fail in CI

# It can take as long as you like; not part of `make test`.
.PHONY: soak
soak: $(VENV)/.dev ## all faults at random against `tritonflare serve`: make soak MINUTES=15 SEED=1
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),15) --seed $(or $(SEED),1)

.PHONY: sbom
sbom: $(VENV)/.serve $(SUPPLY_VENV)/.supply ## list what is served in sbom.cdx.json (CycloneDX)
	$(BIN)/python -m tools.inventory sbom $(SUPPLY_VENV)/bin

.PHONY: audit
audit: $(VENV)/.serve $(SUPPLY_VENV)/.supply ## look for known vulnerabilities in what is pinned (asks pypi.org)
	$(BIN)/python -m tools.inventory audit $(SUPPLY_VENV)/bin

# --- containers: docker compose with .env ---------------------------------------------------------

# With NVIDIA's runtime the files for a GPU, else those for a CPU; docker/env.sh chooses by hand.
.env:
	sh docker/check.sh
	runtimes=$$(docker info --format '{{range $$name, $$runtime := .Runtimes}}{{$$name}} {{end}}')
	if grep -qw nvidia <<<"$$runtimes"; then sh docker/env.sh; else sh docker/env.sh --cpu; fi

.PHONY: images
images: .env ## build all container images
	docker compose --profile '*' build

.PHONY: up
up: .env ## build, start and wait: Triton and the gateway as containers
	sh docker/check.sh
	docker compose up --detach --wait
	echo "Ready: http://$$(docker compose port gateway 8787)/client/v4; the API token is LOADTEST_TOKEN in .env"

.PHONY: down
down: ## stop and remove the containers; models and reports stay in their volumes
	docker compose --profile '*' down

.PHONY: logs
logs: ## follow what the containers log
	docker compose logs --follow --tail 100

.PHONY: containers
containers: $(VENV)/.dev $(CLIENTS)/node_modules/.installed ## test images and deployments on a real engine: make containers ARGS="-m 'not long'"
	$(BIN)/python -m pytest tests/containers $(ARGS)

.PHONY: doctor
doctor: $(VENV)/.serve ## say whether this machine can run the embedded Triton
	$(BIN)/tritonflare doctor

# --- what maintainers do --------------------------------------------------------------------------

.PHONY: checkpoint
checkpoint: $(TORCH_VENV)/.torch ## train the bundled checkpoint again (torch; resumable)
	$(TORCH_VENV)/bin/python -m training.sentiment.train

.PHONY: reranker
reranker: $(TORCH_VENV)/.torch ## train the bundled reranker again (torch, Debian 12; resumable)
	$(TORCH_VENV)/bin/python -m training.rerank.train

.PHONY: golden
golden: $(TORCH_VENV)/.torch ## write loadtest/golden_logits.jsonl again with transformers and torch
	$(TORCH_VENV)/bin/python -m training.golden

.PHONY: configs
configs: $(VENV)/.dev ## write tests/golden/configs again from the code
	$(BIN)/python -m tests.export.golden_configs

.PHONY: parity
parity: $(TORCH_VENV)/.torch ## compare what is exported with transformers and torch
	$(TORCH_VENV)/bin/python -m pytest tests/parity $(ARGS)

.PHONY: golden-http
golden-http: $(VENV)/.dev ## write tests/golden/http again from the gateway's answers
	REWRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/contract/test_golden.py

.PHONY: settings
settings: $(VENV)/.serve ## write .env.example and docs/settings.md anew from the code
	$(BIN)/python -m tools.settings_doc

# --no-header and no index options: a lock file names versions and hashes, not where they came from.
LOCK := compile --universal --python-version 3.10 --no-header --no-annotate --quiet pyproject.toml
.PHONY: lock
lock: ## resolve requirements/*.txt anew (needs uv)
	uv pip $(LOCK) --generate-hashes -o requirements/gateway.txt
	uv pip $(LOCK) --generate-hashes --extra embedded --extra export --extra bulk -o requirements/serve.txt
	uv pip $(LOCK) --generate-hashes --extra embedded --extra export --extra bulk --extra gpu --no-emit-package onnxruntime -c requirements/serve.txt -o requirements/serve-gpu.txt
	uv pip $(LOCK) --generate-hashes --extra export -c requirements/serve.txt -o requirements/export.txt
	uv pip $(filter-out pyproject.toml,$(LOCK)) --generate-hashes --group triton -o requirements/triton.txt
	uv pip $(LOCK) --generate-hashes --extra embedded --extra export --extra bulk --extra dev -c requirements/serve.txt -o requirements/dev.txt
	uv pip $(LOCK) --generate-hashes --extra loadtest -o requirements/loadtest.txt
	uv pip $(LOCK) --generate-hashes --extra clients -o requirements/clients.txt
	uv pip $(filter-out pyproject.toml,$(LOCK)) --generate-hashes --no-deps --group perf-analyzer -o requirements/perf-analyzer.txt
	uv pip $(filter-out pyproject.toml,$(LOCK)) --generate-hashes --group peers-fastapi -c requirements/serve.txt -o requirements/peers-fastapi.txt
	uv pip $(filter-out pyproject.toml,$(LOCK)) --generate-hashes --group peers-mosec -c requirements/serve.txt -o requirements/peers-mosec.txt
	uv pip $(LOCK) --generate-hashes --extra supply -o requirements/supply.txt
	uv pip $(LOCK) --extra torch --extra export --extra dev -c requirements/serve.txt -o requirements/torch.txt

.PHONY: clean
clean: ## remove environments and caches; published models and tokens stay
	rm -rf $(VENV) $(GPU_VENV) $(TORCH_VENV) $(LOAD_VENV) $(CLIENTS_VENV) $(SUPPLY_VENV) $(PEERS_VENV) sbom.cdx.json $(CLIENTS)/node_modules $(LATEST)/node_modules .cache/artefacts .cache/tests *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
