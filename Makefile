# Every target works on a fresh machine: it makes the environment it needs first.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest

.PHONY: help up test crash chaos check bench bench-fleet crds docs lock images e2e clean

help:
	@echo 'make up      run the quickstart (examples/quickstart) in the foreground; Ctrl-C stops it'
	@echo 'make test    install what the tests need (peers from Debian too) and run them'
	@echo 'make check   ruff, format, mypy, import layers, generated files in step'
	@echo 'make bench   Posthof, Postfix, Exim and OpenSMTPD side by side; build/bench.json'
	@echo 'make crash   the whole crash walk (make test takes a seeded sample)'
	@echo 'make chaos   faults on a shared volume (two JuiceFS mounts) for MINUTES=5; one table, the verdict last; WHERE=cluster'
	@echo 'make bench-fleet  1, 2 and 4 workers on a local and on a JuiceFS volume; build/bench-fleet.json'
	@echo 'make images  both container images as OCI archives in build/images; REGISTRY=host/path pushes them'
	@echo 'make e2e     a real two-node Kubernetes, the chart and the scenarios; SCENARIOS=smoke, KUBECONFIG=... REGISTRY=...'
	@echo 'make crds    write crds/ and the chart from the models'
	@echo 'make docs    write docs/reference from the models'
	@echo 'make lock    resolve the dependencies anew into requirements.lock'

# One stamp per lock file: a changed lock makes the environment anew.
$(VENV)/.stamp: requirements.lock pyproject.toml scripts/venv
	scripts/venv $(VENV)
	@touch $@

up: $(VENV)/.stamp
	$(BIN)/posthof up -f examples/quickstart

test: $(VENV)/.stamp
	scripts/peers
	$(PYTEST)

crash: $(VENV)/.stamp
	scripts/peers
	POSTHOF_CRASH=all $(PYTEST) tests/crash tests/spool/test_model_search.py --timeout 0

# As root on Debian, for it mounts: scripts/peers installs JuiceFS and Redis. WHERE=cluster: the fleet's scenarios on the
# two-node Kubernetes, again and again.
MINUTES ?= 5
WHERE ?= mounts
chaos: $(VENV)/.stamp
	VENV=$(VENV) scripts/peers
	$(if $(filter cluster,$(WHERE)),$(BIN)/python e2e/run.py first_mail fleet --minutes $(MINUTES), \
	  $(BIN)/python tests/shared_fs/chaos.py --minutes $(MINUTES) $(CHAOS_ARGS))

bench-fleet: $(VENV)/.stamp
	VENV=$(VENV) scripts/peers
	$(BIN)/python tests/shared_fs/bench_fleet.py $(BENCH_ARGS)

check: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m posthof_crds.render --check crds
	$(BIN)/python -m posthof_crds.compatible crds
	$(BIN)/python -m posthof_crds.reference --check docs/reference
	$(BIN)/python scripts/chart.py --check

crds: $(VENV)/.stamp
	$(BIN)/python -m posthof_crds.render crds
	$(BIN)/python scripts/chart.py

docs: $(VENV)/.stamp
	$(BIN)/python -m posthof_crds.reference docs/reference

bench: $(VENV)/.stamp
	$(BIN)/python tests/bench/run.py $(BENCH_ARGS)

images: $(VENV)/.stamp
	VENV=$(VENV) scripts/images

e2e: $(VENV)/.stamp
	$(BIN)/python e2e/run.py $(SCENARIOS)

lock: $(VENV)/.stamp
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --all-extras pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build var
