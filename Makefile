# DSE: `make run` to see it, `make test` to trust it.

PYTHON ?= python3
VENV   := .venv
DSE    := $(VENV)/bin/dse
INDEX  := build/stdlib
PORT   ?= 8000

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-serving test-scale test-interop test-clients soak fuzz openapi check setup setup-dev models install-models clean

help: ## say what there is to do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: $(INDEX)/CURRENT ## index Python's standard library and serve it at http://127.0.0.1:8000
	$(DSE) serve --index $(INDEX) --port $(PORT)

test: setup-dev ## set up with the training extra and run every test that has what it needs
	$(VENV)/bin/python -m pytest

SOAK ?= 600

soak: setup-dev ## kill every writer at every system call, then at random times for SOAK seconds in all (needs strace); overload
	DSE_SOAK=$(SOAK) DSE_SOAK_REPORT=build/soak.json $(VENV)/bin/python -m pytest tests/index/test_crashes.py tests/app/test_live.py; \
		result=$$?; cat build/soak.json; exit $$result

check: setup-dev ## format, lint, types, import rules and tests (CI runs test-serving as well)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" scripts/check

test-serving: ## run the tests, but those of the page and the index, where torch was never installed, as where the service runs
	$(PYTHON) -m venv $(VENV)-serving
	$(VENV)-serving/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,parquet]'
	! $(VENV)-serving/bin/python -c "import torch" 2>/dev/null
	$(VENV)-serving/bin/python -m pytest --ignore tests/page --ignore tests/index # torch has no part in these

test-scale: ## run the tests of more than one machine (Milvus, Ray, deploy/) with what they need, in an environment of its own
	$(PYTHON) -m venv $(VENV)-scale
	$(VENV)-scale/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,parquet,scale]'
	$(VENV)-scale/bin/python -m pytest tests/index/test_contract.py tests/index/test_milvus.py \
		tests/index/test_milvus_switch.py tests/index/test_milvus_filters.py tests/app/test_milvus.py \
		tests/index/test_ray_workers.py tests/scripts/test_build_on_ray.py tests/test_deploy.py

test-interop: ## load the shipped students with sentence-transformers, and point mteb at the service (needs DSE_DATA)
	$(PYTHON) -m venv $(VENV)-interop
	$(VENV)-interop/bin/python -m pip install --quiet torch==2.13.0
	$(VENV)-interop/bin/python -m pip install --quiet 'sentence-transformers[onnx]>=5.7,<7' --editable '.[dev]'
	$(VENV)-interop/bin/python -m pytest tests/model/test_sentence_transformers.py
	$(VENV)-interop/bin/python -m pip install --quiet 'mteb>=2.26,<3' openai
	$(VENV)-interop/bin/python -m pytest tests/clients/test_mteb.py

CLIENTS := $(VENV)-clients
# Some of the libraries leave their connections to the garbage collector.
UNCLOSED := ignore::ResourceWarning

$(CLIENTS)/.installed: pyproject.toml constraints.txt tests/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --requirement tests/clients/requirements.txt --editable '.[dev]'
	! $(CLIENTS)/bin/python -c "import torch" 2>/dev/null
	@touch $@

test-clients: $(CLIENTS)/.installed ## point client libraries at the running service, in an environment of their own
	$(CLIENTS)/bin/python -m pip install --quiet --requirement tests/clients/requirements.txt
	$(CLIENTS)/bin/python -m pytest -W $(UNCLOSED) tests/clients
	$(CLIENTS)/bin/python -m pip install --quiet --no-deps --upgrade cohere # LangChain and LlamaIndex hold it back
	$(CLIENTS)/bin/python -m pytest -W $(UNCLOSED) tests/clients/test_clients.py -k TestCohere

FUZZ ?= 10000

fuzz: setup-dev $(CLIENTS)/.installed ## send FUZZ spoilt requests, FUZZ of spoilt bytes, and as many made up from the schema
	DSE_FUZZ=$$((2 * $(FUZZ))) $(VENV)/bin/python -m pytest tests/app/test_fuzz.py
	DSE_EXAMPLES=$$(($(FUZZ) / 15)) $(CLIENTS)/bin/python -m pytest tests/clients/test_schema.py

openapi: setup-dev ## write docs/openapi.json anew, after a change to the HTTP contract that was meant
	$(VENV)/bin/python -m tests.app.test_openapi

setup: $(VENV)/.serving ## install what serving needs (no torch)

setup-dev: $(VENV)/.development ## install everything: training, tests, linters

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serving: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.development: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[train,parquet,dev]'
	@touch $@ $(VENV)/.serving

build/stdlib.jsonl: scripts/stdlib_corpus.py | $(VENV)/.serving
	$(DSE) data stdlib --output $@

# An index remembers its encoder: another bundle, another index.
$(INDEX)/CURRENT: build/stdlib.jsonl $(wildcard model/bundles/dse-minilm-l6/manifest.json) | $(VENV)/.serving
	$(DSE) index build $< --output $(INDEX)

# Training: every step reads files and writes files, and one that was stopped is taken up again.
RUNS    := runs
DATA    ?= $(or $(DSE_DATA),data)
RECIPES := scripts/recipes
# INIT=DIR gives the folder of the pretrained weights; without it the recipes' hub id is fetched.
FROM     = --data $(DATA) $(if $(INIT),--init $(INIT))
SILVER  := $(RUNS)/silver.tsv.gz
WITH     = --data $(DATA) --silver $(SILVER)
MODELS  := teacher-minilm-l6 dse-minilm-l6 dse-minilm-l3 dse-static
BUILT   := $(MODELS:%=$(RUNS)/bundles/%/manifest.json)

models: $(BUILT) ## rebuild every shipped bundle from its recipe and the data (docs/training.md), below runs/bundles

install-models: $(BUILT) ## put the rebuilt bundles where the service ships them
	for name in $(MODELS); do rm -rf model/bundles/$$name && cp -r $(RUNS)/bundles/$$name model/bundles/ || exit 1; done

$(RUNS)/teacher/signal.json: | $(VENV)/.development
	$(DSE) teacher train $(RECIPES)/teacher.toml $(FROM) --output $(@D)

$(SILVER): $(RUNS)/teacher/signal.json
	$(DSE) silver $(RECIPES)/silver.toml --data $(DATA) --signal $(RUNS)/teacher --output $@

$(RUNS)/.labelled: $(SILVER)
	$(DSE) teacher label $(RECIPES)/served_teacher.toml $(WITH) --signal $(RUNS)/teacher --output $(RUNS)/logits.jsonl
	@touch $@

$(RUNS)/served_teacher/signal.json: $(RUNS)/.labelled
	$(DSE) teacher train $(RECIPES)/served_teacher.toml $(FROM) --silver $(SILVER) \
		--logits $(RUNS)/logits.jsonl --output $(@D)

$(RUNS)/bundles/teacher-minilm-l6/manifest.json: $(RUNS)/served_teacher/signal.json
	$(DSE) teacher export $(RECIPES)/served_teacher.toml $(RUNS)/served_teacher $(WITH) --output $(@D)

# The three-layer student learns from the teacher that is served, the others from the signal that this one learned from.
$(RUNS)/.labelled-by-teacher: $(RUNS)/bundles/teacher-minilm-l6/manifest.json
	$(DSE) teacher label $(RECIPES)/three_layer.toml $(WITH) --signal $(<D) --output $(RUNS)/logits_of_teacher.jsonl
	@touch $@

STUDENT = $(DSE) distill $(RECIPES)/$(1).toml $(WITH) --logits $(RUNS)/$(2).jsonl --output $(RUNS)/$(1)
EXPORT  = $(DSE) export $(RECIPES)/$(1).toml $(RUNS)/$(1) $(WITH) --output $(@D)

$(RUNS)/bundles/dse-minilm-l6/manifest.json: $(RUNS)/served_teacher/signal.json
	$(call STUDENT,six_layer,logits) $(if $(INIT),--init $(INIT))
	$(call EXPORT,six_layer)

$(RUNS)/bundles/dse-minilm-l3/manifest.json: $(RUNS)/bundles/dse-minilm-l6/manifest.json $(RUNS)/.labelled-by-teacher
	$(call STUDENT,three_layer,logits_of_teacher) $(if $(INIT),--init $(INIT))
	$(call EXPORT,three_layer)

$(RUNS)/bundles/dse-static/manifest.json: $(RUNS)/bundles/dse-minilm-l6/manifest.json
	$(call STUDENT,static,logits)
	$(call EXPORT,static)

clean: ## remove what the other targets made, every environment too, but not runs
	rm -rf $(VENV) $(VENV)-* build
