# Everything runs from .venv; `make setup` makes it, with uv where there is one, else with venv and pip.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-long test-slurm test-gpu faults faults-long soak bench bench-gpu lint audit docs lock clean

setup: .venv/ready

.venv/ready: pyproject.toml requirements.lock
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv && \
		uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock && \
		uv pip install --quiet --python $(BIN)/python --no-deps -e . ; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . ; \
	fi
	@touch $@

demo: setup ## draw rooms, train a head on them, score it, show it
	$(BIN)/python train.py

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

test-long: setup ## what takes minutes
	$(BIN)/python -m pytest -q -m long

test-slurm: setup ## what needs a Slurm on this machine (docs/cluster.md)
	$(BIN)/python -m pytest -q -m slurm

test-gpu: setup ## what needs a CUDA device
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} $(BIN)/python -m pytest -q -m gpu

faults: setup ## kills, full disks, hostile files: every figure of docs/faults.md, in under 8 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m 'fault and not slurm and not gpu' --size full

faults-long: setup ## the same with thousands of kills and mutations
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m 'fault and not slurm and not gpu' --size long

soak: setup ## eight processes that train, evaluate and are killed at random: make soak MINUTES=60
	PYTHONPATH=tests $(BIN)/python tests/faults/soak.py $(or $(MINUTES),60)

bench: setup ## what docs/ says of speed and memory on a CPU, measured again; less than a quarter of an hour on two quiet cores
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' 2>/dev/null || uv pip install --quiet --python $(BIN)/python -e '.[bench]' 2>/dev/null || echo "some peers could not be installed: the tables will say which are missing"
	$(BIN)/python benchmarks/bench.py

bench-gpu: setup ## the same of a GPU, its tests first; less than 25 minutes
	$(BIN)/python benchmarks/gpu.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: setup ## known vulnerabilities of what requirements.lock names; says so and ends well where nobody can be asked
	@.ci/audit

docs: setup ## what is written by the code itself
	$(BIN)/python -m likeness.errors > docs/errors.md

lock: ## renew requirements.lock from pyproject.toml
	uv pip compile --quiet --universal --no-emit-index-url --no-header --python-version 3.11 --extra dev --extra timm --extra convert --extra wandb --extra tensorboard --extra joblib --extra slurm --extra optuna pyproject.toml -o requirements.lock

clean:
	rm -rf .venv outputs/train outputs/evaluate outputs/sweep
