# `make demo` and `make test` set up what they need; bare `make` prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# The embedded models (98 MB and 84 MB) are downloaded once, for the demo and the tests alike.
export LLMBACKEND_MODELS_DIR ?= $(CURDIR)/.models
# The last that `models pull` fetches.
MODEL := $(LLMBACKEND_MODELS_DIR)/all-MiniLM-L6-v2.int8.onnx

.DEFAULT_GOAL := help
PLATFORMS := linux win32 darwin
.PHONY: help install demo test test-long test-live test-clients test-sdk contract-sdk test-async serve check $(PLATFORMS:%=types-%) types-program bench compare fuzz notebooks docs snippets

# More than there are processors: most of the time, tests wait.
PROCESSES ?= 6
PARALLEL := --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

help:  ## Print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) $(MODEL)  ## Make .venv with the package, and fetch the embedded models

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(MODEL): | $(INSTALLED)
	$(BIN)/llmbackend models pull

demo: install  ## Run the main job on the shipped documents, in process and over HTTP
	$(BIN)/llmbackend demo

# What fails beside the others (exit code 1) has a second try alone: on a busy machine a server may start too late.
test: install  ## Run all tests
	$(BIN)/pytest $(PARALLEL) || { test $$? = 1 && $(BIN)/pytest --last-failed --last-failed-no-failures none --exitfirst; }
	$(MAKE) --no-print-directory notebooks

test-long: install  ## Run the tests that take long, or try the same at more moments and sizes
	$(BIN)/pytest -m long

test-live: $(INSTALLED)  ## Test against the servers named by LIVE_VLLM_URL, LIVE_LITELLM_URL, LIVE_LITELLM_KEY, LIVE_RERANK_URL
	$(BIN)/pytest tests/live -m live

# Not all can be installed together: LlamaIndex's classes need openai 2.
CLIENTS := .venv-clients
OPENAI2 := llama-index-llms-openai-like llama-index-embeddings-openai-like
OPENAI3 := langchain-openai langchain-tests llm openai-agents
LANGCHAIN := -o asyncio_mode=auto -o asyncio_default_test_loop_scope=session -o asyncio_default_fixture_loop_scope=session
BY_CLIENTS := tests/contract/test_openai_client.py tests/upstream/test_openai_client.py tests/upstream/test_chat.py tests/live/test_openai_client.py tests/live/clients tests/live/responses
# openai-node and the AI SDK, where there is npm.
NODE := $(if $(shell command -v npm),$(CLIENTS)/node/installed)

test-clients: $(MODEL) $(CLIENTS)/2/installed $(CLIENTS)/3/installed $(NODE)  ## Test by openai 2 and 3, its Agents SDK, LangChain, LlamaIndex, llm, openai-node and the AI SDK, before LIVE_VLLM_URL
	$(CLIENTS)/2/bin/pytest $(BY_CLIENTS) -m ''
	$(if $(NODE),NODE_CLIENTS=$(CURDIR)/$(CLIENTS)/node) $(CLIENTS)/3/bin/pytest $(BY_CLIENTS) -m '' $(LANGCHAIN)

$(CLIENTS)/node/installed: Makefile
	mkdir -p $(@D)
	npm --prefix $(@D) install --silent --no-audit --no-fund openai ai @ai-sdk/openai zod
	@touch $@

$(CLIENTS)/%/installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --editable '.[embedded,server]' 'openai==$*.*' $(OPENAI$*) pytest pytest-timeout
	@touch $@

test-async: install  ## Run the contract suite by the client for `await`
	ASYNC_CLIENT=1 $(BIN)/pytest tests/contract $(PARALLEL)

SDK_VERSION ?= 3.9
SDK_VERSIONS := 3.9 3.10 3.12 3.13 3.14
# Run, for pyenv's python3.9 is there before there is a Python 3.9.
SDK_FOUND := $(if $(filter test-sdk,$(MAKECMDGOALS)),$(foreach v,$(SDK_VERSIONS),$(if $(shell python$(v) -c 'print(1)' 2>/dev/null),$(v))))

test-sdk: install $(SDK_FOUND:%=.venv-sdk/%/installed)  ## Test the SDK's file alone by each Python from 3.9 on that is found
	SDK_PYTHONS=$$(echo $(SDK_FOUND:%=$(CURDIR)/.venv-sdk/%/bin/python) | tr ' ' :) $(BIN)/pytest tests/unit/test_sdk_alone.py

contract-sdk: install .venv-sdk/$(SDK_VERSION)/tables  ## Test the SDK's file alone by Python 3.9 (SDK_VERSION=3.13) with the contract suite
	SDK_PYTHON=$(CURDIR)/.venv-sdk/$(SDK_VERSION)/bin/python $(BIN)/pytest tests/contract $(PARALLEL)

.venv-sdk/%/installed:
	python$* -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check requests python-dotenv
	@touch $@

.venv-sdk/%/tables: .venv-sdk/%/installed  # of which the SDK takes what its user has
	$(@D)/bin/pip install --quiet --disable-pip-version-check numpy pandas polars pyarrow tqdm
	@touch $@

serve: install  ## Serve on http://127.0.0.1:8888
	$(BIN)/llmbackend serve

check: $(INSTALLED)  ## Lint and type-check, for Linux, Windows and macOS
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory --jobs $(PLATFORMS:%=types-%) types-program

types-linux:
	$(BIN)/mypy --platform linux --cache-dir .mypy_cache/linux

# On others, what Python itself lacks there; packages, five sixths of the time, are checked once, so what needs their types is not.
ALONE := --no-site-packages --ignore-missing-imports --allow-subclassing-any --allow-untyped-decorators --no-warn-return-any --no-warn-unused-ignores
types-win32 types-darwin: types-%:
	MYPYPATH=sdk $(BIN)/mypy --platform $* --cache-dir .mypy_cache/$* --config-file= --strict $(ALONE) -p llmbackend -p llm_client

types-program:
	cd tests/typed && $(CURDIR)/$(BIN)/mypy program.py

bench: install  ## Measure; DATA=folder adds retrieval (corpus.jsonl, queries.jsonl), FILES=folder parsing (expected.jsonl)
	$(BIN)/pytest tests/benchmarks -m benchmark -s $(if $(DATA),--data $(DATA)) $(if $(FILES),--files $(FILES))

compare: install  ## Measure beside another checkout with a .venv, WITH=folder; ONLY="search server" for some
	$(BIN)/python tests/benchmarks/compare.py $(WITH) $(ONLY)

# With dependencies of its own that the package has no use for.
FUZZ := .venv-fuzz

fuzz: install  ## Try /openapi.json's routes with whatever schemathesis makes up, for SECONDS (600)
	test -x $(FUZZ)/bin/schemathesis || ($(PYTHON) -m venv $(FUZZ) && $(FUZZ)/bin/pip install --quiet 'schemathesis>=4,<5')
	SCHEMATHESIS=$(FUZZ)/bin/schemathesis $(BIN)/python -m tests.fuzz

notebooks: install  ## Run the notebooks on both transports
	$(BIN)/python tests/notebooks.py

# With dependencies of its own that the package has no use for.
DOCS := .venv-docs

docs:  ## Build docs/ as a site, with a reference of every call, in site/
	test -x $(DOCS)/bin/mkdocs || ($(PYTHON) -m venv $(DOCS) && $(DOCS)/bin/pip install --quiet 'mkdocs-material>=9.5,<10' 'mkdocstrings[python]>=0.26,<2')
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict

# Only what README tells to install, then what pages tell beyond it, and pytest.
SNIPPETS := .venv-snippets

snippets: $(MODEL)  ## Run every example of README and docs/ in an environment that has only what they tell to install
	test -x $(SNIPPETS)/bin/pytest || ($(PYTHON) -m venv $(SNIPPETS) && $(SNIPPETS)/bin/pip install --quiet \
		'.[embedded,server,notebook,sklearn]' openai pandas pyarrow pytest pytest-timeout)
	$(SNIPPETS)/bin/pytest tests/contract/test_docs.py tests/contract/test_readme.py
