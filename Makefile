# Each target sets up what it needs, in .venv/ of this tree. PYTHON= takes a version (3.10 to 3.15) or an interpreter.

PYTHON ?= python3
ARGS ?=
DEV = scripts/dev --python $(PYTHON)

.PHONY: help demo test check format bench conformance upstream-tests stack docs dashboards dist clean

help:
	@echo 'make demo          run the shop, and see its slowest trace and its tasks'
	@echo 'make test          the tests              (ARGS="-k name" narrows, PYTHON=3.14 chooses)'
	@echo 'make check         formatting, lint and types'
	@echo 'make bench         what we cost, beside bare Python and upstream (ARGS=--quick)'
	@echo 'make conformance   the tests of CPython and of pools with us and without us (ARGS=--short)'
	@echo 'make stack         build the real collector, Jaeger, Prometheus, Loki for the tests marked `stack`'

demo:
	@$(DEV) --extra demo -- otel-concurrency demo $(ARGS)

test:
	@$(DEV) --extra test -- python -m pytest $(ARGS)

check:
	@$(DEV) --extra check -- ruff format --check .
	@$(DEV) --extra check -- ruff check .
	@$(DEV) --extra check -- mypy
	@$(DEV) --extra check -- pyright

format:
	@$(DEV) --extra check -- ruff format .
	@$(DEV) --extra check -- ruff check --fix .

bench:
	@$(DEV) --extra test -- python -m benchmarks $(ARGS)

conformance:
	@$(DEV) --extra conformance -- python scripts/conformance $(ARGS)

upstream-tests:
	@$(DEV) --extra test -- python scripts/upstream-tests $(ARGS)

stack:
	@scripts/stack build

docs:
	@$(DEV) --extra test -- python scripts/metrics-doc

dashboards:
	@$(DEV) --extra test -- python scripts/dashboards --write

dist:
	@$(DEV) --extra check -- python -m build --outdir dist $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info otel_concurrency/probes/*.so
