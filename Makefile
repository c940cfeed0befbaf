PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECK_COVERAGE := $(BIN)/python scripts/check_coverage.py
PIP_FLAGS := --quiet --disable-pip-version-check --require-hashes --only-binary :all:
# blockbuster needs forbiddenfruit, which is published as source alone.
TEST_PIP_FLAGS := $(PIP_FLAGS) --no-binary forbiddenfruit

# Units and contracts. What is left out starts a gateway, on a socket or as a process.
FAST := $(addprefix tests/,admin audit auth config core inference limits observability providers routing storage tokens usage) \
  $(addprefix tests/http/test_,context.py error_formats.py ip_rate_limit.py params.py path_validation.py pipeline.py requester.py \
    response.py routing.py) $(addprefix tests/http/middleware/test_,access_log.py drain.py in_flight.py)

.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/run.stamp: requirements/run.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PIP_FLAGS) -r requirements/run.txt
	@touch $@

$(VENV)/test.stamp: requirements/test.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(TEST_PIP_FLAGS) -r requirements/test.txt
	@touch $@ $(VENV)/run.stamp

run: $(VENV)/run.stamp  ## start the gateway on 127.0.0.1:8000
	@exec $(BIN)/python -m gateway

test: $(VENV)/test.stamp  ## every test, and how much of the code they reach
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@$(BIN)/coverage run -m pytest -n 2
	@$(BIN)/coverage combine -q && $(BIN)/coverage json -q -o .cache/coverage/report.json
	@$(CHECK_COVERAGE) .cache/coverage/report.json

test-fast: $(VENV)/test.stamp  ## units and contracts, in less than a minute
	@$(BIN)/python -m pytest -n 2 -m "not campaign" $(FAST)

lint: $(VENV)/test.stamp  ## ruff, mypy --strict, the architecture tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_architecture.py

mutate: $(VENV)/test.stamp  ## change the code and see whether a test fails (ARGS=gateway/limits/limiter.py)
	@$(BIN)/python scripts/mutate.py $(ARGS)

campaign: $(VENV)/test.stamp  ## the long runs: damage, crashes, aborts, at full length
	@GATEWAY_TEST_CAMPAIGN=full $(BIN)/python -m pytest -m campaign --timeout 3600

acceptance: $(VENV)/test.stamp  ## real clients against servers that nobody here wrote
	@$(BIN)/python tests/acceptance/run.py $(ARGS)

bench-peers: $(VENV)/test.stamp  ## install other gateways below bench/.peers, to be measured beside this one
	@$(BIN)/python -m bench.peers

bench: $(VENV)/test.stamp  ## everything of docs/performance.md, which it writes: about ten minutes
	@$(BIN)/python -m bench.compare $(ARGS)

bench-stages: $(VENV)/test.stamp  ## what each stage of a request costs, beside its budget; records it in bench/stages.json
	@$(BIN)/python -m bench.stages $(ARGS)

bench-quick: $(VENV)/test.stamp  ## requests/s and CPU beside a bare relay and vllm-router (needs wrk and nginx)
	@$(BIN)/python -m bench.quick

bench-admission: $(VENV)/test.stamp  ## what limits and metering cost a request, in CPU
	@$(BIN)/python -m bench.admission

bench-memory: $(VENV)/test.stamp  ## the memory that clients can make the gateway keep
	@$(BIN)/python -m bench.memory

prices: $(VENV)/test.stamp  ## renew gateway/usage/pricing/prices.json from the genai-prices that is installed
	@$(BIN)/python scripts/make_prices.py

lock:  ## renew requirements/*.txt from pyproject.toml (needs uv)
	@uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --python-version 3.11 pyproject.toml -o requirements/run.txt
	@uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --python-version 3.11 pyproject.toml --extra test -c requirements/run.txt -o requirements/test.txt

clean:  ## remove what make made
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .hypothesis .coverage mutants

.PHONY: help run test test-fast lint mutate campaign acceptance bench bench-peers bench-stages bench-quick bench-admission bench-memory prices lock clean
