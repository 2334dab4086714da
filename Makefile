# Everything runs in .venv, which `make install` creates. PYTHON names another interpreter to create it with.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install dataset demo bench test campaigns lint clean

help: ## show this help
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1 \t/' | expand -t 18

install: .venv/installed ## create .venv with everything (about 6 GB: PyPI's torch comes with CUDA)

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Installing PyTorch with CUDA, and what else hcr needs, into .venv: 3 GB to download, 6 GB on disk."
	@echo "This happens once. At 100 Mbit/s it takes about five minutes; pip says below what it is doing."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@

dataset: install ## pack CASIA from data/raw at 64 px, or a drawn corpus where there is none
	@sh pipelines/dataset.sh

demo: install ## draw, pack, train, evaluate and read a small corpus, in a few minutes
	@python pipelines/demo.py

# The corpus to measure on: a drawn one of 101,385 pictures, or a folder of your .gnt files (make bench CORPUS=…).
CORPUS ?= data/benchmark/drawn
PLOT := $(if $(filter data/benchmark/drawn,$(CORPUS)),docs,data/benchmark)/loading.svg

bench: install ## measure against other libraries, about half an hour; CORPUS=FOLDER for your own .gnt files
	python -m pip install --quiet --editable '.[bench]'
	if [ "$(CORPUS)" = data/benchmark/drawn ]; then hcr-data draw --writers 27 --out $(CORPUS); fi
	python benchmarks/packing.py "$(CORPUS)"
	python benchmarks/loading.py "$(CORPUS)" --plot "$(PLOT)"
	python benchmarks/first_batch.py "$(CORPUS)"

# A process a core, of one thread each: threads of two tiny networks would wait for each other.
TESTS := OMP_NUM_THREADS=1 python -m pytest -n auto --dist worksteal

test: install ## run the tests
	$(TESTS) -m "not campaign"

campaigns: install ## run the long tests: benchmarks from end to end, kills by the dozen
	$(TESTS) -m campaign

lint: install ## check style and types
	ruff check .
	ruff format --check .
	mypy

clean: ## remove .venv and caches; data/ and artifacts/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
