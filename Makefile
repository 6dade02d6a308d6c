# Every target sets itself up: the first one that runs makes .venv and installs the pinned versions.
# WORKERS: processes that run tests at once (one waits for a server or a disk now and then). SEED: of the examples that 'make test-long' draws.
PYTHON ?= python3
WORKERS ?= 3
ifndef SEED
SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
endif
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test test-long lint format docs dist check-wheel check-dist bench check-bench clean

help: ## Print this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## Make .venv with lmeraser and the pinned versions of everything.

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED) ## Train, unlearn and audit on handwritten digits; pictures and report in demo/.
	$(BIN)/lmeraser demo --out demo

# Tests run in WORKERS processes at once, so the threads of a library's own would only wait for each other.
test test-long: export OMP_NUM_THREADS := 1
test test-long: export OPENBLAS_NUM_THREADS := 1
test test-long: export MKL_NUM_THREADS := 1
# Tests start a hundred processes, and each would compile the modules again where nothing may be kept.
test test-long: export PYTHONDONTWRITEBYTECODE :=

test: $(INSTALLED) ## Run the tests.
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long"

test-long: $(INSTALLED) ## Run all tests, those that take minutes too, on new random examples.
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --hypothesis-profile explore --hypothesis-seed $(SEED)

lint: $(INSTALLED) ## Check style, types and the order of the rooms.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(INSTALLED) ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED) ## Build the documentation into build/docs, run its tutorials and compare its transcripts.
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --doctree-dir build/doctrees docs build/docs
	$(BIN)/python scripts/transcripts.py README.md docs/start/tour.md

dist: $(INSTALLED) ## Build wheel and source distribution into dist, and check them.
	rm -rf dist && mkdir dist
	$(BIN)/python -m build --outdir dist . > build.log 2>&1 || { cat build.log; exit 1; }
	mv build.log dist/
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz

# The libraries are those of .venv (a path in a .pth file reads no further .pth file, so not its lmeraser): minutes less.
check-wheel: dist ## Install the wheel beside the libraries of .venv, and run the demo from it.
	$(BIN)/python -m venv --without-pip dist/environment
	$(BIN)/pip --python dist/environment install --quiet --no-deps --no-index dist/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(dist/environment/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/libraries.pth"
	cd dist && environment/bin/lmeraser demo --out demo

# The wheel is built from the source distribution, so both are complete if it runs. Takes minutes, most of them pip's.
check-dist: dist ## Install the wheel into an empty environment, list what it needs (CycloneDX), run demo and quick start from it.
	$(PYTHON) -m venv dist/environment
	dist/environment/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
		--output-file dist/lmeraser-$$(dist/environment/bin/lmeraser --version).cdx.json dist/environment
	dist/environment/bin/python scripts/transcripts.py README.md
	cd dist && environment/bin/lmeraser demo --out demo

bench: $(INSTALLED) ## Measure (about a quarter of an hour on 2 cores): ratios against baselines in the same run, in bench/.
	$(BIN)/python benchmarks/tuning.py --out bench
	$(BIN)/python benchmarks/prediction.py --out bench
	$(BIN)/python benchmarks/request.py --out bench
	$(BIN)/python benchmarks/shell.py --out bench
	$(BIN)/python benchmarks/forget.py --out bench
	$(BIN)/python benchmarks/scale.py --out bench --records 100000
	$(BIN)/python benchmarks/clusters.py --out bench --records 20000 --largest 200 6
	$(BIN)/python benchmarks/growth.py --out bench
	$(BIN)/python benchmarks/vectors.py --out bench

check-bench: $(INSTALLED) ## Compare the results of 'make bench' with the committed ones; fails below 80 %.
	$(BIN)/python benchmarks/check.py --out bench

clean: ## Remove everything that make created.
	rm -rf $(VENV) demo bench build dist docs/generated .mypy_cache .pytest_cache .ruff_cache
