.DEFAULT_GOAL := help
.PHONY: help run example test test-long check format build openapi bench clean install install-sam install-clients

# Any Python from 3.11 to 3.13; what is needed is installed into folders of this checkout.
PYTHON ?= python3
BIN := .venv/bin

# A stray __pycache__ in functions/ would be deployed with them.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.local/pycache
export SAM_CLI_TELEMETRY := 0

help:  ## what can be made here
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

run:  ## the gateway on this machine, with a real small model behind it; Ctrl-C ends it
	@exec $(PYTHON) -m local

example:  ## NAME=nextjs (or another of examples/) in front of a running `make run`
	@exec $(PYTHON) -m local.example $(NAME)

install:
	@$(PYTHON) -m local.install dev aws model chromium

install-sam:
	@$(PYTHON) -m local.install sam

test: install install-sam  ## everything that must pass before a change lands; under 12 minutes
	$(BIN)/python -m pytest -m "not long" --numprocesses 2 tests/unit tests/template
	$(BIN)/python -m pytest -m "not long" --numprocesses 2 --dist loadfile tests/stack tests/behest tests/python_client tests/typescript_client
	$(BIN)/python -m pytest -m "not long" --ignore tests/unit --ignore tests/template --ignore tests/stack --ignore tests/behest --ignore tests/python_client --ignore tests/typescript_client

install-clients:
	@$(PYTHON) -m local.install clients-newest clients-older python-client-newest python-client-oldest

test-long: install install-sam install-clients  ## the proofs that take minutes
	$(BIN)/python -m pytest -m long

check: install install-sam  ## format, lint, types (Python, TypeScript), and the templates
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(PYTHON) -m local.client_build check
	@$(PYTHON) -m local.page_build check
	AWS_DEFAULT_REGION=us-east-1 .venv-sam/bin/sam validate --lint
	AWS_DEFAULT_REGION=us-east-1 .venv-sam/bin/sam validate --lint --template examples/static-hosting/template.yaml

format: install  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: install-sam  ## what `sam deploy` uploads: functions, and layers for Lambda's Python on arm64
	@$(PYTHON) -m local.install run
	find functions -name __pycache__ -prune -exec rm -rf {} +
	WEIR_PYTHON=$(CURDIR)/.venv-sam/bin/python .venv-sam/bin/sam build

openapi: install  ## write docs/openapi.json, the admin API's document, from its code
	$(BIN)/python -m local.openapi

bench: install  ## what the chat function costs, beside nginx and a FastAPI relay; about 10 minutes
	$(BIN)/python -m benchmarks

clean:  ## remove everything that was made or installed here
	rm -rf .venv .venv-sam .local .aws-sam build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
