# Everything a fresh machine needs is installed by the targets themselves, pinned.
# `make demo` runs the main job, `make test` passes all tests, `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# embedded | kind (needs Docker) | existing (uses $$KUBECONFIG)
CLUSTER ?= embedded
REGISTRY ?= 127.0.0.1:5000
SYSTEM_PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_VERSION := 0.13.9

PYTHON := .venv/bin/python
UV := .local/uv/bin/uv
CLUSTER_DRIVER := $(SYSTEM_PYTHON) -m local_cluster
ENGINE := $(if $(filter kind,$(CLUSTER)),docker,buildah)
BUILD := $(SYSTEM_PYTHON) images/build.py --registry $(REGISTRY) --engine $(ENGINE)

export PATH := $(CURDIR)/.local/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/operator:$(CURDIR)
export PYTHONUNBUFFERED := 1
ifneq ($(CLUSTER),existing)
export KUBECONFIG := $(CURDIR)/.local/kubeconfig
endif

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# ---------------------------------------------------------------- the main job
.PHONY: demo demo-down
demo: cluster-up images model ## One manifest, one agent, one answer: on a real cluster
	@$(SYSTEM_PYTHON) examples/demo.py run

demo-down: ## Remove the demo and stop the cluster
	@if $(CLUSTER_DRIVER) status --provider $(CLUSTER) >/dev/null 2>&1; then $(SYSTEM_PYTHON) examples/demo.py down; fi
	@$(CLUSTER_DRIVER) down --provider $(CLUSTER)

# ---------------------------------------------------------------- cluster, images, model
.PHONY: cluster-up metrics-server cluster-down cluster-status cluster-purge images model clerk install
cluster-up: ## Start the cluster (built on first use)
	@$(CLUSTER_DRIVER) up --provider $(CLUSTER)

metrics-server: cluster-up ## Add a metrics-server to the embedded cluster (built on first use)
	@$(CLUSTER_DRIVER) metrics-server --provider $(CLUSTER)

cluster-down: ## Stop the cluster; nothing stays running, mounted or routed
	@$(CLUSTER_DRIVER) down --provider $(CLUSTER)

cluster-status: ## What runs, and since when
	@$(CLUSTER_DRIVER) status --provider $(CLUSTER)

cluster-purge: ## Stop the cluster and delete its caches and images
	@$(CLUSTER_DRIVER) purge --provider $(CLUSTER)

images: ## Build and push the operator and runtime images
	@$(BUILD)

model: images ## Train the tiny model in the runtime image and push it as an OCI artefact
	@$(BUILD) --train examples/models/geography/questions.jsonl --tag v1

clerk: images ## The same with the tiny model that uses tools
	@$(BUILD) --train examples/models/clerk/dialogues.py --tag v1

install: ## Install the chart with the images just built
	@$(SYSTEM_PYTHON) examples/demo.py install

# ---------------------------------------------------------------- development environment
.PHONY: venv
venv: .venv/ready ## Create the development environment (.venv)

$(UV):
	@$(SYSTEM_PYTHON) -c 'import ensurepip' 2>/dev/null || { apt-get update -qq && apt-get install -y -qq python3-venv; }
	@$(SYSTEM_PYTHON) -m venv .local/uv
	@.local/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/ready: requirements/dev.txt | $(UV)
	@echo "==> development environment (.venv): $$(grep -c '==' requirements/dev.txt) packages, about 5 GB with torch"
	@$(UV) venv --quiet --allow-existing --python $(SYSTEM_PYTHON) .venv
	@$(UV) pip sync --quiet --python $(PYTHON) --require-hashes requirements/dev.txt
	@touch $@

RUNTIME_EXTRAS := --extra a2a --extra grammar --extra otel --extra quantization --extra redis --extra s3
.PHONY: lock
lock: | $(UV) ## Resolve the dependencies anew into requirements/
	@compile="$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header pyproject.toml"; \
	$$compile --all-extras --group dev --python-version 3.11 -o requirements/dev.txt; \
	$$compile --extra operator --python-version 3.13 -o requirements/operator.txt; \
	$$compile --extra runtime $(RUNTIME_EXTRAS) --overrides requirements/without-torch.txt --python-version 3.13 -o requirements/runtime.txt; \
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  requirements/s3-standin.in -o requirements/s3-standin.txt

.PHONY: generate
generate: venv ## Regenerate the CRD, the chart's copy of it, the references and the peers' children
	@$(PYTHON) -m agent_operator.api.crd > .local/crd.yaml && mv .local/crd.yaml crds/agentoperator.dev_agentdeployments.yaml
	@cp crds/agentoperator.dev_agentdeployments.yaml charts/agent-operator/files/
	@$(PYTHON) -m agent_operator.api.reference > .local/reference.md && mv .local/reference.md docs/reference/agentdeployment.md
	@$(PYTHON) charts/readme.py
	@$(PYTHON) -m bench.peers.children
	@$(PYTHON) -m tests.conformance.report

# ---------------------------------------------------------------- tests
.PHONY: test lint test-unit test-clients test-fuzz test-fault test-contract test-aot test-leader test-shards test-churn test-e2e test-cluster test-long
test: ## Everything: lint, unit, property, contract, chart, end to end, cluster life cycle
	@begin=$$SECONDS; was_up=no; \
	if $(CLUSTER_DRIVER) status --provider $(CLUSTER) >/dev/null 2>&1; then was_up=yes; fi; \
	$(MAKE) --no-print-directory lint cluster-up images install; \
	echo "==> beside what needs no cluster: ten minutes of churn, then the contract tests"; \
	$(MAKE) --no-print-directory test-churn test-contract >.local/test-beside.log 2>&1 & beside=$$!; \
	trap 'kill $$beside 2>/dev/null || true' EXIT; \
	$(MAKE) --no-print-directory test-unit test-clients test-fuzz test-fault; \
	echo "==> waiting for the churn and the contract tests"; \
	wait $$beside || { cat .local/test-beside.log; exit 1; }; \
	trap - EXIT; grep -v '^ *$$' .local/test-beside.log; \
	$(MAKE) --no-print-directory model clerk; \
	$(MAKE) --no-print-directory test-aot test-leader test-shards test-e2e test-cluster; \
	if [ $$was_up = no ]; then $(MAKE) --no-print-directory cluster-down; fi; \
	echo "==> make test: everything passed in $$(( (SECONDS - begin) / 60 ))m$$(( (SECONDS - begin) % 60 ))s"

lint: venv ## Style, types, layering, and drift of generated files
	@echo "==> lint"
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --quiet --check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports --no-logo
	@$(PYTHON) -m agent_operator.api.crd --check
	@$(PYTHON) -m agent_operator.api.reference --check
	@$(PYTHON) charts/readme.py --check
	@$(PYTHON) -m tests.conformance.report --check
	@cmp crds/agentoperator.dev_agentdeployments.yaml charts/agent-operator/files/agentoperator.dev_agentdeployments.yaml

REDIS := from local_cluster.preflight import install_packages as i; i({"redis-server": "/usr/bin/redis-server"})
test-unit: venv ## Tests that need no cluster
	@$(SYSTEM_PYTHON) -c '$(REDIS)'
	@echo "==> unit, property and model tests"
	@$(PYTHON) -m pytest tests/unit tests/property tests/model tests/conformance \
		tests/aot/test_generator.py tests/aot/test_prediction.py --ignore tests/conformance/cluster

test-clients: venv ## OpenAI's npm client against the runtime
	@echo "==> npm client"
	@$(PYTHON) -m tests.clients.install
	@$(PYTHON) -m pytest tests/clients

test-fuzz: venv ## 20,000 requests made from the OpenAPI description, and poison by hand
	@echo "==> fuzz: 20,000 requests"
	@$(PYTHON) -m pytest -s tests/fuzz

test-fault: venv ## The operator over a faulty API server in memory: 2,000 histories, a crash at every write
	@echo "==> faults: crashes, stale and missing events"
	@$(PYTHON) -m pytest tests/fault

test-contract: venv ## The API, the chart and the operator's checklist against the real API server
	@echo "==> contract, chart and conformance tests"
	@$(PYTHON) -m pytest tests/contract tests/chart tests/conformance/cluster

test-aot: venv ## 1,500 mutations of manifests, each followed through the operator and back
	@echo "==> automatic operator testing"
	@$(PYTHON) -m pytest -s tests/aot

test-leader: venv ## Two operators: kill, freeze, cut network, clock jumps
	@echo "==> leader election under faults"
	@$(PYTHON) -m pytest -s tests/fault_cluster

test-shards: venv ## Two operators that share the agents by a label
	@echo "==> shards"
	@$(PYTHON) -m pytest -s tests/scale/test_shards.py

test-churn: venv ## Ten minutes of churn on simulated nodes
	@echo "==> churn"
	@$(PYTHON) -m pytest -s tests/scale/test_churn.py

test-e2e: venv ## The whole system on the real node
	@echo "==> end to end"
	@$(PYTHON) -m pytest -v tests/e2e

test-cluster: venv ## The embedded cluster's own life cycle (takes it down and up)
	@if [ $(CLUSTER) = embedded ]; then echo "==> cluster life cycle"; $(PYTHON) -m pytest -v tests/cluster; fi

test-long: venv ## Soaks: not part of make test
	@$(PYTHON) -m pytest -v -s -m long tests/long
	@FAULT_HISTORIES=20000 $(PYTHON) -m pytest tests/fault
	@CHURN_SECONDS=3600 $(PYTHON) -m pytest -s tests/scale/test_churn.py

# ---------------------------------------------------------------- benchmarks
.PHONY: bench bench-list bench-report
bench: venv ## Run benchmarks or whole areas: make bench CLAIM="name ..."
	@$(PYTHON) -m bench run $(CLAIM)

bench-report: venv ## Write docs/benchmarks.md from the results
	@$(PYTHON) -m bench report

bench-list: venv ## The claims and their goals
	@$(PYTHON) -m bench list
