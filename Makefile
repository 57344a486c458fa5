# The front door. `make help` lists everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= auto
SEEDS ?= 0
SIZE ?= smoke
# Toy runs of figures: a few epochs, so that curves have points, and rates at which untrained networks show something.
TOY := data.epochs=4 trainer.limit_train_batches=6 recipe.optimizer.lr=0.004 recipe.optimizer.weight_decay=0 \
  recipe.backbone_lr_factor=50
FIGURES := $(if $(SIZE),figures-$(SIZE),figures)
export NO_ALBUMENTATIONS_UPDATE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo figures test test-all lint format docs bench lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Make .venv with the locked dependencies (uv if it is there, else pip)

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older. Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@if command -v uv >/dev/null 2>&1; then uv=uv; \
	  elif $(BIN)/python -m pip install -q --disable-pip-version-check uv >/dev/null 2>&1; then uv=$(BIN)/uv; else uv=; fi; \
	if [ -n "$$uv" ]; then \
	  $$uv pip install -q --compile-bytecode --python $(BIN)/python -r requirements.lock && \
	  $$uv pip install -q --python $(BIN)/python --no-deps -e .; \
	else \
	  $(BIN)/python -m pip install -q -r requirements.lock && $(BIN)/python -m pip install -q --no-deps -e .; \
	fi
	@touch $@

demo: setup ## Draw data, train freeze / SVF / full from ImageNet weights, compare (SEEDS=0,1,2 for several)
	$(BIN)/fss data shapes --root data/demo --objects large --train 1100 --pretrain-per-class 1
	$(BIN)/python train.py -m experiment=demo seed=$(SEEDS) finetune=freeze,svf,full
	$(BIN)/fss report multirun/demo

figures: setup ## Run at toy size what the figures need, and draw all of them (SIZE= for the paper's size)
	$(if $(SIZE),$(BIN)/fss data shapes --root data/shapes)
	for name in figure02 figure03 figure06 figure07; do \
	  $(BIN)/python train.py -m experiment=$$name $(if $(SIZE),+size=$(SIZE) group=$(FIGURES) $(TOY)) || exit; done
	$(BIN)/fss figure all --runs multirun/$(FIGURES) --out multirun/$(FIGURES)/drawn

test: setup ## Run the test suite
	$(BIN)/python -m pytest -n $(JOBS)

test-all: setup ## Run the test suite with the slow tests
	$(BIN)/python -m pytest -n $(JOBS) -m "not gpu"

lint: setup ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## Build the documentation site in site/ (SERVE=1 shows it and follows changes)
	$(BIN)/python docs/build.py $(if $(SERVE),--serve)

bench: setup ## Measure speed and memory against the plain forms (BENCH="training data" for some)
	$(BIN)/python -m benchmarks $(BENCH)

lock: ## Pin all dependencies anew (needs uv)
	uv pip compile pyproject.toml --extra dev --extra docs --extra timm --extra lite --universal --no-annotate --no-header -q -o requirements.lock

clean: ## Remove caches; data, weights and runs stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache build dist site
	find src tests -name __pycache__ -type d -exec rm -rf {} +
